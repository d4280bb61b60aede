# SPDX-License-Identifier: GPL-3.0-or-later
"""The open-loop prober: operation k is due at t0 + k * interval, whatever became of the others.

A closed loop stops asking when answers stop coming and so under-reports an outage. Here each slot of
the schedule ends up in the ledger with an outcome, also when it could not be sent.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from psycopg import pq

from .. import __version__
from .clock import anchor, boot_id
from .daemon import Stop, notify, prioritise
from .pool import Pool
from .session import OpResult, Outcome
from .writer import LedgerWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import ProberConfig
    from .session import Session

NS = 1_000_000_000
SCHEMA_VERSION = 1


class ProberError(Exception):
    """The prober could not start or had to stop; the ledger has no footer."""


class Slot:
    """One scheduled operation. Times are CLOCK_MONOTONIC nanoseconds."""

    __slots__ = ("dispatch_ns", "due_ns", "finished", "send_ns", "seq", "session", "timer")

    def __init__(self, seq: int, due_ns: int) -> None:
        self.seq = seq
        self.due_ns = due_ns
        self.dispatch_ns = 0
        self.send_ns: int | None = None
        self.session: Session | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.finished = False


class Prober:
    """One client path under a constant rate of small committed writes."""

    def __init__(self, config: ProberConfig) -> None:
        """Open the ledger file and prepare the pool; nothing is sent yet."""
        self._config = config
        # Before the writer, whose thread inherits it.
        self._scheduling = prioritise()
        self._loop = asyncio.get_running_loop()
        self._interval_ns = round(config.interval_seconds * NS)
        self._deadline_ns = round(config.op_deadline_seconds * NS)
        self._budget_ns = round(config.min_send_budget_seconds * NS)
        self._lookahead_ns = round(config.lookahead_seconds * NS)
        self._late_ns = max(2 * self._interval_ns, self._deadline_ns // 20)
        self._writer = LedgerWriter(config.ledger_file, self._on_disk_error)
        self._pool = Pool(config, self, self._demand)
        self._stop = Stop(config.max_duration_seconds)
        self._scheduled: deque[Slot] = deque()
        self._waiting: deque[Slot] = deque()
        self._unfinished = 0
        self._reserved = 0
        self._durable = 0
        self._t0_ns = 0
        self._stopping = False
        self._drained = asyncio.Event()
        self._failure: OSError | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._base = (config.run_id.encode(), config.path.encode())
        self._counts = {"ok": 0, "fail": 0, "info": 0, "not_sent": 0, "late_slots": 0}
        self._max_delay_ns = 0
        self._warming = 0

    async def run(self, on_ready: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Probe until a signal or the own deadline, drain, and return the footer.

        ``on_ready`` is called once, when the schedule begins.

        Raises:
            ProberError: no session in time at the start, or the ledger could not be written.
        """
        start = anchor()
        self._writer.append(self._header(start))
        try:
            await self._warm_up()
            # The collector's pauses grow with the heap; nothing here makes reference cycles.
            gc.collect()
            gc.freeze()
            gc.disable()
            self._t0_ns = time.monotonic_ns() + self._lookahead_ns
            self._reserve()
            notify("READY=1")
            on_ready({"ready": True, "t0_ns": self._t0_ns, **anchor()})
            reason = await self._stop.wait()
            notify("STOPPING=1")
            self._stopping = True
            self._finish_if_drained()
            await self._drained.wait()
            if self._failure is not None:
                raise ProberError(f"the ledger cannot be written: {self._failure}")
            footer = self._footer(start, reason)
            self._writer.append(footer)
            return footer
        finally:
            self._pool.close()
            gc.enable()
            if self._failure is None:
                self._writer.close()

    async def _warm_up(self) -> None:
        """Open the first sessions, so that the schedule does not begin with a queue."""
        limit = self._loop.time() + self._config.ready_timeout_seconds
        target = min(self._config.pool_min, self._config.pool_max)
        while self._pool.size < target:
            self._warming = target - self._pool.size
            self._pool.fill()
            if self._stop.reason is not None:
                raise ProberError("stopped before the first session was open")
            if self._loop.time() > limit:
                raise ProberError(
                    f"found {self._pool.size} open sessions after"
                    f" {self._config.ready_timeout_seconds:g} s, wanted {target};"
                    f" last failure: {self._last_failure}"
                )
            await asyncio.sleep(0.02)
        self._warming = 0

    _last_failure = "none"

    # Schedule

    def _reserve(self) -> None:
        """Put the slots of the near future on disk, so that no send has to wait for the disk."""
        if self._stopping or self._failure is not None:
            return
        horizon = time.monotonic_ns() + self._lookahead_ns
        records = []
        while (due_ns := self._t0_ns + self._reserved * self._interval_ns) <= horizon:
            slot = Slot(self._reserved, due_ns)
            self._scheduled.append(slot)
            self._unfinished += 1
            records.append({"k": "i", "seq": slot.seq, "due_ns": due_ns})
            self._reserved += 1
        if records:
            upto = self._reserved

            def durable() -> None:
                self._loop.call_soon_threadsafe(self._on_durable, upto)

            self._writer.append_durable(records, durable)
        self._loop.call_later(self._config.lookahead_seconds / 5, self._reserve)

    def _on_durable(self, upto: int) -> None:
        self._durable = upto
        self._tick()

    def _tick(self) -> None:
        """Dispatch every slot that is due and durable, then sleep until the next one."""
        if self._tick_timer is not None:
            self._tick_timer.cancel()
            self._tick_timer = None
        now = time.monotonic_ns()
        while self._scheduled and self._scheduled[0].due_ns <= now:
            if self._scheduled[0].seq >= self._durable:
                return
            self._dispatch(self._scheduled.popleft(), now)
        if self._scheduled:
            self._tick_timer = self._loop.call_at(self._scheduled[0].due_ns / NS, self._tick)

    def _dispatch(self, slot: Slot, now: int) -> None:
        slot.dispatch_ns = now
        delay = now - slot.due_ns
        self._max_delay_ns = max(self._max_delay_ns, delay)
        if delay > self._late_ns:
            self._counts["late_slots"] += 1
        slot.timer = self._loop.call_at((slot.due_ns + self._deadline_ns) / NS, self._expire, slot)
        self._waiting.append(slot)
        self._pump()

    def _pump(self) -> None:
        """Send what waits on sessions that are free."""
        while self._waiting:
            slot = self._waiting[0]
            if slot.finished:
                self._waiting.popleft()
                continue
            now = time.monotonic_ns()
            if slot.due_ns + self._deadline_ns - now < self._budget_ns:
                # Too late to be answered in time: sending it would only cost a good session.
                self._waiting.popleft()
                self._finish(slot, OpResult(Outcome.INFO, now, "not_sent"))
                continue
            session = self._pool.take()
            if session is None:
                break
            self._waiting.popleft()
            self._send(slot, session, now)
        self._pool.fill()

    def _send(self, slot: Slot, session: Session, now: int) -> None:
        slot.send_ns = now
        slot.session = session
        if self._config.record_sends:
            self._writer.append({"k": "d", "seq": slot.seq, "send_ns": now, "c": session.number})
        params = (*self._base, b"%d" % slot.seq, b"%d" % slot.due_ns)
        session.execute(params, lambda result: self._answered(slot, session, result))

    def _answered(self, slot: Slot, session: Session, result: OpResult) -> None:
        self._finish(slot, result)
        if result.outcome is Outcome.OK:
            self._pool.give(session)
        elif not session.closed:
            # A server that refuses writes has changed its role, or a warning has tainted the session.
            self._pool.discard(session, result.reason or "not ok")
        # Not recursive: an answer may arrive while the queue is being pumped.
        self._loop.call_soon(self._pump)

    def _expire(self, slot: Slot) -> None:
        """The caller's deadline: abandon locally, without a cancel request."""
        if slot.finished:
            return
        now = time.monotonic_ns()
        session = slot.session
        if session is None:
            self._finish(slot, OpResult(Outcome.INFO, now, "not_sent"))
            return
        self._finish(slot, OpResult(Outcome.INFO, now, "deadline"))
        self._pool.discard(session, "operation deadline")
        self._pool.fill()

    def _finish(self, slot: Slot, result: OpResult) -> None:
        if slot.finished:
            return
        slot.finished = True
        if slot.timer is not None:
            slot.timer.cancel()
        outcome = result.outcome.value
        self._counts[outcome] += 1
        if result.reason == "not_sent":
            self._counts["not_sent"] += 1
        record: dict[str, Any] = {
            "k": "o",
            "seq": slot.seq,
            "dispatch_ns": slot.dispatch_ns,
            "send_ns": slot.send_ns,
            "end_ns": result.end_ns,
            "outcome": outcome,
            "reason": result.reason,
            "c": slot.session.number if slot.session is not None else None,
        }
        if result.detail is not None:
            record["detail"] = result.detail
        if result.xid is not None:
            record["xid"] = result.xid
        self._writer.append(record)
        slot.session = None
        self._unfinished -= 1
        self._finish_if_drained()

    def _finish_if_drained(self) -> None:
        if self._stopping and self._unfinished == 0:
            self._drained.set()

    def _on_disk_error(self, error: OSError) -> None:
        """Called in the writer's thread: without a durable record nothing may be sent."""

        def fail() -> None:
            self._failure = error
            self._stop.set("disk")
            self._drained.set()

        self._loop.call_soon_threadsafe(fail)

    # Pool events

    def _demand(self) -> int:
        return len(self._waiting) or self._warming

    def session_opened(self, session: Session) -> None:
        """Record the server behind a new session and use it."""
        found = session.identity
        self._writer.append(
            {
                "k": "s",
                "c": session.number,
                "mono_ns": time.monotonic_ns(),
                "endpoint": str(session.endpoint),
                "server_addr": found.address,
                "timeline": found.timeline,
                "backend_pid": found.backend_pid,
            }
        )
        self._pump()

    def session_closed(self, session: Session, reason: str) -> None:
        """Record the end of a session."""
        self._writer.append({"k": "x", "c": session.number, "mono_ns": time.monotonic_ns(), "reason": reason})

    def connect_failed(self, endpoint: str, reason: str) -> None:
        """Record a failed attempt."""
        self._last_failure = f"{endpoint}: {reason}"
        self._writer.append(
            {"k": "f", "mono_ns": time.monotonic_ns(), "endpoint": endpoint, "reason": reason}
        )

    # Frame of the file

    def _header(self, start: dict[str, Any]) -> dict[str, Any]:
        config = self._config
        return {
            "k": "header",
            "schema_version": SCHEMA_VERSION,
            "run_id": config.run_id,
            "path": config.path,
            "host": platform.node(),
            "failure_zone": config.failure_zone,
            **start,
            "boot_id": boot_id(),
            "pid": os.getpid(),
            "interval_ns": self._interval_ns,
            "op_deadline_ns": self._deadline_ns,
            "connect_timeout_ns": round(config.connect_timeout_seconds * NS),
            "connect_spacing_ns": round(config.connect_spacing_seconds * NS),
            "late_slot_ns": self._late_ns,
            "pool_max": config.pool_max,
            "scheduling": self._scheduling,
            "endpoints": [str(endpoint) for endpoint in config.connection.endpoints],
            "versions": {"diting": __version__, "libpq": pq.version()},
        }

    def _footer(self, start: dict[str, Any], reason: str) -> dict[str, Any]:
        end = anchor()
        step = (end["utc_ns"] - start["utc_ns"]) - (end["mono_ns"] - start["mono_ns"])
        return {
            "k": "footer",
            **end,
            "stop_reason": reason,
            "slots": self._reserved,
            **self._counts,
            "max_dispatch_delay_ns": self._max_delay_ns,
            "max_sync_ns": self._writer.max_sync_ns,
            "sessions_opened": self._pool.opened,
            "clock_step_ns": step,
        }
