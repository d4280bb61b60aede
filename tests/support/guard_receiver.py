# SPDX-License-Identifier: GPL-3.0-or-later
"""A receiver of alerts on loopback that can be well, refuse, break, hang, drip or be gone."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any, Self


class Receiver:
    """Speaks just enough HTTP. ``mode``: ok, refuse (400 for alerts named Bad), error (500), busy (429), hang, drip, garbage."""

    def __init__(self, port: int = 0) -> None:
        self.mode = "ok"
        self.requests: list[tuple[str, list[dict[str, Any]]]] = []
        self.pending = 0
        """Requests that were read whole and are not answered yet."""
        self._changed = threading.Condition()
        self._closing = False
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closing = True
        # A blocked accept() keeps the port listening; shutdown() wakes it.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def taken(self, status: str | None = None) -> list[dict[str, Any]]:
        """Alerts that were answered with 200, in order; ``status`` firing or resolved."""
        with self._changed:
            alerts = [alert for answer, batch in self.requests if answer == "200" for alert in batch]
        return [a for a in alerts if status is None or ("endsAt" in a) == (status == "resolved")]

    def wait(self, condition: Any, seconds: float = 10.0) -> None:
        """Until ``condition(self)`` holds."""
        with self._changed:
            deadline = time.monotonic() + seconds
            while not condition(self):
                left = deadline - time.monotonic()
                assert left > 0, f"did not happen within {seconds} s; requests: {self.requests}"
                self._changed.wait(left)

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            head, _, body = self._until(connection, b"", b"\r\n\r\n")
            length = int(
                next(x for x in head.decode().split("\r\n") if x.lower().startswith("content-length")).split(
                    ":"
                )[1]
            )
            while len(body) < length:
                body += connection.recv(65536)
            assert head.startswith(b"POST /api/v2/alerts HTTP/1.1\r\n"), head
            self.pending += 1
            answer = self._answer(connection, json.loads(body))
            with self._changed:
                self.pending -= 1
                self.requests.append((answer, json.loads(body)))
                self._changed.notify_all()

    @staticmethod
    def _until(connection: socket.socket, data: bytes, end: bytes) -> tuple[bytes, bytes, bytes]:
        while end not in data:
            part = connection.recv(65536)
            if not part:
                raise OSError("gone")
            data += part
        return data.partition(end)

    def _answer(self, connection: socket.socket, alerts: list[dict[str, Any]]) -> str:
        mode = self.mode
        if mode == "refuse":
            bad = any(alert["labels"]["alertname"] == "Bad" for alert in alerts)
            status = "400 Bad Request" if bad else "200 OK"
        else:
            status = {
                "ok": "200 OK",
                "error": "500 Internal Server Error",
                "busy": "429 Too Many Requests",
            }.get(mode, "")
        if status:
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            return status[:3]
        if mode == "garbage":
            connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
        if mode == "drip":
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        if mode == "hang":
            connection.recv(1)
        return mode
