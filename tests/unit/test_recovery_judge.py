# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovered means a healthy cluster *and* a committed write; anything not looked at is not good."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diting.core.patroni_state import Judgement
from diting.core.recovery import SYNC_WAIT_CANCELLED, WriteSeen, judge
from diting.core.verdict import Health, Reason

CLUSTER = Judgement(
    health=Health.HEALTHY,
    reasons=(),
    leader="pg1",
    timeline=3,
    system_identifier="7",
    paused=False,
    sync_standbys=("pg2",),
    members={"pg1": {"role": "primary"}},
)
WRITE = WriteSeen(ok=True, seconds=0.02)


def test_everything_good_is_healthy_without_reasons():
    found = judge(CLUSTER, WRITE, 1.0)
    assert found.health is Health.HEALTHY
    assert found.reasons == ()
    assert found.as_dict()["evidence"]["primary"] == "pg1"


@pytest.mark.parametrize(
    ("write", "health", "code"),
    [
        (WriteSeen(ok=None, said="no client"), Health.UNKNOWN, "write_not_tried"),
        (WriteSeen(ok=False, said="read-only"), Health.UNHEALTHY, "write_refused"),
        (WriteSeen(ok=True, seconds=3.0), Health.DEGRADED, "write_slow"),
        (WriteSeen(ok=True, seconds=None), Health.DEGRADED, "write_slow"),
        (
            WriteSeen(ok=True, seconds=0.1, said=f"WARNING:  {SYNC_WAIT_CANCELLED} due to user request"),
            Health.UNHEALTHY,
            "write_not_replicated",
        ),
    ],
)
def test_green_endpoints_without_a_good_write_are_not_enough(write, health, code):
    found = judge(CLUSTER, write, 1.0)
    assert found.health is health
    assert [reason.code for reason in found.reasons] == [code]


@pytest.mark.parametrize("health", [Health.DEGRADED, Health.UNKNOWN, Health.UNHEALTHY])
def test_a_good_write_does_not_heal_a_bad_cluster(health):
    cluster = replace(CLUSTER, health=health, reasons=(Reason("member_down", "pg3 is down"),))
    assert judge(cluster, WRITE, 1.0).health is health


def test_a_bad_verdict_without_a_reason_still_counts():
    assert judge(replace(CLUSTER, health=Health.UNKNOWN), WRITE, 1.0).health is Health.UNKNOWN


def test_a_pause_is_degraded():
    found = judge(replace(CLUSTER, paused=True), WRITE, 1.0)
    assert found.health is Health.DEGRADED
    assert [reason.code for reason in found.reasons] == ["paused"]
