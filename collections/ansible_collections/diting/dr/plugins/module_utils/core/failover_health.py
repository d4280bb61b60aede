# SPDX-License-Identifier: GPL-3.0-or-later
"""What would keep a fence from happening although nobody forbids it: a guard that is inert looks well otherwise. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .failover_rules import OF_A_PRIMARY, forbidden, missing
from .failover_signs import is_fresh
from .failover_state import Death, FailoverPolicy, FailoverState
from .failover_view import Power

if TYPE_CHECKING:
    from .failover_view import Observation

_LOCK = "the lock among guards"
"""Whoever has not got it leaves the work to the guard that has."""


def trouble(state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy) -> list[str]:
    """Everything that is broken, as words; what people or another guard have decided is no trouble."""
    nobody = seen.target is None and state.target is None
    # Before a cluster's first primary there is one thing to say, and not everything that follows from it.
    idle = {_LOCK, *(OF_A_PRIMARY if nobody else ())}
    found = ["no primary has been seen yet"] if nobody else []
    found += [
        f"not seen: {words}" for words in missing(Death.GONE, state, seen, now, policy) if words not in idle
    ]
    gate = seen.gate
    for value, words in (
        (gate.lever, "the stop-all lever is pulled"),
        (gate.maintenance, "a maintenance window is open"),
        (gate.planned_work, "planned work is under way"),
    ):
        if value is None:
            found.append(f"it cannot be read whether {words}")
    if gate.refusal is None:
        found.append("the gate could not be asked whether it would let a failover through")
    if gate.fences_elsewhere is None:
        found.append("it cannot be read how often others have fenced")
    found += [
        f"the fencing agent of {agent.name} does not know: {agent.words}"
        for agent in seen.agents
        if agent.power is Power.UNKNOWN
    ]
    return found if nobody else found + _never_heard(seen, now, policy)


def hindrances(state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy) -> list[str]:
    """Why no fence could be ordered at this moment, whatever the signs; empty when one could."""
    return forbidden(state, seen, now, policy, before_fence=True) + [
        f"not seen: {words}" for words in missing(Death.GONE, state, seen, now, policy)
    ]


def _never_heard(seen: Observation, now: float, policy: FailoverPolicy) -> list[str]:
    """Ways that have had no good answer since they have had this target: a password, a certificate, a firewall."""
    return [
        f"{vantage.name} has never had a good answer of {seen.target or 'the primary'} by {way}: {probe.answer.value}"
        for vantage in seen.vantages
        if vantage.name != seen.target and is_fresh(vantage.answered_at, now, policy.vantage_fresh_seconds)
        for way, probe in (("tcp", vantage.tcp), ("rest", vantage.rest), ("sql", vantage.sql))
        if probe.last_ok_at is None
    ]
