# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge of a Patroni cluster: what is healthy, and above all what is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from diting.core.patroni_state import Expectation, Judgement, MemberAnswer, judge
from diting.core.verdict import Health

NAMES = ("pg1", "pg2", "pg3")
IDENTIFIER = "7710543661424767539"


def status(role: str, **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "state": "running",
        "role": role,
        "timeline": 3,
        "server_version": 150020,
        "database_system_identifier": IDENTIFIER,
        "dcs_last_seen": 1000,
        "patroni": {"version": "4.1.5"},
    }
    if role == "replica":
        body["replication_state"] = "streaming"
    return {**body, **changes}


def entry(name: str, role: str, **changes: Any) -> dict[str, Any]:
    state = "running" if role == "leader" else "streaming"
    body: dict[str, Any] = {"name": name, "role": role, "state": state, "timeline": 3}
    if role != "leader":
        body["lag"] = 0
    return {**body, **changes}


def cluster() -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    statuses = {"pg1": status("primary"), "pg2": status("replica"), "pg3": status("replica")}
    view = {
        "members": [
            entry("pg1", "leader"),
            entry("pg2", "quorum_standby"),
            entry("pg3", "quorum_standby"),
        ]
    }
    return statuses, view


def judged(
    statuses: dict[str, dict[str, Any] | None],
    view: dict[str, Any] | None,
    expected: Expectation | None = None,
) -> Judgement:
    answers = [
        MemberAnswer(name, error="timed out") if body is None else MemberAnswer(name, status=body, view=view)
        for name, body in statuses.items()
    ]
    return judge(answers, expected or Expectation(NAMES))


def codes(judgement: Judgement) -> set[str]:
    return {reason.code for reason in judgement.reasons}


def test_whole_cluster_is_healthy():
    result = judged(*cluster())
    assert result.health is Health.HEALTHY
    assert result.reasons == ()
    assert (result.leader, result.timeline, result.system_identifier) == ("pg1", 3, IDENTIFIER)
    assert result.sync_standbys == ("pg2", "pg3")
    assert result.paused is False


def test_nobody_answering_is_unknown_and_names_who_was_tried():
    result = judged(dict.fromkeys(NAMES), None)
    assert result.health is Health.UNKNOWN
    assert codes(result) == {"no_answer"}
    assert "pg1, pg2, pg3" in result.reasons[0].message
    assert result.paused is None
    assert result.leader is None


def test_nobody_to_ask_is_unknown():
    assert judge([], Expectation(NAMES)).health is Health.UNKNOWN


def test_silent_leader_that_the_store_believes_in_is_unknown():
    statuses, view = cluster()
    result = judged({**statuses, "pg1": None}, view)
    assert result.health is Health.UNKNOWN
    assert codes(result) == {"leader_not_asked", "member_silent"}


def test_no_leader_anywhere_is_unhealthy():
    statuses, view = cluster()
    statuses["pg1"] = status("replica")
    view["members"][0] = entry("pg1", "replica")
    result = judged(statuses, view)
    assert result.health is Health.UNHEALTHY
    assert "no_leader" in codes(result)


def test_two_primaries_are_unhealthy_even_if_the_store_names_one():
    statuses, view = cluster()
    statuses["pg3"] = status("primary", timeline=2)
    result = judged(statuses, view)
    assert result.health is Health.UNHEALTHY
    assert "several_leaders" in codes(result)
    assert result.leader is None


def test_primary_that_is_not_running_is_no_leader():
    statuses, view = cluster()
    statuses["pg1"]["state"] = "crashed"
    assert judged(statuses, view).health is Health.UNHEALTHY


def test_mixed_clusters_are_unhealthy():
    statuses, view = cluster()
    statuses["pg2"]["database_system_identifier"] = "1"
    result = judged(statuses, view)
    assert result.health is Health.UNHEALTHY
    assert "system_identifiers" in codes(result)
    assert result.system_identifier is None


def test_silent_replica_is_unknown_while_the_store_lists_it_and_degraded_afterwards():
    statuses, view = cluster()
    silent = {**statuses, "pg3": None}
    assert judged(silent, view).health is Health.UNKNOWN
    view["members"].pop()
    result = judged(silent, view)
    assert result.health is Health.DEGRADED
    assert codes(result) == {"member_silent", "member_missing"}


