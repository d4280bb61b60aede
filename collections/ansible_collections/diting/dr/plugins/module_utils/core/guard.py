# SPDX-License-Identifier: GPL-3.0-or-later
"""The words every guard is written in: states, events, one table, actions. Pure.

A guard is a machine ``decide(state, observation, now, policy) -> (state, [Action])``. Where it goes
next and what it does on the way stands in one table ``(State, Event) -> Transition``, so that an
operator's page, a test that walks every pair, and the daemon read the same lines. ``now`` is seconds
on a monotonic clock: no guard ever asks the wall clock anything. State, observation and policy are
frozen dataclasses that :mod:`.plain` can write and read; an observation has a field ``paused: bool``,
which the runtime fills.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .plain import Plain

if TYPE_CHECKING:
    import enum

S = TypeVar("S")
O_ = TypeVar("O_")
P = TypeVar("P")

RAISE_ALERT = "raise_alert"
RESOLVE_ALERT = "resolve_alert"
RUNTIME_ACTIONS = frozenset({RAISE_ALERT, RESOLVE_ALERT})
"""Actions that the runtime carries out itself, through its notify port."""

SEVERITIES = ("emergency", "critical", "warning", "info")


@dataclass(frozen=True)
class Action(Plain):
    """One thing to do. ``args`` holds what JSON can carry."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Transition:
    """A line of a guard's table: where to, what to do, and why, in words an operator reads."""

    to: enum.Enum
    actions: tuple[str, ...]
    comment: str


Table = Mapping[tuple[Any, Any], Transition]
"""``(state, event) -> transition``, over two enums of the guard's own."""


@dataclass(frozen=True)
class Alert:
    """An alert that a guard may raise. ``runbook`` is a path in the repository, with its heading."""

    name: str
    severity: str
    summary: str
    runbook: str


@dataclass(frozen=True)
class Measure:
    """A gauge of a guard's own, ``diting_guard_<guard>_<name>``, in base units (the name ends in one)."""

    name: str
    help: str


@dataclass(frozen=True)
class Machine(Generic[S, O_, P]):
    """Everything about a guard that needs no I/O: enough to replay its journal and to print its page.

    ``states`` and ``events`` are the enums the table is over; ``steady`` are the states in which nothing
    is wrong and only changes are journalled; ``phase_of`` finds the table's state in the guard's.
    """

    name: str
    summary: str
    states: type[enum.Enum]
    events: type[enum.Enum]
    table: Table
    steady: frozenset[enum.Enum]
    initial: S
    decide: Callable[[S, O_, float, P], tuple[S, list[Action]]]
    state_type: type[S]
    observation_type: type[O_]
    policy_type: type[P]
    alerts: tuple[Alert, ...] = ()
    measures: tuple[Measure, ...] = ()
    phase_of: Callable[[S], enum.Enum] = operator.attrgetter("phase")

    def is_steady(self, state: S) -> bool:
        """Whether nothing is wrong in ``state``."""
        return self.phase_of(state) in self.steady


def raise_alert(name: str, **annotations: str) -> Action:
    """Raise the alert ``name`` of the machine; raising it again only renews its annotations."""
    return Action(RAISE_ALERT, {"alert": name, "annotations": annotations})


def resolve_alert(name: str) -> Action:
    """Resolve the alert ``name``; resolving one that is not raised does nothing."""
    return Action(RESOLVE_ALERT, {"alert": name})


def reachable(table: Table, start: enum.Enum) -> set[enum.Enum]:
    """Every state that the table leads to from ``start``, itself included."""
    seen, todo = {start}, [start]
    while todo:
        here = todo.pop()
        for (state, _event), transition in table.items():
            if state is here and transition.to not in seen:
                seen.add(transition.to)
                todo.append(transition.to)
    return seen


def problems(machine: Machine[Any, Any, Any]) -> list[str]:
    """What is wrong with a machine, in sentences; empty when nothing is."""
    found = [
        f"no line for ({state.name}, {event.name})"
        for state in machine.states
        for event in machine.events
        if (state, event) not in machine.table
    ]
    for (state, event), line in machine.table.items():
        where = f"({state.name}, {event.name})"
        if not isinstance(state, machine.states) or not isinstance(event, machine.events):
            found.append(f"{where} is not of this machine")
        if not isinstance(line.to, machine.states):
            found.append(f"{where} leads to {line.to}, which is no state of this machine")
        if not line.comment.strip():
            found.append(f"{where} has no comment")
    start = machine.phase_of(machine.initial)
    lost = set(machine.states) - reachable(machine.table, start)
    found += [f"{state.name} cannot be reached" for state in machine.states if state in lost]
    found += [
        f"alert {a.name}: severity {a.severity!r}" for a in machine.alerts if a.severity not in SEVERITIES
    ]
    found += [
        f"alert {a.name}: no summary or runbook" for a in machine.alerts if not (a.summary and a.runbook)
    ]
    if "paused" not in {f.name for f in dataclasses.fields(machine.observation_type)}:
        found.append(f"{machine.observation_type.__name__} has no field 'paused'")
    return found


def mermaid(machine: Machine[Any, Any, Any]) -> list[str]:
    """The table as a Mermaid state diagram, one line of text each.

    Events that lead the same way are one arrow; staying where one is without doing anything is none.
    """
    arrows: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for state in machine.states:
        for event in machine.events:
            line = machine.table.get((state, event))
            if line is not None and (line.to is not state or line.actions):
                arrows.setdefault((_id(state), _id(line.to), line.actions), []).append(_words(event))
    lines = ["stateDiagram-v2", f"    [*] --> {_id(machine.phase_of(machine.initial))}"]
    for (origin, target, actions), events in arrows.items():
        label = " or ".join(events) + (f" / {', '.join(actions)}" if actions else "")
        lines.append(f"    {origin} --> {target}: {label}")
    return lines


def _id(state: enum.Enum) -> str:
    return state.name.lower()


def _words(event: enum.Enum) -> str:
    return event.name.lower().replace("_", " ")


def table_rows(machine: Machine[Any, Any, Any]) -> list[tuple[str, str, str, str, str]]:
    """The table for people: state, event, next state, actions, comment; standing still left out."""
    lines = [
        (state, event, machine.table[state, event]) for state in machine.states for event in machine.events
    ]
    return [
        (_id(state), _words(event), _id(line.to), ", ".join(line.actions), line.comment)
        for state, event, line in lines
        if line.to is not state or line.actions
    ]
