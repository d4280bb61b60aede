# SPDX-License-Identifier: GPL-3.0-or-later
"""Silence and signs of life, judged from one observation. Pure.

Two questions that are not each other's opposite: is the primary silent (asked before a fence,
of every vantage point, for some time), and has anything been heard that is newer than the read-back (asked after it,
where one sign stops everything).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .failover_state import Death, FailoverPolicy, FailoverState, Lease
from .failover_view import Answer, EtcdView, Observation, Probe, Vantage, VantageKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REPLIES = frozenset(
    {
        Answer.OK,
        Answer.REFUSED,
        Answer.NO_SPACE,
        Answer.NO_TEMP,
        Answer.READ_ONLY,
        Answer.WAITING_SYNC,
        Answer.REJECTED,
    }
)
"""Answers that only something alive at the address can give; a refusal is a packet too."""
LIVES = frozenset({Answer.OK, Answer.WAITING_SYNC})
FULL = frozenset({Answer.NO_SPACE, Answer.NO_TEMP, Answer.READ_ONLY})
STUCK = frozenset({Answer.TIMEOUT, Answer.UNREACHABLE})
"""Silence. Only this may ever be taken for death."""


NO_TEMP_FACTOR = 3
"""So many times ``no_space_seconds`` while only temporary files lack space."""


def same_kind(one: Answer, other: Answer) -> bool:
    """Whether two failures belong to one run: silence does not go on from a refusal, nor "no space" from either."""
    return one is other or any({one, other} <= kind for kind in (FULL, STUCK))


def is_fresh(moment: float | None, now: float, seconds: float) -> bool:
    """Whether ``moment`` lies within the last ``seconds``. A moment in the future is no evidence."""
    return moment is not None and now - seconds <= moment <= now


def fresh_vantages(seen: Observation, now: float, policy: FailoverPolicy) -> tuple[Vantage, ...]:
    """Vantage points that are themselves alive: they answered in the last second. The primary is none for itself."""
    return tuple(
        v
        for v in seen.vantages
        if v.name != seen.target and is_fresh(v.answered_at, now, policy.vantage_fresh_seconds)
    )


def has_quorum(vantages: Iterable[Vantage]) -> bool:
    """Two vantage points or more, one of them a replica. No setting lowers this."""
    kinds = {v.name: v.kind for v in vantages}
    return len(kinds) >= 2 and VantageKind.REPLICA in kinds.values()


def _fails(probe: Probe, now: float, policy: FailoverPolicy) -> bool:
    # A probe loop that has stopped says nothing, however bad its last news was.
    recent = is_fresh(probe.tried_at, now, policy.vantage_fresh_seconds + policy.probe_seconds)
    return recent and probe.failing_since is not None and probe.answer not in LIVES


def _silent(vantage: Vantage, now: float, policy: FailoverPolicy) -> bool:
    asked = _asked(Death.GONE, vantage)
    return all(probe.answer in STUCK and _fails(probe, now, policy) for probe in asked)


def _replies(vantage: Vantage) -> bool:
    return any(probe.answer in REPLIES for probe in _probes(vantage))


def _probes(vantage: Vantage) -> Sequence[Probe]:
    return (vantage.tcp, vantage.rest, vantage.sql)


def has_seen_alive(vantage: Vantage, since: float) -> bool:
    """Whether TCP and REST have both had a good answer here at ``since`` or later.

    Of SQL that is asked only where a hang is concerned: without an account a vantage point can still see silence.
    """
    return all((probe.last_ok_at or -1.0) >= since for probe in (vantage.tcp, vantage.rest))


def symptom(state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy) -> Death | None:
    """What the fresh vantage points agree on at this moment, however short; None when they do not.

    Only those that have seen this primary alive may accuse it: a firewall that was always shut is no outage.
    """
    fresh = fresh_vantages(seen, now, policy)
    accusers = [v for v in fresh if v.name in state.saw_alive]
    if not accusers or seen.target != state.target:
        return None
    if all(_silent(v, now, policy) for v in accusers) and not any(_replies(v) for v in fresh):
        return Death.GONE
    # A hang is told from a broken probe by those whose writes have worked, and one of them is not enough.
    writers = [v for v in accusers if _asked(Death.HUNG, v)]
    if not has_quorum(writers) or any(v.sql.answer in LIVES for v in fresh):
        return None
    if not all(_fails(v.sql, now, policy) for v in writers):
        return None
    if all(v.sql.answer in FULL for v in writers):
        return Death.FULL
    # The queue of a stopped postmaster fills with clients that have given up, and then TCP is silent as well.
    alive = any(Answer.OK in (v.tcp.answer, v.rest.answer) for v in fresh)
    if alive and all(v.sql.answer in STUCK for v in writers):
        return Death.HUNG
    return None


def accusers(
    state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy
) -> tuple[Vantage, ...]:
    """Fresh vantage points that have seen this primary alive."""
    return tuple(v for v in fresh_vantages(seen, now, policy) if v.name in state.saw_alive)


def is_confirmed(
    death: Death, state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy
) -> bool:
    """Whether the symptom has lasted long enough, everywhere and without one good answer in between."""
    begin = now - _limit(death, state, seen, now, policy)
    if state.not_before > begin:
        return False
    for vantage in accusers(state, seen, now, policy):
        for probe in _asked(death, vantage):
            if probe.failing_since is None or probe.failing_since > begin:
                return False
            if probe.failures < policy.confirm_probes:
                return False
    # A good answer counts whoever heard it, also one that has since fallen silent itself.
    return not any(
        probe.last_ok_at is not None and probe.last_ok_at > begin
        for vantage in seen.vantages
        for probe in _asked(death, vantage)
    )


def _limit(
    death: Death, state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy
) -> float:
    """Seconds that the symptom has to last."""
    if death is Death.FULL:
        # Where commits still work there is time to see whether it passes.
        beginning = any(v.sql.answer is Answer.NO_TEMP for v in accusers(state, seen, now, policy))
        return policy.no_space_seconds * (NO_TEMP_FACTOR if beginning else 1)
    # What refused or complained a moment ago has a host that lives, and Patroni at work on it: that silence is given the
    # time of a hang, whoever heard the answer.
    replies = [probe.last_reply_at for v in seen.vantages for probe in _probes(v)]
    troubled = any(moment is not None and moment > now - policy.hang_seconds for moment in replies)
    if death is Death.HUNG or troubled:
        return max(policy.hang_seconds, policy.confirm_seconds)
    return policy.confirm_seconds


def _asked(death: Death, vantage: Vantage) -> Sequence[Probe]:
    """The probes that have to fail; a vantage point that does not write cannot be missed for it."""
    sql = () if vantage.sql.answer is Answer.NONE else (vantage.sql,)
    if death is Death.GONE:
        return (vantage.tcp, vantage.rest, *sql)
    return sql if vantage.sql.last_ok_at is not None else ()


def signs_of_life(state: FailoverState, seen: Observation) -> list[str]:
    """Everything heard of the primary that is newer than the read-back, as words; empty when there is none.

    Newer means newer than the moment the read-back was asked: what came while it was under way counts.
    """
    after = state.off_asked_at
    if after is None:
        return []
    found = []
    for vantage in seen.vantages:
        if vantage.name == state.target and vantage.answered_at is not None and vantage.answered_at > after:
            found.append(f"{vantage.name} itself answered")
        for name in ("tcp", "rest", "sql"):
            probe: Probe = getattr(vantage, name)
            if _heard(probe, after):
                found.append(f"{vantage.name} heard {name} ({probe.answer.value})")
        found += _fed(state, vantage, after)
    renewals = (state.renewed_at, renewal(state.lease, seen.etcd))
    if any(moment is not None and moment > after for moment in renewals):
        found.append("the lease of the leader key was renewed")
    return found


def _heard(probe: Probe, after: float) -> bool:
    if any(moment is not None and moment > after for moment in (probe.last_ok_at, probe.last_reply_at)):
        return True
    return probe.answer in REPLIES and probe.tried_at is not None and probe.tried_at > after


def _fed(state: FailoverState, vantage: Vantage, after: float) -> list[str]:
    receiver = vantage.walreceiver
    if receiver is None:
        return []
    if receiver.fed_at is not None and receiver.fed_at > after:
        return [f"the walreceiver of {vantage.name} was fed"]
    base = {item.vantage: item.lsn for item in state.received}.get(vantage.name)
    if receiver.lsn is not None and base is not None and receiver.lsn > base:
        return [f"the WAL of {vantage.name} advanced"]
    return []


def lease_of(etcd: EtcdView) -> Lease | None:
    """The reading's lease, or None when any part of it is missing."""
    parts = (etcd.asked_at, etcd.answered_at, etcd.lease_id, etcd.lease_ttl_seconds, etcd.raft_term)
    if None in parts:
        return None
    asked, answered, lease_id, ttl, term = parts
    return Lease(float(asked or 0), float(answered or 0), int(lease_id or 0), int(ttl or 0), int(term or 0))


