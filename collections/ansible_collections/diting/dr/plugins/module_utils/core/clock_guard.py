# SPDX-License-Identifier: GPL-3.0-or-later
"""Can this host's clock be trusted? The decision of the guard ``clock``. Pure.

A clock that nobody could look at is treated like a wrong one: evidence that is stamped by it proves
nothing. A single bad answer is no news (chrony restarts, a source changes), so it must last.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .guard import Alert, Machine, Measure, Transition, raise_alert, resolve_alert
from .plain import Plain

if TYPE_CHECKING:
    from .guard import Action, Table

ALERT = "DitingClockNotTrusted"


class Phase(enum.Enum):
    """States of the guard."""

    STARTING = "starting"
    TRUSTED = "trusted"
    DOUBTED = "doubted"
    ALERTING = "alerting"
    PAUSED = "paused"


class Event(enum.Enum):
    """What an observation, with the time since the last change of mind, amounts to."""

    GOOD = "good"
    GOOD_LASTS = "good_lasts"
    BAD = "bad"
    BAD_LASTS = "bad_lasts"
    PAUSE = "pause"


class Answer(enum.Enum):
    """What the time service said."""

    SYNCHRONISED = "synchronised"
    NOT_SYNCHRONISED = "not_synchronised"
    NONE = "none"


@dataclass(frozen=True)
class State(Plain):
    """Where the guard is. ``*_since_seconds``: monotonic time since which every answer was of that kind."""

    phase: Phase = Phase.STARTING
    bad_since_seconds: float | None = None
    good_since_seconds: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Observation(Plain):
    """One look at the time service. ``offset_seconds`` is the clock minus true time, None if unknown."""

    answer: Answer
    offset_seconds: float | None = None
    detail: str = ""
    paused: bool = False


@dataclass(frozen=True)
class Policy(Plain):
    """Limits: a larger offset is bad; bad must last ``confirm_seconds``, good again ``clear_seconds``."""

    limit_seconds: float
    confirm_seconds: float
    clear_seconds: float


def _lines() -> dict[tuple[Phase, Event], Transition]:
    up, down, none = ("raise_alert",), ("resolve_alert",), ()
    table = {
        (Phase.STARTING, Event.GOOD): (
            Phase.TRUSTED,
            down,
            "Good at once: what an earlier life raised is over.",
        ),
        (Phase.STARTING, Event.GOOD_LASTS): (
            Phase.TRUSTED,
            down,
            "Good: what an earlier life raised is over.",
        ),
        (Phase.STARTING, Event.BAD): (Phase.DOUBTED, none, "Bad at the start: chrony may be starting too."),
        (Phase.STARTING, Event.BAD_LASTS): (Phase.ALERTING, up, "Bad for too long."),
        (Phase.TRUSTED, Event.GOOD): (Phase.TRUSTED, none, "All is well."),
        (Phase.TRUSTED, Event.GOOD_LASTS): (Phase.TRUSTED, none, "All is well."),
        (Phase.TRUSTED, Event.BAD): (Phase.DOUBTED, none, "One bad answer is no news yet."),
        (Phase.TRUSTED, Event.BAD_LASTS): (Phase.ALERTING, up, "Bad for too long (confirm_seconds is 0)."),
        (Phase.DOUBTED, Event.GOOD): (Phase.TRUSTED, none, "It passed before it was worth a word."),
        (Phase.DOUBTED, Event.GOOD_LASTS): (Phase.TRUSTED, none, "It passed before it was worth a word."),
        (Phase.DOUBTED, Event.BAD): (Phase.DOUBTED, none, "Still bad, not yet for long enough."),
        (Phase.DOUBTED, Event.BAD_LASTS): (Phase.ALERTING, up, "Bad for too long: somebody has to look."),
        (Phase.ALERTING, Event.GOOD): (
            Phase.ALERTING,
            none,
            "Good again, not yet for long enough to believe it.",
        ),
        (Phase.ALERTING, Event.GOOD_LASTS): (Phase.TRUSTED, down, "Good for long enough: the alert is over."),
        (Phase.ALERTING, Event.BAD): (Phase.ALERTING, none, "Bad again; the alert stands."),
        (Phase.ALERTING, Event.BAD_LASTS): (
            Phase.ALERTING,
            none,
            "The alert stands; the notify port repeats it.",
        ),
        (Phase.PAUSED, Event.GOOD): (Phase.TRUSTED, none, "The pause is over and the clock is good."),
        (Phase.PAUSED, Event.GOOD_LASTS): (Phase.TRUSTED, none, "The pause is over and the clock is good."),
        (Phase.PAUSED, Event.BAD): (
            Phase.DOUBTED,
            none,
            "The pause is over; what is bad counts from now on.",
        ),
        (Phase.PAUSED, Event.BAD_LASTS): (Phase.ALERTING, up, "The pause is over (confirm_seconds is 0)."),
    }
    for phase in Phase:
        actions = down if phase is Phase.ALERTING else none
        table[phase, Event.PAUSE] = (
            Phase.PAUSED,
            actions,
            "A person works on it: no alert until the pause is over.",
        )
    return {key: Transition(*line) for key, line in table.items()}


TABLE: Table = _lines()


def trouble(observation: Observation, policy: Policy) -> str:
    """Why the clock is not to be trusted, in words; empty if it is."""
    if observation.answer is Answer.NONE:
        return f"the time service gave no answer: {observation.detail}"
    if observation.answer is Answer.NOT_SYNCHRONISED:
        return f"the clock is not synchronised: {observation.detail}"
    if observation.offset_seconds is None:
        return "the time service gave no offset"
    if abs(observation.offset_seconds) > policy.limit_seconds:
        return f"the clock is off by {observation.offset_seconds:g} s, limit {policy.limit_seconds:g} s"
    return ""


def event_of(state: State, observation: Observation, now: float, policy: Policy) -> Event:
    """The table's word for what was seen. ``now`` in seconds on a monotonic clock."""
    if observation.paused:
        return Event.PAUSE
    if trouble(observation, policy):
        since = now if state.bad_since_seconds is None else state.bad_since_seconds
        return Event.BAD_LASTS if now - since >= policy.confirm_seconds else Event.BAD
    since = now if state.good_since_seconds is None else state.good_since_seconds
    return Event.GOOD_LASTS if now - since >= policy.clear_seconds else Event.GOOD


