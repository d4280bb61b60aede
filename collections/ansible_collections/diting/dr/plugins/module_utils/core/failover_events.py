# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads an observation as one event of the failover guard's table. Pure.

One function per phase, each in the order in which things matter: first what stops, then the deadline, then what goes on.
A result counts only for the incident under way, and only when it was asked for after the step before it had ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import failover_signs as signs
from .failover_health import trouble
from .failover_rules import forbidden, missing
from .failover_state import Death, FailoverPolicy, FailoverState
from .failover_table import Event, Phase
from .failover_view import Outcome, Power

if TYPE_CHECKING:
    from collections.abc import Callable

    from .failover_view import Observation, Result


@dataclass(frozen=True)
class Finding:
    """An event with the words that led to it, for logs and alerts."""

    event: Event
    words: tuple[str, ...] = ()
    death: Death | None = None


@dataclass(frozen=True)
class Case:
    """What a reader of events looks at."""

    state: FailoverState
    seen: Observation
    now: float
    policy: FailoverPolicy

    @property
    def age(self) -> float:
        """Seconds in this phase."""
        return self.now - self.state.since

    def own(self, result: Result | None) -> Result | None:
        """The result, when it is of this incident and was asked for in this phase."""
        if result is None or result.incident != self.state.incident or result.asked_at < self.state.since:
            return None
        return result

    def not_allowed(self) -> tuple[str, ...]:
        """What has come to forbid an incident under way; its own fence is not counted against it."""
        return tuple(forbidden(self.state, self.seen, self.now, self.policy, before_fence=False))

    def lacking(self) -> tuple[str, ...]:
        """What the next step needs and cannot be seen."""
        return tuple(missing(self.state.death or Death.GONE, self.state, self.seen, self.now, self.policy))


NOTHING = Finding(Event.NOTHING)


def event_of(state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy) -> Finding:
    """The one event that ``seen`` amounts to in this phase."""
    if state.run != seen.run:
        return Finding(Event.RESTARTED)
    return _READERS[state.phase](Case(state, seen, now, policy))


def _leader(case: Case) -> Finding | None:
    """Whether the leader key has moved away from what the incident is about."""
    etcd, state = case.seen.etcd, case.state
    if etcd.answered_at is None:
        return None
    if etcd.holder is None:
        return Finding(Event.KEY_GONE)
    if etcd.holder != state.target:
        return Finding(Event.LEADER_ELSEWHERE, (f"{etcd.holder} holds the leader key",))
    if etcd.mod_revision != state.mod_revision:
        return Finding(Event.KEY_CHANGED, (f"revision {etcd.mod_revision}, it was {state.mod_revision}",))
    return None


def _is_well(case: Case) -> bool:
    """Whether somebody fresh hears the primary answer, and nobody has a complaint in common."""
    fresh = signs.fresh_vantages(case.seen, case.now, case.policy)
    return (
        case.seen.target == case.state.target
        and any(v.tcp.answer in signs.LIVES or v.rest.answer in signs.LIVES for v in fresh)
        and signs.symptom(case.state, case.seen, case.now, case.policy) is None
    )


def _starting(case: Case) -> Finding:
    etcd = case.seen.etcd
    ready = etcd.answered_at is not None and signs.fresh_vantages(case.seen, case.now, case.policy)
    return Finding(Event.READY) if ready else _health(case)


def _health(case: Case) -> Finding:
    """Whether people have to be told that a fence would not be possible, or that it is again."""
    since, told = case.state.unable_since, case.state.unable_told
    if since is None:
        return Finding(Event.CAN_FENCE) if told else NOTHING
    if told or case.now - since < case.policy.unable_seconds:
        return NOTHING
    return Finding(Event.CANNOT_FENCE, tuple(trouble(case.state, case.seen, case.now, case.policy)))


def _watching(case: Case) -> Finding:
    death = signs.symptom(case.state, case.seen, case.now, case.policy)
    if death is not None and _leader(case) is None:
        return Finding(Event.SIGNS_MISSING, (death.value,), death)
    etcd, moved = case.seen.etcd, case.state.moved_etcd_at
    beside = etcd.etcd_leader is not None and etcd.etcd_leader == etcd.holder == case.state.target
    rested = moved is None or case.now - moved >= case.policy.move_etcd_pause_seconds
    # Moving an etcd leader costs nobody anything, but a lever pulled means hands off everything.
    ours = case.seen.lock_until is not None and case.seen.lock_until > case.now
    asked = case.policy.keep_etcd_leader_away and not etcd.leave_etcd_leader
    wanted = asked and beside and rested and ours and death is None
    if wanted and not case.not_allowed():
        return Finding(Event.ETCD_LEADER_BESIDE, (f"{etcd.etcd_leader} leads etcd and holds the leader key",))
    return _health(case)


