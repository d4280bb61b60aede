# SPDX-License-Identifier: GPL-3.0-or-later
"""To which moment a cluster is taken back, from which backup, and what is given up by it. Pure.

What a person says yes to is :attr:`RestorePlan.approved`: it holds everything that decides what the cluster will contain, and nothing
that changes from one look to the next, so that the plan that was shown is the plan that is carried out.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .backup_catalog import moment
from .restore_proof import Forecast, Point, forecast, of_system
from .verdict import Reason
from .wal_names import lsn_text, parse_lsn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .backup_catalog import Backup, Catalog, Window

SCENARIO = "l4.restore"
KINDS = ("time", "lsn", "name", "xid")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")
_XID = re.compile(r"[1-9][0-9]{0,9}")
_NEWEST_XID = 2**32 - 1


class TargetError(Exception):
    """The moment that was asked for cannot be understood; the message names what was found and wanted."""


@dataclass(frozen=True)
class Target:
    """A moment in the words of ``recovery_target_<kind>``; not ``inclusive`` means: the last moment before it."""

    kind: str
    value: str
    inclusive: bool

    @property
    def words(self) -> str:
        """For people."""
        if self.kind == "name":
            return f"the point {self.value}"
        what = {
            "time": self.value,
            "lsn": f"LSN {self.value}",
            "xid": f"the commit of transaction {self.value}",
        }
        return f"{'' if self.inclusive else 'before '}{what[self.kind]}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"type": self.kind, "value": self.value, "inclusive": self.inclusive}


def read_target(kind: str, value: str, *, inclusive: bool = True) -> Target:
    """A target from an operator's words, in one spelling whatever theirs was. Raises TargetError."""
    value = value.strip()
    match kind:
        case "time":
            try:
                when = datetime.fromisoformat(value)
            except ValueError as error:
                raise TargetError(f"time: found {value!r}, wanted such as 2026-11-22T03:10:00Z") from error
            if when.tzinfo is None:
                raise TargetError(
                    f"time: found {value!r}, wanted it to the second and with its zone, such as 2026-11-22T03:10:00Z"
                )
            value = when.astimezone(UTC).isoformat(sep=" ", timespec="microseconds")
        case "lsn":
            try:
                value = lsn_text(parse_lsn(value))
            except ValueError as error:
                raise TargetError(f"lsn: found {value!r}, wanted such as 0/3000060") from error
        case "name":
            if not _NAME.fullmatch(value):
                raise TargetError(f"name: found {value!r}, wanted 1 to 63 letters, digits, '.', '_' and '-'")
            # PostgreSQL stops at a restore point and knows no moment before it.
            inclusive = True
        case "xid":
            # PostgreSQL compares the 32 bits that are in the WAL, without the epoch.
            if not _XID.fullmatch(value) or int(value) > _NEWEST_XID:
                raise TargetError(
                    f"xid: found {value!r}, wanted a number from 1 to {_NEWEST_XID}, without its epoch"
                )
        case _:
            raise TargetError(f"type: found {kind!r}, wanted one of {', '.join(KINDS)}")
    return Target(kind, value, inclusive)


@dataclass(frozen=True)
class Place:
    """Where a target is: LSN in bytes, timeline, UTC."""

    lsn: int
    timeline: int
    time: datetime