def decide(state: State, observation: Observation, now: float, policy: Policy) -> tuple[State, list[Action]]:
    """One step. Total: every state meets every event in :data:`TABLE`."""
    event = event_of(state, observation, now, policy)
    line = TABLE[state.phase, event]
    reason = "" if event is Event.PAUSE else trouble(observation, policy)
    actions = [
        raise_alert(ALERT, description=reason) if name == "raise_alert" else resolve_alert(ALERT)
        for name in line.actions
    ]
    return (
        State(
            phase=Phase(line.to),
            bad_since_seconds=_since(state.bad_since_seconds, now, running=bool(reason)),
            good_since_seconds=_since(state.good_since_seconds, now, running=not reason),
            reason=reason,
        ),
        actions,
    )


def _since(before: float | None, now: float, *, running: bool) -> float | None:
    if not running:
        return None
    return now if before is None else before


def signature(observation: Observation) -> tuple[str, bool]:
    """What counts as a change worth a line in the journal while all is well."""
    return (observation.answer.value, observation.paused)


def after_reboot(state: State) -> State:
    """The same state without its times, which belonged to another boot's clock."""
    return dataclasses.replace(state, bad_since_seconds=None, good_since_seconds=None)


MACHINE: Machine[State, Observation, Policy] = Machine(
    name="clock",
    summary="Alerts when this host's clock is off by more than a limit, not synchronised, or nobody can tell.",
    states=Phase,
    events=Event,
    table=TABLE,
    steady=frozenset({Phase.TRUSTED, Phase.PAUSED}),
    initial=State(),
    decide=decide,
    state_type=State,
    observation_type=Observation,
    policy_type=Policy,
    alerts=(
        Alert(
            name=ALERT,
            severity="warning",
            summary="The clock of this host cannot be trusted, and neither can what is stamped with it",
            runbook="docs/runbooks/guards.md#clock-not-trusted",
        ),
    ),
    measures=(
        Measure("offset_seconds", "This host's clock minus true time, as the time service estimates it."),
        Measure("synchronised", "1 if the time service says that the clock is synchronised, else 0."),
    ),
)
