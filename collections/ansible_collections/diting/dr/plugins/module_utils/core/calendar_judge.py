# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what was to be done regularly was done: drills, restore tests, and what else the calendar names. Pure.

A job that ended well proves something for as long as its table says, and not for a moment longer; whether it was begun, or ended
badly in the meantime, changes nothing about that.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Standing(enum.Enum):
    """How a job stands. Only FINE is good news."""

    FINE = "fine"
    DUE = "due"
    """It has never ended well, and there is still time."""
    RUNNING = "running"
    FAILED = "failed"
    """The last run ended badly or was cut off; what an earlier one proved still holds."""
    UNSCHEDULED = "unscheduled"
    """It should run by itself, and nothing will start it."""
    OVERDUE = "overdue"
    """It has not ended well for longer than its table allows."""


@dataclass(frozen=True)
class Wanted:
    """What the table says of one job. Seconds; ``by_itself`` when a timer is to run it."""

    name: str
    by_itself: bool
    maximum_age_seconds: float
    reminder_seconds: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What is known of it, in seconds since 1970; None where there is nothing.

    ``since`` is when the job was first in the table, ``next_run`` when its timer will start it, ``status`` the last run's exit status.
    A run that has ``begun`` and has no end is ``running``, or was cut off.
    """

    since: float
    begun: float | None = None
    ended: float | None = None
    status: int | None = None
    succeeded: float | None = None
    next_run: float | None = None
    running: bool = False

    @property
    def cut_off(self) -> bool:
        """Somebody or something ended the last run so that it could not say how."""
        return self.begun is not None and self.ended is None and not self.running


@dataclass(frozen=True)
class Row:
    """One job, judged. ``due`` is the moment from which it is overdue, ``remind`` from which people are told that ``begins`` is near."""

    name: str
    standing: Standing
    due: float
    begins: float | None
    remind: float | None
    why: str


_AHEAD_SECONDS = 60.0
"""A clock is set back by so much now and then, and nobody was misled."""


def judge(wanted: Wanted, seen: Seen, now: float) -> Row:
    """What ended well in the future proves nothing: a clock was wrong then or is now, and nobody knows how old the proof is.

    Such a job is overdue at once, until it ends well again; taken for a proof it would be fine for as long as the clock was ahead.
    """
    ahead = max(seen.since, seen.succeeded or 0.0) > now + _AHEAD_SECONDS
    proven = seen.succeeded
    due = 0.0 if ahead else (seen.since if proven is None else proven) + wanted.maximum_age_seconds
    begins = seen.next_run if wanted.by_itself else due
    remind = begins - wanted.reminder_seconds if begins is not None and wanted.reminder_seconds > 0 else None

    def row(standing: Standing, why: str) -> Row:
        return Row(wanted.name, standing, due, begins, remind, why)

    if ahead:
        return row(
            Standing.OVERDUE,
            "what is known of it is of the future by this clock, so nobody knows how old it is: run it",
        )
    if now > due:
        if proven is None:
            return row(Standing.OVERDUE, f"it has never ended well in {_span(now - seen.since)}")
        return row(
            Standing.OVERDUE,
            f"it last ended well {_span(now - proven)} ago; wanted at most {_span(wanted.maximum_age_seconds)}",
        )
    # systemd names no next time while the service of a timer is at work.
    if seen.running:
        return row(Standing.RUNNING, "it is under way, or waits for another one to end")
    if wanted.by_itself and seen.next_run is None:
        return row(Standing.UNSCHEDULED, "its timer is not running, so nothing starts it")
    if seen.cut_off:
        return row(Standing.FAILED, "the last run was cut off: it never said how it ended")
    if seen.status not in (None, 0):
        return row(Standing.FAILED, f"the last run ended with status {seen.status}")
    if proven is None:
        return row(Standing.DUE, f"it has not ended well yet; wanted within {_span(due - now)}")
    return row(Standing.FINE, f"it ended well {_span(now - proven)} ago")


def _span(seconds: float) -> str:
    """In the largest unit of which there are at least two: an operator compares it with a calendar."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
