# SPDX-License-Identifier: GPL-3.0-or-later
"""The fencing agents of all members: made at the start, tried in peace, and asked one call at a time per host."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.failover_view import AgentView, Power
from ..hostio.fencing import FencingError, make_agent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Protocol, TypeVar

    from ..core.fence import Reading
    from ..hostio.fencing import Agent
    from .failover_config import FailoverConfig

    T = TypeVar("T")

    class Now(Protocol):
        """A clock, as far as it is needed here."""

        def monotonic(self) -> float:
            """Seconds."""


EVERY_SECONDS = 300.0
AGAIN_SECONDS = 30.0
"""The same while one of them does not know."""
_LOOK_SECONDS = 10.0

Stamp = tuple[tuple[str, int], ...]


class FenceAgents:
    """``changed`` is called when a look in peace has said something new."""

    def __init__(self, config: FailoverConfig, clock: Now, changed: Callable[[], None]) -> None:
        self.views: tuple[AgentView, ...] = ()
        self._config = config
        self._clock = clock
        self._changed = changed
        self._known: dict[tuple[str, bool], tuple[Stamp, Agent]] = {}
        # One host, one order at a time: an "on" must not overtake the "off" before it. Looks in peace stand in
        # nobody's way: their threads and agents are others.
        self._orders = {
            member: ThreadPoolExecutor(1, thread_name_prefix=f"fence {member}") for member in config.members
        }
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="fence look")

    def pool(self, member: str, *, looks: bool = False) -> ThreadPoolExecutor:
        """Where calls for ``member`` are made."""
        return self._looks if looks else self._orders[member]

    def agent(self, member: str, incident: str | None = None, *, looks: bool = False) -> Agent:
        """The agent of a member, made once and again when a file of it has changed. Raises :class:`FencingError`."""
        options = self._options(member)
        stamp = _stamp(options)
        known = self._known.get((member, looks))
        if known is None or known[0] != stamp:
            known = (stamp, make_agent(self._config.fencing.agent, options))
            self._known[member, looks] = known
        made: Any = known[1]
        if self._config.fencing.agent == "power":
            made.incident_id = incident
        agent: Agent = made
        return agent

    def _options(self, member: str) -> dict[str, Any]:
        return options_of(self._config, member)

    async def order(self, member: str, incident: str, call: Callable[[Agent], T]) -> T:
        """Have ``call`` done with the agent of ``member``, after everything that was ordered of it before."""
        return await self.in_thread(self.pool(member), lambda: call(self.agent(member, incident)))

    def in_thread(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> Awaitable[T]:
        """``call`` in a thread of ``pool``."""
        return asyncio.get_running_loop().run_in_executor(pool, call)

    async def look_after(self) -> None:
        """Try every agent at once and every few minutes, without end."""
        while True:
            views = [await self._look(member) for member in self._config.members]
            if tuple(views) != self.views:
                self.views = tuple(views)
                self._changed()
            well = all(view.power is not Power.UNKNOWN for view in views)
            await asyncio.sleep(EVERY_SECONDS if well else AGAIN_SECONDS)

    async def _look(self, member: str) -> AgentView:
        def look() -> Reading:
            # The one that orders, too: when it is wanted there is no time to make it.
            self.agent(member)
            return self.agent(member, looks=True).state(_LOOK_SECONDS)

        try:
            reading = await self.in_thread(self.pool(member, looks=True), look)
        except FencingError as error:
            return AgentView(member, Power.UNKNOWN, str(error)[:300])
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody would fence with it
            return AgentView(member, Power.UNKNOWN, f"{type(error).__name__}: {error}"[:300])
        if reading.power is Power.UNKNOWN:
            # What is wrong may lie in what it has read when it was made.
            self._known.pop((member, True), None)
            self._known.pop((member, False), None)
            return AgentView(member, Power.UNKNOWN, reading.words[:300])
        return AgentView(member, reading.power)

    def close(self) -> None:
        """Wait for nothing: an order that is out is out."""
        for pool in (*self._orders.values(), self._looks):
            pool.shutdown(wait=False, cancel_futures=True)


def options_of(config: FailoverConfig, member: str) -> dict[str, Any]:
    """Options of the agent of ``member``."""
    fencing = config.fencing
    options: dict[str, Any] = {**fencing.options, **config.members[member].agent}
    if fencing.agent == "power":
        options = {"host": member, "hold": fencing.hold, **options}
    return options


def _stamp(options: Mapping[str, Any]) -> Stamp:
    """When the files that an agent reads were written; a file that cannot be looked at is as old as none."""
    found = []
    for key, value in sorted(options.items()):
        if key.endswith("_file"):
            try:
                found.append((key, Path(str(value)).stat().st_mtime_ns))
            except OSError:
                found.append((key, 0))
    return tuple(found)
