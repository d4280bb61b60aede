# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a guard's cycles goes into its journal, so that a replay is exact and peace costs nothing. Pure.

Two kinds of records matter to a replay. A ``segment`` holds the full state and the policy; every
``cycle`` after it follows without a gap, so that only what it changed of the state is written. While
a guard is steady and nothing changes, its cycles stay in memory, the newest few; they are written
once it leaves that state, so that the journal shows what came before. Whatever was dropped in
between is bridged by a new segment.

Each of these records carries ``marks``: four hex digits of the hash of every value in it, in the order of
their paths. The chain's hash says *that* a record was altered, the marks say *which* value.
"""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import journal
from .plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
"""Raised when a replay must read these records in another way."""

SEGMENT = "segment"
CYCLE = "cycle"
MARKED: Mapping[str, tuple[str, ...]] = {SEGMENT: ("policy", "state"), CYCLE: ("now", "observation")}
"""Fields of each kind of record that its marks cover: what the replay feeds to the machine."""

_MARK_DIGITS = 4


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value inside ``value`` with its path (``a.b[0]``), in one order for equal JSON."""
    if isinstance(value, Mapping) and value:
        for key in sorted(value):
            yield from leaves(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)) and value:
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}[{number}]")
    else:
        yield path, value


def _mark(path: str, value: Any) -> str:
    # From cycle to cycle most values stay. What has no hash is an empty list or object; and 0.0 is equal to -0.0.
    return _fresh_mark(path, value) if value in ([], {}, 0) else _known_mark(path, value)


@functools.lru_cache(maxsize=2048, typed=True)
def _known_mark(path: str, value: Any) -> str:
    return _fresh_mark(path, value)


def _fresh_mark(path: str, value: Any) -> str:
    return hashlib.sha256(journal.canonical_json([path, value]).encode("ascii")).hexdigest()[:_MARK_DIGITS]


def marks_of(event: str, fields: Mapping[str, Any]) -> str:
    """The marks that a record of this kind and content carries."""
    return "".join(_mark(path, value) for path, value in leaves({k: fields[k] for k in MARKED[event]}))


def altered(event: str, record: Mapping[str, Any]) -> str | None:
    """Path of the first value that is not the one its mark was made of; None if all are."""
    known = str(record.get("marks", ""))
    found = list(leaves({key: record.get(key) for key in MARKED[event]}))
    for number, (path, value) in enumerate(found):
        if known[number * _MARK_DIGITS : (number + 1) * _MARK_DIGITS] != _mark(path, value):
            added = len(found) * _MARK_DIGITS != len(known)
            return f"{path} (or a field near it was added or removed)" if added else path
    return "a field that was removed" if len(found) * _MARK_DIGITS < len(known) else None


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``after`` that differ from ``before``; both have the same ones."""
    return {key: value for key, value in after.items() if key not in before or before[key] != value}


@dataclass(frozen=True)
class Cycle:
    """One finished decision. ``quiet``: steady before and after, and nothing to do.

    It keeps the frozen values themselves: most cycles are quiet and never become JSON.
    """

    number: int
    now: float
    before: Any
    observation: Any
    after: Any
    phase: str
    actions: tuple[Any, ...]
    signature: Any
    quiet: bool
    incident_id: str | None
    trace_id: str

    def fields(self, run_id: str) -> dict[str, Any]:
        """The record's fields."""
        fields = {
            "run_id": run_id,
            "cycle": self.number,
            "now": self.now,
            "observation": to_plain(self.observation),
            "phase": self.phase,
            "state_changes": changes(to_plain(self.before), to_plain(self.after)),
            "actions": to_plain(self.actions),
            "incident_id": self.incident_id,
            "trace_id": self.trace_id,
        }
        return {**fields, "marks": marks_of(CYCLE, fields)}


class Recorder:
    """Chooses what to write. :meth:`take` gives the records of a cycle, often none.

    Nothing is remembered until :meth:`done` is called: a cycle whose records a full disk refused never
    happened, and must not leave a gap that the journal does not show.
    """

    def __init__(self, guard: str, run_id: str, policy: Mapping[str, Any], version: str, recent: int) -> None:
        self._guard = guard
        self._run_id = run_id
        self._policy = policy
        self._version = version
        self._recent: deque[Cycle] = deque(maxlen=recent)
        self._last_written: int | None = None
        self._last_signature: Any = None
        self._why = "start"

    def wants(self, cycle: Cycle) -> bool:
        """Whether ``cycle`` is worth a record; in peace only what has changed is."""
        changed = self._last_written is None or cycle.signature != self._last_signature
        return changed or not cycle.quiet

    def take(self, cycle: Cycle) -> Iterator[tuple[str, dict[str, Any]]]:
        """Records to append for ``cycle``, its predecessors in memory included; none in peace.

        One at a time: whoever writes them need not hold all of them, which is what a guard's memory would keep for good.
        """
        if not self.wants(cycle):
            return
        # A change that leaves the guard in peace needs no history.
        todo = [cycle] if cycle.quiet else [*self._recent, cycle]
        if self._last_written is None or todo[0].number != self._last_written + 1:
            yield SEGMENT, self._segment(todo[0])
        for item in todo:
            yield CYCLE, item.fields(self._run_id)

    def _segment(self, first: Cycle) -> dict[str, Any]:
        fields = {
            "guard": self._guard,
            "run_id": self._run_id,
            "cycle": first.number,
            "format": FORMAT,
            "version": self._version,
            "why": self._why,
            "state": to_plain(first.before),
            "policy": self._policy,
        }
        return {**fields, "marks": marks_of(SEGMENT, fields)}

    def done(self, cycle: Cycle, *, written: bool) -> None:
        """``cycle`` happened, and what :meth:`take` gave for it is on disk (``written``) or was nothing."""
        if not written:
            self._recent.append(cycle)
            return
        self._recent.clear()
        self._last_written = cycle.number
        self._last_signature = cycle.signature
        self._why = "gap"

    def begin_anew(self, why: str) -> None:
        """The next record begins a segment, whatever came before (a new file)."""
        self._last_written = None
        self._why = why
