# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive keeps for how long, and what may be deleted from it. Pure.

The only deletion that every WAL-G has is "all before this backup", by the order of names. So the plan is one backup, the cut: decided
by the times at which backups finished, checked against the order of names, and then against what WAL-G says it would delete. What a
tier would thin out beyond that is told, and kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .backup_catalog import BACKUPS, SENTINEL, WAL, moment
from .backup_judge import part_findings
from .restore_proof import chain, proven
from .verdict import Health, Reason
from .wal_names import Segment, owner_of, parse_segment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from .backup_catalog import Backup, Catalog, StoredObject

KEPT_BEYOND = "beyond its tier, and kept: no WAL-G of this generation deletes one backup alone"
_ORDER = re.compile(r"[0-9A-F]{24}")
_NAMED = 5


@dataclass(frozen=True)
class Policy:
    """How long each tier is kept, in seconds.

    wal_seconds: any moment of so long ago can be recovered to.
    snapshot_seconds: each backup is wanted for so long, deltas among them.
    daily_seconds: one full backup a day is wanted for so long.
    monthly: the first full backup of each month is wanted for ever.
    minimum_full: never fewer full backups that can be recovered.
    unfinished_seconds: a backup without an end is one that is being written, until nothing was added to it for so long.
    """

    wal_seconds: float = 7 * 86400.0
    snapshot_seconds: float = 86400.0
    daily_seconds: float = 7 * 86400.0
    monthly: bool = True
    minimum_full: int = 2
    unfinished_seconds: float = 86400.0

    @property
    def horizon_seconds(self) -> float:
        """Nothing that is younger is deleted."""
        return max(self.wal_seconds, self.snapshot_seconds, self.daily_seconds)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "wal_seconds": self.wal_seconds,
            "snapshot_seconds": self.snapshot_seconds,
            "daily_seconds": self.daily_seconds,
            "monthly": self.monthly,
            "minimum_full": self.minimum_full,
        }


