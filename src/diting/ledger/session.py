# SPDX-License-Identifier: GPL-3.0-or-later
"""One database connection driven from an event loop through raw libpq.

A driver with its own timeouts, retries or cancel requests would measure itself. Here every wait is
ours: establishing a connection has a deadline, an operation that is late is abandoned by closing the
socket locally (no cancel is sent: a cancel can turn a pending synchronous commit into a false
acknowledgement), and the verdict on an operation is taken from what the server really said.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import OperationalError, pq

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .config import Connection, Endpoint

STATEMENT = b"diting_op"
INSERT = (
    b"INSERT INTO diting_ledger.ops (run_id, path, seq, due_ns) VALUES ($1, $2, $3, $4) "
    b"RETURNING pg_current_xact_id()::text"
)
IDENTITY = (
    b"SELECT coalesce(host(inet_server_addr()), 'local'), pg_backend_pid()::text, "
    b"CASE WHEN pg_is_in_recovery() THEN NULL "
    b"ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END"
)
GOOD = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class ConnectError(Exception):
    """No usable session with one endpoint; the text says why."""


class Outcome(enum.Enum):
    """What is known about an operation; INFO means it may or may not have been applied."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


@dataclass(frozen=True)
class OpResult:
    """Outcome of one operation. ``end_ns``: CLOCK_MONOTONIC when it became known."""

    outcome: Outcome
    end_ns: int
    reason: str | None = None
    detail: str | None = None
    xid: str | None = None


@dataclass(frozen=True)
class Identity:
    """The server behind a session, as it named itself (a proxy hides it from the address)."""

    address: str
    backend_pid: int
    timeline: int | None


class Session:
    """An established connection that carries one operation at a time."""

    def __init__(self, conn: pq.abc.PGconn, endpoint: Endpoint, identity: Identity) -> None:
        """Take ownership of ``conn``, which is connected, non-blocking and idle."""
        self.conn = conn
        self.endpoint = endpoint
        self.identity = identity
        self.number = 0
        self.on_lost: Callable[[Session, str], None] = lambda _session, _reason: None
        self.closed = False
        self._fd = conn.socket
        self._loop = asyncio.get_running_loop()
        self._done: Callable[[OpResult], None] | None = None
        self._results: list[OpResult | None] = []
        self._warnings: list[str] = []
        self._xid: str | None = None
        self._error: OpResult | None = None
        conn.notice_handler = self._on_notice
        self._loop.add_reader(self._fd, self._on_readable)

    @property
    def busy(self) -> bool:
        """An operation is in flight."""
        return self._done is not None

    def execute(self, params: Sequence[bytes], done: Callable[[OpResult], None]) -> None:
        """Send one prepared insert; ``done`` is called exactly once unless :meth:`close` comes first."""
        self._done = done
        self._warnings = []
        self._xid = None
        self._error = None
        try:
            self.conn.send_query_prepared(STATEMENT, params)
            self._flush()
        except OperationalError as error:
            # Bytes may have left before the failure, so nothing is proven.
            self._lost(f"send: {_text(error)}")

    def close(self) -> None:
        """Close locally, at once, without a word to the callback of an operation in flight."""
        if self.closed:
            return
        self.closed = True
        self._done = None
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self.conn.finish()

    def _flush(self) -> None:
        if self.conn.flush() == 0:
            self._loop.remove_writer(self._fd)
        else:
            self._loop.add_writer(self._fd, self._on_writable)

    def _on_writable(self) -> None:
        try:
            self._flush()
        except OperationalError as error:
            self._lost(f"send: {_text(error)}")

    def _on_readable(self) -> None:
        try:
            self.conn.consume_input()
            while not self.conn.is_busy():
                result = self.conn.get_result()
                if result is None:
                    break
                self._take(result)
            else:
                return
        except OperationalError as error:
            self._lost(_text(error))
            return
        if self.conn.status == pq.ConnStatus.BAD:
            self._lost(_clean(self.conn.get_error_message()))
        elif self._done is not None:
            self._complete()

    def _take(self, result: pq.abc.PGresult) -> None:
        if result.status in GOOD:
            if result.ntuples == 1:
                self._xid = _decode(result.get_value(0, 0))
            return
        severity = _decode(result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED))
        state = _decode(result.error_field(pq.DiagnosticField.SQLSTATE))
        text = _decode(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)) or _clean(
            result.get_error_message()
        )
        # ERROR is the server's word that the transaction was rolled back. FATAL and PANIC end the
        # session at a moment we do not know, possibly after the commit record was written.
        outcome = Outcome.FAIL if severity == "ERROR" else Outcome.INFO
        if self._error is None or outcome is Outcome.INFO:
            reason = "server_error" if outcome is Outcome.FAIL else "session_ended"
            self._error = OpResult(outcome, time.monotonic_ns(), reason, f"{state}: {text}")

    def _complete(self) -> None:
        """Judge a finished operation: the server has said ReadyForQuery.

        With the extended protocol CommandComplete precedes the commit, so only an idle transaction
        status after it is an acknowledgement.
        """
        now = time.monotonic_ns()
        done, self._done = self._done, None
        if done is None:
            return
        if self._warnings:
            done(OpResult(Outcome.INFO, now, "sync_wait_cancelled", self._warnings[0], self._xid))
        elif self._error is not None:
            done(OpResult(self._error.outcome, now, self._error.reason, self._error.detail))
        elif self._xid is None or self.conn.transaction_status != pq.TransactionStatus.IDLE:
            done(OpResult(Outcome.INFO, now, "incomplete_answer"))
        else:
            done(OpResult(Outcome.OK, now, xid=self._xid))

    def _lost(self, reason: str) -> None:
        """The connection is gone; whatever was in flight is unknown."""
        if self.closed:
            return
        now = time.monotonic_ns()
        done = self._done
        error, warnings = self._error, self._warnings
        self.close()
        if done is not None:
            detail = warnings[0] if warnings else (error.detail if error else None) or reason
            code = "sync_wait_cancelled" if warnings else "connection_lost"
            done(OpResult(Outcome.INFO, now, code, detail))
        self.on_lost(self, reason)

    def _on_notice(self, result: pq.abc.PGresult) -> None:
        """A plain insert has nothing to warn about but a synchronous wait that was given up.

        The text depends on the server's language, so any WARNING taints the acknowledgement.
        """
        severity = _decode(result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED))
        if severity == "WARNING":
            state = _decode(result.error_field(pq.DiagnosticField.SQLSTATE))
            text = _decode(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY))
            self._warnings.append(f"{state}: {text}")