def _suspect(case: Case) -> Finding:
    moved = _leader(case)
    if moved is not None:
        return moved
    death = signs.symptom(case.state, case.seen, case.now, case.policy)
    if death is None:
        return Finding(Event.SIGNS_BACK) if _is_well(case) else _late(case, ("vantage points do not agree",))
    if not signs.is_confirmed(death, case.state, case.seen, case.now, case.policy):
        return _late(case, (f"{death.value} is not confirmed",))
    why_not = tuple(forbidden(case.state, case.seen, case.now, case.policy, before_fence=True))
    if why_not:
        return Finding(Event.FORBIDDEN, why_not, death)
    lacking = tuple(missing(death, case.state, case.seen, case.now, case.policy))
    if lacking:
        return _late(case, tuple(f"not seen: {words}" for words in lacking))
    return Finding(Event.CONFIRMED, (death.value,), death)


def _late(case: Case, words: tuple[str, ...]) -> Finding:
    """TIMEOUT when a suspicion has led nowhere for too long."""
    return Finding(Event.TIMEOUT, words) if case.age > case.policy.suspect_limit_seconds else NOTHING


def _stopped(case: Case, deadline_seconds: float) -> Finding | None:
    """What ends a step under way, first things first."""
    if case.state.off_asked_at is not None:
        heard = signs.signs_of_life(case.state, case.seen)
        if heard:
            return Finding(Event.SIGN_OF_LIFE, tuple(heard))
    moved = _leader(case)
    if moved is not None:
        return moved
    why_not = case.not_allowed()
    if why_not:
        return Finding(Event.FORBIDDEN, why_not)
    # Before any result: whoever slept through the deadline holds old evidence in his hands.
    if case.age > deadline_seconds:
        return Finding(Event.TIMEOUT, (f"{case.age:.1f} s, at most {deadline_seconds:g} s",))
    return None


def _fencing(case: Case) -> Finding:
    stopped = _stopped(case, case.policy.fence_seconds)
    if stopped is not None:
        return stopped
    order = case.own(case.seen.fence)
    if order is None:
        return NOTHING
    if not order.begun:
        return Finding(Event.ORDER_NOT_BEGUN, (order.words,))
    if order.outcome is Outcome.DONE:
        return Finding(Event.ORDER_DONE, (order.words,) if order.words else ())
    return Finding(Event.ORDER_FAILED, (f"{order.outcome.value}: {order.words}",))


def _reading_back(case: Case) -> Finding:
    stopped = _stopped(case, case.policy.read_back_seconds)
    if stopped is not None:
        return stopped
    read = case.seen.read_back
    if read is None or read.incident != case.state.incident or read.asked_at < case.state.asked_again_at:
        return NOTHING
    if read.power is Power.OFF:
        return Finding(Event.READ_BACK_OFF, (read.words,) if read.words else ())
    if case.now - read.answered_at < case.policy.read_back_pause_seconds:
        return NOTHING
    return Finding(Event.READ_BACK_AGAIN, (f"{read.power.value}: {read.words}",))


def _last_look(case: Case) -> Finding:
    late = signs.not_looked(case.state, case.seen, case.state.late)
    stopped = _stopped(case, case.policy.last_look_seconds)
    if stopped is not None:
        lacking = (*signs.unseen(case.state, case.seen), *late.values(), *case.lacking())
        return (
            Finding(stopped.event, (*stopped.words, *lacking)) if stopped.event is Event.TIMEOUT else stopped
        )
    # A read-back that lies is found out by whoever looks; so as good as everybody has to, confirmed or not.
    may_lack = case.policy.power_fence and len(late) <= 1 and case.age >= case.policy.late_look_seconds
    if signs.unseen(case.state, case.seen) or case.lacking() or (late and not may_lack):
        return NOTHING
    return Finding(Event.LOOK_CLEAN, tuple(late.values()))


def _isolating(case: Case) -> Finding:
    stopped = _stopped(case, case.policy.isolate_seconds)
    if stopped is not None:
        return stopped
    result = case.own(case.seen.isolate)
    if result is None:
        return NOTHING
    if result.outcome is not Outcome.DONE:
        return Finding(Event.ISOLATE_FAILED, (f"{result.outcome.value}: {result.words}",))
    unsure = case.lacking() or not signs.is_unrenewed(case.state, case.seen.etcd)
    return NOTHING if unsure else Finding(Event.ISOLATED)


def _releasing(case: Case) -> Finding:
    result = case.own(case.seen.release)
    if result is not None and result.outcome is Outcome.DONE:
        return Finding(Event.RELEASED)
    moved = _leader(case)
    if moved is not None:
        return moved
    heard = signs.signs_of_life(case.state, case.seen)
    if heard:
        return Finding(Event.SIGN_OF_LIFE, tuple(heard))
    why_not = case.not_allowed()
    if why_not:
        return Finding(Event.FORBIDDEN, why_not)
    if result is not None and result.outcome is Outcome.FAILED:
        return Finding(Event.RELEASE_REFUSED, (result.words,))
    # An unknown end is settled by watching the key; asking again might hit what has come since.
    if case.age > case.policy.release_seconds:
        return Finding(Event.TIMEOUT, (result.words if result else "no answer from etcd",))
    return NOTHING


