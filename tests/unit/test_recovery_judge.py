# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster is healthy only when every check was made and was good."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diting.core.recovery import MemberSeen, Wanted, WriteSeen, judge
from diting.core.verdict import Health

WANTED = Wanted(members=("pg1", "pg2", "pg3"))
GOOD_WRITE = WriteSeen(ok=True, seconds=0.01)


def cluster() -> list[MemberSeen]:
    return [
        MemberSeen("pg1", True, role="primary", state="running", timeline=3),
        MemberSeen("pg2", True, role="replica", state="streaming", timeline=3, lag_bytes=0, sync=True),
        MemberSeen("pg3", True, role="replica", state="streaming", timeline=3, lag_bytes=0, sync=True),
    ]


def codes(judgement) -> set[str]:
    return {reason.code for reason in judgement.reasons}


def test_everything_good_is_healthy_without_reasons():
    judgement = judge(cluster(), GOOD_WRITE, WANTED)
    assert judgement.health is Health.HEALTHY
    assert judgement.reasons == ()


@pytest.mark.parametrize(
    ("index", "change", "health", "code"),
    [
        (0, {"role": "replica"}, Health.UNHEALTHY, "no_primary"),
        (1, {"role": "primary"}, Health.UNHEALTHY, "two_primaries"),
        (1, {"reachable": False, "sync": False}, Health.DEGRADED, "member_down"),
        (1, {"reachable": None}, Health.UNKNOWN, "member_not_asked"),
        (1, {"state": "starting"}, Health.DEGRADED, "member_not_running"),
        (1, {"state": "running"}, Health.DEGRADED, "member_not_streaming"),
        (1, {"timeline": 2}, Health.DEGRADED, "timeline_differs"),
        (1, {"timeline": None}, Health.DEGRADED, "timeline_differs"),
        (1, {"lag_bytes": 64 * 1024 * 1024}, Health.DEGRADED, "lag_too_large"),
        (1, {"lag_bytes": None}, Health.UNKNOWN, "lag_unknown"),
    ],
)
def test_one_thing_wrong_is_seen(index, change, health, code):
    seen = cluster()
    seen[index] = replace(seen[index], **change)
    judgement = judge(seen, GOOD_WRITE, WANTED)
    assert judgement.health is health
    assert code in codes(judgement)


def test_no_sync_standby_is_degraded():
    seen = [replace(member, sync=False) for member in cluster()]
    assert "sync_standbys_missing" in codes(judge(seen, GOOD_WRITE, WANTED))


@pytest.mark.parametrize(
    ("write", "health", "code"),
    [
        (WriteSeen(ok=None, detail="no client"), Health.UNKNOWN, "write_not_tried"),
        (WriteSeen(ok=False, detail="read-only"), Health.UNHEALTHY, "write_refused"),
        (WriteSeen(ok=True, seconds=3.0), Health.DEGRADED, "write_slow"),
        (WriteSeen(ok=True, seconds=None), Health.DEGRADED, "write_slow"),
    ],
)
def test_green_endpoints_without_a_write_are_not_enough(write, health, code):
    judgement = judge(cluster(), write, WANTED)
    assert judgement.health is health
    assert code in codes(judgement)


def test_nobody_seen_is_unknown_and_not_unhealthy():
    judgement = judge([], WriteSeen(ok=None), WANTED)
    assert judgement.health is Health.UNKNOWN


def test_a_pause_is_told():
    assert "paused" in codes(judge(cluster(), GOOD_WRITE, WANTED, paused=True))
    assert judge(cluster(), GOOD_WRITE, WANTED, paused=None).health is Health.UNKNOWN


def test_a_stranger_is_told():
    seen = [*cluster(), MemberSeen("pg9", True, role="replica", state="streaming", timeline=3, lag_bytes=0)]
    assert "member_unexpected" in codes(judge(seen, GOOD_WRITE, WANTED))
