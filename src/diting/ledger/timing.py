# SPDX-License-Identifier: GPL-3.0-or-later
"""When writes stopped and when they came back to stay. Pure; all times in nanoseconds of one clock.

The figure is taken between acknowledgements, never from the first error: a client that waits
fifteen seconds before it sees an error would hide fifteen seconds of outage.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Ledger, Op


class Recovery(enum.Enum):
    """What the record shows after the fault."""

    NO_OUTAGE = "no_outage"
    RECOVERED = "recovered"
    NOT_RECOVERED = "not_recovered"
    WINDOW_INCOMPLETE = "window_incomplete"


@dataclass(frozen=True)
class Outage:
    """From the last acknowledgement before to the first one after; None: it did not end."""

    start_ns: int
    end_ns: int | None


@dataclass(frozen=True)
class Timing:
    """The outage that belongs to the fault. ``duration_ns`` is None if it is not known."""

    state: Recovery
    duration_ns: int | None
    at_least_ns: int
    resolution_ns: int
    last_ok_ns: int | None
    recovered_ns: int | None
    largest_gap_ns: int
    later: tuple[Outage, ...] = field(default=())


def acks(ops: Sequence[Op]) -> list[int]:
    """Acknowledgement times in order."""
    return sorted(op.ack_ns() for op in ops if op.ok)


def largest_gap(times: Sequence[int], start_ns: int, end_ns: int) -> tuple[int, int, int]:
    """Longest silence between acknowledgements that touches [start, end): (length, from, to)."""
    best = (0, start_ns, start_ns)
    for before, after in pairwise(times):
        # The silence that was already running when the window began belongs to it.
        if after > start_ns and before < end_ns and after - before > best[0]:
            best = (after - before, before, after)
    return best


def analyse(
    ledger: Ledger,
    inject_ns: int,
    *,
    stability_ns: int,
    stable_gap_ns: int,
    noise_ns: int,
) -> Timing:
    """Find the outage caused by a fault that was injected at ``inject_ns``.

    Args:
        ledger: one path's record.
        inject_ns: moment just before the fault's command was sent.
        stability_ns: length of the window in which nothing may fail; also how long after the
            injection an outage may begin and still be the fault's.
        stable_gap_ns: a longer silence between acknowledgements breaks a window.
        noise_ns: largest silence of the control window; nothing shorter is called an outage.
    """
    interval = ledger.interval_ns
    times = acks(ledger.ops)
    floor = max(2 * interval, noise_ns)
    outages = _outages(ledger.ops, times, inject_ns, stable_gap_ns)
    mine, later = _merge(outages, inject_ns, stability_ns)
    gap = largest_gap(times, inject_ns, inject_ns + stability_ns)
    record_end = ledger.ops[-1].due_ns if ledger.ops else inject_ns
    if mine is None and gap[0] > floor:
        mine = Outage(gap[1], gap[2])
    if mine is None:
        complete = record_end >= inject_ns + stability_ns
        state = Recovery.NO_OUTAGE if complete else Recovery.WINDOW_INCOMPLETE
        duration = 0 if complete else None
        return Timing(state, duration, 0, floor, None, None, gap[0], later)
    # The service may have been back for as long as no new attempt to reach it was due.
    resolution = 2 * interval + int(ledger.header.get("connect_spacing_ns", 0))
    end_seen = mine.end_ns if mine.end_ns is not None else record_end + interval
    at_least = max(0, end_seen - mine.start_ns)
    if mine.end_ns is None:
        state = Recovery.NOT_RECOVERED
    elif record_end < mine.end_ns + stability_ns:
        state = Recovery.WINDOW_INCOMPLETE
    else:
        state = Recovery.RECOVERED
    return Timing(
        state,
        at_least if state is Recovery.RECOVERED else None,
        at_least,
        resolution,
        mine.start_ns,
        mine.end_ns if state is Recovery.RECOVERED else None,
        gap[0],
        later,
    )


def _outages(ops: Sequence[Op], times: Sequence[int], inject_ns: int, stable_gap_ns: int) -> list[Outage]:
    """Every run of operations that were not ok, and every long silence, that ended after injection."""
    found = [
        Outage(before, after)
        for before, after in pairwise(times)
        if after - before > stable_gap_ns and after > inject_ns
    ]
    earlier = _latest_ack_before(ops)
    following = _earliest_ack_from(ops)
    index = 0
    while index < len(ops):
        if ops[index].ok:
            index += 1
            continue
        first = index
        touched = False
        while index < len(ops) and not ops[index].ok:
            end = ops[index].end_ns
            # In flight at the injection counts as hit by it.
            touched = touched or end is None or end >= inject_ns
            index += 1
        if touched:
            start, end_ns = earlier[first], following[index]
            begin = start if start is not None else ops[first].due_ns
            found.append(Outage(min(begin, end_ns) if end_ns is not None else begin, end_ns))
    return sorted(found, key=lambda outage: outage.start_ns)


def _merge(
    outages: Sequence[Outage], inject_ns: int, stability_ns: int
) -> tuple[Outage | None, tuple[Outage, ...]]:
    """Join outages with less than a stable window between them; the first group is the fault's."""
    groups: list[Outage] = []
    for outage in outages:
        last = groups[-1] if groups else None
        if last is not None and (last.end_ns is None or outage.start_ns - last.end_ns < stability_ns):
            open_end = last.end_ns is None or outage.end_ns is None
            end = None if open_end else max(last.end_ns or 0, outage.end_ns or 0)
            groups[-1] = Outage(last.start_ns, end)
        else:
            groups.append(outage)
    if groups and groups[0].start_ns < inject_ns + stability_ns:
        return groups[0], tuple(groups[1:])
    return None, tuple(groups)


def _latest_ack_before(ops: Sequence[Op]) -> list[int | None]:
    """For each index the latest acknowledgement among the operations before it."""
    out: list[int | None] = []
    latest: int | None = None
    for op in ops:
        out.append(latest)
        if op.ok:
            latest = op.ack_ns() if latest is None else max(latest, op.ack_ns())
    out.append(latest)
    return out


def _earliest_ack_from(ops: Sequence[Op]) -> list[int | None]:
    """For each index the earliest acknowledgement among the operations from it on."""
    out: list[int | None] = [None]
    earliest: int | None = None
    for op in reversed(ops):
        if op.ok:
            earliest = op.ack_ns() if earliest is None else min(earliest, op.ack_ns())
        out.append(earliest)
    out.reverse()
    return out