def _telling(case: Case) -> Finding:
    result = case.own(case.seen.tell_proxies)
    if result is not None:
        done = result.outcome is Outcome.DONE
        return Finding(Event.TOLD if done else Event.TELL_FAILED, (result.words,) if result.words else ())
    return Finding(Event.TIMEOUT) if case.age > case.policy.tell_seconds else NOTHING


def _away(case: Case) -> Finding | None:
    """Whether the fenced host may come back: another member has led for a while, or nobody has for long."""
    moved, policy = _leader(case), case.policy
    since = case.state.since if case.state.ordered_at is None else case.state.ordered_at
    waited = case.now - since
    if moved is None or moved.event is not Event.LEADER_ELSEWHERE:
        return Finding(Event.COMEBACK_DUE) if waited > policy.comeback_seconds else None
    # A key that goes from hand to hand, or an etcd that falls silent, must not keep a member away for ever.
    long = waited > policy.comeback_seconds + policy.return_after_seconds
    return moved if long or _held_seconds(case) >= policy.return_after_seconds else None


def _held_seconds(case: Case) -> float:
    """For how long the member that leads now is seen to have held the key without a break."""
    etcd, lead = case.seen.etcd, case.state.lead
    if lead is None or (lead.holder, lead.mod_revision) != (etcd.holder, etcd.mod_revision):
        return 0.0
    return max(0.0, (etcd.answered_at or 0.0) - lead.since)


def _cooling(case: Case) -> Finding:
    return _away(case) or NOTHING


def _order_is_over(case: Case) -> bool:
    """Whether the order to switch off can no longer be carried out: a late one would hit a host that is back."""
    longest = case.policy.begin_seconds + case.policy.fence_seconds
    return not case.state.order_open or case.now > (case.state.ordered_at or 0.0) + longest


def _returning(case: Case) -> Finding:
    if not case.policy.power_on_after:
        done = case.own(case.seen.unisolate) is not None or case.age > case.policy.return_seconds
        return Finding(Event.LEFT_OFF) if done else NOTHING
    until = case.state.isolated_until
    result = case.own(case.seen.unisolate)
    gone = result is not None and result.outcome is Outcome.DONE
    if not _order_is_over(case):
        return NOTHING
    if gone or until is None or case.now > until:
        return Finding(Event.UNISOLATED)
    return NOTHING


def _rejoining(case: Case) -> Finding:
    order, read = case.own(case.seen.power_on), case.seen.read_back
    words = (f"{order.outcome.value}: {order.words}",) if order is not None else ()
    answered = (
        read is not None
        and read.incident == case.state.incident
        and read.asked_at >= case.state.asked_again_at
    )
    if read is not None and answered:
        if read.power is Power.ON:
            return Finding(Event.POWERED_ON)
        words = (*words, f"read back {read.power.value}: {read.words}")
    if case.age > case.policy.rejoin_seconds:
        return Finding(Event.TIMEOUT, words)
    rested = (
        read is not None and answered and case.now - read.answered_at >= case.policy.power_on_pause_seconds
    )
    # Whoever pulls a lever now, or works on the host, must not have it come on under his hands.
    return Finding(Event.POWER_ON_AGAIN, words) if rested and not case.not_allowed() else NOTHING


def _standing_down(case: Case) -> Finding:
    if case.state.fenced:
        return _away(case) or NOTHING
    moved = _leader(case)
    if moved is not None and moved.event is Event.LEADER_ELSEWHERE:
        return Finding(Event.SIGNS_BACK, moved.words)
    return Finding(Event.SIGNS_BACK) if _is_well(case) else NOTHING


def _alert_only(case: Case) -> Finding:
    moved = _leader(case)
    if moved is not None and moved.event is Event.LEADER_ELSEWHERE:
        return moved
    if _is_well(case):
        return Finding(Event.SIGNS_BACK)
    if moved is None and not forbidden(case.state, case.seen, case.now, case.policy, before_fence=True):
        return Finding(Event.PERMITTED)
    return NOTHING


_READERS: dict[Phase, Callable[[Case], Finding]] = {
    Phase.STARTING: _starting,
    Phase.WATCHING: _watching,
    Phase.SUSPECT: _suspect,
    Phase.FENCING: _fencing,
    Phase.READING_BACK: _reading_back,
    Phase.LAST_LOOK: _last_look,
    Phase.ISOLATING: _isolating,
    Phase.RELEASING: _releasing,
    Phase.TELLING: _telling,
    Phase.COOLING: _cooling,
    Phase.RETURNING: _returning,
    Phase.REJOINING: _rejoining,
    Phase.STANDING_DOWN: _standing_down,
    Phase.ALERT_ONLY: _alert_only,
}
