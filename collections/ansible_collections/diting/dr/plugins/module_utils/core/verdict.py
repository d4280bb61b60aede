# SPDX-License-Identifier: GPL-3.0-or-later
"""The words every judge of the project uses: verdicts of drills, health of systems, reasons."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class Verdict(enum.Enum):
    """Outcome of a drill. INVALID means the drill proved nothing; it is never a PASS."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    INVALID = "INVALID"
    ABORTED = "ABORTED"

    @property
    def exit_code(self) -> int:
        """Exit status of ``scripts/drill`` for this verdict."""
        return {"PASS": 0, "FAIL": 1, "INVALID": 2, "ABORTED": 3}[self.value]


EXIT_USAGE = 64
"""Exit status for wrong usage (BSD ``EX_USAGE``), distinct from every verdict."""


class Health(enum.Enum):
    """Judgement of a live system. UNKNOWN means nobody could look, and is not good news."""

    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNHEALTHY = "UNHEALTHY"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Reason:
    """One finding: a stable ``code`` for machines, a ``message`` for people, and the numbers.

    ``observed`` is the value found and ``limit`` the value wanted, in the units the message names.
    """

    code: str
    message: str
    observed: Any = None
    limit: Any = None

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionary for module results and JSON evidence."""
        return {
            "code": self.code,
            "message": self.message,
            "observed": self.observed,
            "limit": self.limit,
        }


@dataclass(frozen=True)
class Judgement:
    """Health, the reasons for anything below HEALTHY, and the numbers behind it."""

    health: Health
    reasons: tuple[Reason, ...]
    evidence: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """``verdict``, ``reasons`` and ``evidence`` for a module result."""
        return {
            "verdict": self.health.value,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "evidence": self.evidence,
        }


def worst(*healths: Health) -> Health:
    """The least comforting of several judgements; no judgement at all is UNKNOWN."""
    order = [Health.HEALTHY, Health.DEGRADED, Health.UNKNOWN, Health.UNHEALTHY]
    return max(healths, key=order.index, default=Health.UNKNOWN)
