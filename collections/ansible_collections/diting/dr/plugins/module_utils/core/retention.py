# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive keeps for how long, and what may be deleted from it. Pure.

The only deletion that every WAL-G has is "all before this backup", by the order of names. So the plan is one backup, the cut: decided
by the times at which backups finished, checked against the order of names, and then against what WAL-G says it would delete. What a
tier would thin out beyond that is told, and kept.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from .backup_catalog import BACKUPS, SENTINEL, WAL, moment
from .backup_judge import part_findings
from .restore_proof import chain
from .retention_plan import Fate, Policy, Proofs, RetentionPlan
from .verdict import Reason
from .wal_names import Segment, owner_of, parse_segment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from .backup_catalog import Backup, Catalog, StoredObject

KEPT_BEYOND = "beyond its tier, and kept: no WAL-G of this generation deletes one backup alone"
_ORDER = re.compile(r"[0-9A-F]{24}")
_NAMED = 5


def order_of(name: str) -> str:
    """By what WAL-G orders an object: timeline and segment of its name; empty for one that it never deletes, such as a history."""
    found = _ORDER.search(name)
    return found[0] if found else ""


def plan(
    found: Catalog,
    objects: Sequence[StoredObject],
    policy: Policy,
    now: datetime,
    tests: Proofs,
) -> RetentionPlan | Reason:
    """What may go. A Reason says why nothing of this archive should be touched before a person has looked at it.

    A backup that a restore test found bad counts for nothing; one that was proven is left, while there is any.
    """
    problem = _not_understood(found, now)
    if problem is not None:
        return problem
    good = [backup for backup in found.backups if backup.name not in tests.failed and _whole(found, backup)]
    if found.backups and (problem := _stopped(found, good, policy, now)) is not None:
        return problem
    marks = {backup.name for backup in _first_of_months(found, good)} if policy.monthly else set()
    # As it will be once they are marked: what is shown is what is done.
    found = replace(
        found,
        backups=tuple(replace(b, is_permanent=b.is_permanent or b.name in marks) for b in found.backups),
    )
    names = {backup.name for backup in good if backup.delta_from is None}
    fulls = [backup for backup in found.backups if backup.name in names]
    cut, why = _cut(found, fulls, policy, now, tests.proven)
    if cut is not None:
        problem = _order(found, cut) or _being_written(found, cut, policy, now)
        if problem is not None:
            return problem
    fates = tuple(_fate(found, backup, cut, policy, now, marks, fulls) for backup in found.backups)
    kept = [fate.backup for fate in fates if fate.action != "delete"]
    return RetentionPlan(policy, fates, cut, why, _must_stay(found, objects, kept, cut))


def _stopped(found: Catalog, good: Sequence[Backup], policy: Policy, now: datetime) -> Reason | None:
    """Nothing new comes, or the clock runs ahead: age alone would let everything go in the end."""
    leading = [backup for backup in good if found.top is None or found.reaches(backup, found.top)]
    age = min(((now - one.finish_time).total_seconds() for one in leading), default=None)
    if age is not None and age <= policy.maximum_age_seconds:
        return None
    words = (
        f"no good backup leads to timeline {found.top}, which is the newest"
        if age is None
        else f"the newest good backup finished {age:.0f} s ago by this clock, wanted at most {policy.maximum_age_seconds:.0f} s"
    )
    return Reason(
        "backups_stopped", f"{words}: what there is may be all there will be", age, policy.maximum_age_seconds
    )


def _not_understood(found: Catalog, now: datetime) -> Reason | None:
    if found.unreadable:
        name, words = min(found.unreadable.items())
        more = f", and {len(found.unreadable) - 1} more" if len(found.unreadable) > 1 else ""
        return Reason("unreadable", f"what cannot be read must not be deleted by guess: {words}{more}", name)
    systems = sorted({backup.system_identifier for backup in found.backups})
    if len(systems) > 1:
        words = "backups of several clusters lie in one prefix: deleting by name would delete both's"
        return Reason("foreign_backup", words, systems, 1)
    early = [backup.name for backup in found.backups if backup.finish_time > now + timedelta(seconds=5)]
    if early:
        words = f"{early[0]} finished in the future by this clock: nobody can tell how old anything is"
        return Reason("clock_differs", words, early[0])
    return None