async def open_session(
    connection: Connection,
    endpoint: Endpoint,
    timeout_seconds: float,
    extra: dict[str, str],
    on_answer: Callable[[], object] = lambda: None,
) -> Session:
    """Connect to one endpoint, check that it takes writes if that is wanted, prepare the insert.

    ``on_answer`` is called once a server, and not only a kernel or a proxy, has answered.

    Raises:
        ConnectError: refused, rejected, read-only or not ready within ``timeout_seconds``.
    """
    conn: pq.abc.PGconn | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            address = endpoint.hostaddr or await _resolve(endpoint)
            conn = await connect(connection.conninfo(endpoint, address, extra), on_answer)
            if connection.read_write and read_only(conn):
                raise ConnectError("read-only")
            await query(conn, lambda c: c.send_prepare(STATEMENT, INSERT))
            row = await query(conn, lambda c: c.send_query(IDENTITY))
            conn.nonblocking = 1
            found, conn = conn, None
            return Session(found, endpoint, _identity(row))
    except TimeoutError:
        raise ConnectError(f"no session within {timeout_seconds:g} s") from None
    except OperationalError as error:
        raise ConnectError(_text(error)) from error
    except OSError as error:
        raise ConnectError(f"cannot resolve {endpoint.host}: {error}") from error
    finally:
        if conn is not None:
            conn.finish()


async def connect(conninfo: bytes, on_answer: Callable[[], object] = lambda: None) -> pq.abc.PGconn:
    """Establish a connection without blocking the loop; ``on_answer`` is called for each answer of the other end.

    Raises:
        ConnectError: the server or libpq refused.
    """
    conn = pq.PGconn.connect_start(conninfo)
    try:
        wait: int = pq.PollingStatus.WRITING
        while True:
            _check(conn, wait)
            await _ready(conn.socket, writing=wait == pq.PollingStatus.WRITING)
            answered = wait == pq.PollingStatus.READING
            wait = conn.connect_poll()
            if answered and wait != pq.PollingStatus.FAILED:
                on_answer()
            if wait == pq.PollingStatus.OK:
                return conn
    except BaseException:
        conn.finish()
        raise


def _check(conn: pq.abc.PGconn, wait: int) -> None:
    if wait == pq.PollingStatus.FAILED or conn.status == pq.ConnStatus.BAD:
        raise ConnectError(_clean(conn.get_error_message()))


async def query(conn: pq.abc.PGconn, send: Callable[[pq.abc.PGconn], None]) -> list[tuple[str | None, ...]]:
    """Run one statement on an idle connection and return its rows as text.

    Raises:
        ConnectError: the server answered with an error, with its SQLSTATE and message.
    """
    send(conn)
    while conn.flush():
        await _ready(conn.socket, writing=True)
    rows: list[tuple[str | None, ...]] = []
    failure: str | None = None
    while True:
        while conn.is_busy():
            await _ready(conn.socket, writing=False)
            conn.consume_input()
        result = conn.get_result()
        if result is None:
            break
        if result.status in GOOD:
            rows += [
                tuple(_decode(result.get_value(row, col)) for col in range(result.nfields))
                for row in range(result.ntuples)
            ]
        elif failure is None:
            state = _decode(result.error_field(pq.DiagnosticField.SQLSTATE))
            failure = f"{state}: {_clean(result.get_error_message())}"
    if failure is not None:
        raise ConnectError(failure)
    return rows


def read_only(conn: pq.abc.PGconn) -> bool:
    """The rule of libpq's ``target_session_attrs=read-write``, from parameters sent at start-up."""
    return any(
        conn.parameter_status(name) == b"on" for name in (b"in_hot_standby", b"default_transaction_read_only")
    )


async def _resolve(endpoint: Endpoint) -> str:
    """Look the name up at every attempt, as clients do; libpq itself would block the loop."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


async def _ready(fd: int, *, writing: bool) -> None:
    """Wait until the socket is readable (or writable)."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    add(fd, wake)
    try:
        await future
    finally:
        remove(fd)


def _identity(rows: list[tuple[str | None, ...]]) -> Identity:
    address, pid, timeline = rows[0]
    return Identity(address or "unknown", int(pid or 0), int(timeline, 16) if timeline is not None else None)


def _decode(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _clean(message: str) -> str:
    return " ".join(message.split())[:300]


def _text(error: Exception) -> str:
    return _clean(str(error))
