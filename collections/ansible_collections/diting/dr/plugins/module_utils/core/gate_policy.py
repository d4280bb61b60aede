# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's policy: plain data, checked as a whole, every problem named by its path.

A policy is a JSON object (``/etc/diting/gate/policy.json`` on the control host); its keys are
those of :data:`DEFAULT_POLICY`. ``rules`` are read from the top and the first match decides. A
scenario that no rule matches is unknown, and what is unknown is refused.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from . import journal

if TYPE_CHECKING:
    from collections.abc import Mapping

POLICY_VERSION = 1
SCENARIO_PATTERN = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
"""A scenario is ``<level or namespace>.<what is done>``, such as ``l4.failover``."""
_GLOB_PATTERN = re.compile(r"[a-z0-9_.*?\[\]-]+")


class Needs(enum.Enum):
    """What must come with a request before the gate lets it through."""

    NOTHING = "nothing"
    """Pre-approved by the policy: automation may act at once."""
    PERSON = "person"
    """A named person starts it, or it carries an approval."""
    APPROVAL = "approval"
    """An approval bound to exactly this plan, also when a person starts it."""


DEFAULT_POLICY: dict[str, Any] = {
    "schema_version": POLICY_VERSION,
    "environment": None,
    "rules": [
        {
            "scenario": "l4.failover",
            "needs": "nothing",
            "why": "A same-region failover of a synchronous cluster loses nothing acknowledged.",
        },
        {
            "scenario": "l4.rejoin_member",
            "needs": "nothing",
            "why": "Starting a failed member again adds redundancy and takes nothing away.",
        },
        {
            "scenario": "l4.reseed_member",
            "plan": {"old_data_directory": "kept"},
            "needs": "nothing",
            "why": "The old data directory is set aside, so the step can be undone.",
        },
        {
            "scenario": "l4.reseed_member",
            "needs": "approval",
            "why": "Re-seeding over the only copy of the old data cannot be undone.",
        },
        {
            "scenario": "l4.restore",
            "needs": "approval",
            "why": "A restore overwrites data; a person decides what is given up.",
        },
        {
            "scenario": "l5.*",
            "needs": "approval",
            "why": "A region switch and its DNS change cannot be taken back in seconds.",
        },
        {
            "scenario": "operate.restore_test",
            "needs": "nothing",
            "why": "A restore beside production overwrites nothing; what it proves is wanted without a person.",
        },
        {
            "scenario": "operate.*",
            "needs": "person",
            "why": "Planned work is started by somebody who is there to watch it.",
        },
        {
            "scenario": "drill.*",
            "needs": "approval",
            "why": "A drill breaks something on purpose: exactly what, was approved before.",
        },
    ],
    "blacklist": [
        {"scenario": "wallet.*", "target": "*", "why": "Nothing here ever moves funds."},
        {"scenario": "orders.*", "target": "*", "why": "No supervisor sends or edits orders."},
        {"scenario": "engine.*", "target": "*", "why": "Matching and trading rules are not ours."},
    ],
    "breaker": {"failures": 3, "window_seconds": 86400},
    "approvals": {"required": 1, "max_lifetime_seconds": 3600},
    "limits": {
        "run_seconds": 3600,
        "pause_seconds": 86400,
        "clock_skew_seconds": 5,
        "override_reason_min_chars": 8,
    },
}
"""What the gate does out of the box. Role ``gate`` installs it unless the inventory says otherwise.

``window_seconds`` is long on purpose: a remedy that fails once every few hours is a loop too, and
one success clears the count. ``run_seconds`` is how long an allowed run may stay without an
outcome before it counts as inconclusive. ``max_lifetime_seconds`` is the RTO budget of level 4.
"""


