# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guard is to the runtime: a pure machine with eyes and hands."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from ...core.guard import RUNTIME_ACTIONS
from ...core.guard_words import plain_lines
from ...core.plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

    from ...core.guard import Action, Machine, Table
    from ...core.guard_words import Line
    from .ports import Ports

S = TypeVar("S")
O_ = TypeVar("O_")
P = TypeVar("P")
C = TypeVar("C", bound="BaseModel")


class Guard(ABC, Generic[C, S, O_, P]):
    """Base of every guard. ``machine`` decides; this object observes and acts, and decides nothing.

    The constructor opens nothing: a check of the configuration makes one too. ``wake`` may be set by a task of the
    guard's own to begin the next cycle soon, with whatever else has come by then; :meth:`wake_at_once` for what must
    not wait, like the end of an action.
    """

    machine: ClassVar[Machine[Any, Any, Any]]
    config_model: ClassVar[type[BaseModel]]
    default_interval_seconds: ClassVar[float] = 1.0

    def __init__(self, config: C, ports: Ports) -> None:
        self.config = config
        self.ports = ports
        self.wake = asyncio.Event()
        self.urgent = asyncio.Event()

    def wake_at_once(self) -> None:
        """Begin the next cycle without the pause between two of them."""
        self.wake.set()
        self.urgent.set()

    @property
    def name(self) -> str:
        """Kind of guard; also the name of its module and of its page."""
        return self.machine.name

    @property
    def table(self) -> Table:
        """The one transition table."""
        return self.machine.table

    def initial(self) -> S:
        """State of a guard that never ran."""
        state: S = self.machine.initial
        return state

    @abstractmethod
    def policy(self, config: C) -> P:
        """The limits that ``decide`` goes by. Raises ValueError for settings that contradict each other, joined by "; "."""

    @abstractmethod
    async def observe(self, now: float) -> O_:
        """Look once. ``now`` is the cycle's monotonic time in seconds, ages in the answer are relative to it.

        What cannot be looked at is a value of the observation (UNKNOWN), not an exception: an exception
        means that the cycle did not happen. The runtime fills ``paused``.
        """

    async def act(self, action: Action, now: float) -> dict[str, Any]:
        """Carry out one action, and return what JSON can carry about it.

        The decision is on disk by then. It must return within ``act_timeout_seconds``: what takes longer
        runs in a task of the guard's own, and its result is part of a later observation. Raising stops
        the cycle's other actions. Alerts never come here, the runtime sends them.
        """
        raise NotImplementedError(f"{self.name} cannot {action.name}")

    def alerts_of(self, action: Action) -> Sequence[Action]:
        """Alerts to raise or to resolve on account of ``action``: itself, if it is one.

        An action with alerts is done once they are on disk; it never comes to :meth:`act`.
        """
        return (action,) if action.name in RUNTIME_ACTIONS else ()

    @abstractmethod
    def signature(self, observation: O_) -> Any:
        """What of an observation counts as a change worth a line in the journal while all is well."""

    @classmethod
    def describe(cls, state: S, observation: O_, policy: P) -> Sequence[Line]:  # noqa: ARG003 - the contract
        """What ``diting guard status`` shows of a look and of what came of it, for people. Pure."""
        seen: Mapping[str, Any] = to_plain(observation)
        # A pause has a line of its own in every status, and the names of lives and boots are for programs.
        return plain_lines({n: v for n, v in seen.items() if n not in ("paused", "run", "boot")})

    @classmethod
    def hindrances(cls, state: S, observation: O_, policy: P) -> Sequence[str]:  # noqa: ARG003 - the contract
        """What forbids this guard to act now, should it have to. Pure; empty for one that only looks."""
        return ()

    def measures(self, observation: O_, state: S) -> Mapping[str, float | None]:  # noqa: ARG002 - the contract
        """Values of the machine's own gauges, once a scrape; None is shown as NaN, never as 0."""
        return {}

    def revive(  # the base needs neither
        self,
        saved: S,
        unfinished: Sequence[Action],  # noqa: ARG002
        *,
        same_boot: bool,
        now: float,  # noqa: ARG002
    ) -> S:
        """The state to go on with after a restart; ``saved`` was on disk before its first action.

        ``unfinished`` are actions of the last decision that may or may not have been carried out. After
        a reboot (not ``same_boot``) the monotonic times in ``saved`` mean nothing: without a word of the
        guard's own it begins anew.
        """
        return saved if same_boot else self.initial()

    def keeps(self, before: S | None, after: S) -> bool:  # noqa: ARG002 - the contract
        """Whether a change of the state in peace has to survive a crash; ``before`` is what was saved last.

        Whatever leads to an action, and every state that is not steady, is saved in any case.
        """
        return False

    async def start(self) -> None:
        """Begin what runs beside the cycle (probes, servers). Called once, before the first cycle."""

    async def close(self) -> None:
        """End it. Called once, within one second or cut off."""