@dataclass(frozen=True)
class Fate:
    """What becomes of one backup: ``keep``, ``mark`` (keep for ever) or ``delete``, and why."""

    backup: Backup
    action: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values; size in bytes, as it is stored."""
        return {
            "backup": self.backup.name,
            "finished": moment(self.backup.finish_time),
            "size_bytes": self.backup.stored_size,
            "action": self.action,
            "why": self.why,
        }


@dataclass(frozen=True)
class RetentionPlan:
    """What to mark as permanent, and the backup before which all may go; None deletes nothing, and ``why`` says why."""

    policy: Policy
    fates: tuple[Fate, ...]
    cut: Backup | None
    why: str
    must_stay: frozenset[str]

    @property
    def marks(self) -> tuple[str, ...]:
        """Names of backups to be marked."""
        return tuple(fate.backup.name for fate in self.fates if fate.action == "mark")

    @property
    def deleted(self) -> tuple[Backup, ...]:
        """Backups that go."""
        return tuple(fate.backup for fate in self.fates if fate.action == "delete")

    def lines(self) -> list[str]:
        """For people: a backup a line, oldest first."""
        rows = [
            f"  {fate.action:<6}  {fate.backup.name:<58}  finished {moment(fate.backup.finish_time)}  {fate.why}"
            for fate in self.fates
        ]
        before = (
            f"  all before {self.cut.name} may go, WAL as well: {self.why}"
            if self.cut
            else f"  nothing is deleted: {self.why}"
        )
        return [*rows, before]


@dataclass(frozen=True)
class Proofs:
    """Backups by what their last restore test that could tell found."""

    failed: frozenset[str] = frozenset()
    proven: frozenset[str] = frozenset()


def proofs_of(records: Iterable[Mapping[str, Any]]) -> Proofs:
    """By the records of restore tests, oldest first."""
    last: dict[str, bool] = {}
    for record in records:
        if record.get("verdict") != Health.UNKNOWN.value:
            last[str((record.get("evidence") or {}).get("backup"))] = proven(record)
    return Proofs(
        *(frozenset(name for name, good in last.items() if good is wanted) for wanted in (False, True))
    )


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
    fulls = [backup for backup in good if backup.delta_from is None]
    marks = {backup.name for backup in _first_of_months(fulls)} if policy.monthly else set()
    cut, why = _cut(found, fulls, policy, now, tests.proven)
    if cut is not None:
        problem = _order(found, cut, marks) or _being_written(found, cut, policy, now)
        if problem is not None:
            return problem
    fates = tuple(_fate(backup, cut, policy, now, marks, fulls) for backup in found.backups)
    kept = [fate.backup for fate in fates if fate.action != "delete"]
    return RetentionPlan(policy, fates, cut, why, _must_stay(found, objects, kept, cut))


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
    )


def _first_of_months(fulls: Sequence[Backup]) -> list[Backup]:
    """Of each month that has no permanent one of these, the first."""

    def month(backup: Backup) -> str:
        return backup.finish_time.astimezone(UTC).strftime("%Y-%m")

    have = {month(backup) for backup in fulls if backup.is_permanent}
    first: dict[str, Backup] = {}
    for backup in fulls:
        first.setdefault(month(backup), backup)
    return [backup for name, backup in first.items() if name not in have]


def _cut(
    found: Catalog, fulls: Sequence[Backup], policy: Policy, now: datetime, proven_names: Collection[str]
) -> tuple[Backup | None, str]:
    """The newest full backup that is older than everything that is wanted, if enough is left from it on."""
    since = moment(now - timedelta(seconds=policy.horizon_seconds))
    old = [one for one in fulls if (now - one.finish_time).total_seconds() >= policy.horizon_seconds]
    if not old:
        return None, f"no good full backup finished before {since}, the first moment that is wanted"
    whole = [one for one in old if not found.window(one).missing]
    if not whole:
        return None, f"none of the {len(old)} good full backups from before {since} has all WAL since then"
    here = {one.name: one for one in found.backups if one.name in proven_names}
    why = ""
    for cut in reversed(whole):
        left = [one for one in fulls if one.finish_time >= cut.finish_time]
        if len(left) < policy.minimum_full:
            why = f"{len(left)} good full backups would be left, wanted at least {policy.minimum_full}"
        elif here and not any(
            one.finish_time >= cut.finish_time or one.is_permanent for one in here.values()
        ):
            why = f"no backup would be left that a restore test has proven; {max(here)} is one"
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


def _order(found: Catalog, cut: Backup, marks: Collection[str]) -> Reason | None:
    wrong = [
        backup.name
        for backup in found.backups
        if backup.finish_time > cut.finish_time
        and order_of(backup.name) < order_of(cut.name)
        and not backup.is_permanent
        and backup.name not in marks
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
    backup: Backup,
    cut: Backup | None,
    policy: Policy,
    now: datetime,
    marks: Collection[str],
    fulls: Sequence[Backup],
) -> Fate:
    age = (now - backup.finish_time).total_seconds()
    if backup.is_permanent:
        return Fate(backup, "keep", "permanent")
    if backup.name in marks:
        return Fate(backup, "mark", "first good full backup of its month: permanent")
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
    wanted = {Segment(backup.timeline, number) for number in range(first, last + 1)}
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


def would_delete(output: str) -> list[str]:
    """Names of objects in the words of WAL-G's dry run."""
    return re.findall(r"will be deleted:\s+(\S+)", output)


def check_dry_run(planned: RetentionPlan, names: Sequence[str]) -> Reason | None:
    """Whether WAL-G means what was planned: it may delete nothing that has to stay, and has to delete what goes."""
    wrong = sorted(planned.must_stay & set(names))
    if wrong:
        words = (
            f"WAL-G would delete {len(wrong)} objects that have to stay, such as {', '.join(wrong[:_NAMED])}"
        )
        return Reason("would_delete_too_much", words, len(wrong), 0)
    ends = {f"{BACKUPS}{backup.name}{SENTINEL}" for backup in planned.deleted}
    missed = sorted(ends - set(names))
    if missed:
        words = f"WAL-G would not delete {len(missed)} of {len(ends)} backups that were planned, such as {missed[0]}"
        return Reason("would_delete_other", words, len(missed), 0)
    return None
