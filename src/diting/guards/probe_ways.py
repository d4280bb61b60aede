# SPDX-License-Identifier: GPL-3.0-or-later
"""Three ways to ask a primary whether it lives. Each keeps its connection and says how one question ended.

A question is cut off from outside (the task is cancelled at its deadline); whoever is cut off gives its connection up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import select
import socket
import ssl
from typing import TYPE_CHECKING, Protocol

from ..core.failover_view import Answer
from ..ledger.session import ConnectError, connect, query

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from psycopg import pq

    from .probe_book import Target

PROBE_SQL = (
    b"SELECT CASE WHEN pg_is_in_recovery() THEN NULL"
    b" ELSE pg_logical_emit_message(true, 'diting.guard', '') END,"
    b" pg_is_in_recovery(), current_setting('transaction_read_only')"
)
"""A transaction with a commit record and no table: an account without any rights may do it. In recovery nothing is written: each
try would be an error in the server's log, and a member that is being promoted is asked twenty times a second."""

SPACE_SQL = (
    b"SET LOCAL statement_timeout = '2s';"
    b" SELECT count(*) FROM (SELECT g FROM generate_series(1, 20000) g ORDER BY -g) x"
)
"""Sorts more than work_mem holds (64 kB here), so that the server has to extend a file."""

_NO_SPACE, _READ_ONLY = "53100:", "25006:"
_CODED = re.compile(r"[0-9A-Z]{5}:")
_GONE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


class Way(Protocol):
    """One way of asking. Raises nothing but being cancelled."""

    async def ask(self) -> Answer:
        """How one question ended; NONE when it could not even be asked."""

    def given_up(self) -> Answer:
        """What had come of a question by the time it was cut off; TIMEOUT when nothing had."""

    def drop(self) -> None:
        """Give up a kept connection."""


def answer_of(error: OSError) -> Answer:
    """What an error of a socket says about the other end."""
    if isinstance(error, ConnectionRefusedError | ConnectionResetError | BrokenPipeError):
        return Answer.REFUSED
    if error.errno in _GONE:
        return Answer.UNREACHABLE
    # Too many open files, a firewall here, a certificate that cannot be read: that is about us and accuses nobody.
    return Answer.TIMEOUT if error.errno == errno.ETIMEDOUT else Answer.NONE


