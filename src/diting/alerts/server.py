# SPDX-License-Identifier: GPL-3.0-or-later
"""The relay as a process: its address, its watch for silence, and its life under systemd."""

from __future__ import annotations

import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

from ..guards.runtime.http import server_context
from ..guards.runtime.log import make_logger
from ..guards.runtime.ports import SystemClock
from ..hostio.systemd import notify
from .messages import PayloadError, parse
from .relay import Relay

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from .settings import Settings

_BODY_BYTES = 4 * 2**20
_CLIENT_SECONDS = 15.0
_WATCH_SECONDS = 1.0
_MAX_CONNECTIONS = 64


class Handler(BaseHTTPRequestHandler):
    """One connection of one client."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "diting", ""
    timeout = _CLIENT_SECONDS
    relay: ClassVar[Relay]
    clients: ClassVar[frozenset[str]]

    def do_GET(self) -> None:
        """Metrics and status."""
        if self.path == "/metrics":
            self._answer(200, self.relay.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        elif self.path == "/v1/status":
            self._answer(200, json.dumps(self.relay.status(), sort_keys=True) + "\n", "application/json")
        else:
            self._answer(404, f"{self.path}: found nothing, wanted /metrics or /v1/status\n")

    def do_POST(self) -> None:
        """A notification for a receiver, or a heartbeat."""
        if not self._may_speak():
            self.close_connection = True
            self._answer(403, "certificate: found a name that is not one of the relay's clients\n")
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= _BODY_BYTES:
            self.close_connection = True
            self._answer(413, f"Content-Length: found {length}, wanted at most {_BODY_BYTES} bytes\n")
            return
        body = self.rfile.read(length)
        kind, _, name = self.path.removeprefix("/v1/").partition("/")
        try:
            told = parse(body)
            if kind == "heartbeats":
                self.relay.heard(name, told)
                self._answer(200, "heard\n")
                return
            why = self.relay.tell(name, told) if kind == "receivers" else self._unknown()
        except PayloadError as error:
            self._answer(400, f"{error}\n")
        except KeyError:
            self._answer(404, f"{self.path}: found nobody of this name in the relay's settings\n")
        else:
            self._answer(200, "taken\n") if why is None else self._answer(502, f"{name}: {why}\n")

    def _may_speak(self) -> bool:
        found: Any = self.connection.getpeercert() or {}
        names = {value for kind, value in found.get("subjectAltName", ()) if kind == "DNS"}
        return not names.isdisjoint(self.clients)

    def _unknown(self) -> str:
        raise KeyError(self.path)

    def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: Any) -> None:
        """The relay says what it does; requests in between are no news."""


class Server(ThreadingHTTPServer):
    """Shakes hands in the thread of the connection, so that a client that never does keeps out nobody else."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[Handler], context: ssl.SSLContext) -> None:
        self._context = context
        self._places = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(address, handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread."""
        if not self._places.acquire(timeout=_CLIENT_SECONDS):
            self.shutdown_request(request)
            return
        try:
            self._serve(request, client_address)
        finally:
            self._places.release()

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        request.settimeout(_CLIENT_SECONDS)
        try:
            secure = self._context.wrap_socket(request, server_side=True)
        except OSError:
            self.shutdown_request(request)
            return
        try:
            self.finish_request(secure, client_address)
        except OSError:
            pass  # the client has gone; what it wanted it will want again
        finally:
            self.shutdown_request(secure)


def settle(relay: Relay, pair: tuple[str, str], log: Callable[..., None]) -> None:
    """Tell one receiver of a silence; a defect is in the log and not lost with the thread's result."""
    try:
        relay.settle(pair)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again and has to be seen
        log("defect", source=pair[0], receiver=pair[1], problem=type(error).__name__)


def run(settings: Settings) -> int:
    """Serve until SIGTERM; 0. Raises OSError for an address or a certificate that cannot be had."""
    logger = make_logger("info", SystemClock())

    def log(event: str, **fields: Any) -> None:
        (logger.warning if fields.get("problem") or event == "silent" else logger.info)(event, **fields)

    relay = Relay(settings, log)
    context = server_context(str(settings.certificate), str(settings.key), str(settings.ca))
    handler = type("BoundHandler", (Handler,), {"relay": relay, "clients": frozenset(settings.clients)})
    server = Server((settings.address, settings.port), handler, context)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ear = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    ear.start()
    log("listening", port=server.server_address[1])
    notify("READY=1")
    # One place for each pair: a receiver that hangs holds up no other.
    pairs = max(1, len(settings.direct) * len(settings.heartbeats))
    pool = ThreadPoolExecutor(max_workers=pairs)
    while not stop.wait(_WATCH_SECONDS):
        for pair in relay.watch():
            pool.submit(settle, relay, pair, log)
        if ear.is_alive():
            notify("WATCHDOG=1")
    server.shutdown()
    pool.shutdown(wait=False, cancel_futures=True)
    return 0
