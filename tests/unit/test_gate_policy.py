# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy: a bad one is refused as a whole, with every problem and its path."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from diting.core import gate

RULE = {"scenario": "l4.failover", "needs": "nothing", "why": "because"}


def policy(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(gate.DEFAULT_POLICY), **changes}


def problems(data: object) -> list[str]:
    with pytest.raises(gate.PolicyError) as caught:
        gate.parse_policy(data)
    return caught.value.problems


def test_the_default_policy_is_good_and_named_by_its_hash():
    first = gate.parse_policy(gate.DEFAULT_POLICY)
    assert len(first.sha256) == 64
    assert gate.parse_policy(policy()).sha256 == first.sha256
    assert gate.parse_policy(policy(blacklist=[])).sha256 != first.sha256


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"schema_version": 2}, "/schema_version"),
        ({"blacklst": []}, "/blacklst"),
        ({"environment": ""}, "/environment"),
        ({"rules": {}}, "/rules"),
        ({"rules": ["l4.failover"]}, "/rules/0"),
        ({"rules": [{**RULE, "needs": "luck"}]}, "/rules/0/needs"),
        ({"rules": [{**RULE, "why": " "}]}, "/rules/0/why"),
        ({"rules": [{**RULE, "scenario": "l4.fail over"}]}, "/rules/0/scenario"),
        ({"rules": [{**RULE, "plan": []}]}, "/rules/0/plan"),
        ({"rules": [{**RULE, "target": ""}]}, "/rules/0/target"),
        ({"rules": [{**RULE, "extra": 1}]}, "/rules/0/extra"),
        # A pre-approval names what it approves.
        ({"rules": [{**RULE, "scenario": "l4.*"}]}, "/rules/0/scenario"),
        ({"rules": [{**RULE, "scenario": "*"}]}, "/rules/0/scenario"),
        ({"rules": [{**RULE, "scenario": "drill.l4"}]}, "/rules/0/needs"),
        ({"blacklist": [{"scenario": "x.*", "why": "no target"}]}, "/blacklist/0/target"),
        ({"breaker": {"failures": 0, "window_seconds": 3600}}, "/breaker/failures"),
        ({"breaker": {"failures": True, "window_seconds": 3600}}, "/breaker/failures"),
        ({"breaker": {"failures": 3, "window_seconds": "1h"}}, "/breaker/window_seconds"),
        ({"breaker": {"failures": 3}}, "/breaker/window_seconds"),
        ({"approvals": {"required": 0, "max_lifetime_seconds": 60}}, "/approvals/required"),
        ({"limits": {}}, "/limits/run_seconds"),
    ],
)
def test_a_problem_is_named_by_its_path(changes, path):
    assert any(problem.startswith(f"{path}: ") for problem in problems(policy(**changes)))


@pytest.mark.parametrize("data", [None, [], "policy", 7])
def test_what_is_no_object_is_refused(data):
    assert problems(data)[0].startswith("/: ")


def test_a_missing_key_is_never_filled_in():
    for key in gate.DEFAULT_POLICY:
        lacking = policy()
        del lacking[key]
        assert f"/{key}: missing" in problems(lacking)


def test_all_problems_come_at_once():
    bad = policy(schema_version=9, rules=[{**RULE, "needs": "luck"}], breaker={})
    assert len(problems(bad)) == 4


@pytest.mark.parametrize(
    ("rule", "plan", "target", "matches"),
    [
        ({"target": "lab-*"}, {}, "lab-1", True),
        ({"target": "lab-*"}, {}, "production", False),
        ({"plan": {"keep": True}}, {"keep": True, "more": 1}, "x", True),
        ({"plan": {"keep": True}}, {"keep": 1}, "x", False),
        ({"plan": {"keep": True}}, {"keep": "true"}, "x", False),
        ({"plan": {"keep": None}}, {}, "x", False),
    ],
)
def test_a_rule_speaks_only_about_its_own_target_and_plan(rule, plan, target, matches):
    checked = gate.parse_policy(policy(rules=[{**RULE, **rule}]))
    assert (checked.rule_for("l4.failover", target, plan) is not None) is matches


def test_the_first_rule_that_matches_decides():
    rules = [{**RULE, "target": "lab", "needs": "nothing"}, {**RULE, "needs": "approval"}]
    checked = gate.parse_policy(policy(rules=rules))
    needs = [checked.rule_for("l4.failover", target, {}).needs for target in ("lab", "production")]
    assert needs == [gate.Needs.NOTHING, gate.Needs.APPROVAL]
