# SPDX-License-Identifier: GPL-3.0-or-later
"""The prober's connections: kept between operations as a client's pool does, opened on demand.

Opening is paced. When every connection dies at once, an unpaced pool would greet the new primary
with a storm of TLS handshakes and measure its own damage; a serial one would sit behind a dead host
for whole timeouts. So attempts start at a fixed spacing and run in parallel, but while a server is
answering one, none is begun beside it: six half-done handshakes are ready later than one whole one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from .session import ConnectError, Session, open_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from .config import ProberConfig

    class PoolEvents(Protocol):
        """What the pool tells its owner."""

        def session_opened(self, session: Session) -> None:
            """A session joined the pool and is idle."""

        def session_closed(self, session: Session, reason: str) -> None:
            """A session left the pool."""

        def connect_failed(self, endpoint: str, reason: str) -> None:
            """One endpoint of an attempt gave no session."""


HOLD_SECONDS = 0.3
"""A server that has answered, and gives no session for so long, holds nobody back any more."""


class Pool:
    """Sessions of one client path, at most ``config.pool_max``."""

    def __init__(self, config: ProberConfig, events: PoolEvents, demand: Callable[[], int]) -> None:
        """``demand`` tells how many operations wait for a session right now."""
        self._config = config
        self._events = events
        self._demand = demand
        self._idle: deque[Session] = deque()
        self._open: set[Session] = set()
        self._attempts: set[asyncio.Task[None]] = set()
        self._answering: dict[object, float] = {}
        self._loop = asyncio.get_running_loop()
        self._next_start = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._opened = 0
        self._closed = False
        deadline_ms = str(max(1, round(config.op_deadline_seconds * 1000)))
        self._extra = {
            "application_name": f"diting-prober-{config.path}",
            "tcp_user_timeout": deadline_ms,
            "keepalives_idle": "5",
            "keepalives_interval": "1",
            "keepalives_count": "3",
            "options": f"-c statement_timeout={deadline_ms}",
        }

    @property
    def size(self) -> int:
        """Open sessions."""
        return len(self._open)

    @property
    def opened(self) -> int:
        """Sessions opened since the start."""
        return self._opened

    def take(self) -> Session | None:
        """An idle session, the one that rested longest: a dead one is found out soonest that way."""
        return self._idle.popleft() if self._idle else None

    def give(self, session: Session) -> None:
        """Return a session after its operation."""
        if not session.closed:
            self._idle.append(session)

    def discard(self, session: Session, reason: str) -> None:
        """Close a session whose operation was abandoned."""
        session.close()
        self._forget(session, reason)

    def fill(self) -> None:
        """Start attempts for waiting operations, as pace and limits allow; returns at once."""
        if self._closed:
            return
        wanted = self._demand() - len(self._attempts)
        while (
            wanted > 0
            and len(self._attempts) < self._config.connect_parallel
            and len(self._open) + len(self._attempts) < self._config.pool_max
        ):
            held_until = max(self._answering.values(), default=0.0) + HOLD_SECONDS
            delay = max(self._next_start, held_until) - self._loop.time()
            if delay > 0:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = self._loop.call_later(delay, self._on_timer)
                return
            self._next_start = self._loop.time() + self._config.connect_spacing_seconds
            task = self._loop.create_task(self._attempt())
            self._attempts.add(task)
            task.add_done_callback(self._on_attempt_done)
            wanted -= 1

    def close(self) -> None:
        """Close everything."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._attempts:
            task.cancel()
        for session in list(self._open):
            session.close()
        self._open.clear()
        self._idle.clear()

    async def _attempt(self) -> None:
        """Try the endpoints in order, as libpq does; a dead one first costs its whole timeout."""
        mine = object()
        for endpoint in self._config.connection.endpoints:
            try:
                session = await open_session(
                    self._config.connection,
                    endpoint,
                    self._config.connect_timeout_seconds,
                    self._extra,
                    lambda: self._answering.setdefault(mine, self._loop.time()),
                )
            except ConnectError as error:
                self._events.connect_failed(str(endpoint), str(error))
                continue
            finally:
                if self._answering.pop(mine, None) is not None:
                    self._loop.call_soon(self.fill)
            if self._closed:
                session.close()
                return
            self._opened += 1
            session.number = self._opened
            session.on_lost = self._forget
            self._open.add(session)
            self._idle.append(session)
            self._events.session_opened(session)
            return

    def _on_attempt_done(self, task: asyncio.Task[None]) -> None:
        self._attempts.discard(task)
        if not task.cancelled():
            task.result()
        self.fill()

    def _on_timer(self) -> None:
        self._timer = None
        self.fill()

    def _forget(self, session: Session, reason: str) -> None:
        self._open.discard(session)
        if session in self._idle:
            self._idle.remove(session)
        self._events.session_closed(session, reason)
