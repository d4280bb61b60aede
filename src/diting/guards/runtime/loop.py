# SPDX-License-Identifier: GPL-3.0-or-later
"""The cycle every guard lives in: observe, decide, journal, save, alert and act.

A cycle is a transaction. Until its decision is in the journal and its state is on disk nothing has
happened: the guard keeps the state it had and looks again. Only a cycle that got through to the end
tells the watchdog that the guard is alive.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

from structlog import contextvars

from ...core import journal as core_journal
from ...core.guard_journal import Cycle
from ...core.plain import from_plain, to_plain
from . import status
from .blindness import Blindness
from .deeds import Deeds, split_unfinished
from .store import Saved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...core.guard import Action
    from .parts import Parts

_STATUS_EVERY_SECONDS = 5.0
_AWAKE_PAUSE_SECONDS = 0.02
_SAVE_EVERY_SECONDS = 0.5
_CANCEL_SECONDS = 0.5


class _FailedError(Exception):
    """The cycle did not happen; ``stage`` says how far it came."""

    def __init__(self, stage: str, error: BaseException) -> None:
        super().__init__(str(error) or type(error).__name__)
        self.stage = stage


class Runner:
    """One guard's cycle. ``tell`` speaks to systemd."""

    def __init__(self, parts: Parts, tell: Callable[[str], bool]) -> None:
        self.parts = parts
        self.guard = parts.guard
        self.machine = parts.guard.machine
        self.clock = parts.ports.clock
        self.policy = parts.policy
        self.state: Any = parts.guard.initial()
        self.cycle = 0
        self.ready = False
        self.incident_id: str | None = None
        self.observation: Any = None
        self.last_actions: list[dict[str, Any]] = []
        self.last_error: str | None = None
        parts.metrics.before_each_read(self._show_metrics)
        self._untold: list[tuple[str, dict[str, Any]]] = []
        self._deeds = Deeds(parts)
        self._tell = tell
        self._saved_state: Any = None
        self._saved_at: float | None = None
        self._status_at: float | None = None
        interval = parts.document.runtime.interval_seconds
        self.interval_seconds = interval or parts.guard.default_interval_seconds
        self._blindness = Blindness(
            parts.notifier,
            parts.labels,
            parts.log,
            interval_seconds=self.interval_seconds,
            now=self.clock.monotonic(),
        )

    def begin(self, saved: Saved | None) -> None:
        """Take up what an earlier life left. Raises :class:`PlainError` for a state of another kind."""
        fields: dict[str, Any] = {
            "run_id": self.parts.run_id,
            "version": self.parts.version,
            "resumed": False,
        }
        if saved is not None:
            same_boot = saved.boot_id == self.clock.boot_id()
            before = from_plain(self.machine.state_type, saved.state, ignore_unknown=True)
            alerts, unfinished = split_unfinished(saved.unfinished)
            self._deeds.alert(alerts)
            self.state = self.guard.revive(
                before, unfinished, same_boot=same_boot, now=self.clock.monotonic()
            )
            self.incident_id = saved.incident_id
            fields |= {"resumed": True, "same_boot": same_boot, "saved_at": saved.saved_at}
            fields["unfinished"] = [action.as_dict() for action in saved.unfinished]
        # Written with the first cycle: a disk that is full at the start must not keep the guard from saying so.
        self._untold = [("started", fields)]
        self.parts.log.info("started", phase=self.machine.phase_of(self.state).value, **fields)
        self._show()

    async def run(self, stop: asyncio.Event) -> None:
        """Cycle until ``stop`` is set; it is heeded within one wait."""
        due = self.clock.monotonic()
        while not stop.is_set():
            began = self.clock.monotonic()
            self.guard.urgent.clear()
            if await self._guarded(stop):
                if not self.ready:
                    # A word that systemd had no room for is said again after the next cycle.
                    self.ready = self._tell("READY=1")
                    self._show_status()
                self._tell("WATCHDOG=1")
            due += self.interval_seconds
            now = self.clock.monotonic()
            if now > due + self.interval_seconds:
                self.parts.metrics.count("late_cycles")
                self.parts.log.warning("cycle is late", late_seconds=round(now - due, 3))
            due = max(due, now)
            # Whoever sets ``stop`` wakes the guard: waiting for both would cost two tasks a cycle.
            await self.clock.wait(self.guard.wake, seconds=due - now)
            if self.guard.wake.is_set():
                self.guard.wake.clear()
                due = self.clock.monotonic()
                # A guard that wakes itself without end still leaves the host its cores; in trouble what wakes it is worth
                # more, and the end of an action waits for nothing.
                calm = self.machine.is_steady(self.state)
                pause = self.interval_seconds / 20 if calm else _AWAKE_PAUSE_SECONDS
                await self.clock.wait(self.guard.urgent, seconds=began + pause - due)

    async def end(self, reason: str) -> None:
        """Save the state and close the journal's page of this life."""
        try:
            await self.parts.journal.in_thread(self.parts.store.save, self._to_save(self.state, ()))
            await self.parts.journal.event(
                "stopped", {"run_id": self.parts.run_id, "reason": reason, "cycle": self.cycle}
            )
        except (OSError, core_journal.JournalError) as error:
            self.parts.log.error("could not write on leaving", error=str(error))
        self._show_status(stopped=reason)
        self.parts.log.info("stopped", reason=reason, cycle=self.cycle)

    async def _guarded(self, stop: asyncio.Event) -> bool:
        """One cycle; False if it did not happen."""
        number = self.cycle + 1
        trace_id = hashlib.sha256(f"{self.parts.run_id}/{number}".encode()).hexdigest()[:32]
        began = self.clock.monotonic()
        with contextvars.bound_contextvars(cycle=number, trace_id=trace_id, incident_id=self.incident_id):
            try:
                if not await self._cycle(number, trace_id, began, stop):
                    return False
            except _FailedError as error:
                self.last_error = f"{error.stage}: {error}"
                self.parts.metrics.count("cycles", error.stage)
                self.parts.log.error(
                    "cycle failed", stage=error.stage, error=str(error), exc_info=error.__cause__
                )
                self._blindness.failed(self.clock.monotonic(), self.last_error)
                self._show_status()
                return False
        self.last_error = None
        self._blindness.finished(self.clock.monotonic())
        self.parts.metrics.count("cycles", "finished")
        self.parts.metrics.time("cycle_duration_seconds", self.clock.monotonic() - began)
        self.parts.metrics.set("last_cycle_timestamp_seconds", self.clock.utc().timestamp())
        return True

    async def _cycle(self, number: int, trace_id: str, now: float, stop: asyncio.Event) -> bool:
        paused, change = self.parts.pauses.look()
        seen = await self._observe(now, stop)
        if seen is None:
            return False
        observation = dataclasses.replace(seen, paused=paused)
        try:
            state, actions = self.machine.decide(self.state, observation, now, self.policy)
            alerts, todo = self._deeds.sort(actions)
        except Exception as error:
            raise _FailedError("decide", error) from error
        incident_id = self._incident(state, actions, trace_id)
        contextvars.bind_contextvars(incident_id=incident_id)
        before = self.state
        await self._record(
            self._cycle_record(number, trace_id, now, observation, state, actions, incident_id), change
        )
        alerts = self._deeds.stamped(alerts, incident_id=incident_id or "", trace_id=trace_id)
        await self._save(before, state, (*alerts, *todo), incident_id)
        self._commit(number, observation, before, state, actions, incident_id)
        await self._carry_out(alerts, todo, now)
        # The incident ends with the cycle that brought peace.
        if self.machine.is_steady(self.state):
            self.incident_id = None
        self._show()
        return True

    async def _observe(self, now: float, stop: asyncio.Event) -> Any:
        """The observation, or None if the guard was told to stop meanwhile."""
        look = asyncio.ensure_future(self.guard.observe(now))
        await asyncio.sleep(0)
        if look.done():
            # Most guards only put together what they know already.
            try:
                return look.result()
            except Exception as error:
                raise _FailedError("observe", error) from error
        stopped = asyncio.ensure_future(stop.wait())
        limit = self.parts.document.runtime.observe_timeout_seconds
        try:
            await asyncio.wait({look, stopped}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if look.done():
                return look.result()
        except Exception as error:
            raise _FailedError("observe", error) from error
        finally:
            stopped.cancel()
            if not look.done():
                # It must not look on beside the next one; one that cannot be stopped is left behind.
                look.cancel()
                await asyncio.wait({look}, timeout=_CANCEL_SECONDS)
        if stop.is_set():
            return None
        raise _FailedError("observe", TimeoutError(f"no observation within {limit:g} s"))

    def _incident(self, state: Any, actions: Sequence[Action], trace_id: str) -> str | None:
        if self.incident_id is not None:
            return self.incident_id
        worth_it = self.machine.is_steady(self.state) or bool(actions)
        if self.machine.is_steady(state) or not worth_it:
            return None
        return f"inc-{self.clock.utc():%Y%m%dT%H%M%SZ}-{trace_id[:8]}"

    def _cycle_record(
        self,
        number: int,
        trace_id: str,
        now: float,
        observation: Any,
        state: Any,
        actions: Sequence[Action],
        incident_id: str | None,
    ) -> Cycle:
        steady = self.machine.is_steady(self.state) and self.machine.is_steady(state)
        return Cycle(
            number=number,
            now=now,
            before=self.state,
            observation=observation,
            after=state,
            phase=str(self.machine.phase_of(state).value),
            actions=tuple(actions),
            signature=to_plain(self.guard.signature(observation)),
            quiet=steady and not actions,
            incident_id=incident_id,
            trace_id=trace_id,
        )

    async def _record(self, cycle: Cycle, change: str | None) -> None:
        moved = self.machine.phase_of(cycle.before) is not self.machine.phase_of(cycle.after)
        try:
            if change:
                pause = self.parts.pauses.pause
                self._untold.append((change, {"pause": pause.as_dict() if pause else None}))
            while self._untold:
                await self.parts.journal.event(*self._untold[0])
                del self._untold[0]
            written = await self.parts.journal.cycle(cycle, sync=moved or bool(cycle.actions))
        except (OSError, core_journal.JournalError) as error:
            raise _FailedError("journal", error) from error
        self.parts.metrics.count("journal_records", by=written)

    async def _save(self, before: Any, state: Any, todo: tuple[Action, ...], incident_id: str | None) -> None:
        moved = self.machine.phase_of(before) is not self.machine.phase_of(state)
        # Within a phase only what the next action goes by changes, and with an action all is saved.
        due = self._saved_at is None or self.clock.monotonic() - self._saved_at >= _SAVE_EVERY_SECONDS
        awake = due and not self.machine.is_steady(state) and state != self._saved_state
        if not (todo or moved or awake or self.guard.keeps(self._saved_state, state)):
            return
        try:
            saved = self._to_save(state, todo, incident_id)
            await self.parts.journal.in_thread(self.parts.store.save, saved)
        except OSError as error:
            self.parts.journal.break_off(
                "state of the cycle before could not be saved, its actions were not carried out"
            )
            raise _FailedError("state", error) from error
        self._saved_state, self._saved_at = state, self.clock.monotonic()

    def _to_save(self, state: Any, todo: tuple[Action, ...], incident_id: str | None = None) -> Saved:
        return Saved(
            state=to_plain(state),
            unfinished=todo,
            boot_id=self.clock.boot_id(),
            # An incident that this state ends is over, also for the next life.
            incident_id=None if self.machine.is_steady(state) else incident_id or self.incident_id,
            saved_at=core_journal.utc_text(self.clock.utc()),
        )

    def _commit(
        self,
        number: int,
        observation: Any,
        before: Any,
        state: Any,
        actions: Sequence[Action],
        incident_id: str | None,
    ) -> None:
        self.cycle, self.observation, self.state, self.incident_id = number, observation, state, incident_id
        if actions:
            self.last_actions = [action.as_dict() for action in actions]
        origin, target = self.machine.phase_of(before), self.machine.phase_of(state)
        if origin is not target:
            self.parts.log.info(
                "state", origin=origin.value, to=target.value, observation=to_plain(observation)
            )
            self._tell(f"STATUS={target.value}")
            self._status_at = None

    async def _carry_out(self, alerts: Sequence[Action], todo: Sequence[Action], now: float) -> None:
        """Everything that was decided, and word to the disk that it is done."""
        if not alerts and not todo:
            return
        results = await self._deeds.act(todo, now) if todo else []
        # After the deeds, which were decided to be done now. Should this life end between the two, the next one finds
        # them with what is unfinished and raises them.
        self._deeds.alert(alerts)
        fields = {"run_id": self.parts.run_id, "cycle": self.cycle, "results": results}
        try:
            if results:
                await self.parts.journal.event("acted", fields)
            await self.parts.journal.in_thread(self.parts.store.save, self._to_save(self.state, ()))
        except (OSError, core_journal.JournalError) as error:
            # It is done; after a crash the guard is told that it may be.
            self.parts.log.error("outcome of actions could not be written", error=str(error))

    def _show_metrics(self) -> None:
        metrics = self.parts.metrics
        metrics.set("ready", float(self.ready))
        metrics.state(self.state)
        metrics.set("paused", float(self.parts.pauses.paused))
        spool = self.parts.notifier.spool
        metrics.set("alerts", len(spool.standing()), "firing")
        metrics.set("alerts", len(spool.waiting()), "waiting")
        if self.observation is not None:
            metrics.measured(self.guard.measures(self.observation, self.state))

    def _show(self) -> None:
        now = self.clock.monotonic()
        if self._status_at is None or now - self._status_at >= _STATUS_EVERY_SECONDS:
            self._status_at = now
            self._show_status()

    def _show_status(self, stopped: str | None = None) -> None:
        try:
            self.parts.store.write_status(status.describe(self, stopped))
        except OSError as error:
            self.parts.log.warning("status could not be written", error=str(error))
