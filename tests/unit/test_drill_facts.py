# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill collected becomes evidence without a gap being filled by a guess."""

from __future__ import annotations

import json

import pytest

from diting.drill import facts
from diting.ledger.seen import effect, mark_ns, wait_for_effect

BOOT = "0b0e5a52-7a3c-4d3e-9f5e-0a4f6c1d2e3f"
TRACKING = "0A594D1F,ops1,11,1795250000.1,0.000010000,0.000002,0.000003,1.0,0.0,0.1,0.000400000,0.001000000,64.2,Normal"


def change(target, to, ns, before="up"):
    return {
        "k": "transition",
        "target": target,
        "from": before,
        "to": to,
        "confirmed_ns": ns,
        "utc": "2026-11-21T09:00:00.000000Z",
    }


def test_a_clock_has_chronys_own_error_bound():
    clock = facts.clock(f"{TRACKING}\n{BOOT}")
    assert clock["boot_id"] == BOOT
    assert clock["offset"] == pytest.approx(1e-5)
    assert clock["bound"] == pytest.approx(1e-5 + 0.0002 + 0.001)


def test_a_clock_that_did_not_answer_is_unknown_and_not_zero():
    nothing = {"boot_id": None, "offset": None, "bound": None, "booted": None}
    assert facts.clock("506 Cannot talk to daemon") == nothing
    section = facts.clocks({"pg1": ""}, {}, "client1", 0.05)
    assert section["hosts"]["pg1"]["offset_seconds_before"] is None
    assert section["hosts"]["pg1"]["stepped"] is None


def test_a_step_that_nobody_looked_for_is_not_denied():
    section = facts.clocks({"pg1": f"{TRACKING}\n{BOOT}"}, {"pg1": f"{TRACKING}\n{BOOT}"}, "client1", 0.05)
    assert section["hosts"]["pg1"]["stepped"] is None


def test_a_clock_that_follows_nobody_is_unknown_though_its_offset_is_zero():
    lost = TRACKING.replace("Normal", "Not synchronised")
    assert facts.clock(f"{lost}\n{BOOT}")["offset"] is None


@pytest.mark.parametrize(("wall", "boot", "stepped"), [
    ("1795274166.785878491", BOOT, False),
    ("1795274167.785878491", BOOT, True),
    ("1795274166.785878491", BOOT.replace("0b", "0c"), None),
])  # fmt: skip
def test_a_clock_that_was_set_in_between_is_seen(wall, boot, stepped):
    before = f"{TRACKING}\n{BOOT}\n26404.78 18568.51\n1795274106.785878491\n"
    after = f"{TRACKING}\n{boot}\n26464.79 18570.00\n{wall}\n"
    assert (
        facts.clocks({"pg1": before}, {"pg1": after}, "client1", 0.05)["hosts"]["pg1"]["stepped"] is stepped
    )


def test_role_changes_of_this_drill_join_the_timeline_and_older_ones_do_not():
    records = [
        {"event": "on_role_change", "role": "replica", "ts": "2026-11-21T08:59:59.900000Z", "mono_ns": 1},
        {"event": "on_role_change", "role": "primary", "ts": "2026-11-21T09:00:07.100000Z", "mono_ns": 2},
        {"k": "torn"},
    ]
    (line,) = facts.role_timeline(records, "pg2", "2026-11-21T09:00:00Z")
    assert (line["label"], line["mono_ns"], line["host"]) == ("pg2 on_role_change as primary", 2, "pg2")


def test_a_host_that_could_not_be_scanned_is_said_to_be_so():
    scans = [
        {"__drill_scan_host": "pg1", "residue": []},
        {"__drill_scan_host": "pg2", "unreachable": True, "msg": "no route"},
        {"__drill_scan_host": "pg3", "residue": [{"host": "pg3", "kind": "dead_route", "detail": "x"}]},
    ]
    found = facts.residue(scans, [], {"verdict": "HEALTHY"}, "2026-11-21T09:00:00.000000Z")
    assert {name: host["looked"] for name, host in found["hosts"].items()} == {
        "pg1": True,
        "pg2": False,
        "pg3": True,
    }
    assert [item["kind"] for item in found["items"]] == ["dead_route"]


