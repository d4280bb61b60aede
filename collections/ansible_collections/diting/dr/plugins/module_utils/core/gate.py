# SPDX-License-Identifier: GPL-3.0-or-later
"""The one door: whatever changes a live system asks here first. Pure; decided on data alone.

``decide(policy, state, request, now)`` looks at, in this order: the stop-all lever, whether policy
and memory could be read at all, the blacklist, the rule for the scenario, the maintenance window,
the breaker, the approvals. Every objection is collected, so that an operator sees all of them at
once; the first one gives the decision its code.

A fault's revert and a clean-up always pass: none of these may keep a fault in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import approval as approval_
from . import journal
from .gate_policy import DEFAULT_POLICY, Needs, Policy, PolicyError, parse_policy
from .gate_request import Request, RequestError, is_undo, parse_request
from .gate_state import GateState, Kind, Lever, Memory, Pause, Trigger, Unreadable
from .verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from .breaker import Breaker

__all__ = [
    "DEFAULT_POLICY",
    "Decision",
    "GateState",
    "Kind",
    "Lever",
    "Needs",
    "Pause",
    "Policy",
    "PolicyError",
    "Request",
    "RequestError",
    "Trigger",
    "Unreadable",
    "decide",
    "parse_policy",
    "parse_request",
    "refuse_malformed",
]


@dataclass(frozen=True)
class Decision:
    """The gate's answer. ``requires`` says in fixed words what would let the request through.

    ``code`` is for machines: the first objection's code, or why it was allowed (``pre_approved``,
    ``person``, ``approved``, ``overridden``, ``undo``). ``notes`` are things worth knowing that
    did not decide anything.
    """

    allowed: bool
    code: str
    reasons: tuple[Reason, ...]
    requires: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    plan_sha256: str | None = None
    policy_sha256: str | None = None

    @property
    def message(self) -> str:
        """One text for an operator."""
        if self.allowed:
            return f"Allowed ({self.code})." + "".join(f" {note}." for note in self.notes)
        return "Refused: " + "; ".join(reason.message for reason in self.reasons) + "."

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionary for module results, the journal and evidence."""
        return {
            "allowed": self.allowed,
            "code": self.code,
            "message": self.message,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "requires": list(self.requires),
            "notes": list(self.notes),
            "plan_sha256": self.plan_sha256,
            "policy_sha256": self.policy_sha256,
        }


class _Case:
    """Objections, remedies and notes as they come up while one request is judged."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []
        self.requires: list[str] = []
        self.notes: list[str] = []

    def object(self, reason: Reason, requires: str | None = None) -> None:
        self.reasons.append(reason)
        if requires is not None and requires not in self.requires:
            self.requires.append(requires)


def lever_text(lever: Lever) -> str:
    """The lever as a sentence part."""
    since = f" since {journal.utc_text(lever.at)}" if lever.at else ""
    return f"the stop-all lever is pulled{since} by {lever.by} ({lever.reason})"


def decide(policy: Policy | Unreadable, state: GateState, request: Request, now: datetime) -> Decision:
    """Whether ``request`` may go ahead at ``now`` (a time with a zone). Never raises on valid input."""
    policy_sha256 = policy.sha256 if isinstance(policy, Policy) else None
    if request.kind.is_undo:
        # Not even an unreadable policy may keep a fault in place.
        notes = _unheeded(policy, state, now)
        return Decision(True, "undo", (), (), notes, request.plan_sha256, policy_sha256)

    case = _Case()
    if state.lever is not None:
        text = f"{lever_text(state.lever)}; put it back with: diting gate resume --reason '...'"
        case.object(Reason("stopped", text, state.lever.reason, None), "resume")
    if isinstance(state.memory, Unreadable):
        text = f"the gate's memory cannot be read ({state.memory.problem}); see: diting gate status"
        case.object(Reason("state_unreadable", text, state.memory.problem, None), "readable_state")
    code = "refused"
    if isinstance(policy, Unreadable):
        text = f"the policy cannot be read ({policy.problem}); see: diting gate check-policy"
        case.object(Reason("policy_unreadable", text, policy.problem, None), "readable_policy")
    else:
        code = _judge(case, policy, state, request, now)
    if case.reasons:
        return Decision(
            False,
            case.reasons[0].code,
            tuple(case.reasons),
            tuple(case.requires),
            tuple(case.notes),
            request.plan_sha256,
            policy_sha256,
        )
    return Decision(True, code, (), (), tuple(case.notes), request.plan_sha256, policy_sha256)


def refuse_malformed(data: Mapping[str, Any], problems: list[str]) -> Decision:
    """The decision on a request that cannot be read: no, unless it takes a drill's fault back."""
    if is_undo(data):
        return Decision(
            allowed=True, code="undo", reasons=(), notes=tuple(f"malformed: {p}" for p in problems)
        )
    return Decision(False, "request_invalid", tuple(Reason("request_invalid", p) for p in problems))


def _unheeded(policy: Policy | Unreadable, state: GateState, now: datetime) -> tuple[str, ...]:
    notes = []
    if state.lever is not None:
        notes.append(f"{lever_text(state.lever)}, which never stops a revert or a clean-up")
    notes += [
        f"passed although something could not be read: {thing.problem}"
        for thing in (policy, state.pause, state.memory)
        if isinstance(thing, Unreadable)
    ]
    if isinstance(state.pause, Pause) and now < state.pause.until:
        notes.append(f"passed during a maintenance window of {state.pause.by}")
    return tuple(notes)


