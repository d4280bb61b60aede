# SPDX-License-Identifier: GPL-3.0-or-later
"""What a witness does with an order to cut an address off. The decision of the guard ``witness``. Pure.

A witness looks at the primary for the failover guard and judges nothing of what it sees. The one thing it changes is
its own host's way to an address: for a time that ends by itself, and only towards members of the cluster.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .guard import Action, Alert, Machine, Measure, Transition, raise_alert, resolve_alert
from .plain import Plain

if TYPE_CHECKING:
    from .guard import Table

STUCK = "DitingWitnessRouteStuck"


class Phase(enum.Enum):
    """States of the guard."""

    STARTING = "starting"
    WATCHING = "watching"
    ISOLATING = "isolating"
    STUCK = "stuck"


class Event(enum.Enum):
    """What an observation amounts to."""

    NOTHING = "nothing"
    CLEAR = "clear"
    ORDERED = "ordered"
    REFUSED = "refused"
    TAKE_BACK = "take_back"
    OVER = "over"
    WILL_NOT_GO = "will_not_go"


@dataclass(frozen=True)
class Wish(Plain):
    """The newest order of the control host. ``hold_seconds`` None takes the isolation of ``address`` back."""

    number: int
    address: str
    hold_seconds: float | None
    begin_before: float
    """Monotonic seconds; what could not be begun by then is not begun."""


@dataclass(frozen=True)
class State(Plain):
    """``done`` is the number of the newest wish that was acted on or left; ``until`` when the isolation ends."""

    phase: Phase = Phase.STARTING
    done: int = 0
    address: str | None = None
    until: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Observation(Plain):
    """``routes`` are the addresses that are cut off now; None when that could not be read."""

    run: str
    wish: Wish | None = None
    routes: tuple[str, ...] | None = ()
    sees: str = ""
    """In words, what the witness sees of the primary and of its own database; for people."""
    paused: bool = False


@dataclass(frozen=True)
class Policy(Plain):
    """``members``: the closed list of addresses that may be cut off. Raises ``ValueError``."""

    members: tuple[str, ...]
    max_hold_seconds: float = 300.0
    stuck_seconds: float = 5.0
    """A route that is still there so long after its time is worth a word."""

    def __post_init__(self) -> None:
        if self.max_hold_seconds <= 0 or self.stuck_seconds <= 0:
            raise ValueError("max_hold_seconds, stuck_seconds: want more than 0")


def refusal(wish: Wish, policy: Policy, now: float, *, paused: bool) -> str:
    """Why an order is not carried out, in words; empty when it is. Taking back is never refused."""
    if wish.hold_seconds is None:
        return ""
    if wish.address not in policy.members:
        return f"{wish.address} is no member's address"
    if not 0 < wish.hold_seconds <= policy.max_hold_seconds:
        return f"{wish.hold_seconds:g} s is not between 0 and {policy.max_hold_seconds:g}"
    if now > wish.begin_before:
        return "the order has aged"
    return "the witness is paused" if paused else ""


P, E = Phase, Event


def _lines() -> dict[tuple[Phase, Event], Transition]:
    cut, mend = ("isolate",), ("unisolate",)
    table = {
        (P.STARTING, E.CLEAR): Transition(P.WATCHING, ("resolve_alert",), "no address is cut off"),
        (P.STARTING, E.OVER): Transition(P.STARTING, mend, "a route of an earlier life is taken away"),
        (P.STARTING, E.WILL_NOT_GO): Transition(P.STUCK, ("raise_alert",), "routes cannot be looked at"),
        (P.WATCHING, E.ORDERED): Transition(P.ISOLATING, cut, "the control host has an address cut off"),
        (P.WATCHING, E.TAKE_BACK): Transition(P.WATCHING, mend, "nothing is cut off; made sure"),
        (P.WATCHING, E.OVER): Transition(P.WATCHING, mend, "a route that nobody ordered is taken away"),
        (P.ISOLATING, E.ORDERED): Transition(P.ISOLATING, cut, "ordered anew, with a new time"),
        (P.ISOLATING, E.TAKE_BACK): Transition(P.WATCHING, mend, "the control host takes it back"),
        (P.ISOLATING, E.OVER): Transition(P.WATCHING, mend, "its time is over"),
        (P.STUCK, E.CLEAR): Transition(P.WATCHING, ("resolve_alert",), "no address is cut off any more"),
        (P.STUCK, E.OVER): Transition(P.STUCK, mend, "tried again"),
        (P.STUCK, E.TAKE_BACK): Transition(P.STUCK, mend, "tried again, on order"),
    }
    for phase in Phase:
        table[phase, E.REFUSED] = Transition(
            phase, ("refuse",), "not carried out; whoever ordered it is told at once and does not wait"
        )
    for phase in (P.WATCHING, P.ISOLATING):
        table[phase, E.WILL_NOT_GO] = Transition(
            P.STUCK, ("raise_alert",), "a route is still there after its time, or cannot be looked at"
        )
    return table


TABLE: Table = {
    (phase, event): _lines().get((phase, event), Transition(phase, (), "means nothing in this state"))
    for phase in Phase
    for event in Event
}


def _objection(state: State, wish: Wish, seen: Observation, now: float, policy: Policy) -> str:
    if state.phase in (Phase.STARTING, Phase.STUCK):
        return f"the witness is {state.phase.value}"
    return refusal(wish, policy, now, paused=seen.paused)


def event_of(state: State, seen: Observation, now: float, policy: Policy) -> Event:
    """The table's word for what was seen."""
    wish = seen.wish
    if wish is not None and wish.number != state.done:
        if wish.hold_seconds is None:
            return Event.TAKE_BACK
        # Refused and forgotten: whoever wants it still has to ask again.
        return Event.REFUSED if _objection(state, wish, seen, now, policy) else Event.ORDERED
    if seen.routes is None:
        return Event.WILL_NOT_GO if state.phase is not Phase.STUCK else Event.NOTHING
    until = state.until
    if until is not None and now > until + policy.stuck_seconds and seen.routes:
        return Event.WILL_NOT_GO if state.phase is not Phase.STUCK else Event.OVER
    if state.phase is Phase.ISOLATING:
        return Event.OVER if until is None or now > until else Event.NOTHING
    if seen.routes:
        return Event.OVER
    return Event.CLEAR if state.phase in (Phase.STARTING, Phase.STUCK) else Event.NOTHING


