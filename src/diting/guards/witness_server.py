# SPDX-License-Identifier: GPL-3.0-or-later
"""The witness's address: HTTP/1.1 over mutual TLS with connections that are kept, for the control host alone.

``GET /v1/view?target=NAME[&wait=SECONDS&seen=SERIAL][&hurry=SECONDS][&anew=NAME]``
    What the witness saw, ages relative to the answer. With ``wait`` the answer comes when something is newer than ``seen``.
    A name in ``anew`` that was not in the question before has it drop what is under way and look at once.
``POST /v1/isolate`` ``{"address", "hold_seconds"}`` and ``POST /v1/unisolate`` ``{"address"}``
    200 when it is done, 403 when it is refused, 503 when nobody can tell.
``POST /v1/ask_anew`` ``{}``
    Ends this host's connections to etcd, so that its Patroni asks again. 200 when that has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Mapping

_LIMIT_BYTES = 16384
_IDLE_SECONDS = 60.0
_MAX_CONNECTIONS = 16


class Service(Protocol):
    """What is behind the address."""

    async def view(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The answer to a look. Raises ValueError for a question that makes no sense."""

    async def order(self, name: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and answer of an order. Raises ValueError likewise."""


class WitnessServer:
    """Serves ``service`` to holders of a certificate whose name is one of ``clients``."""

    def __init__(self, service: Service, clients: Collection[str]) -> None:
        self._service = service
        self._clients = frozenset(clients)
        self._server: asyncio.Server | None = None
        self._open = 0
        self.requests = 0

    async def start(self, address: str, port: int, context: ssl.SSLContext) -> int:
        """Listen, and return the port. Raises OSError."""
        self._server = await asyncio.start_server(
            self._connection, address, port, ssl=context, limit=_LIMIT_BYTES, ssl_handshake_timeout=5.0
        )
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > _MAX_CONNECTIONS or not self._is_client(writer):
                writer.write(_answer(403, {"error": "this certificate is not the control host's"}))
                await writer.drain()
                return
            while await self._one(reader, writer):
                pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._open -= 1
            with contextlib.suppress(OSError, TimeoutError):
                writer.close()

    def _is_client(self, writer: asyncio.StreamWriter) -> bool:
        certificate = writer.get_extra_info("peercert") or {}
        names = {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
        return not self._clients.isdisjoint(names)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(_IDLE_SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        try:
            method, target, _version = head.split("\r\n", 1)[0].split(" ")
            fields = dict(line.lower().split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
            length = min(_LIMIT_BYTES, max(0, int(fields.get("content-length", "0"))))
            async with asyncio.timeout(5):
                body = await reader.readexactly(length)
            status, answer = await self._answer(method, target, body)
        except ValueError as error:
            status, answer = 400, {"error": str(error)[:200]}
        self.requests += 1
        writer.write(_answer(status, answer))
        await writer.drain()
        return status not in (400, 404)

    async def _answer(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(target)
        if (method, parts.path) == ("GET", "/v1/view"):
            return 200, await self._service.view(dict(parse_qsl(parts.query)))
        if method == "POST" and parts.path in ("/v1/isolate", "/v1/unisolate", "/v1/ask_anew"):
            data = json.loads(body or b"{}")
            if not isinstance(data, dict):
                raise ValueError("an object is wanted")
            return await self._service.order(parts.path.rsplit("/", 1)[1], data)
        return 404, {"error": "nothing is here"}


_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 503: "Service Unavailable"}


def _answer(status: int, data: Mapping[str, Any]) -> bytes:
    body = json.dumps(data, separators=(",", ":")).encode()
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body
