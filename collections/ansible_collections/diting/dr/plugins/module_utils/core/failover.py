# SPDX-License-Identifier: GPL-3.0-or-later
"""The failover guard's decision: proves a primary's death and then does not wait for the TTL. Pure.

:func:`decide` reads an observation as one event per step and lets the table (``failover_table``) say what follows. What it
never does, whatever it is shown, is the subject of ``tests/property/test_failover_model.py``:
the leader key is not released without a read-back "off" of this incident, nor after a sign of life newer than that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from . import failover_signs as signs
from .failover_alerts import ALERTS, CANNOT_FENCE, alert_for
from .failover_events import Finding, event_of
from .failover_health import trouble
from .failover_state import FailoverPolicy, FailoverState, Lead, Received
from .failover_table import TABLE, Event, Phase
from .failover_view import Outcome, VantageKind
from .guard import Action, raise_alert, resolve_alert

if TYPE_CHECKING:
    from .failover_view import EtcdView, Observation

STEPS = 4
"""Transitions in one decision, as long as none of them wants anything done."""


def decide(
    state: FailoverState, observation: Observation, now: float, policy: FailoverPolicy
) -> tuple[FailoverState, list[Action]]:
    """What follows from ``observation`` at ``now`` (monotonic seconds): the new state, and what is to be done.

    The new state has to be on disk before the first action is begun; an action whose ``not_after`` (monotonic seconds)
    has passed must not be begun at all, and ends in UNKNOWN after its ``deadline_seconds``. Results of earlier incidents
    may stand in an observation: each names its own.
    """
    now = max(now, observation.taken_at)
    for _step in range(STEPS):
        state = _notice(state, observation, now, policy)
        finding = event_of(state, observation, now, policy)
        if finding.event is Event.NOTHING:
            break
        state, actions = _apply(state, finding, observation, now, policy)
        if actions:
            return state, actions
    return state, []


def _notice(state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy) -> FailoverState:
    """Keep the book: who leads, who has seen it alive, what is missing, the lease to measure by."""
    if state.run != seen.run:
        return _reboot(state, seen, now)
    etcd = seen.etcd
    if state.phase in (Phase.STARTING, Phase.WATCHING) and etcd.holder is not None:
        if (etcd.holder, etcd.mod_revision) != (state.target, state.mod_revision):
            moved = etcd.holder != state.target
            state = replace(
                state,
                target=etcd.holder,
                mod_revision=etcd.mod_revision,
                saw_alive=() if moved else state.saw_alive,
                not_before=now,
            )
        if seen.target == state.target:
            alive = {v.name for v in seen.vantages if signs.has_seen_alive(v, state.not_before)}
            if not alive <= set(state.saw_alive):
                state = replace(state, saw_alive=tuple(sorted(alive | set(state.saw_alive))))
    if state.phase in (Phase.STARTING, Phase.WATCHING):
        ill = trouble(state, seen, now, policy)
        since = None if not ill else now if state.unable_since is None else state.unable_since
        state = replace(state, unable_since=since) if since != state.unable_since else state
    if seen.gate.ends != state.gate_ends:
        state = replace(state, gate_ends=seen.gate.ends)
    if state.fenced and signs.is_fresh(etcd.asked_at, now, policy.etcd_fresh_seconds):
        state = _follow(state, etcd)
    order = seen.fence
    if state.order_open and order is not None and order.incident == state.incident:
        state = replace(state, order_open=order.begun and order.outcome is Outcome.UNKNOWN)
    if state.phase in (Phase.SUSPECT, Phase.FENCING):
        return replace(state, lease=signs.lease_of(etcd) or state.lease)
    if state.phase in (Phase.READING_BACK, Phase.LAST_LOOK, Phase.ISOLATING):
        return _measure(state, seen)
    return state


def _follow(state: FailoverState, etcd: EtcdView) -> FailoverState:
    """Who has taken over, and since when: begun anew whenever the key was free, changed hands or was written anew."""
    if etcd.answered_at is None or etcd.holder in (None, state.target):
        return replace(state, lead=None) if state.lead is not None else state
    lead = state.lead
    if lead is not None and (lead.holder, lead.mod_revision) == (etcd.holder, etcd.mod_revision):
        return state
    return replace(state, lead=Lead(str(etcd.holder), etcd.mod_revision, etcd.answered_at))


def _reboot(state: FailoverState, seen: Observation, now: float) -> FailoverState:
    """Moments of another boot mean nothing: every one that counts is taken to be now, the careful end."""
    if state.boot == seen.boot or not state.run:
        return replace(state, boot=seen.boot) if state.boot != seen.boot else state
    return replace(
        state,
        boot=seen.boot,
        since=now,
        not_before=now,
        ordered_at=None if state.ordered_at is None else now,
        off_asked_at=None,
        off_answered_at=None,
        asked_again_at=now,
        lease=None,
        renewed_at=None,
        received=(),
        isolated_until=None if state.isolated_until is None else now + (state.isolated_until - state.since),
        lead=None,
        fences=tuple(now for _moment in state.fences),
        moved_etcd_at=None,
        unable_since=None,
    )


def _measure(state: FailoverState, seen: Observation) -> FailoverState:
    """Set what "advanced" and "risen" are measured by, where there is no measure yet that is young enough."""
    after = float("inf") if state.off_answered_at is None else state.off_answered_at
    known = {item.vantage for item in state.received}
    new = [
        Received(v.name, v.walreceiver.lsn)
        for v in seen.vantages
        if v.name not in known
        and v.walreceiver is not None
        and v.walreceiver.lsn is not None
        and v.walreceiver.read_at > after
    ]
    if new:
        state = replace(state, received=(*state.received, *new))
    lease = signs.lease_of(seen.etcd)
    renewed = signs.renewal(state.lease, seen.etcd)
    if renewed is not None:
        # Kept by its moment: an election of etcd makes every lease whole, and after it nobody could tell any more. The measure
        # stays: measured by a late reading of this renewal, the next one might be lost in etcd's whole seconds.
        return replace(state, renewed_at=renewed)
    # A new etcd leader has just refreshed every lease; from here on a rise means something again.
    if lease is not None and (state.lease is None or lease.raft_term != state.lease.raft_term):
        state = replace(state, lease=lease)
    return state


def _apply(
    state: FailoverState, finding: Finding, seen: Observation, now: float, policy: FailoverPolicy
) -> tuple[FailoverState, list[Action]]:
    transition = TABLE[state.phase, finding.event]
    new = replace(state, phase=Phase(transition.to))
    if transition.to is not state.phase:
        new = replace(new, since=now, reason="; ".join(finding.words) or transition.comment)
    new = _remember(new, finding, seen, now, policy)
    actions: list[Action] = []
    for name in transition.actions:
        if name == "resolve_alert" and finding.event is Event.CAN_FENCE:
            actions.append(resolve_alert(CANNOT_FENCE))
        elif name == "resolve_alert":
            actions += [resolve_alert(alert.name) for alert in ALERTS]
            new = replace(new, unable_told=False)
        elif name == "raise_alert":
            actions.append(_alert(state.phase, new, transition.comment, finding))
        else:
            actions.append(Action(name, _args(name, new, seen, now, policy)))
    if transition.to is Phase.WATCHING and state.phase is not Phase.WATCHING:
        new = _forget(new, now)
    return new, actions


def _remember(
    new: FailoverState, finding: Finding, seen: Observation, now: float, policy: FailoverPolicy
) -> FailoverState:
    """What this event leaves in the state beside the phase."""
    match finding.event:
        case Event.RESTARTED:
            # Nothing that the earlier life had heard is evidence any more.
            waiting = new.phase in (Phase.COOLING, Phase.STANDING_DOWN, Phase.REJOINING)
            return replace(
                new,
                run=seen.run,
                since=new.since if waiting else now,
                not_before=now,
                asked_again_at=now,
                off_asked_at=None,
                off_answered_at=None,
                received=(),
            )
        case Event.CONFIRMED:
            witnesses = signs.accusers(new, seen, now, policy)
            names = {v.name for v in witnesses}
            number = new.incidents + 1
            return replace(
                new,
                death=finding.death,
                incidents=number,
                incident=f"{new.target}-{new.mod_revision}-{number}",
                fenced=True,
                ordered_at=now,
                order_open=True,
                fences=(*(m for m in new.fences if now - m <= policy.fence_window_seconds), now),
                witnesses=tuple(sorted(names)),
                late=tuple(sorted(v.name for v in seen.vantages if v.name not in {new.target, *names})),
                survivors=tuple(sorted(v.name for v in witnesses if v.kind is VantageKind.REPLICA)),
                off_asked_at=None,
                off_answered_at=None,
                renewed_at=None,
                received=(),
                isolated_until=None,
                lead=None,
            )
        case Event.ORDER_DONE | Event.READ_BACK_AGAIN | Event.UNISOLATED | Event.POWER_ON_AGAIN:
            return replace(new, asked_again_at=now)
        case Event.ORDER_NOT_BEGUN:
            return replace(new, fenced=False, ordered_at=None, fences=new.fences[:-1])
        case Event.READ_BACK_OFF if seen.read_back is not None:
            return replace(
                new, off_asked_at=seen.read_back.asked_at, off_answered_at=seen.read_back.answered_at
            )
        case Event.LOOK_CLEAN:
            until = now + policy.isolate_seconds + policy.isolate_hold_seconds
            return replace(new, survivors=signs.survivors(new, seen), isolated_until=until)
        case Event.CANNOT_FENCE | Event.CAN_FENCE:
            return replace(new, unable_told=finding.event is Event.CANNOT_FENCE)
        case Event.ETCD_LEADER_BESIDE:
            return replace(new, moved_etcd_at=now)
        case Event.SIGNS_MISSING:
            return replace(new, lease=signs.lease_of(seen.etcd), raft_term=seen.etcd.raft_term)
    return new


def _forget(state: FailoverState, now: float) -> FailoverState:
    """Back in calm: the incident is over, and silence counts from here."""
    return replace(
        state,
        not_before=now,
        unable_since=None,
        # A host that comes back from a fence is watched once it has been seen to work, not while it boots.
        saw_alive=() if state.fenced else state.saw_alive,
        death=None,
        fenced=False,
        ordered_at=None,
        order_open=False,
        witnesses=(),
        late=(),
        survivors=(),
        off_asked_at=None,
        off_answered_at=None,
        lease=None,
        raft_term=None,
        renewed_at=None,
        received=(),
        isolated_until=None,
        lead=None,
    )


def _alert(phase: Phase, new: FailoverState, comment: str, finding: Finding) -> Action:
    words = "; ".join(finding.words)
    return raise_alert(
        alert_for(phase, new.phase, finding.event),
        description=f"{comment} ({words})" if words else comment,
        target=new.target or "",
        failover_incident=new.incident,
    )


def _args(
    name: str, state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy
) -> dict[str, object]:
    """Arguments of one action: JSON values only."""
    args: dict[str, object] = {
        "incident": state.incident,
        "target": state.target,
        "not_after": now + policy.begin_seconds,
    }
    match name:
        case "fence":
            death = state.death.value if state.death else None
            return {**args, "death": death, "deadline_seconds": policy.fence_seconds}
        case "read_back":
            return {**args, "deadline_seconds": policy.read_back_seconds}
        case "last_look":
            return {**args, "witnesses": list(state.witnesses), "deadline_seconds": policy.last_look_seconds}
        case "isolate":
            hold = {"hold_seconds": policy.isolate_hold_seconds, "deadline_seconds": policy.isolate_seconds}
            return {**args, "survivors": list(state.survivors), **hold}
        case "unisolate":
            return {**args, "survivors": list(state.survivors), "deadline_seconds": policy.return_seconds}
        case "release":
            revision = {"mod_revision": state.mod_revision}
            return {**args, **revision, "deadline_seconds": policy.release_seconds}
        case "tell_proxies":
            return {**args, "deadline_seconds": policy.tell_seconds}
        case "power_on":
            return {**args, "leader": seen.etcd.holder, "deadline_seconds": policy.return_seconds}
        case "move_etcd_leader":
            away = {"from": state.target, "not_after": args["not_after"]}
            return {**away, "deadline_seconds": policy.move_etcd_seconds}
    return args
