# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill's alert counts from the fault, by the right clock, and only if it is about the fault."""

from __future__ import annotations

import pytest

from diting.drill import alert_facts

SENT = {"ts": "2026-11-22T00:00:10.000000Z", "mono_ns": 5_000_000_000}
NAMES = ["DitingPrimaryChanged", "DitingFailoverFencing"]
CLOCKS = {"prober_host": "client1", "hosts": {"client1": {"boot_id": "b"}, "controller": {"boot_id": "b"}}}
ROW = {
    "at": "2026-11-22T00:00:12.500000Z",
    "mono_ns": 7_250_000_000,
    "alert": "DitingFailoverFencing",
    "status": "firing",
    "starts_at": "2026-11-22T00:00:11.000Z",
    "kind": "webhook",
    "room": "hook",
}


def asked(*rows):
    return {"names": NAMES, "limit_seconds": 60.0, "rows": list(rows)}


def test_by_the_monotonic_clock_where_there_is_one():
    told = alert_facts.judge(asked(ROW), SENT, CLOCKS)
    assert told["figures"] == {"alert_seconds": 2.25}
    assert told["reasons"] == []
    (line,) = told["lines"]
    assert line["label"] == "webhook hook has the alert DitingFailoverFencing"
    assert line["mono_ns"] == 7_250_000_000


@pytest.mark.parametrize(
    "clocks",
    [
        None,
        {"prober_host": "client1", "hosts": {"client1": {"boot_id": "b"}, "controller": {"boot_id": "c"}}},
        {"prober_host": "client1", "hosts": {"controller": {"boot_id": None}, "client1": {"boot_id": None}}},
    ],
)
def test_by_the_wall_clocks_where_there_is_none(clocks):
    assert alert_facts.judge(asked(ROW), SENT, clocks)["figures"] == {"alert_seconds": 2.5}


def test_the_first_one_counts_and_each_receiver_is_in_the_timeline_once():
    later = ROW | {"at": "2026-11-22T00:00:20Z", "mono_ns": 15_000_000_000}
    other = later | {"alert": "DitingPrimaryChanged"}
    told = alert_facts.judge(asked(other, later, ROW), SENT, CLOCKS)
    assert told["figures"] == {"alert_seconds": 2.25}
    assert [line["mono_ns"] for line in told["lines"]] == [7_250_000_000, 15_000_000_000]


@pytest.mark.parametrize(
    "change",
    [
        {"alert": "DitingDiskFull"},
        {"alert": None},
        {"status": "resolved"},
        {"at": "2026-11-22T00:00:05Z"},
        {"starts_at": "2026-11-21T23:59:00Z"},
    ],
)
def test_what_is_not_about_the_fault_does_not_count(change):
    told = alert_facts.judge(asked(ROW | change), SENT, CLOCKS)
    assert told["figures"] == {}
    assert told["lines"] == []
    (reason,) = told["reasons"]
    assert (reason["verdict"], reason["code"], reason["limit"]) == ("FAIL", "alert_missing", 60.0)
    assert "DitingPrimaryChanged or DitingFailoverFencing" in reason["message"]


def test_a_receiver_that_says_less_counts_too():
    row = {"at": ROW["at"], "alert": ROW["alert"], "status": "firing"}
    assert alert_facts.judge(asked(row), SENT, CLOCKS)["figures"] == {"alert_seconds": 2.5}
