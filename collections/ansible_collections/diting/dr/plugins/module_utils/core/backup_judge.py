# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge an archive by its catalog: is there a young backup, whole, with unbroken WAL, of this cluster and no other. Pure.

That an object holds what it should, only reading it tells (:mod:`.backup_content`), and that a restore works, only a restore.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .backup_catalog import BACKUPS, moment
from .backup_content import findings as content_findings
from .verdict import Health, Judgement, Reason, worst

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .backup_catalog import Backup, Catalog
    from .backup_content import Content

CLOCK_SECONDS = 5.0
"""Clocks of a store, a database and the judge may differ by so much."""
_NAMED = 5
"""So many names stand in a message; the rest are counted."""


@dataclass(frozen=True)
class Limits:
    """What is wanted of an archive. Seconds; None asks for nothing.

    ``system_identifier`` is the cluster's (``pg_controldata``): a backup of another one in the same prefix means that two
    clusters write to one place.
    """

    max_age_seconds: float
    min_backups: int = 1
    max_wal_age_seconds: float | None = None
    max_unfinished_seconds: float = 86400.0
    system_identifier: str | None = None


Finding = tuple[Health, Reason]


def could_not_look(words: str) -> Judgement:
    """Nobody could read the archive: that says nothing about what it holds."""
    return Judgement(Health.UNKNOWN, (Reason("could_not_look", words),), {})


def judge(
    found: Catalog,
    limits: Limits,
    now: datetime,
    content: Content | None = None,
    more: Sequence[Finding] = (),
) -> Judgement:
    """Every finding, worst first. ``now`` is the judge's own clock, in UTC; ``content`` what reading the objects found.

    ``more`` are findings of others, such as those of restore tests.
    """
    findings = [
        *_unreadable(found),
        *_whose(found, limits),
        *_newest(found, limits, now),
        *(finding for backup in found.backups for finding in part_findings(found, backup)),
        *_wal(found, limits, now),
        *_frozen(found),
        *_unfinished(found, limits, now),
        *(content_findings(content) if content else ()),
        *more,
    ]
    findings.sort(key=lambda finding: (Health.UNHEALTHY, Health.UNKNOWN, Health.DEGRADED).index(finding[0]))
    health = worst(*(finding[0] for finding in findings)) if findings else Health.HEALTHY
    newest = found.backups[-1] if found.backups else None
    evidence = {
        "backups": len(found.backups),
        "newest_backup": newest.name if newest else None,
        "newest_backup_age_seconds": _age(newest.finish_time, now) if newest else None,
        "newest_wal_age_seconds": _since(found.newest_wal.modified, now) if found.newest_wal else None,
        "system_identifiers": sorted({backup.system_identifier for backup in found.backups}),
        "content": content.as_dict() if content else None,
    }
    return Judgement(health, tuple(reason for _health, reason in findings), evidence)


def _age(then: datetime, now: datetime) -> float:
    return round((now - then).total_seconds(), 1)


def _since(modified: float, now: datetime) -> float:
    return _age(datetime.fromtimestamp(modified, UTC), now)


