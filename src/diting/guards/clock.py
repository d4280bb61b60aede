# SPDX-License-Identifier: GPL-3.0-or-later
"""Guard ``clock``: asks chrony for the offset of this host's clock, and alerts when it cannot be trusted.

The smallest guard there is, and the example of docs/guards.md. What it decides stands in
:mod:`diting.core.clock_guard`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ..core import clock_guard
from ..core.clock_guard import Answer, Observation, Policy, State
from .runtime.guard import Guard
from .runtime.settings import AbsolutePath, Strict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..core.guard import Action
    from .runtime.ports import CommandResult

_OFFSET, _LEAP = 4, 13
_SYNCHRONISED = ("Normal", "Insert second", "Delete second")


class ClockConfig(Strict):
    """What the guard ``clock`` wants to know."""

    limit_seconds: float = Field(
        0.1,
        gt=0,
        le=3600,
        description="A larger offset, either way, means that the clock is not to be trusted",
    )
    confirm_seconds: float = Field(
        30.0, ge=0, le=86400, description="Trouble must last this long to be an alert"
    )
    clear_seconds: float = Field(60.0, ge=0, le=86400, description="It must be gone this long to end one")
    chronyc: AbsolutePath = Field(Path("/usr/bin/chronyc"), description="The program that asks chrony")
    answer_timeout_seconds: float = Field(2.0, gt=0, le=60, description="A slower answer is none")


def parse_tracking(result: CommandResult) -> Observation:
    """The answer of ``chronyc -c tracking``: one line of comma-separated fields.

    Field 4 is what chrony would add to the clock to make it right, in seconds, so the clock is off by
    its negative; field 13 is the leap status, which says whether there is a source at all.
    """
    if result.status != 0:
        words = (result.error or result.output).split()
        return Observation(Answer.NONE, detail=" ".join(words)[:200] or f"exit status {result.status}")
    fields = result.output.strip().split(",")
    correction = _number(fields[_OFFSET]) if len(fields) > _LEAP else None
    if correction is None:
        seen = result.output.strip()[:200]
        return Observation(Answer.NONE, detail=f"not an answer to 'tracking': {seen!r}")
    # 0.0 - x and not -x: there is no negative zero in a record.
    offset, leap = 0.0 - correction, fields[_LEAP]
    if leap not in _SYNCHRONISED:
        return Observation(Answer.NOT_SYNCHRONISED, offset, detail=f"leap status {leap!r}")
    return Observation(Answer.SYNCHRONISED, offset)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class ClockGuard(Guard[ClockConfig, State, Observation, Policy]):
    """Eyes for :data:`diting.core.clock_guard.MACHINE`; it has no hands, its only actions are alerts."""

    machine = clock_guard.MACHINE
    config_model = ClockConfig
    default_interval_seconds: ClassVar[float] = 10.0

    def policy(self, config: ClockConfig) -> Policy:
        """See :class:`Guard`."""
        return Policy(config.limit_seconds, config.confirm_seconds, config.clear_seconds)

    async def observe(self, now: float) -> Observation:  # noqa: ARG002 - the answer has no age
        """Ask chrony once."""
        argv = [str(self.config.chronyc), "-c", "tracking"]
        result = await self.ports.run(argv, timeout_seconds=self.config.answer_timeout_seconds)
        return parse_tracking(result)

    def signature(self, observation: Observation) -> tuple[str, bool]:
        """See :class:`Guard`."""
        return clock_guard.signature(observation)

    def measures(self, observation: Observation, state: State) -> Mapping[str, float | None]:  # noqa: ARG002
        """The gauges of the page. Nobody could look: no value."""
        if observation.answer is Answer.NONE:
            return {"offset_seconds": None, "synchronised": None}
        synchronised = float(observation.answer is Answer.SYNCHRONISED)
        return {"offset_seconds": observation.offset_seconds, "synchronised": synchronised}

    def revive(self, saved: State, unfinished: Sequence[Action], *, same_boot: bool, now: float) -> State:  # noqa: ARG002
        """An alert outlives a reboot; the times in the state do not."""
        return saved if same_boot else clock_guard.after_reboot(saved)


GUARD = ClockGuard