@dataclass(frozen=True)
class RestorePlan:
    """What is going to be done. Sizes in bytes; ``wal_bytes`` and ``lost_bytes`` are None where the target is no place in the WAL."""

    cluster: str
    seed: str
    target: Target
    backup: Backup
    timeline: int
    size_bytes: int
    wal_bytes: int | None
    lost_bytes: int | None
    lost_seconds: float | None
    expected: Forecast

    @property
    def approved(self) -> dict[str, Any]:
        """What an approval is bound to."""
        return {
            "scenario": SCENARIO,
            "target": self.cluster,
            "system_identifier": self.backup.system_identifier,
            "recover_to": self.target.as_dict(),
            "backup": self.backup.name,
            "timeline": self.timeline,
            "seed": self.seed,
            "old_data_directory": "kept",
        }

    def lines(self) -> list[str]:
        """For people, in the order of their questions."""
        wal = "as much as it takes" if self.wal_bytes is None else f"{self.wal_bytes / 2**20:.0f} MiB"
        seconds = self.expected.seconds
        took = (
            "nobody can tell: no restore was proven yet (operate/restore_test.yml)"
            if seconds is None
            else f"about {seconds:.0f} s, by {self.expected.proofs} proven restores"
        )
        lost = [
            None if self.lost_seconds is None else f"{self.lost_seconds:.0f} s",
            None if self.lost_bytes is None else f"{self.lost_bytes / 2**20:.1f} MiB of WAL",
        ]
        given_up = ", ".join(each for each in lost if each) or "everything that was committed since"
        return [
            f"{self.cluster} goes back to {self.target.words}, on timeline {self.timeline}",
            f"  backup       {self.backup.name}, finished {moment(self.backup.finish_time)} on {self.backup.hostname}",
            f"  to fetch     {self.size_bytes / 2**20:.0f} MiB, and WAL from {lsn_text(self.backup.start_lsn)}: {wal}",
            f"  on           {self.seed}, beside the running cluster; the others are cloned from it afterwards",
            f"  takes        {took}, before anything is stopped",
            f"  given up     what was written after it: {given_up}",
            "  kept         the old data directory of every member, until operate/restore_confirm.yml",
        ]


def plan(
    found: Catalog,
    target: Target,
    *,
    cluster: str,
    seed: str,
    now: datetime,
    points: Sequence[Point] = (),
    records: Sequence[Mapping[str, Any]] = (),
    place: Place | None = None,
    backup: str = "",
    timeline: int | None = None,
) -> RestorePlan | Reason:
    """The plan, or the Reason why there is none. ``backup`` and ``timeline`` are an operator's own choice.

    ``place`` is where the target is in the WAL, for one that does not say so itself and whose place somebody wrote down.

    The newest backup before the target is taken. Where nobody can tell which one that is (a transaction, a name that was not
    recorded) one has to be named: a wrong guess ends hours later with a target that never came.
    """
    named = [point for point in points if point.name == target.value] if target.kind == "name" else []
    if named:
        place = Place(named[0].lsn, named[0].timeline, named[0].time)
    lsn = parse_lsn(target.value) if target.kind == "lsn" else place.lsn if place else None
    when = datetime.fromisoformat(target.value) if target.kind == "time" else place.time if place else None
    line = timeline or (place.timeline if place else found.top)
    usable = [one for one in found.backups if line is not None and found.reaches(one, line)]
    usable = [one for one in usable if found.window(one, line).recoverable]
    if not usable or line is None:
        words = f"no backup of the archive can be recovered along timeline {line}"
        return Reason("no_backup", words, [one.name for one in found.backups], line)
    if refusal := _in_the_archive(found, target, when, now):
        return refusal
    if backup:
        fit = [one for one in usable if one.name == backup]
        if not fit:
            words = f"{backup} is no backup that can be recovered along timeline {line}; there are: {_listed(usable)}"
            return Reason("backup_unknown", words, backup, [one.name for one in usable])
    elif lsn is None and when is None:
        words = f"nobody can tell which backup is before {target.words}; name one of: {_listed(usable)}"
        return Reason("backup_not_named", words, None, [one.name for one in usable])
    else:
        fit = usable
    before = [one for one in fit if _is_before(one, lsn, when)]
    if not before:
        words = f"{target.words} is before the end of every backup that could be taken: {_listed(fit)}"
        return Reason("target_too_early", words, target.value, moment(fit[0].finish_time))
    chosen = before[-1]
    if timeline is None and place is None and (refusal := _branches(found, chosen, line, lsn)):
        return refusal
    window = found.window(chosen, line)
    if refusal := _reached(window, target, lsn):
        return refusal
    known = {one.name: one for one in found.backups}
    size = sum(one.uncompressed_size for one in _chain(chosen, known))
    wal = None if lsn is None else max(lsn - chosen.start_lsn, 0)
    own = of_system(records, [chosen.system_identifier])
    return RestorePlan(
        cluster=cluster,
        seed=seed,
        target=target,
        backup=chosen,
        timeline=line,
        size_bytes=size,
        wal_bytes=wal,
        lost_bytes=None if lsn is None else max(window.end_lsn - lsn, 0),
        lost_seconds=None if when is None else max((now - when).total_seconds(), 0.0),
        expected=forecast(own, size, wal),
    )