def test_what_a_drill_left_in_etcd_is_residue_and_etcd_that_was_not_asked_is_unknown():
    left = {"host": "etcd", "kind": "etcd_key", "detail": "/x: left"}
    for scan, looked, items in (
        ({"residue": []}, True, []),
        ({"residue": [left]}, True, [left]),
        ({"msg": "no route"}, False, []),
    ):
        scans = [{"__drill_scan_host": "pg1", "residue": []}, {"__drill_scan_host": "etcd", **scan}]
        found = facts.residue(scans, [], {"verdict": "HEALTHY"}, "2026-11-21T09:00:00.000000Z")
        assert (found["hosts"]["etcd"]["looked"], found["items"]) == (looked, items)
        assert "keys of drills in etcd" in found["checks"]
    alone = facts.residue(scans[:1], [], {"verdict": "HEALTHY"}, "2026-11-21T09:00:00.000000Z")
    assert "keys of drills in etcd" not in alone["checks"]


def test_nobody_asked_etcd_is_null_and_not_elsewhere():
    now = "2026-11-21T09:00:00.000000Z"
    asked = {"leader": "pg2", "leader_on_target": False, "placement": "as_found"}
    assert facts.cluster({"verdict": "HEALTHY"}, now, asked)["etcd"] == asked
    assert facts.cluster({"verdict": "HEALTHY"}, now)["etcd"] is None


def test_milestones_are_found_in_the_logs_and_put_into_utc():
    text = (
        "2026-11-21T10:00:01.250000+01:00 pg2 patroni[7]: 2026 INFO: promoted self to leader by acquiring session lock\n"
        "2026-11-21T10:00:01.400000+0100 pg2 patroni[9]: LOG:  selected new timeline ID: 4\n"
        "2026-11-21T10:00:01.500000+01:00 pg2 patroni[9]: nothing to see\n"
    )
    lines = facts.log_timeline(text, "pg2", "patroni")
    assert [line["label"] for line in lines] == ["pg2 leader key acquired", "pg2 new timeline 4"]
    assert lines[0]["ts"] == "2026-11-21T09:00:01.250000Z"
    assert lines[0]["split"] == "decided"


WHOLE = [
    change("pg1:primary", "up", 1, None),
    change("pg2:replica", "up", 2, None),
    change("pg3:replica", "up", 3, None),
]
HOSTS = ["pg1", "pg2", "pg3"]


def test_redundancy_is_full_when_the_last_member_streams_again():
    records = [
        *WHOLE,
        change("pg1:primary", "down", 110),
        change("pg2:replica", "http_503", 120),
        change("pg2:primary", "up", 130, "http_503"),
        change("pg1:replica", "up", 190, "down"),
    ]
    assert facts.full_redundancy_ns(records, HOSTS, 100) == 190


def test_redundancy_that_flaps_counts_from_its_last_return():
    records = [
        *WHOLE,
        change("pg3:replica", "down", 110),
        change("pg3:replica", "up", 120, "down"),
        change("pg3:replica", "down", 130),
        change("pg3:replica", "up", 150, "down"),
    ]
    assert facts.full_redundancy_ns(records, HOSTS, 100) == 150


@pytest.mark.parametrize("records", [WHOLE, [*WHOLE, change("pg1:primary", "down", 110)]])
def test_redundancy_that_never_broke_or_never_returned_is_not_measured(records):
    assert facts.full_redundancy_ns(records, HOSTS, 100) is None


