# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate remembers, as a fold over its journal. Pure.

The memory (open runs, breakers) follows from the journal's records alone: :func:`apply` is the
only way it changes. ``state.json`` merely saves reading the whole journal each time, so a crash
between the two files loses nothing, and a lost state file is rebuilt instead of forgotten.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from . import journal
from .breaker import Breaker, Outcome, after_automated_run, after_persons_run, parse_breaker

STATE_VERSION = 1


class Kind(enum.Enum):
    """What a request wants to do. REVERT and CLEANUP undo a drill's fault and always pass."""

    RECOVER = "recover"
    OPERATE = "operate"
    DRILL = "drill"
    REVERT = "revert"
    CLEANUP = "cleanup"

    @property
    def is_undo(self) -> bool:
        """Whether the request takes something back that a drill did."""
        return self in {Kind.REVERT, Kind.CLEANUP}


class Trigger(enum.Enum):
    """Who set the request off."""

    AUTOMATED = "automated"
    PERSON = "person"
    DRILL = "drill"


@dataclass(frozen=True)
class Unreadable:
    """Stands where something could not be read. Never taken for "nothing there"."""

    problem: str


@dataclass(frozen=True)
class Lever:
    """The stop-all lever is pulled. ``by`` and ``reason`` may be unknown: an empty file pulls it too."""

    at: datetime | None
    by: str
    reason: str


@dataclass(frozen=True)
class Pause:
    """A maintenance window: automation and drills wait until ``until``, which passes by itself."""

    until: datetime
    at: datetime
    by: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        """JSON form, which :func:`parse_pause` reads."""
        return {
            "until": journal.utc_text(self.until),
            "at": journal.utc_text(self.at),
            "by": self.by,
            "reason": self.reason,
        }


def parse_pause(data: Mapping[str, Any]) -> Pause:
    """Reads :meth:`Pause.as_dict`. Raises KeyError, TypeError or ValueError for anything else."""
    return Pause(
        journal.parse_utc(data["until"]), journal.parse_utc(data["at"]), str(data["by"]), str(data["reason"])
    )


@dataclass(frozen=True)
class Run:
    """A run that was let through and has not reported back. After ``due_at`` it is inconclusive."""

    incident_id: str
    scenario: str
    target: str
    trigger: Trigger
    actor: str
    allowed_at: datetime
    due_at: datetime

    @property
    def key(self) -> tuple[str, str]:
        """The breaker that this run speaks to."""
        return (self.scenario, self.target)

    def as_dict(self) -> dict[str, str]:
        """JSON form."""
        return {
            "incident_id": self.incident_id,
            "scenario": self.scenario,
            "target": self.target,
            "trigger": self.trigger.value,
            "actor": self.actor,
            "allowed_at": journal.utc_text(self.allowed_at),
            "due_at": journal.utc_text(self.due_at),
        }


def _parse_run(data: Mapping[str, Any]) -> Run:
    return Run(
        str(data["incident_id"]),
        str(data["scenario"]),
        str(data["target"]),
        Trigger(data["trigger"]),
        str(data["actor"]),
        journal.parse_utc(data["allowed_at"]),
        journal.parse_utc(data["due_at"]),
    )


@dataclass(frozen=True)
class Memory:
    """Open runs and breakers, and the journal record up to which they hold."""

    runs: tuple[Run, ...] = ()
    breakers: Mapping[tuple[str, str], Breaker] = field(default_factory=dict)
    head: journal.Head = field(default_factory=journal.Head)
    offset_bytes: int = 0

    def breaker(self, scenario: str, target: str) -> Breaker:
        """The breaker of a scenario and target; a closed one if nothing was recorded yet."""
        return self.breakers.get((scenario, target), Breaker())

    def overdue(self, now: datetime) -> tuple[Run, ...]:
        """Runs that had their time and said nothing."""
        return tuple(run for run in self.runs if now >= run.due_at)

    def superseded_by(self, incident_id: str, scenario: str, target: str) -> tuple[Run, ...]:
        """Runs that a new one for the same thing leaves behind without an outcome.

        A daemon that asks, crashes and asks again thereby trips its breaker instead of looping.
        """
        return tuple(
            run
            for run in self.runs
            if run.key == (scenario, target)
            and (run.trigger is Trigger.AUTOMATED or run.incident_id == incident_id)
        )

    def open_run(self, incident_id: str, scenario: str, target: str) -> Run | None:
        """The run that a completion belongs to."""
        wanted = (incident_id, scenario, target)
        return next((r for r in self.runs if (r.incident_id, *r.key) == wanted), None)

    def as_dict(self) -> dict[str, Any]:
        """The content of ``state.json``, which :func:`parse_memory` reads."""
        return {
            "schema_version": STATE_VERSION,
            "runs": [run.as_dict() for run in self.runs],
            "breakers": [
                {"scenario": scenario, "target": target, **breaker.as_dict()}
                for (scenario, target), breaker in sorted(self.breakers.items())
            ],
            "journal": {
                "seq": self.head.seq,
                "sha256": self.head.sha256,
                "offset_bytes": self.offset_bytes,
            },
        }


