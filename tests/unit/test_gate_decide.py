# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate lets through, and why it does not: every rule of the issue, by example."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from diting.core import approval, gate
from diting.core.breaker import Breaker, Failure, Outcome
from diting.core.gate import GateState, Lever, Pause, Unreadable
from diting.core.gate_state import Memory
from support.gate_place import request_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
POLICY = gate.parse_policy(gate.DEFAULT_POLICY)
LEVER = Lever(NOW, "alice", "hands off")
PAUSE = Pause(NOW + timedelta(minutes=5), NOW, "bob", "kernel update")
OPEN = Breaker((Failure(NOW, "i1", Outcome.FAILED),) * 3, NOW)
KINDS_AND_SCENARIOS = [
    ("recover", "l4.failover"),
    ("operate", "operate.switchover"),
    ("drill", "drill.l4"),
    ("revert", "drill.l4"),
    ("cleanup", "drill.l4"),
]
TRIGGERS = ["automated", "person", "drill"]


def request(approve: bool = False, **changes: Any) -> gate.Request:
    data = request_of(**changes)
    if approve:
        data["plan"] = data["plan"] or {"scenario": data["scenario"], "target": data["target"]}
        data["approvals"] = [yes(data["plan"])]
    return gate.parse_request(data)


def yes(plan: dict[str, Any], *, by: str = "carol", at: datetime = NOW, seconds: int = 600) -> dict[str, str]:
    return approval.issue(plan, issued_by=by, issued_at=at, lifetime_seconds=seconds).as_dict()


def decide(asked: gate.Request, *, policy: Any = POLICY, now: datetime = NOW, **state: Any) -> gate.Decision:
    return gate.decide(policy, GateState(**state), asked, now)


def broken(scenario: str = "l4.failover", target: str = "diting") -> Memory:
    return Memory(breakers={(scenario, target): OPEN})


