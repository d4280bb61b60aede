# SPDX-License-Identifier: GPL-3.0-or-later
"""Feed a recorded journal to the code that decides, and compare. Pure.

Same decisions, or the first line that differs with the first field that does. A line is looked at in
this order: is it the line that was written (hash and marks), does it follow the one before (chain and
cycle number), does ``decide`` make the same of it (state, then actions).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import guard_journal, journal
from .plain import from_plain, to_plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .guard import Machine


@dataclass(frozen=True)
class Difference:
    """The first thing that is not as recorded. ``line`` from 1; ``field`` is a path in the record."""

    line: int
    field: str
    problem: str
    recorded: Any = None
    found: Any = None

    def __str__(self) -> str:
        """One line for people."""
        values = f": recorded {json.dumps(self.recorded)}, found {json.dumps(self.found)}"
        return (
            f"line {self.line}: {self.field}: {self.problem}{values if self.recorded != self.found else ''}"
        )


@dataclass(frozen=True)
class ReplayReport:
    """Outcome of :func:`replay`. ``first_seq`` is the number of the first record that was read."""

    cycles: int
    segments: int
    actions: int
    first_seq: int | None
    last_seq: int | None
    difference: Difference | None

    @property
    def ok(self) -> bool:
        """Whether every decision was made again. A journal without one proves nothing and is not ok."""
        return self.difference is None and self.cycles > 0

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON output."""
        difference = None if self.difference is None else {**vars(self.difference)}
        counts = {"cycles": self.cycles, "segments": self.segments, "actions": self.actions}
        return {
            "ok": self.ok,
            **counts,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "difference": difference,
        }


class _StopError(Exception):
    def __init__(self, field: str, problem: str, recorded: Any = None, found: Any = None) -> None:
        super().__init__(problem)
        self.details = (field, problem, recorded, found)


def first_difference(recorded: Any, found: Any, path: str) -> tuple[str, Any, Any] | None:
    """Path and both values where two JSON values first differ; None if they are equal."""
    if isinstance(recorded, Mapping) and isinstance(found, Mapping):
        for key in sorted({*recorded, *found}):
            deeper = first_difference(recorded.get(key), found.get(key), f"{path}.{key}")
            if deeper or (key in recorded) != (key in found):
                return deeper or (f"{path}.{key}", recorded.get(key), found.get(key))
        return None
    if isinstance(recorded, list) and isinstance(found, list):
        for number in range(max(len(recorded), len(found))):
            old = recorded[number] if number < len(recorded) else None
            new = found[number] if number < len(found) else None
            deeper = first_difference(old, new, f"{path}[{number}]")
            if deeper:
                return deeper
        return None
    # 1 == True and 1 == 1.0 in Python; in JSON only the latter are the same number.
    same = recorded == found and isinstance(recorded, bool) == isinstance(found, bool)
    return None if same else (path, recorded, found)


class _Replay:
    def __init__(self, machine: Machine[Any, Any, Any]) -> None:
        self.machine = machine
        self.head: journal.Head | None = None
        self.first_seq: int | None = None
        self.state: Any = None
        self.policy: Any = None
        self.run_id: Any = None
        self.next_cycle: int | None = None
        self.cycles = self.segments = self.actions = 0

    def line(self, text: str) -> None:
        record = self._record(text)
        event = record["event"]
        if event in guard_journal.MARKED:
            path = guard_journal.altered(event, record)
            if path is not None:
                raise _StopError(path, "is not the value that was recorded", None, _value_at(record, path))
        try:
            if event == guard_journal.SEGMENT:
                self._segment(record)
            elif event == guard_journal.CYCLE:
                self._cycle(record)
        except (ValueError, KeyError, TypeError) as error:
            raise _StopError("record", f"cannot be read by this release: {error}") from error

    def _record(self, text: str) -> dict[str, Any]:
        try:
            record = journal.parse_record(text)
        except journal.JournalError as error:
            path = _altered_in(text)
            raise _StopError(path or "record", str(error)) from error
        if self.head is None:
            # A rotated file or an excerpt begins wherever it begins; the report says where.
            self.head = journal.Head(record["seq"] - 1, record["prev_sha256"])
            self.first_seq = record["seq"]
        try:
            journal.check_link(self.head, record)
        except journal.JournalError as error:
            raise _StopError("seq", str(error)) from error
        self.head = journal.head_of(record)
        return record

    def _segment(self, record: Mapping[str, Any]) -> None:
        if record["format"] != guard_journal.FORMAT:
            raise _StopError("format", "written in another format", record["format"], guard_journal.FORMAT)
        self.state = from_plain(self.machine.state_type, record["state"])
        self.policy = from_plain(self.machine.policy_type, record["policy"])
        self.run_id = record["run_id"]
        self.next_cycle = record["cycle"]
        self.segments += 1

    def _cycle(self, record: Mapping[str, Any]) -> None:
        if self.next_cycle is None:
            raise _StopError("cycle", "no segment before it says what the state was")
        if (record["run_id"], record["cycle"]) != (self.run_id, self.next_cycle):
            raise _StopError("cycle", "does not follow", record["cycle"], self.next_cycle)
        observation = from_plain(self.machine.observation_type, record["observation"])
        expected = {**to_plain(self.state), **record["state_changes"]}
        self.state, actions = self.machine.decide(self.state, observation, record["now"], self.policy)
        found = {"state": to_plain(self.state), "actions": to_plain(actions)}
        recorded = {"state": expected, "actions": record["actions"]}
        for key in ("state", "actions"):
            difference = first_difference(recorded[key], found[key], key)
            if difference:
                raise _StopError(difference[0], "decided otherwise", *difference[1:])
        self.next_cycle += 1
        self.cycles += 1
        self.actions += len(actions)


def _value_at(record: Mapping[str, Any], path: str) -> Any:
    return next((v for p, v in guard_journal.leaves(record) if p == path), None)


def _altered_in(text: str) -> str | None:
    """Which field of a line whose hash does not hold was altered, if its marks tell."""
    try:
        record = json.loads(text)
        if record.get("event") in guard_journal.MARKED:
            return guard_journal.altered(record["event"], record)
    except (ValueError, AttributeError, journal.JournalError):
        return None
    return None


def replay(lines: Iterable[str], machine: Machine[Any, Any, Any]) -> ReplayReport:
    """Make every recorded decision again and stop at the first that differs."""
    run = _Replay(machine)
    difference = None
    for number, text in enumerate(lines, start=1):
        try:
            run.line(text)
        except _StopError as stop:
            difference = Difference(number, *stop.details)
            break
    last = run.head.seq if run.head else None
    return ReplayReport(run.cycles, run.segments, run.actions, run.first_seq, last, difference)
