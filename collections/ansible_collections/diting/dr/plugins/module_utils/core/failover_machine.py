# SPDX-License-Identifier: GPL-3.0-or-later
"""The failover guard as one machine: what the runtime runs, replay repeats and its page shows. Pure."""

from __future__ import annotations

from typing import Any

from .failover import decide
from .failover_alerts import ALERTS
from .failover_health import hindrances
from .failover_rules import fences_in_window
from .failover_signs import fresh_vantages
from .failover_state import FailoverPolicy, FailoverState
from .failover_table import TABLE, Event, Phase
from .failover_view import Observation, Power
from .guard import Machine, Measure


def signature(observation: Observation) -> Any:
    """What counts as a change while all is well: answers and facts, and no moment of any of them."""
    etcd, gate = observation.etcd, observation.gate
    return [
        observation.target,
        [
            [v.name, v.tcp.answer.value, v.rest.answer.value, v.sql.answer.value, v.answered_at is None]
            for v in observation.vantages
        ],
        [etcd.holder, etcd.mod_revision, etcd.raft_term, etcd.sync_leader, list(etcd.sync_members)],
        [etcd.paused, etcd.etcd_leader, etcd.leave_etcd_leader, etcd.answered_at is None],
        [[c.name, c.up, c.has_space] for c in observation.candidates],
        [gate.lever, gate.maintenance, gate.planned_work, gate.fences_elsewhere, gate.refusal],
        [observation.armed, observation.paused, observation.lock_until is None],
    ]


MEASURES = (
    Measure("armed", "1 when a silent primary would be fenced, 0 when people would only be told."),
    Measure(
        "fresh_vantages_count", "Vantage points that answered within the last second, this host included."
    ),
    Measure("etcd_age_seconds", "Age of the newest reading of the leader key."),
    Measure("etcd_write_age_seconds", "Age of the newest test write that etcd accepted."),
    Measure(
        "fence_possible",
        "1 when nothing would be in the way of a fence but signs of life, 0 when something is missing or forbids it.",
    ),
    Measure("lock_held", "1 while the lock among guards is ours: without it this guard only watches."),
    Measure("fences_count", "Fences of this cluster within the window, those of other guards included."),
    Measure("last_fence_seconds", "From the newest order to the answer that the host is off."),
)


def measures(state: FailoverState, seen: Observation, policy: FailoverPolicy) -> dict[str, float | None]:
    """Values of :data:`MEASURES`; None where nobody knows."""
    now, others = seen.taken_at, seen.gate.fences_elsewhere
    order, read, fence = seen.fence, seen.read_back, None
    if order is not None and read is not None and order.incident == read.incident and read.power is Power.OFF:
        fence = read.answered_at - order.asked_at
    return {
        "armed": float(seen.armed),
        "fresh_vantages_count": float(len(fresh_vantages(seen, now, policy))),
        "etcd_age_seconds": None if seen.etcd.asked_at is None else now - seen.etcd.asked_at,
        "etcd_write_age_seconds": None if seen.etcd.accepted_at is None else now - seen.etcd.accepted_at,
        "fence_possible": float(not hindrances(state, seen, now, policy)),
        "lock_held": float(seen.lock_until is not None and seen.lock_until > now),
        "fences_count": None if others is None else float(fences_in_window(state, now, policy) + others),
        "last_fence_seconds": fence,
    }


MACHINE: Machine[FailoverState, Observation, FailoverPolicy] = Machine(
    name="failover",
    summary="Proves that a silent primary is dead, has it fenced, and releases its leader key before the TTL does.",
    states=Phase,
    events=Event,
    table=TABLE,
    steady=frozenset({Phase.WATCHING}),
    initial=FailoverState(),
    decide=decide,
    state_type=FailoverState,
    observation_type=Observation,
    policy_type=FailoverPolicy,
    alerts=ALERTS,
    measures=MEASURES,
)