class PolicyError(Exception):
    """The policy cannot be used. ``problems`` lists all of them, each beginning with its path."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


@dataclass(frozen=True)
class Rule:
    """What a scenario needs. ``plan`` lists keys of the request's plan that must have these values."""

    scenario: str
    target: str
    plan: Mapping[str, Any]
    needs: Needs
    why: str

    def matches(self, scenario: str, target: str, plan: Mapping[str, Any]) -> bool:
        """Whether this rule speaks about the request."""
        return (
            fnmatchcase(scenario, self.scenario)
            and fnmatchcase(target, self.target)
            # A bare == would take 1 for true, and a plan is written by hand sometimes.
            and all(
                key in plan and type(plan[key]) is type(value) and plan[key] == value
                for key, value in self.plan.items()
            )
        )


@dataclass(frozen=True)
class BlacklistEntry:
    """A scenario and target that nothing and nobody passes, whatever the rules say."""

    scenario: str
    target: str
    why: str

    def matches(self, scenario: str, target: str) -> bool:
        """Whether the request is forbidden by this entry."""
        return fnmatchcase(scenario, self.scenario) and fnmatchcase(target, self.target)


@dataclass(frozen=True)
class Policy:
    """A checked policy. ``sha256`` names this very text in journals and evidence. Times in seconds."""

    sha256: str
    environment: str | None
    rules: tuple[Rule, ...]
    blacklist: tuple[BlacklistEntry, ...]
    breaker_failures: int
    breaker_window_seconds: int
    approvals_required: int
    approval_max_lifetime_seconds: int
    run_seconds: int
    pause_seconds: int
    clock_skew_seconds: int
    override_reason_min_chars: int

    def rule_for(self, scenario: str, target: str, plan: Mapping[str, Any]) -> Rule | None:
        """The first rule that matches, or None for a scenario the policy does not know."""
        return next((r for r in self.rules if r.matches(scenario, target, plan)), None)

    def blacklisted_by(self, scenario: str, target: str) -> BlacklistEntry | None:
        """The first blacklist entry that matches, if any."""
        return next((e for e in self.blacklist if e.matches(scenario, target)), None)


