# SPDX-License-Identifier: GPL-3.0-or-later
"""Power control: the lab's stand-in for a hypervisor or cloud API that switches hosts.

Speaks HTTPS with a bearer token on the lab's gateway address; ``docs/lab.md`` lists its requests. It says what
podman and the kernel say now, never what it remembers having done, and UNKNOWN when it could not
look. A timer is on disk before the request that set it is answered, and outlives this process.
"""

from __future__ import annotations

import hmac
import http.server
import json
import signal
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from diting.core.journal import utc_text_at
from diting.lab.podman import PodmanError
from diting.lab.records import Timer, TimerStore, append_journal

if TYPE_CHECKING:
    from diting.lab import hosts as backend
    from diting.lab.instance import Instance

MAX_BODY_BYTES = 16384
REFUSED_BODY_BYTES = 65536
"""How much of a body that is refused is read away before the answer."""
MAX_TIMER_SECONDS = 7 * 24 * 3600.0
RETRY_SECONDS = 2.0
IP_FREEBIND = 15  # Linux; the name is not in the socket module of Python 3.11


class RequestError(Exception):
    """A request that cannot be served: HTTP status and a message that says what is wanted."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class PowerControl:
    """The requests, without HTTP. One lock per host: two orders for a host never overlap."""

    def __init__(self, instance: Instance, hosts: backend.Hosts, fingerprint: str = "") -> None:
        self.instance = instance
        self.fingerprint = fingerprint
        self._hosts = hosts
        self._store = TimerStore(instance.power_dir / "timers.json")
        self._journal_path = instance.power_dir / "journal.jsonl"
        self._locks = {host: threading.Lock() for host in instance.hosts}
        self._wake = threading.Condition()
        self._stopping = False
        self._retry_at: dict[str, float] = {}

    def journal(self, event: str, **fields: Any) -> None:
        """Append to the power journal."""
        append_journal(self._journal_path, event, fields)

    def describe(self, host: str) -> dict[str, Any]:
        """State of one host as seen now, with its timers."""
        self._known(host)
        state, why = self._hosts.state(host)
        seen: dict[str, Any] = {
            "name": host,
            "state": state.value,
            "observed_at": utc_text_at(time.time()),
            "timers": [timer.public() for timer in self._store.of(host)],
        }
        return {**seen, "why": why} if why else seen

    def describe_all(self) -> dict[str, Any]:
        """State of every host."""
        return {"hosts": [self.describe(host) for host in self.instance.hosts]}

    def switch_on(self, host: str, reason: str, incident_id: str | None) -> dict[str, Any]:
        """Power a host on. It is running, not yet ready, when this returns."""
        self._switch(host, "on", reason, incident_id)
        return self.describe(host)

    def switch_off(
        self, host: str, reason: str, incident_id: str | None, revert: float | None
    ) -> dict[str, Any]:
        """Cut a host's power at once. The timer that brings it back is on disk before the cut."""
        self._known(host)
        timer = None if revert is None else self.add_timer(host, "on", revert, reason, incident_id)
        self._switch(host, "off", reason, incident_id)
        described = self.describe(host)
        return {**described, "timer_id": timer["id"]} if timer else described

    def _switch(self, host: str, action: str, reason: str, incident_id: str | None) -> None:
        self._known(host)
        self.journal(f"power_{action}_requested", host=host, reason=reason, incident_id=incident_id)
        with self._locks[host]:
            if self.instance.latency_seconds:
                time.sleep(self.instance.latency_seconds)
            try:
                changed = self._hosts.on(host) if action == "on" else self._hosts.off(host)
            except PodmanError as error:
                self.journal(f"power_{action}_failed", host=host, error=str(error), incident_id=incident_id)
                raise RequestError(503, f"{host}: power {action} failed: {error}") from error
        self.journal(f"power_{action}_done", host=host, changed=changed, incident_id=incident_id)

    def add_timer(
        self, host: str, action: str, after: float, reason: str, incident_id: str | None
    ) -> dict[str, Any]:
        """Promise to power a host on after ``after`` seconds; ``on`` is the only action promised."""
        self._known(host)
        if action != "on":
            raise RequestError(400, f"action: want 'on', found {action!r}")
        timer = self._store.add(host, action, after, reason, incident_id)
        self.journal("timer_set", host=host, timer=timer.public())
        with self._wake:
            self._wake.notify()
        return timer.public()

    def remove_timer(self, host: str, timer_id: str) -> None:
        """Take a promise back, when its purpose is served by other means."""
        self._known(host)
        if timer_id not in {timer.id for timer in self._store.of(host)} or not self._store.remove(timer_id):
            raise RequestError(404, f"host {host} has no timer {timer_id}")
        self.journal("timer_removed", host=host, timer_id=timer_id)

    def _known(self, host: str) -> None:
        if host not in self.instance.hosts:
            raise RequestError(404, f"no host {host!r}; there are {', '.join(self.instance.hosts)}")

    def run_timers(self) -> None:
        """Fire timers as they come due, until ``stop``. A failed one stays and is tried again."""
        while True:
            with self._wake:
                if self._stopping:
                    return
                # Waking at least once a second bounds what a step of the wall clock can delay.
                pause = self._store.seconds_to_next()
                if pause is None or pause > 0:
                    self._wake.wait(1.0 if pause is None else min(pause, 1.0))
                elif all(self._retry_at.get(t.id, 0) > time.monotonic() for t in self._store.due()):
                    self._wake.wait(0.2)
            for timer in self._store.due():
                if self._retry_at.get(timer.id, 0) <= time.monotonic():
                    self._fire(timer)

    def _fire(self, timer: Timer) -> None:
        self.journal("timer_due", host=timer.host, timer=timer.public())
        try:
            self._switch(timer.host, timer.action, f"timer: {timer.reason}", timer.incident_id)
        except RequestError:
            self._retry_at[timer.id] = time.monotonic() + RETRY_SECONDS
            return
        self._retry_at.pop(timer.id, None)
        self._store.remove(timer.id)

    def stop(self) -> None:
        """End ``run_timers`` after the action it is in."""
        with self._wake:
            self._stopping = True
            self._wake.notify()


