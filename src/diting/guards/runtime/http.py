# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP request with one deadline over all of it, and one small server for one page.

Not a client for the web: it exists because a receiver that hangs in mid-answer must cost a guard its
deadline and not a second more, and because the libraries that can do that weigh more than the guard.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HEAD_LIMIT_BYTES = 16384
_BODY_LIMIT_BYTES = 65536
_READ_TIMEOUT_SECONDS = 5.0
_WRITE_TIMEOUT_SECONDS = 10.0


class HttpError(Exception):
    """No usable answer; the text says why."""


async def post_json(
    url: str,
    body: bytes,
    *,
    timeout_seconds: float,
    context: ssl.SSLContext | None,
    headers: Mapping[str, str],
) -> tuple[int, str]:
    """POST ``body`` and return status and the beginning of the answer. Raises :class:`HttpError`."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    head = [
        f"POST {parts.path or '/'} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "User-Agent: diting",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    request = "\r\n".join([*head, "", ""]).encode("ascii") + body
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection(
                parts.hostname, port, ssl=context if secure else None, limit=_HEAD_LIMIT_BYTES
            )
            writer.write(request)
            await writer.drain()
            return await _answer(reader)
    except TimeoutError as error:
        raise HttpError(f"no answer within {timeout_seconds:g} s") from error
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
        raise HttpError(str(error) or type(error).__name__) from error
    finally:
        if writer is not None:
            # abort() and not close(): a peer that never reads would keep close() waiting.
            writer.transport.abort()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        protocol, status = head.split(None, 2)[:2]
        if not protocol.startswith("HTTP/1."):
            raise HttpError(f"not HTTP: {head[:40]!r}")
        # 1xx are not the answer yet.
        if int(status) >= 200:
            break
    body = b""
    # Only to say why it was refused; whatever of it came until the peer closes, or the limit.
    if int(status) >= 300:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.5):
                while len(body) < 512 and (part := await reader.read(512)):
                    body += part
    return int(status), body.decode("utf-8", "replace")


class PageServer:
    """Serves one page, ``path``, made anew for each request, one request per connection."""

    def __init__(self, path: str, page: Callable[[], tuple[str, bytes]]) -> None:
        self._path = path
        self._page = page
        self._server: asyncio.Server | None = None

    async def start(self, address: str, port: int, context: ssl.SSLContext | None) -> int:
        """Listen, and return the port. Raises OSError."""
        extra = {"ssl_handshake_timeout": _READ_TIMEOUT_SECONDS} if context else {}
        self._server = await asyncio.start_server(
            self._serve, address, port, ssl=context, limit=_HEAD_LIMIT_BYTES, **extra
        )
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more; connections end by their own deadline."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_TIMEOUT_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            writer.write(self._response(head))
            async with asyncio.timeout(_WRITE_TIMEOUT_SECONDS):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.transport.abort()

    def _response(self, head: str) -> bytes:
        method, target = [*head.split(None, 2), "", ""][:2]
        if target.partition("?")[0] != self._path:
            return _text(404, "Not Found", f"only {self._path} is here\n")
        if method not in ("GET", "HEAD"):
            return _text(405, "Method Not Allowed", "GET or HEAD\n")
        kind, body = self._page()
        return _response(200, "OK", kind, b"" if method == "HEAD" else body)


def _text(status: int, reason: str, text: str) -> bytes:
    return _response(status, reason, "text/plain; charset=utf-8", text.encode())


def _response(status: int, reason: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode("ascii") + body


def client_context(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """TLS towards a receiver; its name and chain are always checked. Raises OSError for unreadable files."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


def server_context(certificate: str, key: str, client_ca: str | None) -> ssl.SSLContext:
    """TLS for a page; with ``client_ca`` a client without its certificate is turned away. Raises OSError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
