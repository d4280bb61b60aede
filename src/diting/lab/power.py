# SPDX-License-Identifier: GPL-3.0-or-later
"""Power control: the lab's stand-in for a hypervisor or cloud API that switches hosts.

Speaks HTTPS with a bearer token on the lab's gateway address; ``docs/lab.md`` lists its requests. It says what
podman and the kernel say now, never what it remembers having done, and UNKNOWN when it could not
look; unless a host's switches make it misbehave, which is what they are for (``power_switches``).
A timer, a switch and a hold are on disk before the request that set them is answered, and outlive
this process.
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
from diting.lab.podman import PodmanError, Power
from diting.lab.power_api import RequestError, route
from diting.lab.power_switches import HOLD_SECONDS, Hold, HoldStore, Switches, SwitchStore
from diting.lab.records import Timer, TimerStore, append_journal

if TYPE_CHECKING:
    from diting.lab import hosts as backend
    from diting.lab.instance import Instance

MAX_BODY_BYTES = 16384
REFUSED_BODY_BYTES = 65536
"""How much of a body that is refused is read away before the answer."""
RETRY_SECONDS = 2.0
IP_FREEBIND = 15  # Linux; the name is not in the socket module of Python 3.11


class PowerControl:
    """The requests, without HTTP. One lock per host: two orders for a host never overlap."""

    def __init__(self, instance: Instance, hosts: backend.Hosts, fingerprint: str = "") -> None:
        self.instance = instance
        self.fingerprint = fingerprint
        self._hosts = hosts
        self._store = TimerStore(instance.power_dir / "timers.json")
        self._switches = SwitchStore(instance.power_dir / "switches.json")
        self._holds = HoldStore(instance.power_dir / "holds.json")
        self._journal_path = instance.power_dir / "journal.jsonl"
        self._locks = {host: threading.Lock() for host in instance.hosts}
        self._hold_lock = threading.Lock()
        self._wake = threading.Condition()
        self._stopping = False
        self._retry_at: dict[str, float] = {}

    def journal(self, event: str, **fields: Any) -> None:
        """Append to the power journal."""
        append_journal(self._journal_path, event, fields)

    def describe(self, host: str) -> dict[str, Any]:
        """State of one host as seen now, with its timers; as its switches have it, should any be set."""
        self._known(host)
        switches = self._switches.of(host)
        state, why = self._hosts.state(host)
        if switches.unknown:
            state, why = Power.UNKNOWN, "the hypervisor does not say"
        elif switches.claims_off:
            state, why = Power.OFF, ""
        seen: dict[str, Any] = {
            "name": host,
            "state": state.value,
            "observed_at": utc_text_at(time.time()),
            "timers": self.timers(host),
        }
        if hold := self._holds.of(host):
            seen["hold"] = hold.public()
        return {**seen, "why": why} if why else seen

    def answer(self, host: str) -> dict[str, Any]:
        """As ``describe``, for a caller who has to bear a hang."""
        self._hang(host)
        return self.describe(host)

    def describe_all(self) -> dict[str, Any]:
        """State of every host."""
        return {"hosts": [self.describe(host) for host in self.instance.hosts]}

    def timers(self, host: str) -> list[dict[str, Any]]:
        """What is promised to ``host``; no switch touches this."""
        self._known(host)
        hold = self._holds.of(host)
        ends = hold.timer_id if hold else None
        return [
            {**timer.public(), **({"ends_hold": True} if timer.id == ends else {})}
            for timer in self._store.of(host)
        ]

    def switches(self, host: str) -> dict[str, Any]:
        """How ``host`` is treated."""
        self._known(host)
        return self._switches.of(host).public()

    def set_switches(self, host: str, wanted: Switches, for_seconds: float | None) -> dict[str, Any]:
        """Treat ``host`` so from now on, for so many seconds or until it is said again."""
        self._known(host)
        found = self._switches.set(host, wanted, for_seconds).public()
        self.journal("switches_set", host=host, switches=found)
        return found

    def clear_switches(self, host: str | None = None) -> dict[str, Any]:
        """Treat one host, or every host, as a power control should."""
        if host is not None:
            self._known(host)
        self._switches.clear(host)
        self.journal("switches_cleared", host=host)
        return Switches().public()

    def switch_on(self, host: str, reason: str, incident_id: str | None) -> dict[str, Any]:
        """Power a host on. It is running, not yet ready, when this returns."""
        self._hang(host)
        self._switch(host, "on", reason, incident_id)
        return self.describe(host)

    def switch_off(
        self, host: str, reason: str, incident_id: str | None, revert: float | None, *, fence: bool = False
    ) -> dict[str, Any]:
        """Cut a host's power at once. The timer that brings it back is on disk before the cut.

        ``fence`` holds the host off until :meth:`release`, or until nobody called that in time.
        """
        self._hang(host)
        if fence:
            self._hold(host, reason, incident_id)
        timer = None if revert is None else self.add_timer(host, "on", revert, reason, incident_id)
        if self._switches.of(host).lie:
            self.journal("power_off_lied_about", host=host, reason=reason, incident_id=incident_id)
            self._switches.claim_off(host, claim=True)
        else:
            self._switch(host, "off", reason, incident_id)
        described = self.describe(host)
        return {**described, "timer_id": timer["id"]} if timer else described

    def _hold(self, host: str, reason: str, incident_id: str | None) -> None:
        """Refuse to switch ``host`` on from now on, and promise that this ends by itself."""
        self._known(host)
        with self._hold_lock:
            if self._holds.of(host) is not None:
                return  # a second order does not prolong the first one's hold
            since = time.time()
            words = f"nobody released the fence in {HOLD_SECONDS:g} s: {reason}"[:500]
            timer = self.add_timer(host, "on", HOLD_SECONDS, words, incident_id)
            hold = Hold(timer["id"], since, since + HOLD_SECONDS, reason, incident_id)
            self._holds.put(host, hold)
            self.journal("fence_held", host=host, hold=hold.public())

    def release(
        self, host: str, reason: str, incident_id: str | None, leader: str | None, after: float
    ) -> dict[str, Any]:
        """End a fence's hold and have the host come back in ``after`` seconds.

        ``leader`` is the member that holds the leader key as the caller saw it, None for "nobody". A fenced
        host that still holds the key stays off.
        """
        self._known(host)
        if leader == host:
            raise RequestError(409, f"{host} still holds the leader key: it stays off")
        with self._hold_lock:
            hold = self._holds.of(host)
            if hold is None:
                raise RequestError(404, f"host {host} is not held by a fence")
            # The new promise first: killed between the two, the host comes back twice and not never.
            self.add_timer(host, "on", after, f"fence released: {reason}"[:500], incident_id)
            self._holds.end(host)
            self._store.remove(hold.timer_id)
            self.journal("fence_released", host=host, leader=leader, reason=reason, incident_id=incident_id)
        return self.describe(host)

    def _refuse_held(self, host: str) -> None:
        if hold := self._holds.of(host):
            until = utc_text_at(hold.until_unix)
            raise RequestError(
                409,
                f"{host} is fenced and its leader key was not released: it stays off until then or {until}",
            )

    def _hang(self, host: str) -> None:
        """Say nothing for as long as the host's switch says, then refuse; nothing is done."""
        self._known(host)
        seconds = self._switches.of(host).hang_seconds
        if not seconds:
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stopping and self._switches.of(host).hang_seconds:
            time.sleep(0.05)
        raise RequestError(504, f"{host}: no answer from the hypervisor, nothing was done")

    def _latency(self, host: str) -> float:
        own = self._switches.of(host).latency_seconds
        return self.instance.latency_seconds if own is None else own

    def _switch(self, host: str, action: str, reason: str, incident_id: str | None) -> None:
        self._known(host)
        if action == "on":
            self._refuse_held(host)
        self.journal(f"power_{action}_requested", host=host, reason=reason, incident_id=incident_id)
        with self._locks[host]:
            if latency := self._latency(host):
                time.sleep(latency)
            if action == "on":
                self._refuse_held(host)  # a fence may have come while this waited
            try:
                changed = self._hosts.on(host) if action == "on" else self._hosts.off(host)
            except PodmanError as error:
                self.journal(f"power_{action}_failed", host=host, error=str(error), incident_id=incident_id)
                raise RequestError(503, f"{host}: power {action} failed: {error}") from error
            self._switches.claim_off(host, claim=False)
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
        hold = self._holds.of(host)
        if hold is not None and hold.timer_id == timer_id:
            raise RequestError(409, f"timer {timer_id} ends the hold of a fence; release that instead")
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
                # Waking at least once a second bounds what a step of the wall clock can delay, where it counts at all.
                pause = self._store.seconds_to_next()
                if pause is None or pause > 0:
                    self._wake.wait(1.0 if pause is None else min(pause, 1.0))
                elif all(self._retry_at.get(t.id, 0) > time.monotonic() for t in self._store.due()):
                    self._wake.wait(0.2)
            for timer in self._store.due():
                if self._retry_at.get(timer.id, 0) <= time.monotonic():
                    self._fire(timer)

    def _fire(self, timer: Timer) -> None:
        with self._hold_lock:
            hold = self._holds.of(timer.host)
            if hold is not None and hold.timer_id != timer.id:
                self._retry_at[timer.id] = time.monotonic() + RETRY_SECONDS
                return
            self.journal("timer_due", host=timer.host, timer=timer.public())
            if self._holds.end(timer.host):
                self.journal("fence_hold_ended", host=timer.host)
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

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - names that http.server calls

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