def decide(state: State, observation: Observation, now: float, policy: Policy) -> tuple[State, list[Action]]:
    """One step. An isolation is on disk with its end before the route is set."""
    event = event_of(state, observation, now, policy)
    line = TABLE[state.phase, event]
    wish = observation.wish
    new = replace(state, phase=Phase(line.to))
    if line.to is not state.phase:
        new = replace(new, reason=line.comment)
    if wish is not None:
        new = replace(new, done=wish.number)
    if event is Event.ORDERED and wish is not None and wish.hold_seconds is not None:
        new = replace(new, address=wish.address, until=now + wish.hold_seconds)
    elif event in (Event.CLEAR, Event.TAKE_BACK):
        new = replace(new, address=None, until=None)
    actions: list[Action] = []
    for name in line.actions:
        if name == "raise_alert":
            actions.append(raise_alert(STUCK, description=line.comment, address=state.address or ""))
        elif name == "resolve_alert":
            actions.append(resolve_alert(STUCK))
        elif name == "isolate" and wish is not None:
            args = {"address": wish.address, "until": new.until, "wish": wish.number}
            actions.append(Action("isolate", args))
        elif name == "refuse" and wish is not None:
            words = _objection(state, wish, observation, now, policy)
            actions.append(Action("refuse", {"wish": wish.number, "words": words}))
        else:
            actions.append(Action("unisolate", {"wish": wish.number if wish else 0}))
    return new, actions


def signature(observation: Observation) -> list[object]:
    """What counts as a change worth a line in the journal while all is well."""
    wish = observation.wish
    routes = None if observation.routes is None else list(observation.routes)
    return [observation.sees, routes, wish.number if wish else 0, observation.paused]


MACHINE: Machine[State, Observation, Policy] = Machine(
    name="witness",
    summary="Looks at the primary from a database host for the failover guard, and cuts off a fenced address on its order.",
    states=Phase,
    events=Event,
    table=TABLE,
    steady=frozenset({Phase.WATCHING}),
    initial=State(),
    decide=decide,
    state_type=State,
    observation_type=Observation,
    policy_type=Policy,
    alerts=(
        Alert(
            name=STUCK,
            severity="warning",
            summary="A database host may still be cut off from a member, or cannot tell",
            runbook="docs/runbooks/failover.md#route-stuck",
        ),
    ),
    measures=(
        Measure("isolated_addresses", "Members that this host is cut off from now."),
        Measure("requests_count", "Requests of the control host that were answered since the start."),
    ),
)