def _whole(found: Catalog, backup: Backup) -> bool:
    """Can it be recovered, by what the store lists? With all that it is a delta upon."""
    bases = chain(found, backup)
    return (
        found.window(backup).recoverable
        and bases[-1].delta_from is None
        and not any(part_findings(found, one) for one in bases)
        and not any(item.name in found.frozen for one in bases for item in one.objects)
    )


def _first_of_months(found: Catalog, good: Iterable[Backup]) -> list[Backup]:
    """Of each month that has no permanent full one of these, the first whose own WAL is there under its own timeline's names."""
    month: dict[str, Backup] = {}
    for backup in good:
        size = found.segment_bytes
        own = range(backup.start_lsn // size, (backup.finish_lsn - 1) // size + 1)
        # Only WAL of that name does WAL-G keep for a permanent backup.
        if backup.delta_from is None and all(Segment(backup.timeline, n) in found.segments for n in own):
            name = backup.finish_time.astimezone(UTC).strftime("%Y-%m")
            if name not in month or (backup.is_permanent and not month[name].is_permanent):
                month[name] = backup
    return [backup for backup in month.values() if not backup.is_permanent]


def _cut(
    found: Catalog, fulls: Sequence[Backup], policy: Policy, now: datetime, proven_names: Collection[str]
) -> tuple[Backup | None, str]:
    """The newest full backup that is older than everything that is wanted, if enough is left from it on."""
    since = moment(now - timedelta(seconds=policy.horizon_seconds))
    top = found.top
    # On a way that a restore has left behind nothing leads to production.
    leading = [one for one in fulls if top is not None and found.reaches(one, top)]
    old = [one for one in leading if (now - one.finish_time).total_seconds() >= policy.horizon_seconds]
    if not old:
        return None, f"no good full backup finished before {since}, the first moment that is wanted"
    whole = [one for one in old if not found.window(one, top).missing]
    if not whole:
        return None, f"none of the {len(old)} good full backups from before {since} has all WAL since then"
    why = ""
    for cut in reversed(whole):
        left = [one for one in leading if one.finish_time >= cut.finish_time]
        shown = [
            one for one in found.backups if one.finish_time >= cut.finish_time and one.name in proven_names
        ]
        if len(left) < policy.minimum_full:
            why = f"{len(left)} good full backups would be left, wanted at least {policy.minimum_full}"
        elif policy.proof_wanted and not shown:
            why = "no backup would be left that a restore test has proven (operate/restore_test.yml)"
        elif stranded := [one.name for one in found.backups if _stranded(found, one, cut)]:
            why = f"{stranded[0]} would stay, and one that it is a delta upon would go"
        else:
            words = (
                f"from it on any moment since {since} can be recovered to, by {len(left)} good full backups"
            )
            return cut, words
    return None, why


def _stranded(found: Catalog, backup: Backup, cut: Backup) -> bool:
    """Would it stay, and one that it is a delta upon go?"""
    bases = chain(found, backup)[1:]
    stays = backup.is_permanent or order_of(backup.name) >= order_of(cut.name)
    return stays and any(order_of(one.name) < order_of(cut.name) and not one.is_permanent for one in bases)


def _order(found: Catalog, cut: Backup) -> Reason | None:
    wrong = [
        backup.name
        for backup in found.backups
        if backup.finish_time > cut.finish_time
        and order_of(backup.name) < order_of(cut.name)
        and not backup.is_permanent
    ]
    if not wrong:
        return None
    words = (
        f"WAL-G deletes by the order of names, and would delete {', '.join(wrong[:_NAMED])}, which finished after {cut.name}; such an order "
        "comes from a new cluster, or a major version, in an old prefix: give it a prefix of its own"
    )
    return Reason("order_differs", words, wrong[0], cut.name)


def _being_written(found: Catalog, cut: Backup, policy: Policy, now: datetime) -> Reason | None:
    for one in found.unfinished:
        idle = now.timestamp() - one.modified
        if order_of(one.name) < order_of(cut.name) and idle < policy.unfinished_seconds:
            words = f"{one.name} lies before {cut.name}, and was added to {max(idle, 0.0):.0f} s ago: it may still be written"
            return Reason("being_written", words, round(idle), policy.unfinished_seconds)
    return None


def _fate(
    found: Catalog,
    backup: Backup,
    cut: Backup | None,
    policy: Policy,
    now: datetime,
    marks: Collection[str],
    fulls: Sequence[Backup],
) -> Fate:
    age = (now - backup.finish_time).total_seconds()
    if backup.name in marks:
        return Fate(backup, "mark", "first good full backup of its month: permanent")
    if backup.is_permanent:
        return Fate(backup, "keep", "permanent")
    if any(one.is_permanent and order_of(one.name) == order_of(backup.name) for one in found.backups):
        return Fate(backup, "keep", "WAL-G cannot tell its name from a permanent one's")
    if cut is not None and order_of(backup.name) < order_of(cut.name):
        return Fate(backup, "delete", "beyond every tier")
    if cut is not None and backup.name == cut.name:
        return Fate(backup, "keep", "the oldest moment that is wanted is recovered from it")
    if age <= policy.snapshot_seconds:
        return Fate(backup, "keep", "snapshot")
    if age <= policy.daily_seconds and backup.name in _first_of_days(fulls):
        return Fate(backup, "keep", "daily")
    if cut is None and age > policy.horizon_seconds:
        return Fate(backup, "keep", "nothing is deleted yet")
    return Fate(backup, "keep", KEPT_BEYOND)


def _first_of_days(fulls: Iterable[Backup]) -> frozenset[str]:
    first: dict[str, str] = {}
    for backup in fulls:
        first.setdefault(backup.finish_time.astimezone(UTC).strftime("%Y-%m-%d"), backup.name)
    return frozenset(first.values())


def _must_stay(
    found: Catalog, objects: Sequence[StoredObject], kept: Sequence[Backup], cut: Backup | None
) -> frozenset[str]:
    """Every object that a kept backup needs, found by LSN and timeline and not by WAL-G's rule; and all that is not understood."""
    wanted: set[Segment] = set()
    for backup in kept:
        wanted |= _segments(
            found, backup, to_its_end=cut is not None and order_of(backup.name) < order_of(cut.name)
        )
    names = {backup.name for backup in kept}
    loose = {one.name for one in found.unfinished}
    gone = {backup.name for backup in found.backups} - names
    stay = set()
    for item in objects:
        if item.name.startswith(WAL):
            stem = item.name.removeprefix(WAL).partition(".")[0]
            segment = parse_segment(stem, found.segment_bytes)
            if segment is None or segment in wanted:
                stay.add(item.name)
        else:
            owner = item.name.removeprefix(BACKUPS).partition("/")[0].removesuffix(SENTINEL)
            if not item.name.startswith(BACKUPS) or owner not in gone | loose:
                stay.add(item.name)
    return frozenset(stay)


def _segments(found: Catalog, backup: Backup, *, to_its_end: bool) -> set[Segment]:
    """WAL that the backup is recovered with: to its own end, or on along each way that leads on from it."""
    size = found.segment_bytes
    first, last = backup.start_lsn // size, (backup.finish_lsn - 1) // size
    # Where its timeline ended within one of them, the next one's copy of it is what recovery reads.
    along = found.lineage(found.newest_timeline(backup))
    own = range(first, last + 1)
    wanted = {Segment(t, n) for n in own for t in (backup.timeline, owner_of(along, n, size))}
    if not to_its_end:
        for timeline in found.timelines:
            if found.reaches(backup, timeline):
                lineage = found.lineage(timeline)
                wanted |= {
                    one
                    for one in found.segments
                    if one.number >= first and owner_of(lineage, one.number, size) == one.timeline
                }
    return wanted