@pytest.mark.parametrize(
    ("member", "change", "code"),
    [
        ("pg2", {"replication_state": "in archive recovery"}, "not_streaming"),
        ("pg2", {"replication_state": None}, "not_streaming"),
        ("pg2", {"state": "start failed"}, "member_not_running"),
        ("pg2", {"timeline": 2}, "timeline"),
        ("pg2", {"timeline": None}, "timeline"),
    ],
)
def test_replica_in_trouble_degrades(member, change, code):
    statuses, view = cluster()
    statuses[member].update(change)
    result = judged(statuses, view)
    assert result.health is Health.DEGRADED
    assert code in codes(result)


def test_lag_is_judged_at_its_limit():
    statuses, view = cluster()
    view["members"][1]["lag"] = 1048576
    assert judged(statuses, view).health is Health.HEALTHY
    view["members"][1]["lag"] = 1048577
    result = judged(statuses, view)
    assert result.health is Health.DEGRADED
    assert codes(result) == {"lag"}
    assert result.reasons[0].limit == 1048576


@pytest.mark.parametrize("lag", ["unknown", None])
def test_unknown_lag_is_unknown_and_not_zero(lag):
    statuses, view = cluster()
    view["members"][1]["lag"] = lag
    result = judged(statuses, view)
    assert result.health is Health.UNKNOWN
    assert result.members["pg2"]["lag_bytes"] is None


def test_a_missing_view_is_not_healthy():
    statuses, _ = cluster()
    assert judged(statuses, None).health is not Health.HEALTHY


def test_sync_standby_must_stream_to_count():
    statuses, view = cluster()
    for member in view["members"][1:]:
        member["state"] = "running"
    result = judged(statuses, view)
    assert result.health is Health.DEGRADED
    assert "sync_standbys" in codes(result)
    assert result.sync_standbys == ()


def test_sync_standbys_are_not_wanted_when_the_mode_is_off():
    statuses, view = cluster()
    for member in view["members"][1:]:
        member["role"] = "replica"
    assert judged(statuses, view, Expectation(NAMES, synchronous_mode="off")).health is Health.HEALTHY
    assert judged(statuses, view).health is Health.DEGRADED


def test_a_cluster_of_one_needs_no_standby():
    view = {"members": [entry("pg1", "leader")]}
    result = judged({"pg1": status("primary")}, view, Expectation(["pg1"]))
    assert result.health is Health.HEALTHY


def test_pause_is_degraded_and_said():
    statuses, view = cluster()
    view["pause"] = True
    result = judged(statuses, view)
    assert result.health is Health.DEGRADED
    assert result.paused is True


def test_pending_restart_is_told_but_no_fault():
    statuses, view = cluster()
    statuses["pg2"]["pending_restart"] = True
    result = judged(statuses, view)
    assert result.health is Health.HEALTHY
    assert codes(result) == {"pending_restart"}
    assert result.members["pg2"]["pending_restart"] is True


def test_unexpected_member_is_named():
    statuses, view = cluster()
    view["members"].append(entry("stranger", "replica"))
    result = judged(statuses, view)
    assert codes(result) == {"member_unexpected"}
    assert "stranger" in result.reasons[0].message


def test_the_leaders_view_wins_over_a_stale_one():
    statuses, view = cluster()
    stale = copy.deepcopy(view)
    stale["members"] = stale["members"][:1]
    answers = [
        MemberAnswer("pg3", status=statuses["pg3"], view=stale),
        MemberAnswer("pg2", status=statuses["pg2"], view=stale),
        MemberAnswer("pg1", status=statuses["pg1"], view=view),
    ]
    assert judge(answers, Expectation(NAMES)).health is Health.HEALTHY


def test_result_is_plain_data():
    body = judged(*cluster()).as_dict()
    assert body["verdict"] == "HEALTHY"
    assert body["members"]["pg2"]["role"] == "quorum_standby"
    assert body["members"]["pg1"]["patroni_version"] == "4.1.5"