def _fields(body: dict[str, Any], *wanted: str) -> None:
    unknown = sorted(set(body) - set(wanted))
    missing = sorted(set(wanted) - set(body))
    if unknown or missing:
        raise RequestError(400, f"body: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")


def _text(body: dict[str, Any], key: str, *, null: bool = False) -> str | None:
    value = body[key]
    if value is None and null:
        return None
    if not isinstance(value, str) or not value or len(value) > 500:
        raise RequestError(400, f"{key}: want a text of 1 to 500 characters{' or null' if null else ''}")
    return value


def _seconds(body: dict[str, Any], key: str, *, null: bool = False) -> float | None:
    value = body[key]
    if value is None and null:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= MAX_TIMER_SECONDS:
        also = ", or null for no limit" if null else ""
        raise RequestError(
            400, f"{key}: want seconds above 0 and at most {MAX_TIMER_SECONDS:g}{also}, found {value!r}"
        )
    return float(value)


def route(control: PowerControl, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Serve one authenticated request; raises ``RequestError`` for what cannot be served."""
    parts = [part for part in path.split("?", 1)[0].split("/") if part]
    match (method, *parts):
        case ("GET", "v1", "daemon"):
            return 200, {"fingerprint": control.fingerprint, "lab": control.instance.name}
        case ("GET", "v1", "hosts"):
            return 200, control.describe_all()
        case ("GET", "v1", "hosts", host):
            return 200, control.describe(host)
        case ("POST", "v1", "hosts", host, "on"):
            _fields(body, "reason", "incident_id")
            return 200, control.switch_on(
                host, _text(body, "reason") or "", _text(body, "incident_id", null=True)
            )
        case ("POST", "v1", "hosts", host, "off"):
            _fields(body, "reason", "incident_id", "revert_after_seconds")
            revert = _seconds(body, "revert_after_seconds", null=True)
            incident = _text(body, "incident_id", null=True)
            return 200, control.switch_off(host, _text(body, "reason") or "", incident, revert)
        case ("POST", "v1", "hosts", host, "timers"):
            _fields(body, "action", "after_seconds", "reason", "incident_id")
            after = _seconds(body, "after_seconds") or 0.0
            incident = _text(body, "incident_id", null=True)
            return 201, control.add_timer(host, body["action"], after, _text(body, "reason") or "", incident)
        case ("DELETE", "v1", "hosts", host, "timers", timer_id):
            control.remove_timer(host, timer_id)
            return 200, {"removed": timer_id}
        case _:
            raise RequestError(404, f"no such request: {method} {path}")


class Handler(http.server.BaseHTTPRequestHandler):
    """HTTP around ``route``: authentication first, then the body, one JSON object each way."""

    protocol_version = "HTTP/1.1"
    server_version = "diting-power"
    sys_version = ""
    timeout = 10  # a client that says nothing must not hold a thread
    control: ClassVar[PowerControl]
    token: ClassVar[str]

    def _serve(self) -> None:
        try:
            self._authenticate()
            status, answer = route(self.control, self.command, self.path, self._body())
        except RequestError as error:
            status, answer = error.status, {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - the boundary: an answer, and the cause in the journal
            self.control.journal("request_failed", request=f"{self.command} {self.path}", error=repr(error))
            status, answer = 500, {"error": "internal error; the power journal has it"}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - names that http.server calls

    def _authenticate(self) -> None:
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            self._refuse_body()
            raise RequestError(401, "want the header Authorization: Bearer <token>")

    def _body(self) -> dict[str, Any]:
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY_BYTES:
            self._refuse_body()
            raise RequestError(400, f"Content-Length: want 0 to {MAX_BODY_BYTES}")
        try:
            body = json.loads(self.rfile.read(length) or b"{}")
        except ValueError as error:
            raise RequestError(400, f"body: want JSON: {error}") from error
        if not isinstance(body, dict):
            raise RequestError(400, "body: want a JSON object")
        return body

    def _refuse_body(self) -> None:
        """Read a refused body away, within bounds, so that its sender gets to read the answer.

        Closing a connection with unread data resets it, and the sender sees a broken pipe instead.
        """
        self.close_connection = True
        length = self.headers.get("Content-Length") or "0"
        left = min(int(length), REFUSED_BODY_BYTES) if length.isdecimal() else 0
        while left > 0 and (chunk := self.rfile.read1(left)):
            left -= len(chunk)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Requests that change something are in the journal; reads are not logged."""


class Server(http.server.ThreadingHTTPServer):
    """Binds before the bridge has its address, so a repair of the network needs no restart here."""

    daemon_threads = True
    allow_reuse_address = True

    def server_bind(self) -> None:
        """Bind, also while the address does not exist yet."""
        self.socket.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
        super().server_bind()


def serve(instance: Instance, hosts: backend.Hosts, fingerprint: str) -> None:
    """Serve until SIGTERM or SIGINT. Overdue timers of an earlier life fire at once."""
    directory = instance.power_dir
    control = PowerControl(instance, hosts, fingerprint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    token = (directory / "token").read_text().strip()
    handler = type("BoundHandler", (Handler,), {"control": control, "token": token})
    with Server((str(instance.gateway), instance.power_port), handler) as server:
        # The handshake happens in the connection's own thread: a silent client blocks nobody.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)

        def leave(_signum: int, _frame: object) -> NoReturn:
            raise SystemExit(0)

        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, leave)
        timers = threading.Thread(target=control.run_timers, name="timers", daemon=True)
        timers.start()
        control.journal("power_control_started", address=f"{instance.gateway}:{server.server_port}")
        try:
            server.serve_forever(poll_interval=0.5)
        finally:
            control.stop()
            timers.join(timeout=30)
            control.journal("power_control_stopped")
