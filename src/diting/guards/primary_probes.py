# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks one primary, over and over, by TCP, REST and SQL; quietly while it answers, quickly once it hesitates."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ..core.failover_view import Answer, Probe
from .probe_book import WAYS, ProbeBook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .probe_book import Target
    from .probe_config import Pace
    from .probe_ways import Way
    from .runtime.ports import Clock

HURRY_SECONDS = 10.0
"""A silence is asked about quickly for so long; then it is known well enough."""


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
        self._make_ways = make_ways
        self._pace = pace
        self._clock = clock
        self._changed = changed
        self._books: dict[str, ProbeBook] = {way: ProbeBook() for way in WAYS}
        self._tasks: list[asyncio.Task[None]] = []
        self._ways: Mapping[str, Way] = {}
        self._hurry = asyncio.Event()
        self._calm: asyncio.TimerHandle | None = None

    def aim(self, target: Target | None) -> None:
        """Probe ``target`` from now on. Another target than before begins with empty books."""
        if target == self.target:
            return
        self._end()
        self.target = target
        self._books = {way: ProbeBook() for way in WAYS}
        if target is not None:
            self._ways = self._make_ways(target)
            self._tasks = [
                asyncio.create_task(self._loop(name, way, self._books[name]), name=f"probe {name}")
                for name, way in self._ways.items()
            ]

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
        self._hurry.set()

    def _calm_down(self) -> None:
        self._calm = None
        self._hurry.clear()

    async def close(self) -> None:
        """End all probes."""
        tasks = list(self._tasks)
        self._end()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._calm is not None:
            self._calm.cancel()

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for way in self._ways.values():
            way.drop()
        self._tasks, self._ways, self.target = [], {}, None

    async def _loop(self, name: str, way: Way, book: ProbeBook) -> None:
        while True:
            sent_at = self._clock.monotonic()
            answer = await (self._tcp(way) if name == "tcp" else self._slow(way))
            now = self._clock.monotonic()
            # A question that could not be asked says nothing; the book ages, and an old one accuses nobody.
            news = answer is not Answer.NONE and book.note(answer, sent_at, now)
            since = book.probe.failing_since
            if name == "tcp" and since is not None and now - since < HURRY_SECONDS:
                self.hurry(0.5)
            if news:
                self._changed()
            await self._rest(name, sent_at)

    async def _tcp(self, way: Way) -> Answer:
        loop = asyncio.get_running_loop()
        # Within a LAN an answer takes a millisecond: later than this, the others are asked as well.
        uneasy = loop.call_later(self._pace.uneasy_seconds, self.hurry, 0.2)
        try:
            async with asyncio.timeout(self._pace.tcp_timeout_seconds):
                return await way.ask()
        except TimeoutError:
            return Answer.TIMEOUT
        finally:
            uneasy.cancel()

    async def _slow(self, way: Way) -> Answer:
        """One question by REST or SQL: patient, unless somebody is in a hurry or comes to be."""
        pace = self._pace
        question = asyncio.ensure_future(way.ask())
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait(
                {question, hurry}, timeout=pace.slow_timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not question.done() and hurry.done():
                await asyncio.wait({question}, timeout=pace.quick_timeout_seconds)
            return question.result() if question.done() else Answer.TIMEOUT
        finally:
            hurry.cancel()
            if not question.done():
                question.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await question

    async def _rest(self, name: str, sent_at: float) -> None:
        pace = self._pace
        if name == "tcp":
            wait = pace.tcp_interval_seconds
            sql = self._books["sql"].probe
            if sql.answer is Answer.TIMEOUT and not self._hurry.is_set():
                # A stopped postmaster takes nothing from its queue: more connections would fill it, and then TCP
                # too would fall silent.
                wait = pace.slow_interval_seconds
            await asyncio.sleep(max(0.0, sent_at + wait - self._clock.monotonic()))
            return
        quick = sent_at + pace.tcp_interval_seconds - self._clock.monotonic()
        await asyncio.sleep(max(0.0, quick))
        left = sent_at + pace.slow_interval_seconds - self._clock.monotonic()
        if left > 0 and not self._hurry.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._hurry.wait()