@dataclass(frozen=True)
class GateState:
    """All that a decision looks at, besides policy and request."""

    lever: Lever | None = None
    pause: Pause | Unreadable | None = None
    memory: Memory | Unreadable = field(default_factory=Memory)


def parse_memory(data: object) -> Memory:
    """Reads :meth:`Memory.as_dict`. Raises :class:`ValueError` for anything else."""
    if not isinstance(data, Mapping):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of error for one kind of trouble
    if data.get("schema_version") != STATE_VERSION:
        raise ValueError(f"schema_version {data.get('schema_version')!r}, wanted {STATE_VERSION}")
    try:
        place = data["journal"]
        return Memory(
            tuple(_parse_run(run) for run in data["runs"]),
            {(str(b["scenario"]), str(b["target"])): parse_breaker(b) for b in data["breakers"]},
            journal.Head(int(place["seq"]), str(place["sha256"])),
            int(place["offset_bytes"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def outcome_fields(
    *,
    incident_id: str,
    scenario: str,
    target: str,
    outcome: Outcome,
    detail: str,
    failures: int,
    window_seconds: int,
) -> dict[str, Any]:
    """Fields of the ``outcome`` record that closes a run; the breaker's numbers are part of it.

    They are recorded so that a rebuilt state obeys the policy of that day, not of today.
    """
    return {
        "incident_id": incident_id,
        "scenario": scenario,
        "target": target,
        "outcome": outcome.value,
        "detail": detail,
        "breaker": {"failures": failures, "window_seconds": window_seconds},
    }


def apply(memory: Memory, record: Mapping[str, Any]) -> Memory:
    """The memory after one journal record. Records that say nothing about it only move the head.

    Raises :class:`ValueError` if a record of ours lacks what it must have.
    """
    moved = replace(memory, head=journal.head_of(record))
    try:
        if record["event"] == "decision" and record.get("run"):
            run = _parse_run(record["run"])
            return replace(moved, runs=(*moved.runs, run))
        if record["event"] == "outcome":
            return _close(moved, record)
        if record["event"] == "breaker_reset":
            key = (record["scenario"], record["target"])
            return replace(moved, breakers={k: b for k, b in moved.breakers.items() if k != key})
        if record["event"] == "journal_started_anew":
            # The old journal was set aside as broken; what it had taught must not be lost with it.
            carried = parse_memory(record["memory"])
            return replace(moved, runs=carried.runs, breakers=carried.breakers)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"record {record['seq']}: {type(error).__name__}: {error}") from error
    return moved


def _close(memory: Memory, record: Mapping[str, Any]) -> Memory:
    run = memory.open_run(record["incident_id"], record["scenario"], record["target"])
    if run is None:
        return memory
    outcome = Outcome(record["outcome"])
    before = memory.breaker(*run.key)
    if run.trigger is Trigger.AUTOMATED:
        after = after_automated_run(
            before,
            outcome,
            at=journal.parse_utc(record["ts"]),
            incident_id=run.incident_id,
            limit=record["breaker"]["failures"],
            window_seconds=record["breaker"]["window_seconds"],
        )
    elif run.trigger is Trigger.PERSON:
        after = after_persons_run(before, outcome)
    else:
        after = before
    breakers = {k: b for k, b in memory.breakers.items() if k != run.key}
    if after != Breaker():
        breakers[run.key] = after
    return replace(memory, runs=tuple(r for r in memory.runs if r is not run), breakers=breakers)


def rebuild(records: Iterable[Mapping[str, Any]]) -> Memory:
    """The memory that a whole journal amounts to."""
    memory = Memory()
    for record in records:
        memory = apply(memory, record)
    return memory


def run_for(
    *,
    incident_id: str,
    scenario: str,
    target: str,
    trigger: Trigger,
    actor: str,
    now: datetime,
    run_seconds: int,
) -> Run:
    """A run that is let through ``now`` and owes its outcome within ``run_seconds``."""
    return Run(incident_id, scenario, target, trigger, actor, now, now + timedelta(seconds=run_seconds))