def _judge(case: _Case, policy: Policy, state: GateState, request: Request, now: datetime) -> str:
    """Everything the policy has a say in. Returns the code for the case that nothing objects."""
    entry = policy.blacklisted_by(request.scenario, request.target)
    if entry is not None:
        text = f"{request.scenario} on {request.target} is blacklisted for everybody: {entry.why}"
        case.object(Reason("blacklisted", text, f"{request.scenario} {request.target}", entry.scenario))
    # A plan that was made for one environment is not carried out in another.
    if request.environment != policy.environment and None not in (request.environment, policy.environment):
        text = (
            f"the request is for environment {request.environment!r}, this gate guards {policy.environment!r}"
        )
        case.object(Reason("environment_mismatch", text, request.environment, policy.environment))
    rule = policy.rule_for(request.scenario, request.target, request.plan)
    if rule is None:
        text = (
            f"no rule of the policy knows {request.scenario} on {request.target}: what is unknown is refused"
        )
        case.object(Reason("scenario_unknown", text, request.scenario, None), "policy_rule")
    _check_pause(case, state.pause, request, now)
    overridden = False
    if isinstance(state.memory, Memory):
        if request.kind is Kind.DRILL:
            _check_covered_breakers(case, policy, state.memory, request)
        else:
            breaker = state.memory.breaker(request.scenario, request.target)
            overridden = _check_breaker(case, policy, breaker, request)
    if rule is None:
        return "refused"
    # A drill breaks things on purpose: whatever the rule says, it needs a yes to its own plan.
    needs = Needs.APPROVAL if request.kind is Kind.DRILL else rule.needs
    code = _check_needs(case, policy, request, needs, now, rule.why)
    return "overridden" if overridden else code


def _check_pause(case: _Case, pause: Pause | Unreadable | None, request: Request, now: datetime) -> None:
    if isinstance(pause, Unreadable):
        text = (
            f"whether a maintenance window is open cannot be read ({pause.problem}); see: diting gate status"
        )
        case.object(Reason("pause_unreadable", text, pause.problem, None), "readable_state")
    elif pause is not None and now < pause.until:
        until = journal.utc_text(pause.until)
        if request.trigger is Trigger.PERSON and request.kind is not Kind.DRILL:
            # Maintenance keeps automation out of the way of people, not people out of their work.
            case.notes.append(f"a maintenance window of {pause.by} is open until {until}")
            return
        text = f"paused for maintenance until {until} by {pause.by} ({pause.reason})"
        case.object(Reason("paused", text, journal.utc_text(now), until), "unpause")


def _check_breaker(case: _Case, policy: Policy, breaker: Breaker, request: Request) -> bool:
    """Objects if the breaker is open. Returns True if a person overrides it, with a reason."""
    if breaker.opened_at is None:
        return False
    what = f"the breaker of {request.scenario} on {request.target} is open since"
    text = f"{what} {journal.utc_text(breaker.opened_at)} after {len(breaker.failures)} automated runs that did not help"
    reason = (request.override_reason or "").strip()
    if request.trigger is Trigger.PERSON and len(reason) >= policy.override_reason_min_chars:
        case.notes.append(f"{text}; overridden by {request.actor}: {reason}")
        return True
    wanted = f"a person may override it with a reason of {policy.override_reason_min_chars} letters or more"
    case.object(
        Reason("breaker_open", f"{text}; {wanted}", len(breaker.failures), policy.breaker_failures),
        "override_reason",
    )
    return False


def _check_covered_breakers(case: _Case, policy: Policy, memory: Memory, request: Request) -> None:
    """A drill must not break what recovery has already given up mending."""
    for (scenario, target), breaker in sorted(memory.breakers.items()):
        if breaker.opened_at is not None and approval_.covers(request.plan, scenario, target):
            text = (
                f"this drill relies on {scenario} on {target}, whose breaker is open since"
                f" {journal.utc_text(breaker.opened_at)}; see: diting gate reset"
            )
            count = len(breaker.failures)
            case.object(Reason("breaker_open", text, count, policy.breaker_failures), "breaker_reset")


def _check_needs(case: _Case, policy: Policy, request: Request, needs: Needs, now: datetime, why: str) -> str:
    if needs is Needs.NOTHING:
        return "pre_approved"
    if needs is Needs.PERSON and request.trigger is Trigger.PERSON:
        return "person"
    wanted_sha256 = request.plan_sha256
    valid: list[approval_.Approval] = []
    objections: list[Reason] = []
    for item in request.approvals:
        objection = approval_.objection(
            item,
            wanted_sha256=wanted_sha256,
            now=now,
            max_lifetime_seconds=policy.approval_max_lifetime_seconds,
            clock_skew_seconds=policy.clock_skew_seconds,
        )
        if objection is None:
            valid.append(item)
        else:
            objections.append(objection)
    people = approval_.approvers(valid, actor=request.actor, required=policy.approvals_required)
    if len(people) < policy.approvals_required:
        text = (
            f"{request.scenario} on {request.target} needs {policy.approvals_required} approval(s) of this"
            f" plan and has {len(people)} ({why} Plan {wanted_sha256})"
        )
        case.object(Reason("approval_required", text, len(people), policy.approvals_required), "approval")
        for objection in objections:
            case.object(objection)
    elif not approval_.covers(request.plan, request.scenario, request.target):
        text = (
            f"the approved plan does not say that it includes {request.scenario} on {request.target}:"
            " name them in plan.scenario and plan.target, or in plan.covers"
        )
        case.object(Reason("plan_does_not_cover", text, request.scenario, None), "approval")
    else:
        case.notes.append("approved by " + ", ".join(sorted(people)))
    return "approved"
