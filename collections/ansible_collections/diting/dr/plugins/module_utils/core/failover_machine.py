# SPDX-License-Identifier: GPL-3.0-or-later
"""The failover guard as one machine: what the runtime runs, replay repeats and its page shows. Pure."""

from __future__ import annotations

from typing import Any

from .failover import decide
from .failover_alerts import ALERTS
from .failover_state import FailoverPolicy, FailoverState
from .failover_table import TABLE, Event, Phase
from .failover_view import Observation
from .guard import Machine


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
        [gate.lever, gate.maintenance, gate.planned_work, gate.fences_elsewhere],
        [observation.armed, observation.paused, observation.lock_until is None],
    ]


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
)