class _Checker:
    """Collects every problem, so that an operator mends a policy in one go, not one by one."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def say(self, path: str, problem: str) -> None:
        self.problems.append(f"{path or '/'}: {problem}")

    def mapping(
        self, path: str, value: object, required: frozenset[str], optional: frozenset[str]
    ) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.say(path, f"found {type(value).__name__}, wanted an object")
            return {}
        for key in sorted(required - value.keys()):
            self.say(f"{path}/{key}", "missing")
        # An unknown key is an error: a misspelt "blacklst" must not silently allow everything.
        for key in sorted(str(k) for k in value.keys() - required - optional):
            self.say(f"{path}/{key}", "unknown key")
        return value

    def items(self, path: str, value: object) -> list[Any]:
        if not isinstance(value, list):
            self.say(path, f"found {type(value).__name__}, wanted a list")
            return []
        return value

    def number(self, path: str, mapping: Mapping[str, Any], key: str, low: int, high: int) -> int:
        value = mapping.get(key, low)
        # Not isinstance(): True is an int, and no number of failures.
        if type(value) is not int or not low <= value <= high:  # pylint: disable=unidiomatic-typecheck
            self.say(f"{path}/{key}", f"found {value!r}, wanted a whole number {low} to {high}")
            return low
        return value

    def text(self, path: str, mapping: Mapping[str, Any], key: str) -> str:
        value = mapping.get(key, "-")
        if not isinstance(value, str) or not value.strip():
            self.say(f"{path}/{key}", f"found {value!r}, wanted a sentence")
            return "-"
        return value

    def scenario_glob(self, path: str, mapping: Mapping[str, Any]) -> str:
        value = mapping.get("scenario", "-.-")
        if not isinstance(value, str) or not _GLOB_PATTERN.fullmatch(value):
            self.say(f"{path}/scenario", f"found {value!r}, wanted a name or pattern like 'l4.*'")
            return "-.-"
        return value

    def target_glob(self, path: str, mapping: Mapping[str, Any]) -> str:
        value = mapping.get("target", "*")
        if not isinstance(value, str) or not value:
            self.say(f"{path}/target", f"found {value!r}, wanted a name or pattern")
            return "*"
        return value


def _rule(check: _Checker, path: str, raw: object) -> Rule:
    data = check.mapping(path, raw, frozenset({"scenario", "needs", "why"}), frozenset({"target", "plan"}))
    scenario = check.scenario_glob(path, data)
    raw_needs = data.get("needs", "approval")
    try:
        needs = Needs(raw_needs)
    except ValueError:
        check.say(f"{path}/needs", f"found {raw_needs!r}, wanted nothing, person or approval")
        needs = Needs.APPROVAL
    if needs is Needs.NOTHING and scenario != "-.-" and not SCENARIO_PATTERN.fullmatch(scenario):
        check.say(f"{path}/scenario", f"found {scenario!r}: a pre-approval names one scenario")
    if needs is not Needs.APPROVAL and scenario.startswith("drill."):
        check.say(f"{path}/needs", f"found {needs.value!r}: a drill always needs an approval")
    plan = data.get("plan", {})
    if not isinstance(plan, dict):
        check.say(f"{path}/plan", f"found {type(plan).__name__}, wanted an object")
        plan = {}
    return Rule(scenario, check.target_glob(path, data), plan, needs, check.text(path, data, "why"))


def _blacklist_entry(check: _Checker, path: str, raw: object) -> BlacklistEntry:
    data = check.mapping(path, raw, frozenset({"scenario", "target", "why"}), frozenset())
    return BlacklistEntry(
        check.scenario_glob(path, data),
        check.target_glob(path, data),
        check.text(path, data, "why"),
    )


def parse_policy(data: object) -> Policy:
    """``data`` as a checked policy. Raises :class:`PolicyError` with every problem and its path."""
    check = _Checker()
    top = check.mapping("", data, frozenset(DEFAULT_POLICY), frozenset())
    if top and top.get("schema_version", POLICY_VERSION) != POLICY_VERSION:
        check.say("/schema_version", f"found {top['schema_version']!r}, wanted {POLICY_VERSION}")
    environment = top.get("environment")
    if environment is not None and (not isinstance(environment, str) or not environment):
        check.say("/environment", f"found {environment!r}, wanted a name or null")
        environment = None
    rules = tuple(
        _rule(check, f"/rules/{index}", raw)
        for index, raw in enumerate(check.items("/rules", top.get("rules", [])))
    )
    blacklist = tuple(
        _blacklist_entry(check, f"/blacklist/{index}", raw)
        for index, raw in enumerate(check.items("/blacklist", top.get("blacklist", [])))
    )

    def section(name: str) -> dict[str, Any]:
        defaults = DEFAULT_POLICY[name]
        return check.mapping(f"/{name}", top.get(name, defaults), frozenset(defaults), frozenset())

    breaker, approvals, limits = section("breaker"), section("approvals"), section("limits")
    week = 7 * 86400
    policy = Policy(
        sha256="",
        environment=environment,
        rules=rules,
        blacklist=blacklist,
        breaker_failures=check.number("/breaker", breaker, "failures", 1, 100),
        breaker_window_seconds=check.number("/breaker", breaker, "window_seconds", 60, 4 * week),
        approvals_required=check.number("/approvals", approvals, "required", 1, 5),
        approval_max_lifetime_seconds=check.number("/approvals", approvals, "max_lifetime_seconds", 60, week),
        run_seconds=check.number("/limits", limits, "run_seconds", 60, week),
        pause_seconds=check.number("/limits", limits, "pause_seconds", 60, week),
        clock_skew_seconds=check.number("/limits", limits, "clock_skew_seconds", 0, 300),
        override_reason_min_chars=check.number("/limits", limits, "override_reason_min_chars", 1, 200),
    )
    if check.problems:
        raise PolicyError(check.problems)
    return Policy(**{**policy.__dict__, "sha256": journal.sha256_of(data)})
