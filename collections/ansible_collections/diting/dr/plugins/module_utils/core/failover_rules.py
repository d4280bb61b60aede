# SPDX-License-Identifier: GPL-3.0-or-later
"""What forbids a fence, and what one needs, as words for people. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .failover_signs import accusers, has_quorum, is_fresh
from .failover_state import Death, FailoverPolicy, FailoverState

if TYPE_CHECKING:
    from .failover_view import Observation


_VANTAGES = "two live vantage points, one of them a replica, that had seen the primary alive"
_KEY = "the leader key as it was when the signs went missing"
_CANDIDATE = "a candidate of /sync that is up"
OF_A_PRIMARY = frozenset({_VANTAGES, _KEY, _CANDIDATE})
"""What is missing wherever there is no primary at all."""


def fences_in_window(state: FailoverState, now: float, policy: FailoverPolicy) -> int:
    """Own fences within the window that ends now."""
    return sum(1 for moment in state.fences if now - moment <= policy.fence_window_seconds)


def forbidden(
    state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy, *, before_fence: bool
) -> list[str]:
    """Why people or the policy say no. What could not be read says no as well."""
    gate = seen.gate
    found = []
    if seen.paused:
        found.append("the guard is paused")
    if not seen.armed:
        found.append("the guard is not armed")
    if not is_fresh(gate.read_at, now, policy.gate_fresh_seconds):
        found.append("the gate could not be read lately")
    for value, words in (
        (gate.lever, "the stop-all lever is pulled"),
        (gate.maintenance, "a maintenance window is open"),
        (gate.planned_work, "planned work is under way"),
    ):
        if value is None:
            found.append(f"it could not be read whether {words}")
        elif value:
            found.append(words)
    if gate.refusal is None:
        found.append("the gate could not be asked whether it would let a failover through")
    elif gate.refusal:
        found.append(f"the gate refuses: {gate.refusal}")
    if seen.etcd.paused:
        found.append("Patroni is paused")
    if before_fence:
        own = max(fences_in_window(state, now, policy), seen.fences_recorded or 0)
        count = own + (gate.fences_elsewhere or 0)
        if gate.fences_elsewhere is None:
            found.append("it could not be read how often others have fenced")
        if count >= policy.fence_max_per_window:
            window = f"{policy.fence_window_seconds:g} s"
            found.append(f"{count} fences within {window}, and {policy.fence_max_per_window} are allowed")
    return found


def missing(
    death: Death, state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy
) -> list[str]:
    """What a fence, and later the release, needs and cannot be seen now. Empty means: go on."""
    etcd = seen.etcd
    found = []
    if not has_quorum(accusers(state, seen, now, policy)):
        found.append(_VANTAGES)
    if not is_fresh(etcd.accepted_at, now, policy.etcd_fresh_seconds):
        found.append("a write that etcd accepted lately")
    if not is_fresh(etcd.asked_at, now, policy.etcd_fresh_seconds) or etcd.answered_at is None:
        found.append("a fresh reading of the leader key")
    if etcd.holder != state.target or etcd.mod_revision != state.mod_revision or state.mod_revision is None:
        found.append(_KEY)
    if seen.target != state.target:
        found.append("probes of the holder of the leader key")
    if etcd.paused is None:
        found.append("Patroni's pause")
    if seen.lock_until is None or seen.lock_until <= now:
        found.append("the lock among guards")
    if not _candidates(death, state, seen, now, policy):
        found.append(f"{_CANDIDATE} with space" if death is Death.FULL else _CANDIDATE)
    return found


def _candidates(
    death: Death, state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy
) -> list[str]:
    """Members that may take over: listed by /sync of this leader, up, and with space when that is what is wrong."""
    if seen.etcd.sync_leader != state.target:
        return []
    return [
        candidate.name
        for candidate in seen.candidates
        if candidate.name in seen.etcd.sync_members
        and candidate.name != state.target
        and candidate.up
        and is_fresh(candidate.seen_at, now, policy.vantage_fresh_seconds)
        and (candidate.has_space or death is not Death.FULL)
    ]