def _in_the_archive(found: Catalog, target: Target, when: datetime | None, now: datetime) -> Reason | None:
    """A time that is still to come, or that the archive does not go up to: recovery would look for it in vain."""
    if target.kind != "time" or when is None:
        return None
    if when > now:
        words = f"{target.value} is still to come; it is {now.astimezone(UTC).isoformat(sep=' ', timespec='seconds')}"
        return Reason("target_in_future", words, target.value, now.isoformat())
    newest = found.newest_wal
    if newest is not None and when.timestamp() > newest.modified:
        last = moment(datetime.fromtimestamp(newest.modified, UTC))
        words = f"nothing was archived since {last}, which is before {target.value}: wait for the archive, or name an earlier time"
        return Reason("target_not_archived", words, target.value, last)
    return None


def _branches(found: Catalog, chosen: Backup, line: int, lsn: int | None) -> Reason | None:
    """A fork after the backup whose older branch went on, as a restore leaves it: one moment, or LSN, may then lie on two branches."""
    size = found.segment_bytes
    for branch, child in itertools.pairwise(found.lineage(line)):
        beyond = (
            s for s in found.segments if s.timeline == branch.timeline and s.number > child.begin_lsn // size
        )
        if child.begin_lsn >= chosen.finish_lsn and (lsn is None or lsn > child.begin_lsn) and any(beyond):
            words = (
                f"timeline {child.timeline} left {branch.timeline} at {lsn_text(child.begin_lsn)}, and {branch.timeline} went on: name the one "
                f"that the moment lies on ({branch.timeline} for what was given up then, {line} for what came after)"
            )
            return Reason("timeline_not_named", words, None, [branch.timeline, line])
    return None


def _reached(window: Window, target: Target, lsn: int | None) -> Reason | None:
    if lsn is not None and lsn >= window.end_lsn:
        gap = (
            f"; {window.missing_count} segments are missing, the first is {window.missing[0]}"
            if window.missing
            else ""
        )
        words = (
            f"{target.words} is at {lsn_text(lsn)}, and the archive ends at {lsn_text(window.end_lsn)}{gap}"
        )
        return Reason("target_not_archived", words, lsn_text(lsn), lsn_text(window.end_lsn))
    if lsn is None and window.missing:
        words = f"WAL is missing after {lsn_text(window.end_lsn)}, the first is {window.missing[0]}, and {target.words} may be behind it"
        return Reason("wal_missing", words, list(window.missing[:5]), [])
    return None


def _is_before(backup: Backup, lsn: int | None, when: datetime | None) -> bool:
    if lsn is not None and backup.finish_lsn > lsn:
        return False
    return lsn is not None or when is None or backup.finish_time < when


def _chain(backup: Backup, known: Mapping[str, Backup]) -> list[Backup]:
    """A backup and those it is a delta to; each once, whatever they say of each other."""
    chain = [backup]
    while (before := known.get(chain[-1].delta_from or "")) is not None and before not in chain:
        chain.append(before)
    return chain


def _listed(backups: Sequence[Backup]) -> str:
    return ", ".join(f"{one.name} ({moment(one.finish_time)})" for one in backups)