def codes(decision: gate.Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


# --- what the default policy says ---------------------------------------------------------------


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_failover_is_pre_approved_for_everybody(trigger):
    decision = decide(request(trigger=trigger))
    assert (decision.allowed, decision.code) == (True, "pre_approved")


def test_reseeding_is_pre_approved_only_while_the_old_data_is_kept():
    kept = {"old_data_directory": "kept"}
    assert decide(request(scenario="l4.reseed_member", target="pg1", plan=kept)).code == "pre_approved"
    for plan in ({}, {"old_data_directory": "removed"}, {"old_data_directory": True}):
        refused = decide(request(scenario="l4.reseed_member", target="pg1", plan=plan))
        assert codes(refused) == ["approval_required"]


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_restore_waits_for_an_approval_of_its_plan_whoever_asks(trigger):
    refused = decide(request(scenario="l4.restore", trigger=trigger))
    assert (refused.allowed, refused.code, refused.requires) == (False, "approval_required", ("approval",))
    assert decide(request(approve=True, scenario="l4.restore", trigger=trigger)).code == "approved"


def test_planned_work_is_for_people_or_carries_an_approval():
    asked = {"scenario": "operate.switchover", "kind": "operate"}
    assert decide(request(**asked, trigger="person")).code == "person"
    assert codes(decide(request(**asked, trigger="automated"))) == ["approval_required"]
    assert decide(request(approve=True, **asked, trigger="drill")).code == "approved"


def test_a_drill_needs_an_approval_even_where_a_rule_would_not_ask_for_one():
    lax = {**gate.DEFAULT_POLICY, "rules": [{"scenario": "*", "needs": "person", "why": "lax"}]}
    asked = request(scenario="drill.l4", kind="drill", trigger="person")
    assert codes(decide(asked, policy=gate.parse_policy(lax))) == ["approval_required"]


@pytest.mark.parametrize("scenario", ["l4.format_disks", "wallet_.move", "l9.failover"])
def test_what_is_unknown_is_refused(scenario):
    assert decide(request(scenario=scenario, trigger="person")).code == "scenario_unknown"


@pytest.mark.parametrize("scenario", ["wallet.withdraw", "orders.cancel", "engine.pause_symbol"])
def test_the_blacklist_stops_everybody_whatever_rules_and_approvals_say(scenario):
    lax = {**gate.DEFAULT_POLICY, "rules": [{"scenario": scenario, "needs": "nothing", "why": "oops"}]}
    decision = decide(
        request(approve=True, scenario=scenario, trigger="person", override_reason="I really want to"),
        policy=gate.parse_policy(lax),
    )
    assert codes(decision) == ["blacklisted"]
    assert decision.requires == ()


def test_the_blacklist_can_single_out_a_target():
    raw = {
        **gate.DEFAULT_POLICY,
        "blacklist": [{"scenario": "l4.*", "target": "prod-*", "why": "change freeze"}],
    }
    policy = gate.parse_policy(raw)
    assert decide(request(target="prod-7"), policy=policy).code == "blacklisted"
    assert decide(request(target="lab"), policy=policy).allowed


def test_a_plan_for_one_environment_is_not_carried_out_in_another():
    policy = replace(POLICY, environment="production")
    assert decide(request(environment="lab"), policy=policy).code == "environment_mismatch"
    assert decide(request(environment="production"), policy=policy).allowed


# --- lever, breaker, window: who they stop, and whom never --------------------------------------


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize(("kind", "scenario"), KINDS_AND_SCENARIOS)
def test_the_lever_stops_all_but_reverts_and_cleanups(kind, scenario, trigger):
    decision = decide(
        request(approve=True, kind=kind, scenario=scenario, trigger=trigger, override_reason="but I want to"),
        lever=LEVER,
    )
    if kind in {"revert", "cleanup"}:
        assert decision.allowed
        assert "lever" in decision.message
    else:
        assert (decision.allowed, decision.code) == (False, "stopped")
        assert "alice" in decision.message
        assert "hands off" in decision.message
        assert "diting gate resume" in decision.message


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize(("kind", "scenario"), KINDS_AND_SCENARIOS)
def test_an_unreadable_policy_or_memory_stops_all_but_reverts_and_cleanups(kind, scenario, trigger):
    asked = request(approve=True, kind=kind, scenario=scenario, trigger=trigger)
    no_policy = decide(asked, policy=Unreadable("torn in half"))
    no_memory = decide(asked, memory=Unreadable("torn in half"))
    undo = kind in {"revert", "cleanup"}
    assert no_policy.allowed is undo
    assert no_memory.allowed is undo
    for decision, code in ((no_policy, "policy_unreadable"), (no_memory, "state_unreadable")):
        assert "torn in half" in decision.message
        assert undo or decision.code == code


@pytest.mark.parametrize(("kind", "scenario"), KINDS_AND_SCENARIOS)
@pytest.mark.parametrize("window", [PAUSE, Unreadable("not JSON")])
def test_a_window_stops_automation_and_drills_until_it_passes_by_itself(kind, scenario, window):
    asked = request(approve=True, kind=kind, scenario=scenario, trigger="automated")
    undo = kind in {"revert", "cleanup"}
    assert decide(asked, pause=window).allowed is undo
    if isinstance(window, Pause):
        just_before, at_the_end = window.until - timedelta(microseconds=1), window.until
        assert decide(asked, pause=window, now=just_before).allowed is undo
        assert decide(asked, pause=window, now=at_the_end).allowed


def test_a_window_lets_people_work_but_not_drill():
    assert decide(request(trigger="person"), pause=PAUSE).allowed
    drill = request(approve=True, kind="drill", scenario="drill.l4", trigger="person")
    assert decide(drill, pause=PAUSE).code == "paused"


def test_an_open_breaker_stops_automation_and_drills():
    for trigger in ("automated", "drill"):
        decision = decide(request(trigger=trigger, override_reason="not a person"), memory=broken())
        assert (decision.allowed, decision.code) == (False, "breaker_open")
        assert decision.requires == ("override_reason",)
    assert decide(request(target="other"), memory=broken()).allowed
    assert decide(request(scenario="l4.rejoin_member"), memory=broken()).allowed


def test_a_person_overrides_the_breaker_with_a_reason_only():
    assert not decide(request(trigger="person"), memory=broken()).allowed
    assert not decide(request(trigger="person", override_reason="  short "), memory=broken()).allowed
    decision = decide(request(trigger="person", override_reason="disk was replaced"), memory=broken())
    assert (decision.allowed, decision.code) == (True, "overridden")
    assert "disk was replaced" in decision.message


def test_overriding_the_breaker_overrides_nothing_else():
    decision = decide(
        request(scenario="l4.restore", trigger="person", override_reason="disk was replaced"),
        memory=broken("l4.restore"),
    )
    assert codes(decision) == ["approval_required"]


def test_a_drill_does_not_break_what_recovery_has_given_up_mending():
    plan = {
        "scenario": "drill.l4",
        "target": "diting",
        "covers": [{"scenario": "l4.failover", "target": "diting"}],
    }
    asked = request(approve=True, kind="drill", scenario="drill.l4", trigger="drill", plan=plan)
    assert decide(asked).allowed
    assert decide(asked, memory=broken()).code == "breaker_open"
    assert decide(asked, memory=broken(target="other")).allowed


def test_all_objections_are_named_at_once():
    decision = decide(request(scenario="l4.restore"), lever=LEVER, pause=PAUSE, memory=broken("l4.restore"))
    assert codes(decision) == ["stopped", "paused", "breaker_open", "approval_required"]
    assert set(decision.requires) == {"resume", "unpause", "override_reason", "approval"}


# --- approvals ----------------------------------------------------------------------------------

PLAN = {"scenario": "l4.restore", "target": "diting", "to": "2026-03-01T11:59:00Z"}


def restore(
    *approvals: dict[str, str], plan: dict[str, Any] | None = None, actor: str = "tester"
) -> gate.Request:
    return request(scenario="l4.restore", plan=plan or PLAN, approvals=list(approvals), actor=actor)


def test_an_approval_is_for_exactly_one_plan():
    changed = {**PLAN, "to": "2026-03-01T11:58:00Z"}
    assert decide(restore(yes(PLAN))).allowed
    assert codes(decide(restore(yes(PLAN), plan=changed))) == ["approval_required", "approval_other_plan"]


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (yes(PLAN, at=NOW - timedelta(seconds=600)), "approval_expired"),
        (yes(PLAN, at=NOW + timedelta(seconds=6)), "approval_from_future"),
        (yes(PLAN, seconds=3601), "approval_too_long"),
    ],
)
def test_an_approval_counts_only_in_its_time(made, code):
    assert codes(decide(restore(made))) == ["approval_required", code]


