# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report takes from the ledger, and what its pages say, without a browser."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from diting.report import build as building
from diting.report import charts, index, render
from diting.report.inputs import load_run
from diting.report.judged import from_document
from diting.report.sections import fault_sent
from support.evidence_sample import Sample, write


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(
        tmp_path_factory.mktemp("evidence"), Sample(gap={"dsn": 3.0, "haproxy": 4.0}, before=6, stable=3)
    )


@pytest.fixture(scope="module")
def report(run: Path) -> dict[str, Any]:
    return building.assemble(load_run(run), None, [], [])


def test_every_slot_of_the_ledger_is_in_one_class(run: Path) -> None:
    judged = from_document(json.loads((run / "judge.json").read_text()))
    for path in judged.paths.values():
        slots = len([line for line in (run / f"ledger-{path.name}.jsonl").open() if '"k": "i"' in line])
        counts = path.counts
        assert counts["acked"] + counts["failed"] + counts["info"] == slots  # type: ignore[operator]
        assert counts["failed"], "the sample has failures, with their reasons behind a colon"
        assert counts["attempted"] == slots - path.outcomes["info:not_sent"]
        assert counts["found"] == counts["acked"]


def test_the_worse_path_heads_the_report_and_counts_are_sums(report: dict[str, Any]) -> None:
    paths = report["paths"]
    assert report["headline_path"] == "haproxy"
    assert (
        report["rto_client_seconds"]
        == paths["haproxy"]["rto_client_seconds"]
        > paths["dsn"]["rto_client_seconds"]
    )
    assert report["acked"] == paths["haproxy"]["acked"] + paths["dsn"]["acked"]


def test_zero_is_the_ledgers_mark_with_the_drills_label(run: Path) -> None:
    loaded = load_run(run)
    judged = from_document(json.loads((run / "judge.json").read_text()))
    sent = loaded.drill["injection"]["sent"]  # type: ignore[index]
    assert fault_sent(loaded.drill, judged) == (sent["mono_ns"], sent["ts"])  # type: ignore[index]
    mark = next(mark for mark in judged.marks if mark["label"] == "inject_sent")
    mark["mono_ns"] += 1_500_000_000
    later = datetime.fromisoformat(sent["ts"]) + timedelta(seconds=1.5)  # type: ignore[index]
    found = fault_sent(loaded.drill, judged)
    assert found is not None
    assert datetime.fromisoformat(found[1]) == later, "a label moves with its moment"


def test_markdown_holds_the_verdict_the_targets_and_no_markup_of_ours(report: dict[str, Any]) -> None:
    text = render.markdown(report)
    assert text.startswith("# PASS: 20261121T081324Z-l4-host_off\n")
    assert "SPDX" not in text
    assert "\n\n## Paths\n" in text
    assert text.count(" met |") == 3
    hostile = report | {
        "components": {"x": "1|2\n# owned"},
        "residue": None,
        "not_measured": {"residue": "r"},
    }
    assert "\n# owned" not in render.markdown(hostile)


def test_html_shows_every_required_content(report: dict[str, Any]) -> None:
    page = render.html(report)
    for section in ("gap", "timeline", "data", "cleanup", "cluster", "repeats", "authorisation", "hypothesis",
                    "safety", "findings", "validity", "artefacts"):  # fmt: skip
        assert f'<section id="{section}">' in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page


def test_a_report_with_next_to_nothing_still_has_its_pages(tmp_path: Path) -> None:
    drill = {"schema_version": 1, "drill_id": "20261121T081324Z-l4-host_off", "level": "l4", "fault": "host_off",
             "started_at": "2026-11-21T08:13:24Z", "outcome": "aborted"}  # fmt: skip
    run = tmp_path / str(drill["drill_id"])
    run.mkdir()
    (run / "drill.json").write_text(json.dumps(drill))
    report = building.build(run)
    assert report["verdict"] == "ABORTED"
    for name in ("report.html", "report.md"):
        assert "not measured" in (run / name).read_text()
    assert charts.gap_plot(report, charts.WIDE) == ""


def test_the_page_says_whether_the_leader_of_etcd_died_too(tmp_path: Path) -> None:
    run = write(tmp_path, Sample(gap={"dsn": 1.0}, before=6, stable=2))
    building.build(run)
    assert "etcd was led by pg1, the target (placed there)" in (run / "report.html").read_text()


def test_what_nobody_recorded_of_the_safety_is_not_called_nothing(tmp_path: Path) -> None:
    run = write(tmp_path, Sample(gap={"dsn": 1.0}, before=6, stable=2))
    drill = json.loads((run / "drill.json").read_text())
    drill["safety"] = {"stop_conditions": []}
    (run / "drill.json").write_text(json.dumps(drill))
    building.build(run)
    page = (run / "report.html").read_text()
    assert "<dt>refused</dt><dd>not measured</dd>" in page
    assert "<dt>escalations</dt><dd>not measured</dd>" in page


def test_a_planned_switchover_proves_no_level(tmp_path: Path) -> None:
    started = datetime(2026, 11, 1, 8, tzinfo=UTC)
    options: dict[str, Any] = {"gap": {"dsn": 1.0}, "before": 6, "stable": 2}
    building.build(write(tmp_path, Sample(started=started, fault="switchover", kind="planned", **options)))
    day = date(2026, 11, 10)
    assert "Never proven" in index.page(tmp_path, day)
    building.build(write(tmp_path, Sample(started=started + timedelta(days=1), **options)))
    page = index.page(tmp_path, day)
    assert "Proven until 2026-12-02" in page
    assert "Expired on 2026-12-02" in index.page(tmp_path, date(2026, 12, 3))


def test_the_index_names_what_it_cannot_trust_and_what_was_never_closed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"gap": {"dsn": 1.0}, "before": 6, "stable": 2}
    run = write(tmp_path, Sample(**options))
    building.build(run)
    open_run = write(tmp_path, Sample(started=datetime(2026, 11, 22, 8, tzinfo=UTC), **options))
    assert open_run.name in index.page(tmp_path)
    (run / "report.json").write_text("{}")
    assert "not the one that was sealed" in index.page(tmp_path)
