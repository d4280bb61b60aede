# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells HAProxy at once that a server is gone, by its runtime interface, so that clients are reset in milliseconds.

The server's *health* is set down, not its administrative state: sessions end and none is sent there any more, and the
first good check brings it back by itself. A maintenance would have to be taken back by somebody who may be dead by then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from .failover_config import Proxy

_LIMIT_BYTES = 65536


class ProxyError(Exception):
    """A proxy gave no answer, or would not."""


def commands(backends: list[str], server: str) -> bytes:
    """What HAProxy is told, one command per part, on one line."""
    parts = []
    for backend in backends:
        parts.append(f"set server {backend}/{server} health down")
        parts.append(f"shutdown sessions server {backend}/{server}")
    return ("; ".join(parts) + "\n").encode("ascii")


async def tell(proxy: Proxy, server: str, context: Callable[[], ssl.SSLContext], seconds: float) -> None:
    """Have one proxy drop ``server``. Raises :class:`ProxyError`."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(seconds):
            if proxy.socket is not None:
                reader, writer = await asyncio.open_unix_connection(str(proxy.socket))
            else:
                reader, writer = await asyncio.open_connection(
                    str(proxy.address), proxy.port, ssl=context(), server_hostname=proxy.name
                )
            writer.write(commands(proxy.backends, server))
            await writer.drain()
            # HAProxy answers each command, the ones that worked with an empty line, and closes. A proxy that will
            # not talk to us closes at once.
            answer = b""
            while part := await reader.read(_LIMIT_BYTES):
                answer += part
    except (OSError, TimeoutError, ValueError) as error:
        raise ProxyError(f"{proxy.name}: {str(error) or type(error).__name__}") from error
    finally:
        if writer is not None:
            writer.transport.abort()
    if answer.strip() or not answer:
        said = " ".join(answer.decode("utf-8", "replace").split())[:200]
        raise ProxyError(f"{proxy.name}: {said or 'closed without an answer'}")