def renewal(base: Lease | None, etcd: EtcdView) -> float | None:
    """The latest moment at which a renewal can have come that made the TTL rise since ``base``; None when it has not risen.

    etcd cuts the TTL to whole seconds, so a lease expires within a second after asked + TTL. A new raft term
    refreshes every lease by itself, and then a rise says nothing.
    """
    new = lease_of(etcd)
    if base is None or new is None or new.lease_id != base.lease_id or new.raft_term != base.raft_term:
        return None
    if new.ttl_seconds <= 0 or new.asked_at <= base.asked_at:
        return None
    if new.asked_at + new.ttl_seconds < base.answered_at + base.ttl_seconds + 1:
        return None
    granted = etcd.lease_granted_seconds
    return new.answered_at if granted is None else new.answered_at + new.ttl_seconds + 1 - granted


def is_unrenewed(state: FailoverState, etcd: EtcdView) -> bool:
    """Whether this reading proves that the lease was not renewed after the read-back was asked.

    Between two renewals a second apart there is no rise that whole seconds would show. So nothing is concluded from its
    absence: the newest renewal has to be *proven* older, which some reading does within the second after the read-back, if it
    is so. Across an election of etcd this cannot be had, since that has made every lease whole.
    """
    lease, after = lease_of(etcd), state.off_asked_at
    if lease is None or after is None:
        return False
    if state.raft_term is not None and lease.raft_term != state.raft_term:
        return True
    granted = etcd.lease_granted_seconds
    return granted is not None and lease.answered_at + lease.ttl_seconds + 1 - granted <= after


