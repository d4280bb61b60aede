# SPDX-License-Identifier: GPL-3.0-or-later
"""The failover guard's one transition table: phases, events, what each event does and why. Pure.

The comment of a transition is what the operator reads in the log. The table is total: a pair that
has no line of its own means nothing in that phase, and stays where it is without an action.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from .guard import Transition

if TYPE_CHECKING:
    from collections.abc import Mapping


class Phase(enum.Enum):
    """Where the guard stands."""

    STARTING = "starting"
    WATCHING = "watching"
    SUSPECT = "suspect"
    FENCING = "fencing"
    READING_BACK = "reading_back"
    LAST_LOOK = "last_look"
    ISOLATING = "isolating"
    RELEASING = "releasing"
    TELLING = "telling"
    COOLING = "cooling"
    RETURNING = "returning"
    REJOINING = "rejoining"
    STANDING_DOWN = "standing_down"
    ALERT_ONLY = "alert_only"


class Event(enum.Enum):
    """What an observation amounts to, one at a time."""

    NOTHING = "nothing"
    RESTARTED = "restarted"
    READY = "ready"
    ETCD_LEADER_BESIDE = "etcd_leader_beside"
    CANNOT_FENCE = "cannot_fence"
    CAN_FENCE = "can_fence"
    SIGNS_MISSING = "signs_missing"
    SIGNS_BACK = "signs_back"
    CONFIRMED = "confirmed"
    FORBIDDEN = "forbidden"
    PERMITTED = "permitted"
    TIMEOUT = "timeout"
    LEADER_ELSEWHERE = "leader_elsewhere"
    KEY_GONE = "key_gone"
    KEY_CHANGED = "key_changed"
    ORDER_DONE = "order_done"
    ORDER_FAILED = "order_failed"
    ORDER_NOT_BEGUN = "order_not_begun"
    READ_BACK_OFF = "read_back_off"
    READ_BACK_AGAIN = "read_back_again"
    SIGN_OF_LIFE = "sign_of_life"
    LOOK_CLEAN = "look_clean"
    ISOLATED = "isolated"
    ISOLATE_FAILED = "isolate_failed"
    RELEASED = "released"
    RELEASE_REFUSED = "release_refused"
    TOLD = "told"
    TELL_FAILED = "tell_failed"
    COMEBACK_DUE = "comeback_due"
    UNISOLATED = "unisolated"
    LEFT_OFF = "left_off"
    POWERED_ON = "powered_on"
    POWER_ON_AGAIN = "power_on_again"


ACTIONS = frozenset(
    {
        "raise_alert",
        "resolve_alert",
        "fence",
        "read_back",
        "last_look",
        "isolate",
        "unisolate",
        "release",
        "withdraw",
        "tell_proxies",
        "power_on",
        "move_etcd_leader",
    }
)
"""Every action there is. ``read_back`` and ``last_look`` only look; ``withdraw``, ``unisolate`` and alerts bear
repetition."""

P, E = Phase, Event
_Lines = dict[tuple[Phase, Event], Transition]


def _stop(phase: Phase, undo: tuple[str, ...], reasons: Mapping[Event, str]) -> _Lines:
    """Ways out of a step under way into doing nothing; ``undo`` takes back what the step may have begun."""
    actions = (*undo, "raise_alert")
    return {(phase, event): Transition(P.STANDING_DOWN, actions, why) for event, why in reasons.items()}


def _calm() -> _Lines:
    """Nothing has been ordered yet."""
    cannot = "what a fence needs is missing for some time: people are told before it is wanted"
    health = {
        (phase, event): Transition(phase, actions, why)
        for phase in (P.STARTING, P.WATCHING)
        for event, actions, why in (
            (E.CANNOT_FENCE, ("raise_alert",), cannot),
            (E.CAN_FENCE, ("resolve_alert",), "everything that a fence needs is there again"),
        )
    }
    return health | {
        (P.STARTING, E.READY): Transition(
            P.WATCHING, ("resolve_alert",), "all read once; what an earlier life raised is over"
        ),
        (P.STARTING, E.RESTARTED): Transition(P.STARTING, (), "nothing was under way before the restart"),
        (P.WATCHING, E.RESTARTED): Transition(
            P.STARTING, (), "restarted: look at everything once before judging"
        ),
        (P.WATCHING, E.ETCD_LEADER_BESIDE): Transition(
            P.WATCHING, ("move_etcd_leader",), "an etcd leader on the primary's host would die with it"
        ),
        (P.WATCHING, E.SIGNS_MISSING): Transition(
            P.SUSPECT, (), "no sign of life from the primary; not yet confirmed"
        ),
        (P.SUSPECT, E.RESTARTED): Transition(
            P.STARTING, (), "restarted: a suspicion is only worth what is seen now"
        ),
        (P.SUSPECT, E.SIGNS_BACK): Transition(P.WATCHING, (), "the primary answers again"),
        (P.SUSPECT, E.LEADER_ELSEWHERE): Transition(
            P.WATCHING, (), "another member leads: nothing to recover"
        ),
        (P.SUSPECT, E.KEY_GONE): Transition(P.WATCHING, (), "the leader key is gone already: Patroni elects"),
        (P.SUSPECT, E.KEY_CHANGED): Transition(P.WATCHING, (), "the holder wrote its key anew: it lives"),
        (P.SUSPECT, E.FORBIDDEN): Transition(
            P.ALERT_ONLY,
            ("raise_alert",),
            "the primary is silent and a fence is not allowed: people are told, the TTL works",
        ),
        (P.SUSPECT, E.TIMEOUT): Transition(
            P.STANDING_DOWN,
            ("raise_alert",),
            "silent, but what a fence needs could not be seen in time: the TTL works",
        ),
        (P.SUSPECT, E.CONFIRMED): Transition(
            P.FENCING, ("fence", "raise_alert"), "silence confirmed by two vantage points and more: fence"
        ),
        (P.ALERT_ONLY, E.RESTARTED): Transition(P.ALERT_ONLY, (), "restarted: still nothing that is allowed"),
        (P.ALERT_ONLY, E.SIGNS_BACK): Transition(P.WATCHING, ("resolve_alert",), "the primary answers again"),
        (P.ALERT_ONLY, E.LEADER_ELSEWHERE): Transition(
            P.WATCHING, ("resolve_alert",), "another member leads: the TTL has worked"
        ),
        (P.ALERT_ONLY, E.PERMITTED): Transition(
            P.WATCHING, ("resolve_alert",), "allowed again: silence is counted anew from here"
        ),
    }


def _fencing() -> _Lines:
    """From the order to the clean last look."""
    lines = {
        (P.FENCING, E.ORDER_DONE): Transition(
            P.READING_BACK, ("read_back",), "ordered; an order is no proof: read back"
        ),
        (P.READING_BACK, E.READ_BACK_AGAIN): Transition(
            P.READING_BACK,
            ("read_back",),
            "not off, or unknown, which is never off: ask again until the deadline",
        ),
        (P.READING_BACK, E.READ_BACK_OFF): Transition(
            P.LAST_LOOK, ("last_look",), "read back off: one fresh round of probes from every vantage point"
        ),
        (P.READING_BACK, E.RESTARTED): Transition(
            P.READING_BACK, ("read_back",), "restarted: read back anew"
        ),
        (P.LAST_LOOK, E.LOOK_CLEAN): Transition(
            P.ISOLATING,
            ("isolate",),
            "no sign newer than the read-back: cut the dead address off on the survivors",
        ),
        (P.LAST_LOOK, E.RESTARTED): Transition(
            P.READING_BACK, ("read_back",), "restarted: the read-back is old by now; read back anew"
        ),
    }
    for phase in (P.FENCING, P.READING_BACK, P.LAST_LOOK):
        lines[phase, E.LEADER_ELSEWHERE] = Transition(
            P.COOLING, (), "the TTL was quicker: another member leads"
        )
        lines[phase, E.KEY_GONE] = Transition(P.COOLING, (), "the TTL was quicker: the leader key is gone")
        lines |= _stop(
            phase,
            undo=(),
            reasons={
                E.FORBIDDEN: "no longer allowed: nothing is released",
                E.KEY_CHANGED: "the holder wrote its key anew after the signs were missing: nothing is released",
                E.TIMEOUT: "no clear result before the deadline: nothing is released",
            },
        )
    lines |= _stop(
        P.FENCING,
        undo=(),
        reasons={
            E.ORDER_FAILED: "the order failed or its end is unknown",
            E.ORDER_NOT_BEGUN: "the order was not begun: nothing was fenced, and it counts for nothing",
            # A host that reads "off" without it has lost power by itself, and may have it again at any moment.
            E.RESTARTED: "restarted: the order may have gone out or not, and is not repeated",
        },
    )
    lines |= _stop(
        P.LAST_LOOK, undo=(), reasons={E.SIGN_OF_LIFE: "a sign of life after the read-back: it lied"}
    )
    return lines


def _releasing() -> _Lines:
    """From the isolation to the told proxies."""
    lines = {
        (P.ISOLATING, E.ISOLATED): Transition(
            P.RELEASING, ("release",), "off and cut off: compare and delete the key"
        ),
        (P.ISOLATING, E.LEADER_ELSEWHERE): Transition(
            P.COOLING, (), "the TTL was quicker: another member leads"
        ),
        (P.ISOLATING, E.KEY_GONE): Transition(P.COOLING, (), "the TTL was quicker: the leader key is gone"),
        (P.RELEASING, E.RELEASED): Transition(
            P.TELLING, ("tell_proxies",), "released: proxies reset their clients now"
        ),
        (P.RELEASING, E.LEADER_ELSEWHERE): Transition(
            P.TELLING, ("tell_proxies",), "seen: another member leads"
        ),
        (P.RELEASING, E.KEY_GONE): Transition(P.TELLING, ("tell_proxies",), "seen: the key is gone"),
        (P.RELEASING, E.RESTARTED): Transition(
            P.RELEASING, (), "restarted: the key may have been released and is not touched again; watch it"
        ),
        (P.TELLING, E.TOLD): Transition(P.COOLING, (), "the proxies know"),
        (P.TELLING, E.TELL_FAILED): Transition(
            P.COOLING, ("raise_alert",), "a proxy could not be told: its checks will see"
        ),
        (P.TELLING, E.TIMEOUT): Transition(
            P.COOLING, ("raise_alert",), "a proxy did not answer in time: its checks will see"
        ),
        (P.TELLING, E.RESTARTED): Transition(P.COOLING, (), "restarted: the proxies' own checks will see"),
    }
    common = {
        E.SIGN_OF_LIFE: "a sign of life after the read-back: it lied",
        E.FORBIDDEN: "no longer allowed",
        E.KEY_CHANGED: "the leader key has changed hands or revision",
        E.TIMEOUT: "no clear result before the deadline",
    }
    lines |= _stop(
        P.ISOLATING,
        undo=("unisolate",),
        reasons={
            **common,
            E.ISOLATE_FAILED: "a survivor could not be told to cut the address off",
            E.RESTARTED: "restarted after routes may have been set: a look from behind them is blind",
        },
    )
    # First of all the transaction, which may be anywhere by now.
    lines |= _stop(
        P.RELEASING,
        undo=("withdraw", "unisolate"),
        reasons={**common, E.RELEASE_REFUSED: "etcd refused: the key is not the one we saw"},
    )
    return lines


def _after() -> _Lines:
    """The host comes back."""
    back = Transition(
        P.RETURNING, ("unisolate",), "another member leads and has settled: the fenced host may come back"
    )
    due = Transition(
        P.RETURNING,
        ("unisolate", "raise_alert"),
        "nobody has taken over for too long: the fenced host comes back",
    )
    return {
        (P.COOLING, E.LEADER_ELSEWHERE): back,
        (P.COOLING, E.COMEBACK_DUE): due,
        (P.COOLING, E.RESTARTED): Transition(P.COOLING, (), "restarted: go on waiting for a new leader"),
        (P.STANDING_DOWN, E.RESTARTED): Transition(
            P.STANDING_DOWN, (), "restarted: still nothing to be done"
        ),
        (P.STANDING_DOWN, E.LEADER_ELSEWHERE): back,
        (P.STANDING_DOWN, E.COMEBACK_DUE): due,
        (P.STANDING_DOWN, E.SIGNS_BACK): Transition(
            P.WATCHING, ("resolve_alert",), "nothing was fenced, and a primary is well again"
        ),
        (P.RETURNING, E.UNISOLATED): Transition(
            P.REJOINING, ("power_on", "read_back"), "no route is in the way: power on, and look whether it is"
        ),
        (P.RETURNING, E.LEFT_OFF): Transition(
            P.WATCHING, ("resolve_alert",), "powering on is left to people here"
        ),
        (P.RETURNING, E.RESTARTED): Transition(
            P.RETURNING, (), "restarted: wait until the routes have expired"
        ),
        (P.REJOINING, E.POWERED_ON): Transition(
            P.WATCHING, ("resolve_alert",), "read back on: the fenced host is back"
        ),
        (P.REJOINING, E.POWER_ON_AGAIN): Transition(
            P.REJOINING,
            ("power_on", "read_back", "raise_alert"),
            "not read back on: order it on again, which harms no host that is",
        ),
        (P.REJOINING, E.TIMEOUT): Transition(
            P.WATCHING, ("resolve_alert", "raise_alert"), "the fenced host could not be switched on"
        ),
        (P.REJOINING, E.RESTARTED): Transition(
            P.REJOINING, ("read_back",), "restarted: look whether the fenced host is on"
        ),
    }


MEANINGFUL: Mapping[tuple[Phase, Event], Transition] = {**_calm(), **_fencing(), **_releasing(), **_after()}
"""The pairs that do something; the diagram is drawn from these."""

TABLE: Mapping[tuple[Phase, Event], Transition] = {
    (phase, event): MEANINGFUL.get((phase, event), Transition(phase, (), "means nothing in this phase"))
    for phase in Phase
    for event in Event
}
"""Every pair of phase and event."""
