# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of a drill on the terminal: what a person at 3 a.m. can tell from it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from diting.drill.table import STEPS_SHOWN, steps, table

DIRECTORY = Path("evidence/20261122T120000Z-l4-host_off")


def entry(seconds: float, label: str, event: str = "log", host: str | None = "pg1") -> dict[str, Any]:
    return {"t_seconds": seconds, "label": label, "event": event, "host": host, "source": "patroni"}


@pytest.fixture
def report() -> dict[str, Any]:
    return copy.deepcopy(
        {
            "verdict": "FAIL",
            "level": "l4",
            "fault": "host_off",
            "preset": "default",
            "preset_detail": {},
            "rto_client_seconds": 16.89,
            "resolution_seconds": 0.12,
            "rto_fault_seconds": 16.57,
            "full_redundancy_seconds": None,
            "acked": 19489,
            "lost": 0,
            "paths": {
                "haproxy": {
                    "rto_client_seconds": 16.89,
                    "largest_ack_gap_seconds": 2.03,
                    "lost": 0,
                    "acked": 9664,
                }
            },
            "targets": {"rto_client_seconds": {"limit": 10.0}},
            "reasons": [{"code": "target_missed", "message": "17.010 s; the target is 10 s"}],
            "timeline": [
                entry(-2.0, "control window ends"),
                entry(0.0, "fault sent", "fault_sent", None),
                entry(2.1, "leader key released"),
                entry(16.57, "first write of the stable window", "writes_recovered", None),
                entry(29.2, "back in sync"),
            ],
        }
    )


def test_an_rto_made_of_stragglers_is_told_from_one_of_silence(report: dict[str, Any]) -> None:
    line = next(line for line in table(report, DIRECTORY).splitlines() if "path haproxy" in line)

    assert "RTO 16.890 s, longest silence 2.030 s, lost 0 of 9664" in line


def test_a_drill_that_failed_says_what_happened_from_the_fault_to_the_recovery(
    report: dict[str, Any],
) -> None:
    assert [line.split("  ")[-1].strip() for line in steps(report)] == [
        "fault sent",
        "leader key released",
        "first write of the stable window",
    ]
    assert "leader key released" in table(report, DIRECTORY)


def test_one_that_passed_keeps_to_the_figures(report: dict[str, Any]) -> None:
    report["verdict"] = "PASS"

    assert "leader key released" not in table(report, DIRECTORY)


def test_writes_that_never_came_back_leave_the_whole_timeline(report: dict[str, Any]) -> None:
    report["timeline"] = [each for each in report["timeline"] if each["event"] != "writes_recovered"]

    assert steps(report)[-1].endswith("back in sync")


def test_a_long_timeline_is_cut_and_says_so(report: dict[str, Any]) -> None:
    report["timeline"][2:2] = [entry(1.0, f"line {number}") for number in range(100)]

    assert len(steps(report)) == STEPS_SHOWN + 1
    assert steps(report)[-1].endswith("63 more in the report")


def test_what_was_not_measured_has_no_number_and_the_evidence_ends_the_table(report: dict[str, Any]) -> None:
    report["paths"]["haproxy"]["largest_ack_gap_seconds"] = None
    lines = table(report, DIRECTORY).splitlines()

    assert any("longest silence not measured" in line for line in lines)
    assert any(line.split() == ["full", "redundancy", "after", "not", "measured"] for line in lines)
    assert lines[-1].endswith(f"{DIRECTORY}/report.html")