def not_looked(state: FailoverState, seen: Observation, names: Iterable[str]) -> dict[str, str]:
    """Those of ``names`` that have not looked at everything after the read-back, each with what is missing in words."""
    after = float("inf") if state.off_answered_at is None else state.off_answered_at
    vantages = {v.name: v for v in seen.vantages}
    lacking = {}
    for name in names:
        vantage = vantages.get(name)
        if vantage is None or not _newer(
            after, vantage.answered_at, vantage.tcp.tried_at, vantage.rest.tried_at
        ):
            lacking[name] = f"{name} has not looked since the read-back"
        elif vantage.kind is VantageKind.REPLICA and (
            vantage.walreceiver is None or not _newer(after, vantage.walreceiver.read_at)
        ):
            lacking[name] = f"the walreceiver of {name} was not seen since the read-back"
    return lacking


def survivors(state: FailoverState, seen: Observation) -> tuple[str, ...]:
    """Replicas that have looked since the read-back, whether they had confirmed or not."""
    names = {*state.witnesses, *state.late} - not_looked(state, seen, (*state.witnesses, *state.late)).keys()
    return tuple(sorted(v.name for v in seen.vantages if v.name in names and v.kind is VantageKind.REPLICA))


def unseen(state: FailoverState, seen: Observation) -> list[str]:
    """What the last look still lacks, as words; empty when every witness has looked after the read-back."""
    after = state.off_answered_at
    if after is None:
        return ["no read-back"]
    lacking = list(not_looked(state, seen, state.witnesses).values())
    if not _newer(after, seen.etcd.asked_at) or lease_of(seen.etcd) is None:
        lacking.append("the leader key's lease was not read since the read-back")
    elif not is_unrenewed(state, seen.etcd):
        lacking.append("that the leader key's lease was not renewed since the read-back")
    return lacking


def _newer(after: float, *moments: float | None) -> bool:
    return all(moment is not None and moment > after for moment in moments)