def test_an_approval_within_clock_skew_and_the_last_microsecond_counts():
    assert decide(restore(yes(PLAN, at=NOW + timedelta(seconds=5)))).allowed
    assert decide(restore(yes(PLAN, at=NOW - timedelta(seconds=600) + timedelta(microseconds=1)))).allowed


def test_an_approval_for_one_thing_cannot_be_shown_for_another():
    drill_plan = {"scenario": "drill.l4", "target": "diting"}
    assert codes(decide(restore(yes(drill_plan), plan=drill_plan))) == ["plan_does_not_cover"]
    other_target = {**PLAN, "target": "other"}
    assert codes(decide(restore(yes(other_target), plan=other_target))) == ["plan_does_not_cover"]


def test_two_approvals_are_two_other_people():
    two = replace(POLICY, approvals_required=2)
    carol, dave, tester = yes(PLAN, by="carol"), yes(PLAN, by="dave"), yes(PLAN, by="tester")
    assert decide(restore(carol, dave), policy=two).allowed
    for few in ((carol,), (carol, carol), (carol, tester)):
        assert decide(restore(*few), policy=two).code == "approval_required"


def test_an_empty_plan_cannot_be_approved():
    with pytest.raises(approval.ApprovalError):
        yes({})


# --- requests that make no sense ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scenario": "failover"}, "scenario:"),
        ({"scenario": "../l4.x"}, "scenario:"),
        ({"target": ""}, "target:"),
        ({"target": "a\tb"}, "target:"),
        ({"target": " a"}, "target:"),
        ({"actor": "x\ny"}, "actor:"),
        ({"incident_id": "a" * 101}, "incident_id:"),
        ({"kind": "destroy"}, "kind:"),
        ({"trigger": "cron"}, "trigger:"),
        ({"plan": []}, "plan:"),
        ({"plan": {"x": float("nan")}}, "plan:"),
        ({"approvals": {"a": 1}}, "approvals:"),
        ({"approvals": [{}]}, "approvals[0]"),
        ({"approvals": [{**yes(PLAN), "expires_at": "2026-03-01T12:00:00"}]}, "approvals[0].expires_at"),
        ({"override_reason": 7}, "override_reason:"),
        # Nothing may call itself a revert to slip past the lever.
        ({"kind": "revert"}, "kind:"),
        ({"kind": "cleanup", "scenario": "operate.switchover"}, "kind:"),
        ({"kind": "recover", "scenario": "operate.switchover"}, "kind:"),
        ({"kind": "operate"}, "kind:"),
        ({"kind": "drill"}, "kind:"),
    ],
)
def test_a_bad_request_names_its_key(changes, named):
    with pytest.raises(gate.RequestError) as caught:
        request(**changes)
    assert any(problem.startswith(named) for problem in caught.value.problems)


def test_a_bad_request_names_all_its_keys():
    with pytest.raises(gate.RequestError) as caught:
        request(scenario="x", kind="y", trigger="z", target="")
    assert len(caught.value.problems) == 4


def test_missing_and_unknown_keys_are_refused():
    with pytest.raises(gate.RequestError, match="kind: missing"):
        gate.parse_request({"scenario": "l4.failover", "sudo": True})


def test_only_automated_and_personal_runs_of_recovery_and_operation_count():
    counting = {
        (kind, trigger)
        for kind, scenario in KINDS_AND_SCENARIOS
        for trigger in TRIGGERS
        if request(kind=kind, scenario=scenario, trigger=trigger).counts
    }
    assert counting == {(k, t) for k in ("recover", "operate") for t in ("automated", "person")}
