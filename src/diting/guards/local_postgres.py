# SPDX-License-Identifier: GPL-3.0-or-later
"""What a database host sees of its own PostgreSQL: is it up, is its walreceiver fed, is there space."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

from ..core.failover_view import Candidate, WalReceiver
from ..ledger.session import connect, query

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from psycopg import pq

    from .runtime.ports import Clock

SQL = (
    b"SELECT pg_is_in_recovery(),"
    b" (pg_last_wal_receive_lsn() - '0/0'::pg_lsn)::bigint,"
    b" r.pid IS NOT NULL AND r.status IS DISTINCT FROM 'stopping', r.last_msg_receipt_time,"
    b" extract(epoch FROM clock_timestamp() - r.last_msg_receipt_time)"
    b" FROM (SELECT 1) one LEFT JOIN pg_stat_wal_receiver r ON true"
)
"""The account needs pg_read_all_stats: others see that there is a walreceiver and nothing of it."""


class LocalPostgres:
    """Looks by SQL over the host's own socket, in a task of its own. ``changed`` is called on news."""

    def __init__(
        self,
        name: str,
        conninfo: bytes,
        paths: Sequence[Path],
        min_free_bytes: int,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._name = name
        self._conninfo = conninfo
        self._paths = paths
        self._min_free = min_free_bytes
        self._clock = clock
        self._changed = changed
        self._soon = asyncio.Event()
        self._conn: pq.abc.PGconn | None = None
        self._stamp: str | None = None
        self._fed_at: float | None = None
        self._looked_at: float | None = None
        self.walreceiver: WalReceiver | None = None
        self.candidate = Candidate(name)

    def look_soon(self) -> None:
        """Look again without waiting for the next look's time."""
        self._soon.set()

    async def run(self, interval_seconds: float, timeout_seconds: float, hurry: asyncio.Event) -> None:
        """Look without end, more often while ``hurry`` is set."""
        while True:
            self._soon.clear()
            await self.look(timeout_seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1 if hurry.is_set() else interval_seconds):
                    await self._soon.wait()

    async def look(self, timeout_seconds: float) -> None:
        """Look once. What could not be seen is None, and a database that does not answer is not up."""
        asked = self._clock.monotonic()
        row: Sequence[Any] | None = None
        try:
            async with asyncio.timeout(timeout_seconds):
                if self._conn is None:
                    self._conn = await connect(self._conninfo)
                row = (await query(self._conn, lambda c: c.send_query(SQL)))[0]
        except Exception:  # noqa: BLE001 - whatever it is, nothing was seen
            self.close()
        before = (self.candidate.up, self.candidate.has_space)
        self.candidate = Candidate(self._name, row is not None and row[0] == "t", self.has_space(), asked)
        self._take(row, asked)
        if before != (self.candidate.up, self.candidate.has_space):
            self._changed()

    def _take(self, row: Sequence[Any] | None, asked: float) -> None:
        if row is None or row[0] != "t":
            # The stamp is kept: a look that failed must not make an old message look like a new one.
            self.walreceiver = None
            return
        # Only a change counts: the stamp itself is of a clock that may be anywhere. Its age is of one clock twice, and is taken
        # within what is certain whatever that clock does: the message came after the last look that did not show it, and
        # before this answer.
        now = self._clock.monotonic()
        if row[3] is not None and row[3] != self._stamp:
            since = now if row[4] is None else now - float(row[4])
            self._stamp = row[3]
            self._fed_at = min(now, since if self._looked_at is None else max(since, self._looked_at))
        self._looked_at = asked
        lsn = None if row[1] is None else int(row[1])
        self.walreceiver = WalReceiver(row[2] == "t", asked, self._fed_at, lsn)

    def has_space(self) -> bool | None:
        """Whether each file system has room left; None when one could not be looked at."""
        try:
            free = [found.f_bavail * found.f_frsize for found in map(os.statvfs, self._paths)]
        except OSError:
            return None
        return min(free) >= self._min_free if free else None

    def close(self) -> None:
        """Give the connection up."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.finish()
