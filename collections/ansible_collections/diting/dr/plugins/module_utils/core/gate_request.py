# SPDX-License-Identifier: GPL-3.0-or-later
"""A request at the gate: what is to be done, to what, and who asks. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import approval as approval_
from . import journal
from .gate_policy import SCENARIO_PATTERN
from .gate_state import Kind, Trigger

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:@/+-]{0,99}")
"""Targets, actors and incident ids: on one line and harmless in a log and a terminal."""

REQUEST_KEYS = frozenset(
    {
        "scenario",
        "kind",
        "target",
        "trigger",
        "actor",
        "incident_id",
        "plan",
        "approvals",
        "override_reason",
        "environment",
    }
)


class RequestError(Exception):
    """A request that cannot be judged. ``problems`` lists all of them, each beginning with its key."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


@dataclass(frozen=True)
class Request:
    """What is to be done, to what, and who asks. ``plan`` is the resolved plan, hashed as it stands."""

    scenario: str
    kind: Kind
    target: str
    trigger: Trigger
    actor: str
    incident_id: str
    plan: Mapping[str, Any]
    approvals: tuple[approval_.Approval, ...] = ()
    override_reason: str | None = None
    environment: str | None = None

    @property
    def plan_sha256(self) -> str:
        """Hash that an approval must name."""
        return approval_.plan_sha256(self.plan)

    @property
    def counts(self) -> bool:
        """Whether the run's outcome moves a breaker: drills and what undoes them never do."""
        return self.kind in {Kind.RECOVER, Kind.OPERATE} and self.trigger is not Trigger.DRILL

    def as_dict(self) -> dict[str, Any]:
        """JSON form for the journal; the plan is there in full, so that a hash can be re-computed."""
        return {
            "scenario": self.scenario,
            "kind": self.kind.value,
            "target": self.target,
            "trigger": self.trigger.value,
            "actor": self.actor,
            "incident_id": self.incident_id,
            "plan": dict(self.plan),
            "approvals": [item.as_dict() for item in self.approvals],
            "override_reason": self.override_reason,
            "environment": self.environment,
        }


def _namespace_problem(kind: Kind, scenario: str) -> str | None:
    """Why ``kind`` cannot go with ``scenario``.

    Reverts and clean-ups pass the lever, so nothing but a drill's own scenario may call itself one.
    """
    namespace = scenario.split(".", 1)[0]
    own = {Kind.OPERATE: "operate", Kind.DRILL: "drill", Kind.REVERT: "drill", Kind.CLEANUP: "drill"}
    wanted = own.get(kind)
    if wanted is not None and namespace != wanted:
        return f"kind: {kind.value!r} goes with scenarios '{wanted}.*' only, found {scenario!r}"
    if wanted is None and namespace in own.values():
        return f"kind: {kind.value!r} does not go with scenario {scenario!r}"
    return None


def is_undo(data: Mapping[str, Any]) -> bool:
    """Whether ``data``, however malformed otherwise, asks to take back what a drill did."""
    scenario = data.get("scenario")
    undo = {kind.value for kind in Kind if kind.is_undo}
    return data.get("kind") in undo and isinstance(scenario, str) and scenario.startswith("drill.")


def parse_request(data: Mapping[str, Any]) -> Request:
    """``data`` (keys: :data:`REQUEST_KEYS`) as a request.

    Raises :class:`RequestError` with every problem.
    """
    problems = [f"{key}: missing" for key in sorted(REQUEST_KEYS - data.keys())]
    problems += [f"{key}: unknown key" for key in sorted(str(k) for k in data.keys() - REQUEST_KEYS)]
    if problems:
        raise RequestError(problems)
    scenario = data["scenario"]
    if not isinstance(scenario, str) or not SCENARIO_PATTERN.fullmatch(scenario):
        problems.append(f"scenario: found {scenario!r}, wanted a name like l4.failover")
    for key in ("target", "actor", "incident_id"):
        if not isinstance(data[key], str) or not NAME_PATTERN.fullmatch(data[key]):
            problems.append(
                f"{key}: found {data[key]!r}, wanted letters, digits, spaces and ._:@/+-, at most 100"
            )
    kinds = [kind for kind in Kind if kind.value == data["kind"]]
    if not kinds:
        problems.append(f"kind: found {data['kind']!r}, wanted {', '.join(k.value for k in Kind)}")
    triggers = [trigger for trigger in Trigger if trigger.value == data["trigger"]]
    if not triggers:
        problems.append(f"trigger: found {data['trigger']!r}, wanted {', '.join(t.value for t in Trigger)}")
    if kinds and isinstance(scenario, str) and (clash := _namespace_problem(kinds[0], scenario)):
        problems.append(clash)
    plan = data["plan"]
    if not isinstance(plan, Mapping):
        problems.append(f"plan: found {type(plan).__name__}, wanted an object")
    else:
        try:
            journal.canonical_json(plan)
        except journal.JournalError as error:
            problems.append(f"plan: {error}")
    approvals: list[approval_.Approval] = []
    raw_approvals = data["approvals"] or []
    if not isinstance(raw_approvals, list):
        problems.append(f"approvals: found {type(raw_approvals).__name__}, wanted a list")
        raw_approvals = []
    for index, item in enumerate(raw_approvals):
        try:
            approvals.append(approval_.parse_approval(item, f"approvals[{index}]"))
        except approval_.ApprovalError as error:
            problems.append(str(error))
    for key in ("override_reason", "environment"):
        if data[key] is not None and not isinstance(data[key], str):
            problems.append(f"{key}: found {type(data[key]).__name__}, wanted a text or null")
    if problems:
        raise RequestError(problems)
    return Request(
        scenario=scenario,
        kind=kinds[0],
        target=data["target"],
        trigger=triggers[0],
        actor=data["actor"],
        incident_id=data["incident_id"],
        plan=plan,
        approvals=tuple(approvals),
        override_reason=data["override_reason"] or None,
        environment=data["environment"] or None,
    )