def _names(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _unreadable(found: Catalog) -> list[Finding]:
    return [
        (Health.UNKNOWN, Reason("unreadable", words, name))
        for name, words in sorted(found.unreadable.items())
    ]


def _whose(found: Catalog, limits: Limits) -> list[Finding]:
    systems = sorted({backup.system_identifier for backup in found.backups})
    if limits.system_identifier is not None:
        foreign = [b.name for b in found.backups if b.system_identifier != limits.system_identifier]
        if foreign:
            words = f"backups of another cluster lie in this prefix: {_names(foreign)}; each cluster needs a prefix of its own"
            return [(Health.UNHEALTHY, Reason("foreign_backup", words, systems, limits.system_identifier))]
    elif len(systems) > 1:
        words = "backups of several clusters lie in one prefix; each cluster needs a prefix of its own"
        return [(Health.UNHEALTHY, Reason("foreign_backup", words, systems, 1))]
    return []


def _newest(found: Catalog, limits: Limits, now: datetime) -> list[Finding]:
    own = [b for b in found.backups if limits.system_identifier in (None, b.system_identifier)]
    if not own:
        return [
            (
                Health.UNHEALTHY,
                Reason("no_backup", "the archive holds no finished backup", 0, limits.min_backups),
            )
        ]
    findings: list[Finding] = []
    if len(own) < limits.min_backups:
        words = f"{len(own)} finished backups, wanted at least {limits.min_backups}"
        findings.append((Health.UNHEALTHY, Reason("few_backups", words, len(own), limits.min_backups)))
    top = found.top
    near = [b for b in own if top is None or found.reaches(b, top)]
    if not near:
        words = (
            f"no backup leads to timeline {top}, which is the newest: recovery ends at the latest where that began; "
            "take a full backup, or take away what a recovery that was only tried out has archived"
        )
        return [*findings, (Health.UNHEALTHY, Reason("timeline_unreachable", words, 0, 1))]
    good = [b for b in near if found.window(b, top).recoverable]
    if not good:
        words = "no backup has the WAL from its start to its end"
        return [*findings, (Health.UNHEALTHY, Reason("no_recoverable_backup", words, 0, 1))]
    age = _age(good[-1].finish_time, now)
    if age > limits.max_age_seconds:
        words = f"the newest recoverable backup {good[-1].name} finished {age:.0f} s ago, wanted at most {limits.max_age_seconds:.0f} s"
        findings.append((Health.UNHEALTHY, Reason("backup_old", words, age, limits.max_age_seconds)))
    if age < -CLOCK_SECONDS:
        words = f"{good[-1].name} finished {-age:.0f} s in the future by this clock ({moment(good[-1].finish_time)})"
        findings.append((Health.UNKNOWN, Reason("clock_differs", words, age, 0)))
    return findings


def part_findings(found: Catalog, backup: Backup) -> list[Finding]:
    """Parts of one backup that are gone, empty or shorter than they were written; a base that is gone."""
    findings: list[Finding] = []
    there = {item.name.rpartition("/")[2]: item for item in backup.objects if "/tar_partitions/" in item.name}
    missing = sorted(set(backup.parts or ()) - set(there))
    if not any(name.startswith("pg_control.tar") for name in there):
        missing.append("pg_control.tar")
    if missing:
        words = f"{backup.name}: parts are gone: {_names(missing)}"
        findings.append((Health.UNHEALTHY, Reason("part_missing", words, missing, [])))
    empty = sorted(
        f"{BACKUPS}{backup.name}/tar_partitions/{n}" for n, item in there.items() if item.size == 0
    )
    if empty:
        words = f"{backup.name}: parts are empty: {_names(empty)}"
        findings.append((Health.UNHEALTHY, Reason("part_empty", words, empty, 0)))
    if backup.stored_size < backup.compressed_size:
        words = f"{backup.name}: the store has {backup.stored_size} bytes of it, {backup.compressed_size} were written"
        findings.append(
            (Health.UNHEALTHY, Reason("size_differs", words, backup.stored_size, backup.compressed_size))
        )
    if backup.delta_from is not None and backup.delta_from not in {b.name for b in found.backups}:
        words = f"{backup.name} is a delta to {backup.delta_from}, which is gone"
        findings.append((Health.UNHEALTHY, Reason("base_missing", words, backup.delta_from)))
    return findings


def _for_its_end_alone(found: Catalog, backup: Backup, timeline: int) -> bool:
    """Is it a permanent one behind which all WAL is gone, up to the oldest backup that is not? So retention leaves it; it is no gap."""
    size = found.segment_bytes
    end = (backup.finish_lsn - 1) // size
    others = [one for one in found.backups if not one.is_permanent and one.start_lsn // size > end]
    if not backup.is_permanent or not found.window(backup, timeline).recoverable or not others:
        return False
    next_one = min(one.start_lsn // size for one in others)
    spared = {
        number
        for one in found.backups
        if one.is_permanent
        for number in range(one.start_lsn // size, (one.finish_lsn - 1) // size + 1)
    }
    own = {branch.timeline for branch in found.lineage(timeline)}
    return not any(
        one.timeline in own and end < one.number < next_one and one.number not in spared
        for one in found.segments
    )


def _wal(found: Catalog, limits: Limits, now: datetime) -> list[Finding]:
    findings: list[Finding] = []
    told: set[str] = set()
    for timeline in found.leaves:
        near = [backup for backup in found.backups if found.reaches(backup, timeline)]
        for backup in reversed(near):
            window = found.window(backup, timeline)
            if (backup is not near[-1] or timeline != found.top) and _for_its_end_alone(
                found, backup, timeline
            ):
                continue
            # A gap before a newer backup, or on a way that recovery went once, costs only the moments there; and is told once.
            missing = [name for name in window.missing if name not in told]
            told.update(missing)
            if missing:
                counts = backup is near[-1] and (timeline == found.top or backup is found.backups[-1])
                health = Health.UNHEALTHY if counts else Health.DEGRADED
                names = _names(list(window.missing))
                words = (
                    f"from {backup.name} recovery ends at a gap of {window.missing_count} segments: {names}"
                    if window.recoverable
                    else f"{backup.name} cannot be recovered: the WAL written during it lacks {names}"
                )
                findings.append((health, Reason("wal_missing", words, list(window.missing), 0)))
    if found.empty:
        words = f"WAL objects without a byte in them: {_names(list(found.empty))}"
        findings.append((Health.UNHEALTHY, Reason("wal_empty", words, list(found.empty), [])))
    orphans = sorted(
        {s.timeline for s in found.segments if s.timeline > 1 and s.timeline not in found.lineages}
    )
    if orphans:
        words = f"history files are missing of timelines {', '.join(map(str, orphans))}: nothing can be recovered along them"
        findings.append((Health.UNHEALTHY, Reason("history_missing", words, orphans, [])))
    age = None if found.newest_wal is None else _since(found.newest_wal.modified, now)
    if age is not None and age < -CLOCK_SECONDS:
        words = f"the newest WAL was written {-age:.0f} s in the future by this clock"
        findings.append((Health.UNKNOWN, Reason("clock_differs", words, age, 0)))
    elif limits.max_wal_age_seconds is not None and (age is None or age > limits.max_wal_age_seconds):
        said = (
            "the archive holds no WAL"
            if age is None
            else f"the newest WAL of timeline {found.top} came {age:.0f} s ago"
        )
        words = f"{said}, wanted at most {limits.max_wal_age_seconds:.0f} s"
        findings.append((Health.UNHEALTHY, Reason("wal_old", words, age, limits.max_wal_age_seconds)))
    return findings


def _frozen(found: Catalog) -> list[Finding]:
    if not found.frozen:
        return []
    words = f"{len(found.frozen)} objects are in a storage class that takes hours to be readable: {_names(list(found.frozen))}"
    return [(Health.UNHEALTHY, Reason("object_frozen", words, len(found.frozen), 0))]


def _unfinished(found: Catalog, limits: Limits, now: datetime) -> list[Finding]:
    old = [item for item in found.unfinished if _since(item.modified, now) > limits.max_unfinished_seconds]
    if not old:
        return []
    words = f"broken-off backups take {sum(item.size for item in old)} bytes: {_names([item.name for item in old])}"
    return [
        (
            Health.DEGRADED,
            Reason("unfinished_backup", words, [item.name for item in old], limits.max_unfinished_seconds),
        )
    ]