def test_the_effect_needs_every_target_and_only_counts_after_the_mark():
    records = [change("a", "down", 50), change("b", "down", 150)]
    assert effect(records, ["a", "b"], ["down"], 100) is None
    records.append(change("a", "down", 160))
    assert effect(records, ["a", "b"], ["down"], 100)["confirmed_ns"] == 160
    assert effect(records, ["a"], ["http_503"], 0) is None


def test_waiting_for_an_effect_ends_at_its_deadline(tmp_path):
    now = iter(range(100))
    watch = tmp_path / "watch.jsonl"
    found = wait_for_effect(watch, ["a"], ["down"], 0, 3, sleep=lambda _s: None, monotonic=lambda: next(now))
    assert found is None
    watch.write_text(json.dumps(change("a", "down", 5)) + "\n" + '{"torn')
    assert wait_for_effect(watch, ["a"], ["down"], 0, 3)["confirmed_ns"] == 5


def test_the_last_mark_of_a_name_counts(tmp_path):
    marks = tmp_path / "marks.jsonl"
    lines = [{"k": "mark", "label": "inject_sent", "mono_ns": n} for n in (1, 2)]
    marks.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert mark_ns(marks, "inject_sent") == 2
    assert mark_ns(marks, "other") is None


@pytest.mark.parametrize(
    ("records", "cut", "seen"),
    [
        ([{"event": "watching"}, {"event": "ended", "dropped": 0}], 10, 0),
        ([{"event": "fin", "mono_ns": 5}, {"event": "ended", "dropped": 0}], 10, 0),
        ([{"event": "rst", "mono_ns": 15}, {"event": "ended", "dropped": 0}], 10, 1),
        ([{"event": "fin", "mono_ns": 5}, {"event": "ended", "dropped": 0}], None, 1),
        ([{"event": "ended", "dropped": 3}], 10, None),
        ([{"event": "watching"}], 10, None),
        ([], 10, None),
    ],
)
def test_a_farewell_counts_only_after_the_cut_and_an_unfinished_watch_is_no_zero(records, cut, seen):
    assert facts.farewells(records, cut) == seen


def test_what_a_host_says_when_it_boots_again_is_no_farewell():
    watch = [
        {"event": "rst", "mono_ns": 50},
        {"event": "rst", "mono_ns": 90},
        {"event": "ended", "dropped": 0},
    ]
    assert facts.farewells(watch, 40, []) == 2
    assert facts.farewells(watch, 40, [10, 80]) == 1
    assert facts.farewells(watch, 40, [10]) == 2  # switched on before the cut: that is the life that was cut
    assert facts.farewells(watch, None, [10]) == 2


def test_versions_are_read_and_what_is_not_said_is_left_out():
    found = facts.components(
        [
            'postgres (PostgreSQL) 15.18 (Debian)\npatroni 4.1.5\netcd Version: 3.4.23\n{"method": "module", "version": "v0.2.19"}',
            "HAProxy version 2.6.12-1\n",
        ]
    )
    assert found == {
        "PostgreSQL": "15.18",
        "Patroni": "4.1.5",
        "etcd": "3.4.23",
        "HAProxy": "2.6.12-1",
        "WAL-G": "v0.2.19 (module)",
    }
    assert facts.components(["command not found"]) == {}


def seen(primary: str | None, timeline: int | None) -> dict:
    return {"verdict": "HEALTHY", "reasons": [], "evidence": {"primary": primary, "timeline": timeline}}


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (seen("pg1", 3), seen("pg1", 3), []),
        (seen("pg1", 3), seen("pg2", 4), [("FAIL", "role_changed"), ("FAIL", "role_changed")]),
        (seen("pg1", 3), seen("pg1", 5), [("FAIL", "role_changed")]),  # there and back is no peace either
        (seen("pg1", 3), {}, [("INVALID", "role_unknown"), ("INVALID", "role_unknown")]),
    ],
)
def test_a_fault_that_is_lived_through_changes_no_role(before, after, wanted):
    assert [(r["verdict"], r["code"]) for r in facts.role_changes(before, after)] == wanted
