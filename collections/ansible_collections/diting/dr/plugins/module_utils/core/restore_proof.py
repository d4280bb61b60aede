# SPDX-License-Identifier: GPL-3.0-or-later
"""What to restore for a proof, what the restore proved, and how long one of production's size would take. Pure.

A proof is a restore from the archive to a moment whose content was recorded on the source: the target was reached, not merely a
consistent state, and every named table holds what it held then.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .backup_content import findings as content_findings
from .restore_sql import SENTINEL
from .verdict import Health, Judgement, Reason, worst
from .wal_names import lsn_text, parse_lsn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from random import Random

    from .backup_catalog import Backup, Catalog
    from .backup_content import Content

TARGETS = ("name", "lsn", "time")
PHASES = ("space", "fetch", "replay", "compare", "promote", "amcheck", "stop", "checksums")
"""In this order; ``teardown`` comes last whatever happened."""
OPTIONAL = frozenset({"amcheck", "checksums"})
NOT_THE_BACKUP = frozenset(
    {
        "no_space",
        "program_missing",
        "program_failed",
        "host_failed",
        "tablespaces",
        "key_absent",
        "key_wrong",
        "store_silent",
        "late",
        "interrupted",
    }
)
"""Reasons that lie with the store, this host or its operator."""
_CLOCK_SECONDS = 5.0
"""A record's clock and the judge's may differ by so much."""
_MEMORY = 10
"""So many proofs before are asked for their speed."""
_TELLING_BYTES = 64 * 2**20
"""A replay of less WAL than this takes the time of starting a server, and tells no speed."""


class PointError(Exception):
    """A recorded point does not say what it should; the message names it."""


@dataclass(frozen=True)
class Digest:
    """A table as it was: number of rows, and the sum of their hashes (:func:`.restore_sql.digest`)."""

    database: str
    table: str
    rows: int
    digest: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.database}:{self.table}"

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Digest:
        """From plain values. Raises KeyError, TypeError or ValueError."""
        return cls(str(plain["database"]), str(plain["table"]), int(plain["rows"]), str(plain["digest"]))


@dataclass(frozen=True)
class Point:
    """A moment of the source: ``lsn`` is the end of its restore point's record, in bytes; ``time`` is UTC."""

    name: str
    timeline: int
    lsn: int
    time: datetime
    tables: tuple[Digest, ...]

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Point:
        """From what the module ``recovery_point`` returns. Raises PointError."""
        try:
            tables = tuple(Digest.read(one) for one in plain["tables"])
            when = _moment(str(plain["time"]))
            found = cls(
                str(plain["name"]), int(plain["timeline"]), parse_lsn(str(plain["lsn"])), when, tables
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PointError(f"point {plain.get('name', '(no name)')}: {error!r}") from error
        if not tables:
            raise PointError(f"point {found.name}: no table was recorded with it")
        return found

    def target(self, kind: str) -> str:
        """The point in the words of ``recovery_target_<kind>``."""
        match kind:
            case "name":
                return self.name
            case "lsn":
                return lsn_text(self.lsn)
            case _:
                return self.time.isoformat(sep=" ", timespec="microseconds")


def _moment(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return when.astimezone(UTC)


@dataclass(frozen=True)
class Choice:
    """What is to be proven. ``recorded`` counts the points that could have been taken."""

    backup: Backup
    point: Point
    kind: str
    recorded: int


def choose(found: Catalog, points: Sequence[Point], turn: int, rng: Random) -> Choice | Reason:
    """The newest backup, at every other turn an older one; one of its points, and a way to name it, by lot.

    Only points whose WAL is archived to the end of their segment count. A Reason says why there is nothing to be proven.
    """
    usable = [backup for backup in found.backups if found.window(backup).recoverable]
    if not usable:
        return Reason("no_backup", "no backup of the archive can be recovered", 0, 1)
    order = [usable[-1]]
    if turn % 2 and len(usable) > 1:
        order.insert(0, rng.choice(usable[:-1]))
    for backup in order:
        within = [point for point in points if _within(found, backup, point)]
        if within:
            return Choice(backup, rng.choice(within), rng.choice(TARGETS), len(within))
    newest = usable[-1]
    window = found.window(newest)
    words = (
        f"none of {len(points)} recorded points lies in what can be recovered from {newest.name} "
        f"({lsn_text(newest.finish_lsn)} to {lsn_text(window.end_lsn)} of timeline {window.timeline})"
    )
    return Reason("no_point", words, len(points), 1)


def _within(found: Catalog, backup: Backup, point: Point) -> bool:
    if not found.reaches(backup, point.timeline):
        return False
    window = found.window(backup, point.timeline)
    return max(window.begin_lsn, backup.finish_lsn) < point.lsn < window.end_lsn


def chain(found: Catalog, backup: Backup) -> list[Backup]:
    """The backup, and those that it is a delta upon, newest first."""
    known = {one.name: one for one in found.backups}
    bases, name = [backup], backup.delta_from
    while name in known and known[name] not in bases:
        bases.append(known[name])
        name = known[name].delta_from
    return bases


def judge(
    facts: Mapping[str, Any], point: Point, now: datetime, content: Content | Reason | None
) -> Judgement:
    """What the facts of a restore prove. Facts that are not there prove nothing.

    ``content`` is what reading the backup's own objects found, a Reason why they could not be, or None where nobody tried.
    """
    findings: list[tuple[Health, Reason]] = []
    phases = {str(phase.get("name")): phase for phase in facts.get("phases", ())}
    failed = [
        name for name in PHASES if name in phases and phases[name].get("status") not in ("ok", "skipped")
    ]
    for name in PHASES:
        phase = phases.get(name)
        if phase is None:
            # What did not follow upon a failure is not blamed, and nothing else excuses it.
            if not failed:
                words = f"the restore ended before its phase {name}, and nothing says why"
                findings.append((Health.UNKNOWN, Reason("not_to_the_end", words, None, name)))
            break
        if phase.get("status") == "skipped" and name in OPTIONAL:
            findings.append((Health.DEGRADED, Reason(f"{name}_skipped", f"{name}: {phase.get('words', '')}")))
        elif "status" not in phase:
            words = f"the restore was ended in its phase {name}, from outside"
            findings.append((Health.UNKNOWN, Reason("not_to_the_end", words, None, name)))
        elif phase["status"] != "ok":
            findings.append(_broken(name, phase))
    if not failed and set(PHASES) <= set(phases) and not facts.get("complete"):
        words = "the restore did not say that it came to its end"
        findings.append((Health.UNKNOWN, Reason("not_to_the_end", words, None, "complete")))
    if "compare" in phases:
        findings += _tables(facts, point, missing=phases["compare"].get("status") == "ok")
        if {table.table for table in point.tables} <= {SENTINEL}:
            words = "no table of anybody's was recorded with the point: only that rows come back was proven, not whose"
            findings.append((Health.DEGRADED, Reason("only_sentinel_compared", words, 0, 1)))
    if content is not None or all(health is not Health.UNKNOWN for health, _reason in findings):
        findings += _content(content)
    if not facts.get("torn_down"):
        words = f"the scratch instance was not taken away: {facts.get('torn_down_words') or 'nobody said so'}"
        findings.append((Health.DEGRADED, Reason("scratch_left", words, facts.get("root"))))
    health = worst(*(finding[0] for finding in findings)) if findings else Health.HEALTHY
    findings.sort(key=lambda finding: (Health.UNHEALTHY, Health.UNKNOWN, Health.DEGRADED).index(finding[0]))
    return Judgement(
        health, tuple(reason for _health, reason in findings), _evidence(facts, point, now, content)
    )


def _content(content: Content | Reason | None) -> list[tuple[Health, Reason]]:
    """Damage fails a restore that went well too: WAL-G does not heed the checksum of what it unpacks.

    What PostgreSQL keeps a checksum of is seen on the copy, and a wrong byte in the rest nowhere else. That somebody could not
    look takes nothing from what the restore itself proved.
    """
    if content is None:
        words = "the objects of the backup were not read by ordinary programs: a wrong byte outside of tables is not excluded"
        return [(Health.DEGRADED, Reason("content_not_read", words))]
    if isinstance(content, Reason):
        return [(Health.DEGRADED, content)]
    bad = Health.UNHEALTHY
    return [
        (bad if health is bad else Health.DEGRADED, reason) for health, reason in content_findings(content)
    ]


def _broken(name: str, phase: Mapping[str, Any]) -> tuple[Health, Reason]:
    # That the store did not answer, or this host had no room, says nothing of the backup.
    code = str(phase.get("code") or f"{name}_failed")
    health = Health.UNKNOWN if code in NOT_THE_BACKUP else Health.UNHEALTHY
    return health, Reason(
        code, f"{name}: {phase.get('words', '')}", phase.get("observed"), phase.get("limit")
    )


def _tables(facts: Mapping[str, Any], point: Point, *, missing: bool) -> list[tuple[Health, Reason]]:
    """Each table that does not hold what was recorded, and each that nobody looked at."""
    try:
        found = {one.name: one for one in map(Digest.read, facts.get("tables", ()))}
    except (KeyError, TypeError, ValueError) as error:
        return [(Health.UNKNOWN, Reason("tables_unreadable", f"the digests cannot be understood: {error!r}"))]
    findings = []
    for wanted in point.tables:
        have = found.get(wanted.name)
        if have is None:
            if not missing:
                continue  # why it was not is told already
            words = f"{wanted.name} was recorded and not looked at"
            findings.append((Health.UNKNOWN, Reason("table_not_compared", words, None, wanted.rows)))
        elif have.rows != wanted.rows:
            words = f"{wanted.name} has {have.rows} rows, and had {wanted.rows} at {point.name}"
            findings.append((Health.UNHEALTHY, Reason("rows_differ", words, have.rows, wanted.rows)))
        elif have.digest != wanted.digest:
            words = f"{wanted.name} has as many rows as it had at {point.name}, and not the same ones"
            findings.append((Health.UNHEALTHY, Reason("digest_differs", words, have.digest, wanted.digest)))
    return findings


def seconds_of(facts: Mapping[str, Any], name: str) -> float | None:
    """How long one phase took; None when it did not end well."""
    for phase in facts.get("phases", ()):
        if phase.get("name") == name and phase.get("status") == "ok":
            return float(phase["seconds"])
    return None


def _evidence(
    facts: Mapping[str, Any], point: Point, now: datetime, content: Content | Reason | None
) -> dict[str, Any]:
    fetch, replay = seconds_of(facts, "fetch"), seconds_of(facts, "replay")
    size, wal = facts.get("size_bytes"), facts.get("wal_bytes")
    return {
        "id": facts.get("id"),
        "backup": facts.get("backup"),
        "point": point.name,
        "point_age_seconds": round((now - point.time).total_seconds(), 1),
        "target_type": facts.get("target_type"),
        "target": facts.get("target"),
        "size_bytes": size,
        "wal_bytes": wal,
        "fetch_bytes_per_second": round(size / fetch) if fetch and size else None,
        "replay_bytes_per_second": round(wal / replay) if replay and wal else None,
        "phases": {str(p.get("name")): p.get("seconds") for p in facts.get("phases", ())},
        "tables": len(point.tables),
        "rows": sum(table.rows for table in point.tables),
        "content": None if content is None or isinstance(content, Reason) else content.as_dict(),
    }


def proven(record: Mapping[str, Any]) -> bool:
    """Whether a kept record is that of a proof: a restore that was UNHEALTHY, or that nobody saw the end of, is none."""
    return record.get("verdict") in (Health.HEALTHY.value, Health.DEGRADED.value)


def of_system(records: Sequence[Mapping[str, Any]], systems: Iterable[str]) -> list[Mapping[str, Any]]:
    """The records of these clusters, by their system identifiers: another cluster's proof proves nothing of this one."""
    known = set(systems)
    return [record for record in records if record.get("system_identifier") in known]


def _backup_of(record: Mapping[str, Any]) -> str:
    return str((record.get("evidence") or {}).get("backup") or "an archive without a backup")


def proof_findings(
    records: Sequence[Mapping[str, Any]], max_age_seconds: float, now: datetime, backups: Iterable[str] = ()
) -> list[tuple[Health, Reason]]:
    """What the records of restore tests, oldest first, say against an archive: no proof, an old one, or a test that failed.

    A test that could not look says nothing, and takes nothing back. ``backups`` are the names that the archive has: the last word
    on each of them counts, whatever was found of others since.
    """
    findings: list[tuple[Health, Reason]] = []
    proofs = [record for record in records if proven(record)]
    if not proofs:
        words = f"no restore of it was ever proven, in {len(records)} tests"
        findings.append((Health.UNHEALTHY, Reason("no_proof", words, 0, 1)))
    else:
        age = round(now.timestamp() - float(proofs[-1]["ended"]), 1)
        if age > max_age_seconds:
            words = f"the last proven restore was {age:.0f} s ago, wanted at most {max_age_seconds:.0f} s"
            findings.append((Health.UNHEALTHY, Reason("proof_old", words, age, max_age_seconds)))
        elif age < -_CLOCK_SECONDS:
            words = f"the last proven restore ended {-age:.0f} s in the future by this clock"
            findings.append((Health.UNKNOWN, Reason("clock_differs", words, age, 0)))
    telling = [record for record in records if record.get("verdict") != Health.UNKNOWN.value]
    last = {_backup_of(record): record for record in telling}
    wanted = {*backups, _backup_of(telling[-1])} if telling else set()
    for name in sorted(wanted & set(last)):
        if last[name].get("verdict") == Health.UNHEALTHY.value:
            said = "; ".join(str(reason.get("message")) for reason in last[name].get("reasons", ())[:3])
            words = f"the last restore test of {name} ({last[name].get('id')}) found that it cannot be restored: {said}"
            findings.append((Health.UNHEALTHY, Reason("restore_failed", words, last[name].get("id"), None)))
    return findings


@dataclass(frozen=True)
class Forecast:
    """How long a restore to service would take: fetch, replay and promotion, without the checks. Seconds; None is "cannot tell"."""

    size_bytes: int
    wal_bytes: int
    seconds: float | None
    proofs: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "size_bytes": self.size_bytes,
            "wal_bytes": self.wal_bytes,
            "seconds": self.seconds,
            "proofs": self.proofs,
        }


def forecast(records: Sequence[Mapping[str, Any]], size_bytes: int, wal_bytes: int | None) -> Forecast:
    """From the proofs before, newest last: the median speed of fetch and of replay, and the median time of a promotion.

    A fetch is taken to be as long as its size and a replay as its WAL, which leaves out what each costs at least: a proof of a small
    copy makes the forecast of a large one too long rather than too short. Without ``wal_bytes`` it is as much as in the last proof.
    """
    good = [record for record in records if proven(record)][-_MEMORY:]
    rows = []
    for record in good:
        evidence = record.get("evidence", {})
        phases = evidence.get("phases", {})
        if evidence.get("size_bytes") and phases.get("fetch") and phases.get("replay") is not None:
            rows.append((evidence, phases))
    wal = wal_bytes if wal_bytes is not None else int(rows[-1][0].get("wal_bytes") or 0) if rows else 0
    if not rows:
        return Forecast(size_bytes, wal, None, 0)
    fetch = statistics.median(phases["fetch"] / evidence["size_bytes"] for evidence, phases in rows)
    telling = [p["replay"] / e["wal_bytes"] for e, p in rows if (e.get("wal_bytes") or 0) >= _TELLING_BYTES]
    started = min(float(phases["replay"]) for _one, phases in rows)
    replay = statistics.median(telling) * wal if telling else started
    promote = statistics.median(float(phases.get("promote") or 0.0) for _one, phases in rows)
    return Forecast(size_bytes, wal, round(fetch * size_bytes + max(replay, started) + promote, 1), len(rows))


def forecast_errors(records: Sequence[Mapping[str, Any]]) -> list[float]:
    """Of each proof that had a forecast for its own size: how much longer (+) or shorter it took, as a share of the forecast."""
    errors = []
    for record in records:
        expected = (record.get("expected") or {}).get("seconds")
        phases = record.get("evidence", {}).get("phases", {})
        parts = [phases.get(name) for name in ("fetch", "replay", "promote")]
        if expected and proven(record) and None not in parts:
            errors.append(round(sum(parts) / expected - 1, 3))
    return errors
