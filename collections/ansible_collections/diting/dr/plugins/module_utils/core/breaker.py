# SPDX-License-Identifier: GPL-3.0-or-later
"""The breaker on our own automation: after a few runs that did not help, it stops trying. Pure.

One breaker per scenario and target. Runs that failed and runs nobody knows the outcome of count
alike: a remedy that may have worked is not one that did. Once open it stays open. Time alone never
closes it, or a hopeless remedy would come back every window for ever; a person's run that
succeeds closes it, or a person resets it. A success before that starts the count anew.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import journal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Outcome(enum.Enum):
    """How a run ended. INCONCLUSIVE: nobody could look, or nobody reported back."""

    SUCCESS = "success"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Failure:
    """One automated run that did not help."""

    at: datetime
    incident_id: str
    outcome: Outcome


@dataclass(frozen=True)
class Breaker:
    """Failures since the last success or reset, oldest first, and since when the breaker is open."""

    failures: tuple[Failure, ...] = ()
    opened_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether automation is to keep its hands off."""
        return self.opened_at is not None

    def as_dict(self) -> dict[str, Any]:
        """JSON form, which :func:`parse_breaker` reads."""
        return {
            "opened_at": journal.utc_text(self.opened_at) if self.opened_at else None,
            "failures": [
                {
                    "at": journal.utc_text(failure.at),
                    "incident_id": failure.incident_id,
                    "outcome": failure.outcome.value,
                }
                for failure in self.failures
            ],
        }


def parse_breaker(data: Mapping[str, Any]) -> Breaker:
    """Reads :meth:`Breaker.as_dict`. Raises KeyError, TypeError or ValueError for anything else."""
    opened_at = data["opened_at"]
    return Breaker(
        tuple(
            Failure(journal.parse_utc(item["at"]), str(item["incident_id"]), Outcome(item["outcome"]))
            for item in data["failures"]
        ),
        None if opened_at is None else journal.parse_utc(opened_at),
    )


def after_automated_run(
    breaker: Breaker, outcome: Outcome, *, at: datetime, incident_id: str, limit: int, window_seconds: int
) -> Breaker:
    """The breaker after an automated run. It opens on the ``limit``-th failure within the window."""
    if breaker.is_open:
        # A run that was let through before it opened: its end proves nothing about the others.
        return breaker
    if outcome is Outcome.SUCCESS:
        return Breaker()
    # A failure "from the future" (the clock was set back) stays in the count: that errs towards open.
    recent = tuple(f for f in breaker.failures if (at - f.at).total_seconds() <= window_seconds)
    failures = (*recent, Failure(at, incident_id, outcome))
    return Breaker(failures, at if len(failures) >= limit else None)


def after_persons_run(breaker: Breaker, outcome: Outcome) -> Breaker:
    """The breaker after a person's run: success closes it, anything else leaves it as it was."""
    return Breaker() if outcome is Outcome.SUCCESS else breaker