class TcpWay:
    """A connection to PostgreSQL's port, closed as soon as it stands.

    In order, not by a reset: PostgreSQL takes a client that says nothing and leaves for monitoring, but logs every reset.
    """

    def __init__(self, target: Target, port: int) -> None:
        self._cut_off = Answer.TIMEOUT
        self._address = (target.address, port)
        self._family = socket.AF_INET6 if ":" in target.address else socket.AF_INET

    async def ask(self) -> Answer:
        """OK when the other end's kernel took the connection."""
        with socket.socket(self._family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            try:
                # Within a LAN the answer is often there before anybody could wait for it.
                number = sock.connect_ex(self._address)
                if number not in (0, errno.EINPROGRESS):
                    return answer_of(OSError(number, os.strerror(number)))
                if (settled := _settled(sock)) is not Answer.TIMEOUT:
                    return settled
                await asyncio.get_running_loop().sock_connect(sock, self._address)
            except OSError as error:
                return answer_of(error)
            except asyncio.CancelledError:
                # This process may have been too busy to look; the kernel was not.
                self._cut_off = _settled(sock)
                raise
        return Answer.OK

    def given_up(self) -> Answer:
        """See :class:`Way`."""
        return self._cut_off

    def drop(self) -> None:
        """Nothing is kept."""


def _settled(sock: socket.socket) -> Answer:
    """What the kernel knows of a connection that was begun; TIMEOUT while it waits for the other end."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(0):
        return Answer.TIMEOUT
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        return answer_of(OSError(number, os.strerror(number)))
    try:
        sock.getpeername()
    except OSError:
        return Answer.NONE  # it has failed, and whoever was told has been cancelled with the word
    return Answer.OK


class RestWay:
    """A request to Patroni. Whatever status comes back, somebody there has answered."""

    def __init__(self, target: Target, port: int, path: str, context: Callable[[], ssl.SSLContext]) -> None:
        self._target = target
        self._port = port
        # A certificate that was renewed on disk is used from the next connection on.
        self._context = context
        self._request = f"GET {path} HTTP/1.1\r\nHost: {target.name}\r\nUser-Agent: diting\r\n\r\n".encode()
        self._kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> Answer:
        """OK, or why there is no answer."""
        try:
            if self._kept is not None:
                # The other end may have closed an idle connection; that is no news, and asked anew.
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                    return await self._once()
                self.drop()
            return await self._once()
        except _OwnFaultError:
            return Answer.NONE
        except ssl.SSLError:
            self.drop()
            return Answer.REJECTED
        except OSError as error:
            self.drop()
            return answer_of(error)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError):
            self.drop()
            return Answer.REJECTED
        except BaseException:
            self.drop()
            raise

    async def _once(self) -> Answer:
        if self._kept is None:
            try:
                context = self._context()
            except (
                OSError
            ) as error:  # ssl.SSLError, too: a key that does not fit is no answer of the other end
                raise _OwnFaultError(str(error)) from error
            self._kept = await asyncio.open_connection(
                self._target.address, self._port, ssl=context, server_hostname=self._target.name
            )
        reader, writer = self._kept
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("\r\ncontent-length:")[2].partition("\r\n")[0].strip()
        keeps = head.startswith("http/1.1") and "\r\nconnection: close" not in head
        if keeps and length:
            await reader.readexactly(int(length))
        else:
            self.drop()
        return Answer.OK

    def given_up(self) -> Answer:
        """See :class:`Way`."""
        return Answer.TIMEOUT

    def drop(self) -> None:
        """Abort, without waiting for a peer that may be gone."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[1].transport.abort()


class SqlWay:
    """A commit that waits for nobody but the primary's own disk, on a connection reserved for it.

    Every ``space_every`` questions, and as long as the answer to that was "no space", it also has the server write a
    temporary file: WAL that is recycled would hide a full file system. What else comes of that is no news of the commit.
    """

    def __init__(self, conninfo: bytes, space_every: int = 10) -> None:
        self._conninfo = conninfo
        self._conn: pq.abc.PGconn | None = None
        self._space_every = space_every
        self._until_space = space_every

    async def ask(self) -> Answer:
        """OK after a local commit."""
        try:
            if self._conn is not None:
                with contextlib.suppress(_LostError):
                    return await self._once(self._conn)
                self.drop()
            self._conn = await connect(self._conninfo)
            return await self._once(self._conn)
        except (_LostError, ConnectError) as error:
            self.drop()
            return answer_of_text(str(error))
        except OSError as error:
            self.drop()
            return answer_of(error)
        except BaseException:
            self.drop()
            raise

    async def _once(self, conn: pq.abc.PGconn) -> Answer:
        try:
            rows = await query(conn, lambda c: c.send_query(PROBE_SQL))
            if rows and rows[0][1] == "t":
                # It lives and is no primary (yet). Not READ_ONLY, which is a complaint that a fence could follow.
                return Answer.REJECTED
            if rows and rows[0][2] == "on":
                return Answer.READ_ONLY
            self._until_space -= 1
            if self._until_space <= 0 and not await self._has_space(conn):
                return Answer.NO_TEMP
        except ConnectError as error:
            if _is_coded(str(error)):
                return answer_of_text(str(error))
            raise _LostError(str(error)) from error
        except Exception as error:
            # psycopg's OperationalError: the socket is of no use any more.
            raise _LostError(str(error)) from error
        return Answer.OK

    async def _has_space(self, conn: pq.abc.PGconn) -> bool:
        try:
            await query(conn, lambda c: c.send_query(SPACE_SQL))
        except ConnectError as error:
            if not _is_coded(str(error)):
                raise
            if answer_of_text(str(error)) is Answer.NO_SPACE:
                return False
        self._until_space = self._space_every
        return True

    def given_up(self) -> Answer:
        """See :class:`Way`."""
        return Answer.TIMEOUT

    def drop(self) -> None:
        """Close at once."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.finish()


class _OwnFaultError(Exception):
    """Something of this host's own is in the way of the question."""


class _LostError(Exception):
    """The connection is gone, and the question unanswered."""


def _is_coded(text: str) -> bool:
    """Whether these are the words of a server that goes on serving this connection."""
    return bool(_CODED.match(text)) and text[:3] not in ("57P", "08P", "080")


_OURS = (
    "Too many open files",
    "could not be read",
    "could not load",
    "could not open",
    "could not read",
    "certificate file",
    "private key file",
    "password file",
    "Software caused connection abort",
)
"""libpq's words about files of this host, and about connections that this host has ended (:mod:`.connections`)."""


def answer_of_text(text: str) -> Answer:
    """What libpq's words, led by an SQLSTATE if the server had one, say about the other end."""
    if text.startswith(_NO_SPACE) or "No space left on device" in text:
        return Answer.NO_SPACE
    if text.startswith(_READ_ONLY) or "recovery is in progress" in text:
        return Answer.READ_ONLY
    if _CODED.match(text) or "FATAL" in text:
        return Answer.REJECTED
    if any(words in text for words in _OURS):
        return Answer.NONE
    for words, answer in (
        ("Connection refused", Answer.REFUSED),
        ("reset by peer", Answer.REFUSED),
        ("closed the connection", Answer.REFUSED),
        ("No route to host", Answer.UNREACHABLE),
        ("unreachable", Answer.UNREACHABLE),
        ("timed out", Answer.TIMEOUT),
        ("timeout expired", Answer.TIMEOUT),
    ):
        if words in text:
            return answer
    return Answer.REJECTED


def conninfo(values: Mapping[str, str | int | None]) -> bytes:
    """A libpq connection string; None leaves a key out. A value is quoted as libpq wants it."""

    def quoted(value: str | int) -> str:
        return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"

    return " ".join(f"{key}={quoted(value)}" for key, value in values.items() if value is not None).encode()
