# SPDX-License-Identifier: GPL-3.0-or-later
"""What retention is asked for, what it comes to, and whether WAL-G means the same. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .backup_catalog import BACKUPS, SENTINEL, moment
from .restore_proof import chain, proven
from .verdict import Health, Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from .backup_catalog import Backup, Catalog

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
    maximum_age_seconds: nothing is deleted when the newest good backup is older: what there is may be all there will be.
    proof_wanted: nothing is deleted unless a backup that is left was proven by a restore test.
    """

    wal_seconds: float = 7 * 86400.0
    snapshot_seconds: float = 86400.0
    daily_seconds: float = 7 * 86400.0
    monthly: bool = True
    minimum_full: int = 2
    unfinished_seconds: float = 86400.0
    maximum_age_seconds: float = 172800.0
    proof_wanted: bool = True

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
    """Backups by what the last restore test that could tell found of them, or of one that is a delta upon them."""

    failed: frozenset[str] = frozenset()
    proven: frozenset[str] = frozenset()


def proofs_of(records: Iterable[Mapping[str, Any]], found: Catalog) -> Proofs:
    """By the records of restore tests, oldest first: a test reads all that its backup is a delta upon."""
    known = {backup.name: backup for backup in found.backups}
    last: dict[str, bool] = {}
    for record in records:
        name = str((record.get("evidence") or {}).get("backup"))
        if record.get("verdict") != Health.UNKNOWN.value and name in known:
            last |= {one.name: proven(record) for one in chain(found, known[name])}
    return Proofs(
        *(frozenset(name for name, good in last.items() if good is wanted) for wanted in (False, True))
    )


def would_delete(output: str) -> list[str]:
    """Names of objects in the words of WAL-G's dry run."""
    return re.findall(r"will be deleted:\s+(\S+)", output)


def check_dry_run(planned: RetentionPlan, names: Sequence[str], known: Collection[str]) -> Reason | None:
    """Whether WAL-G means what was planned: it may delete nothing that has to stay, or that we do not know, and has to delete what goes."""
    strange = sorted(set(names) - set(known))
    if strange:
        words = f"WAL-G would delete {strange[0]}, which was not there when the archive was looked at; run it again"
        return Reason("would_delete_unseen", words, len(strange), 0)
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
