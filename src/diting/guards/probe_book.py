# SPDX-License-Identifier: GPL-3.0-or-later
"""What one way of asking the primary has heard so far, on this process's monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..core.failover_signs import FULL, LIVES, REPLIES, STUCK, same_kind
from ..core.failover_view import Answer, Probe

WAYS = ("tcp", "rest", "sql")


@dataclass(frozen=True)
class Target:
    """The member that is probed: its name (of its certificate, too) and its IP address."""

    name: str
    address: str


class ProbeBook:
    """Answers of one way of asking, in the order they were asked."""

    def __init__(self) -> None:
        self.probe = Probe()

    def note(self, answer: Answer, sent_at: float, answered_at: float) -> bool:
        """Write down how the probe sent at ``sent_at`` ended; True when that changes what is known."""
        before = self.probe
        replied = before.last_reply_at
        if answer in LIVES:
            # As late as it can have been given: it may have to be told from a read-back.
            self.probe = Probe(answer, sent_at, answered_at, None, 0, replied)
            return before.answer is not answer
        # Another kind of failure is another story: what was refused for ten seconds has not been silent for ten.
        goes_on = before.failing_since is not None and same_kind(answer, before.answer)
        since = before.failing_since if goes_on else sent_at
        count = before.failures + 1 if goes_on else 1
        replied = answered_at if answer in REPLIES else replied
        self.probe = Probe(answer, sent_at, before.last_ok_at, since, count, replied)
        return True

    def forget_failures(self) -> None:
        """Whoever asked stood still meanwhile: what failed before that, and during it, says nothing."""
        self.probe = replace(self.probe, failing_since=None, failures=0)


def trouble_since(probe: Probe) -> float | None:
    """Since when ``probe`` fails in a way that has to be looked at quickly: silence, or a full disk. None: it does not.

    Whoever refuses or rejects has an end of its own under way (a planned switchover, a server that was killed), which Patroni
    handles; more questions would only take the processors from the members that take over.
    """
    return probe.failing_since if probe.answer in STUCK | FULL else None


def as_ages(probe: Probe, now: float) -> dict[str, Any]:
    """A probe as another host can read it: ages in seconds instead of moments of this clock."""

    def age(moment: float | None) -> float | None:
        return None if moment is None else max(0.0, now - moment)

    return {
        "answer": probe.answer.value,
        "tried_age": age(probe.tried_at),
        "last_ok_age": age(probe.last_ok_at),
        "failing_age": age(probe.failing_since),
        "failures": probe.failures,
        "last_reply_age": age(probe.last_reply_at),
    }
