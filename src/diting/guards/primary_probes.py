# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks one primary, over and over, by TCP, REST and SQL; quietly while it answers, quickly once it hesitates."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.failover_signs import LIVES, STUCK
from ..core.failover_view import Answer, Probe
from .probe_book import WAYS, ProbeBook, trouble_since

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .probe_book import Target
    from .probe_config import Pace
    from .probe_ways import Way
    from .runtime.ports import Clock

HURRY_SECONDS = 10.0
"""A silence is asked about quickly for so long; then it is known well enough."""
STALL_SECONDS = 0.1
"""Whoever comes so much later than meant has stood still, and has not seen what was silent meanwhile."""
FRESH_SECONDS = 10.0
"""For so long REST of a new target is asked at SQL's pace: whoever has no good answer of it yet can accuse nobody."""
PATIENCE_SECONDS = 30.0
"""An SQL question without an answer is given up after so long. The kernel ends one whose connection is lost much sooner."""


@dataclass(frozen=True)
class Question:
    """A question by REST or SQL that waits for its answer, perhaps over several rounds."""

    task: asyncio.Task[Answer]
    sent_at: float


class PrimaryProbes:
    """Probes of at most one target. ``changed`` is called when an answer says something new.

    ``make_ways`` gives one :class:`Way` for each of :data:`WAYS`.
    """

    def __init__(
        self,
        make_ways: Callable[[Target], Mapping[str, Way]],
        pace: Pace,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self.target: Target | None = None
        self.trouble = ""
        """The newest fault of our own, for people."""
        self._make_ways = make_ways
        self._pace = pace
        self._clock = clock
        self._changed = changed
        self._books: dict[str, ProbeBook] = {way: ProbeBook() for way in WAYS}
        self._tasks: list[asyncio.Task[None]] = []
        self._ways: Mapping[str, Way] = {}
        self._open: dict[str, Question] = {}
        self._aimed_at = 0.0
        self._hurry = False
        self._hurried_at = 0.0
        self._turns: set[asyncio.Future[None]] = set()
        self._calm: asyncio.TimerHandle | None = None

    def aim(self, target: Target | None) -> None:
        """Probe ``target`` from now on. Another target than before begins with empty books."""
        if target == self.target:
            return
        self._end()
        self.target = target
        self._books = {way: ProbeBook() for way in WAYS}
        if target is not None:
            self._aimed_at = self._clock.monotonic()
            self._ways = self._make_ways(target)
            self._tasks = [self._begin(name) for name in self._ways]

    def _begin(self, name: str) -> asyncio.Task[None]:
        loop = self._loop(name, self._ways[name], self._books[name])
        return asyncio.create_task(loop, name=f"probe {name}")

    def probe(self, way: str) -> Probe:
        """What is known by one of :data:`WAYS`."""
        return self._books[way].probe

    def hurry(self, seconds: float) -> None:
        """Ask every way at once and quickly, for ``seconds``; what is under way is given up sooner."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        if self._calm is not None:
            if self._calm.when() >= end:
                return
            self._calm.cancel()
        self._calm = loop.call_at(end, self._calm_down)
        if not self._hurry:
            self._hurry, self._hurried_at = True, self._clock.monotonic()
        for turn in self._turns:
            _end_turn(turn)

    async def look_anew(self) -> None:
        """Ask by TCP and REST at once; what is under way by them was asked too early, and is given up."""
        tasks = self._tasks
        self._tasks = mine = list[asyncio.Task[None]]()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._give_up("rest")
        # Unless somebody else has begun anew, or with another target, meanwhile.
        if self._tasks is mine:
            self._tasks = [self._begin(name) for name in self._ways]

    def _calm_down(self) -> None:
        self._calm = None
        self._hurry = False

    async def close(self) -> None:
        """End all probes."""
        tasks = self._everything()
        self._end()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._calm is not None:
            self._calm.cancel()

    def _everything(self) -> list[asyncio.Task[Any]]:
        return [*self._tasks, *(question.task for question in self._open.values())]

    def _end(self) -> None:
        for task in self._everything():
            task.cancel()
        for way in self._ways.values():
            way.drop()
        self._tasks, self._ways, self._open, self.target = [], {}, {}, None

    async def _loop(self, name: str, way: Way, book: ProbeBook) -> None:
        due = self._clock.monotonic()
        while True:
            begun = sent_at = self._clock.monotonic()
            stood_still = begun > due + STALL_SECONDS
            try:
                if name == "tcp":
                    answer = await self._tcp(way)
                else:
                    answer, sent_at = await self._slow(name, way)
            except Exception as error:  # noqa: BLE001 - a way that has ended would be missed by nobody
                self.trouble = f"{name}: {type(error).__name__}: {error}"[:200]
                answer = Answer.NONE
            now = self._clock.monotonic()
            stood_still |= now > begun + self._longest(name) + STALL_SECONDS
            if stood_still and answer in STUCK:
                book.forget_failures()
                answer = Answer.NONE
            # A question that could not be asked says nothing; the book ages, and an old one accuses nobody.
            news = answer is not Answer.NONE and book.note(answer, sent_at, now)
            since = trouble_since(book.probe)
            if name == "tcp" and since is not None and now - since < HURRY_SECONDS:
                self.hurry(0.5)
            if news:
                self._changed()
            due = await self._rest(name, begun)

    def _longest(self, name: str) -> float:
        """Seconds that one round may take."""
        pace = self._pace
        if name == "tcp":
            return pace.tcp_timeout_seconds
        return pace.slow_timeout_seconds + pace.quick_timeout_seconds

    async def _tcp(self, way: Way) -> Answer:
        loop = asyncio.get_running_loop()
        # Within a LAN an answer takes a millisecond: later than this, the others are asked as well.
        uneasy = loop.call_later(self._pace.uneasy_seconds, self.hurry, 0.2)
        try:
            async with asyncio.timeout(self._pace.tcp_timeout_seconds):
                return await way.ask()
        except TimeoutError:
            return way.given_up()
        finally:
            uneasy.cancel()

    async def _slow(self, name: str, way: Way) -> tuple[Answer, float]:
        """One round by REST or SQL: patient, unless somebody is in a hurry or comes to be. Answer, and when it was sent.

        A round that ends without an answer is a silence, and the question stays: what comes late is life, too, and a slow
        server is not asked a second time while it works on the first.
        """
        pace = self._pace
        begun = self._clock.monotonic()
        if name not in self._open:
            self._open[name] = Question(asyncio.create_task(way.ask()), begun)
        question = self._open[name]
        await self._turn(pace.slow_timeout_seconds, question.task)
        if not question.task.done() and self._hurry:
            await asyncio.wait({question.task}, timeout=pace.quick_timeout_seconds)
        if question.task.done():
            del self._open[name]  # also one that has failed: the next round asks anew
            answer = question.task.result()
            return answer, question.sent_at if answer in LIVES else begun
        # Patroni answers at once or not at all; and to count as a fresh look, a page has to be asked for anew.
        patience = pace.slow_timeout_seconds if name == "rest" else PATIENCE_SECONDS
        if self._clock.monotonic() - question.sent_at >= patience - 0.01:
            await self._give_up(name)
        return Answer.TIMEOUT, question.sent_at if name == "rest" else begun

    async def _give_up(self, name: str) -> None:
        question = self._open.pop(name, None)
        if question is not None:
            question.task.cancel()
            # To its end: it gives its connection up on the way, which must not hit the next question's.
            await asyncio.wait({question.task})

    async def _rest(self, name: str, sent_at: float) -> float:
        """Wait for the next round; the moment until when that was meant to be."""
        pace = self._pace
        now = self._clock.monotonic()
        quick = max(now, sent_at + pace.tcp_interval_seconds)
        calm = max(quick, sent_at + self._calm_interval(name, now))
        question = self._open.get(name)
        # What comes late is news at once, and not only in the next round.
        await self._turn(calm - now, None if question is None else question.task)
        due = min(calm, max(quick, self._hurried_at)) if self._hurry else calm
        left = quick - self._clock.monotonic()
        if left > 0:
            await asyncio.sleep(left)
        return due

    def _calm_interval(self, name: str, now: float) -> float:
        """Seconds from one question to the next while nobody is in a hurry."""
        pace = self._pace
        if name == "tcp" and self._books["sql"].probe.answer is not Answer.TIMEOUT:
            # Not while SQL hangs: a stopped postmaster takes nothing from its queue, and more connections would fill it;
            # then TCP too would fall silent.
            return pace.tcp_calm_interval_seconds
        well = self._books["rest"].probe.answer in LIVES and now - self._aimed_at >= FRESH_SECONDS
        if name == "rest" and well:
            # Patroni ends each connection, so each question is a TLS handshake on both hosts.
            return pace.rest_calm_interval_seconds
        return pace.slow_interval_seconds

    async def _turn(self, seconds: float, task: asyncio.Task[Any] | None = None) -> None:
        """Wait until there is a hurry or ``task`` has ended, at most for ``seconds``.

        A future of its own and no tasks: this goes on many times a second, for years, and nearly always nothing happens.
        """
        if self._hurry or (task is not None and task.done()):
            return
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        timer = loop.call_later(max(0.0, seconds), _end_turn, turn)

        def ended(_task: asyncio.Task[Any]) -> None:
            _end_turn(turn)

        self._turns.add(turn)
        if task is not None:
            task.add_done_callback(ended)
        try:
            await turn
        finally:
            timer.cancel()
            self._turns.discard(turn)
            if task is not None:
                task.remove_done_callback(ended)


def _end_turn(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
