# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a drill PASS, FAIL, INVALID or ABORTED, each cause alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diting.report import build as building
from diting.report.inputs import check, load_run
from support.evidence_sample import HOSTS, Sample, write


def report_of(run: Path) -> dict[str, Any]:
    return building.assemble(load_run(run), None, [], [])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good run; tests copy its files and change one thing."""
    return write(
        tmp_path_factory.mktemp("evidence"), Sample(gap={"dsn": 2.0, "haproxy": 2.3}, before=7, stable=4)
    )


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    copy = tmp_path / base.name
    copy.mkdir()
    for path in base.rglob("*"):
        target = copy / path.relative_to(base)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        elif not path.name.startswith("ledger-"):  # large, and read by the judge only
            target.write_bytes(path.read_bytes())
    return copy


def change(run: Path, file: str, **values: Any) -> None:
    path = run / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def codes(report: dict[str, Any]) -> list[tuple[str, str]]:
    return [(reason["verdict"], reason["code"]) for reason in report["reasons"]]


def test_a_good_run_passes_with_no_reason_and_keeps_the_schema(run: Path) -> None:
    report = report_of(run)
    assert (report["verdict"], report["reasons"]) == ("PASS", [])
    assert check("report-1", json.loads(json.dumps(report)), "report.json") == []
    assert report["lost"] == 0
    assert report["acked"] > 1000
    assert report["residue"] == []


def injection(**values: Any) -> dict[str, Any]:
    drill = json.loads(json.dumps({"target": "pg1", "limit_seconds": 180, "reverts_by": "a timer"}))
    instant = {"mono_ns": 8_007 * 10**9, "ts": "2026-11-21T08:14:46Z"}
    return drill | {"sent": instant, "confirmed": instant, "fin_rst_seen": 0} | values


@pytest.mark.parametrize(
    ("section", "value", "code"),
    [
        ("injection", None, "fault_not_injected"),
        ("injection", injection(fin_rst_seen=2), "not_a_power_loss"),
        ("injection", injection(fin_rst_seen=None), "wire_not_watched"),
        ("control", None, "no_control_run"),
        ("targets", {}, "no_targets"),
        ("targets", {"halt_seconds": {"limit": 1, "unit": "s", "source": "x"}}, "target_unknown"),
        (
            "steady_state",
            {"before": {"health": "DEGRADED"}, "after": {"health": "HEALTHY"}},
            "not_steady_before",
        ),
        (
            "steady_state",
            {"before": {"health": "HEALTHY"}, "after": {"health": "UNKNOWN"}},
            "not_steady_after",
        ),
        ("clocks", {"prober_host": "client1", "hosts": {"pg1": {"stepped": True}}}, "clock_stepped"),
        (
            "clocks",
            {
                "prober_host": "client1",
                "budget_seconds": 0.05,
                "hosts": {"pg1": {"offset_seconds_after": -0.06}},
            },
            "clock_offset",
        ),
        (
            "clocks",
            {
                "prober_host": "client1",
                "budget_seconds": 0.05,
                "hosts": {"pg1": {"offset_seconds_after": 0.0, "error_bound_seconds": 0.2}},
            },
            "clock_uncertain",
        ),
        (
            "authorisation",
            {"requester": "a", "approvers": [], "plan_sha256": "0" * 64},
            "approval_of_another_plan",
        ),
        ("preset", {"ttl": 20}, "evidence_input"),
        ("reasons", [{"verdict": "INVALID", "code": "own_finding", "message": "m"}], "own_finding"),
    ],
)
def test_doubt_makes_a_drill_invalid(run: Path, section: str, value: Any, code: str) -> None:
    change(run, "drill.json", **{section: value})
    report = report_of(run)
    assert report["verdict"] == "INVALID"
    assert ("INVALID", code) in codes(report)


def test_an_effect_nobody_saw_is_invalid(run: Path) -> None:
    change(run, "drill.json", injection=injection(confirmed=None))
    change(run, "judge.json", effect={"confirmed_seconds": None})
    assert codes(report_of(run)) == [("INVALID", "effect_unknown")]


def test_the_prober_in_the_failed_zone_is_invalid(run: Path) -> None:
    scope = json.loads((run / "drill.json").read_text())["scope"]
    change(run, "drill.json", scope=scope | {"prober_failure_zone": "zone_pg1"})
    assert codes(report_of(run)) == [("INVALID", "prober_in_failed_zone")]


def test_a_judgement_that_is_absent_or_unreadable_is_invalid(run: Path) -> None:
    (run / "judge.json").write_text('{"paths": 3}')
    assert ("INVALID", "evidence_input") in codes(report_of(run))
    (run / "judge.json").unlink()
    report = report_of(run)
    assert report["verdict"] == "INVALID"
    assert ("INVALID", "judge_missing") in codes(report)
    assert report["rto_client_seconds"] is None
    assert report["lost"] is None, "nothing was counted, so nothing is 0"


def test_a_broken_detector_outranks_even_a_loss(run: Path) -> None:
    lost = {"verdict": "FAIL", "code": "lost", "message": "7 acknowledged and gone"}
    change(run, "judge.json", detector_self_test={"passed": False, "paths": {}}, reasons=[lost])
    assert codes(report_of(run)) == [("INVALID", "detector_self_test"), ("FAIL", "lost")]


def test_a_loss_is_a_fail_whatever_else_is_doubtful(run: Path) -> None:
    lost = {"verdict": "FAIL", "code": "lost", "message": "7 acknowledged and gone"}
    change(run, "judge.json", reasons=[lost])
    change(run, "drill.json", control=None)
    report = report_of(run)
    assert report["verdict"] == "FAIL"
    assert codes(report) == [("FAIL", "lost"), ("INVALID", "no_control_run")]


@pytest.mark.parametrize(("limit", "met"), [(2.4, False), (2.45, True), (60.0, True)])
def test_a_target_is_met_only_with_the_resolution_on_top(run: Path, limit: float, met: bool) -> None:
    target = {"limit": limit, "unit": "s", "source": "test"}
    change(run, "drill.json", targets={"rto_client_seconds": target})
    report = report_of(run)
    row = report["targets"]["rto_client_seconds"]
    assert row["worst"] == pytest.approx(row["measured"] + row["resolution"])
    assert row["measured"] < 2.4
    assert row["met"] is met
    assert report["verdict"] == ("PASS" if met else "FAIL")


@pytest.mark.parametrize(("limit", "verdict"), [(0.1, "FAIL"), (60.0, "PASS")])
def test_a_path_may_have_a_limit_of_its_own(run: Path, limit: float, verdict: str) -> None:
    wide, narrow = ({"limit": value, "unit": "s", "source": "test"} for value in (60.0, limit))
    change(run, "drill.json", targets={"rto_client_seconds": wide, "rto_client_dsn_seconds": narrow})
    report = report_of(run)
    path, row = report["paths"]["dsn"], report["targets"]["rto_client_dsn_seconds"]
    assert (row["measured"], row["resolution"]) == (path["rto_client_seconds"], path["resolution_seconds"])
    assert (report["verdict"], report["rto_client_dsn_seconds"]) == (verdict, row["measured"])
    assert codes(report) == ([] if verdict == "PASS" else [("FAIL", "target_missed")])
    assert "rto_client_haproxy_seconds" not in report


def test_a_limit_for_a_path_that_was_not_measured_is_unknown(run: Path) -> None:
    target = {"limit": 60.0, "unit": "s", "source": "test"}
    change(run, "drill.json", targets={"rto_client_seconds": target, "rto_client_moon_seconds": target})
    assert codes(report_of(run)) == [("INVALID", "target_unknown")]


def test_residue_is_a_fail_and_a_host_nobody_looked_at_is_not_clean(run: Path) -> None:
    left = {"host": "pg1", "kind": "fault_unit", "detail": "diting-fault.service"}
    change(run, "residue.json", items=[left])
    assert codes(report_of(run)) == [("FAIL", "residue_left")]
    change(run, "residue.json", items=[{"host": "pg1", "kind": "could_not_look", "detail": "ssh failed"}])
    report = report_of(run)
    assert codes(report) == [("INVALID", "residue_unknown")]
    assert report["residue"] == []
    change(run, "residue.json", items=[], hosts={host: {"looked": True} for host in HOSTS if host != "pg1"})
    assert codes(report_of(run)) == [("INVALID", "residue_unknown")]
    (run / "residue.json").unlink()
    report = report_of(run)
    assert codes(report) == [("INVALID", "residue_unknown")]
    assert report["residue"] is None
    assert "residue" in report["not_measured"]


def test_redundancy_that_did_not_come_back_is_a_fail(run: Path) -> None:
    change(run, "residue.json", redundancy={"health": "UNHEALTHY", "detail": "1 replica"})
    assert codes(report_of(run)) == [("FAIL", "redundancy_unhealthy")]
    change(run, "residue.json", redundancy={"health": "UNKNOWN"})
    assert codes(report_of(run)) == [("INVALID", "redundancy_unknown")]


def test_writes_that_never_came_back_are_a_fail_and_not_merely_unknown(tmp_path: Path) -> None:
    sample = Sample(gap={"dsn": None, "haproxy": None}, before=7, stable=4)
    report = report_of(write(tmp_path, sample))
    assert report["verdict"] == "FAIL"
    assert {code for _, code in codes(report)} == {"not_recovered"}
    assert report["targets"]["rto_client_seconds"]["met"] is False
    assert report["rto_client_seconds"] is None


def test_a_drill_that_was_cut_short_is_aborted_and_says_only_what_it_knows(run: Path) -> None:
    change(run, "drill.json", outcome="aborted", phase="recover", ended_at=None, control=None)
    for name in ("judge.json", "residue.json", "cluster_after.json"):
        (run / name).unlink()
    report = report_of(run)
    assert codes(report) == [("ABORTED", "drill_ended_early")]
    assert "recover" in report["reasons"][0]["message"]
    left = {"host": "pg1", "kind": "dead_route", "detail": "unreachable 10.89.77.11"}
    scan = {"schema_version": 1, "scanned_at": "2026-11-21T09:00:00Z", "hosts": {"pg1": {"looked": True}}}
    (run / "residue.json").write_text(json.dumps(scan | {"items": [left]}))
    assert codes(report_of(run)) == [("ABORTED", "drill_ended_early"), ("FAIL", "residue_left")]


def test_no_outage_is_zero_with_its_resolution(tmp_path: Path) -> None:
    report = report_of(write(tmp_path, Sample(gap={"dsn": 0, "haproxy": 0}, before=7, stable=4)))
    assert report["rto_client_seconds"] == 0
    assert report["resolution_seconds"] > 0
    assert report["verdict"] == "PASS"
