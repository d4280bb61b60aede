# SPDX-License-Identifier: GPL-3.0-or-later
"""Two configurations side by side, and one page over many runs: nothing that was not measured is a number."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from diting.core.verdict import Verdict
from diting.drill import compare, runner, seal
from diting.drill.table import table
from diting.report import chain, summary
from diting.report.build import _repeats, build
from support.evidence_sample import Sample, write


def report(level="l4", fault="host_off", verdict="PASS", **paths):
    return {
        "level": level,
        "fault": fault,
        "verdict": verdict,
        "paths": {name: {"rto_client_seconds": value} for name, value in paths.items()},
    }


def judged(headline, **paths):
    return {
        "headline": {"path": headline},
        "paths": {name: {"rto_client_seconds": value} for name, value in paths.items()},
    }


@pytest.mark.parametrize(
    ("other", "mine", "wanted"),
    [
        (report(haproxy=31.0, dsn=33.0), judged("dsn", haproxy=1.25, dsn=2.0), ("haproxy", 31.0, 1.25, 24.8)),
        (report(dsn=33.0), judged("dsn", haproxy=1.25, dsn=2.0), ("dsn", 33.0, 2.0, 16.5)),
        (report(haproxy=None), judged("haproxy", haproxy=1.25), ("haproxy", None, 1.25, None)),
        (report(haproxy=31.0), judged(None, haproxy=None), ("haproxy", 31.0, None, None)),
        (report(haproxy=31.0), judged("haproxy", haproxy=0.0), ("haproxy", 31.0, 0.0, None)),
    ],
)
def test_the_ratio_is_of_one_path_and_of_what_was_measured(other, mine, wanted):
    assert compare.figures(other, mine) == dict(
        zip(("path", "stock", "configured", "ratio"), wanted, strict=True)
    )


def test_without_a_shared_path_nothing_is_compared():
    assert compare.figures(report(dsn=1.0), judged("haproxy", haproxy=1.0)) is None


def test_only_a_drill_of_the_same_fault_that_measured_stands_beside():
    assert compare.usable(report(), "l4", "host_off") is None
    assert "l4 partition" in (compare.usable(report(fault="partition"), "l4", "host_off") or "")
    assert "INVALID" in (compare.usable(report(verdict="INVALID"), "l4", "host_off") or "")


STOCK = Sample(preset="stock", gap={"dsn": 33.0, "haproxy": 31.0}, stable=12.0)
FAST = replace(
    STOCK, started=STOCK.started + timedelta(minutes=10), preset="default", gap={"dsn": 2.4, "haproxy": 1.2}
)


def beside(tmp_path: Path, name: str) -> dict:
    """Seal the stock run, then set the second one beside ``name`` and build its report."""
    build(write(tmp_path, STOCK))
    second = write(tmp_path, FAST)
    (second / "collected.json").write_text(json.dumps({"about": {"compare_with": name}}))
    seal.set_beside(second, tmp_path, json.loads((second / "judge.json").read_text()))
    return build(second)


def test_the_second_report_has_both_figures(tmp_path):
    found = beside(tmp_path, STOCK.drill_id)
    assert found["compare"]["path"] == "haproxy"
    assert found["compare"]["stock"] == pytest.approx(31.0, abs=0.1)
    assert found["compare"]["configured"] == pytest.approx(1.2, abs=0.1)
    assert found["compare"]["ratio"] == pytest.approx(25.8, rel=0.1)
    page = (tmp_path / FAST.drill_id / "report.html").read_text()
    assert "Against the stock configuration" in page


def test_a_stock_run_that_is_not_there_is_said(tmp_path):
    found = beside(tmp_path, "20261121T000000Z-l4-host_off")
    assert found["compare"] is None
    assert "compare_unusable" in {reason["code"] for reason in found["reasons"]}


def runs(tmp_path: Path, *gaps: float, **more) -> list[dict]:
    made = []
    for number, gap in enumerate(gaps):
        started = STOCK.started + timedelta(minutes=10 * number)
        sample = replace(FAST, started=started, gap={"dsn": gap, "haproxy": gap}, **more)
        made.append(build(write(tmp_path, sample)))
    return made


def test_one_page_over_all_runs_with_their_spread(tmp_path):
    reports = runs(tmp_path, 1.0, 3.0, 2.0)
    page = summary.write(tmp_path, reports)
    told = summary.summarise(reports)["groups"][0]
    figures = told["figures"]["rto_client_seconds"]
    assert (figures["n"], told["runs"], told["verdicts"]["PASS"]) == (3, 3, 3)
    assert [figures[key] for key in ("min", "median", "max")] == pytest.approx([1.0, 2.0, 3.0], abs=0.1)
    assert told["lost"] == 0
    silence = told["figures"]["largest_ack_gap_seconds, path haproxy"]
    assert [silence[key] for key in ("min", "median", "max")] == pytest.approx([1.0, 2.0, 3.0], abs=0.1)
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert all(one["header"]["drill_id"] in text for one in reports)
        assert "3 of 3 PASS" in text
        assert "Longest silence, path haproxy" in text
    assert page.name == f"summary-{reports[-1]['header']['drill_id']}.html"
    assert chain.verify(tmp_path).broken is None


def test_a_run_that_proved_nothing_is_listed_and_not_counted(tmp_path):
    reports = runs(tmp_path, 1.0, 2.0)
    reports[1] = {**reports[1], "verdict": "INVALID", "rto_client_seconds": 0.001}
    told = summary.summarise(reports)["groups"][0]
    assert (told["runs"], told["counted"]) == (2, 1)
    assert told["figures"]["rto_client_seconds"]["n"] == 1
    assert told["figures"]["rto_client_seconds"]["min"] > 0.9
    assert [drill["verdict"] for drill in told["drills"]] == ["PASS", "INVALID"]


def test_a_figure_that_is_lacking_is_said_and_not_left_out(tmp_path):
    reports = runs(tmp_path, 1.0, 2.0)
    reports[1] = {**reports[1], "verdict": "FAIL", "rto_client_seconds": None, "lost": None}
    told = summary.summarise(reports)["groups"][0]
    assert told["figures"]["rto_client_seconds"]["not_measured"] == 1
    assert told["lost"] is None


def with_case(report: dict, on_target: bool | None, stopped: bool | None = None) -> dict:
    etcd = None if on_target is None else {"leader": "pg1", "leader_on_target": on_target}
    before = {**(report["cluster"]["before"] or {}), "etcd": etcd}
    guard = None if stopped is None else {"stopped": stopped}
    return {
        **report,
        "cluster": {**report["cluster"], "before": before},
        "preset_detail": {**report["preset_detail"], "guard": guard},
    }


def test_runs_with_etcds_leader_on_the_dying_host_and_runs_without_the_guard_are_apart(tmp_path):
    (one,) = runs(tmp_path, 1.0)
    cases = [(False, False), (True, False), (None, False), (False, True)]
    reports = [with_case(one, *case) for case in [*cases, *cases]]
    told = summary.summarise(reports)["groups"]
    assert [(group["case"], group["runs"]) for group in told] == [
        ("default, etcd's leader elsewhere", 2),
        ("default, with etcd's leader", 2),
        ("default", 2),
        ("default, failover guard stopped, etcd's leader elsewhere", 2),
    ]
    assert {group["preset"] for group in told} == {"default"}
    kills = [with_case({**one, "fault": "postgres_kill"}, case) for case in (True, False)]
    assert len(summary.summarise(kills)["groups"]) == 1, (
        "where etcd lives on, it does not matter who leads it"
    )


def test_the_worst_of_an_experiment_is_not_that_of_another_case(tmp_path):
    slow, fast = (
        with_case(report, on) for report, on in zip(runs(tmp_path, 5.0, 1.0), (True, False), strict=True)
    )
    again = _repeats(fast, [slow, fast])
    assert again["n"] == 2
    assert again["worst"]["rto_client_seconds"] == fast["rto_client_seconds"]


def test_presets_are_apart_and_faults_are_not_mixed(tmp_path):
    reports = [*runs(tmp_path, 1.0), {**runs(tmp_path / "b", 30.0)[0], "preset": "stock"}]
    assert [group["preset"] for group in summary.summarise(reports)["groups"]] == ["default", "stock"]
    with pytest.raises(ValueError, match="one level and fault"):
        summary.summarise([reports[0], {**reports[0], "fault": "partition"}])


class Playbooks:
    """Stands in for ansible-playbook: hands out the reports that drills would have left."""

    def __init__(self, tmp_path: Path, *samples: Sample) -> None:
        self.evidence = tmp_path
        self.samples = list(samples)
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, _playbook: str, *extra: str):
        self.asked.append(extra)
        made = build(write(self.evidence, self.samples.pop(0)))
        line = f"{made['verdict']}: {self.evidence / made['header']['drill_id']}/report.html"
        return runner.PlaybookRun(0, 1.0, 1, (), line)


def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, playbooks: Playbooks, **request):
    made = runner.Controller(tmp_path, tmp_path, runner.Request("l4", **request))
    monkeypatch.setattr(made, "play", playbooks)
    return made


def test_compare_drills_stock_first_and_names_it_to_the_second(tmp_path, monkeypatch, capsys):
    playbooks = Playbooks(tmp_path, STOCK, FAST)
    outcomes = runner.drill_all(controller(tmp_path, monkeypatch, playbooks, extra=("drill_compare=true",)))
    assert [outcome.verdict for outcome in outcomes] == [Verdict.PASS, Verdict.PASS]
    assert playbooks.asked[0] == ("-e", "drill_timings=stock", "-e", "drill_guard_stopped=true")
    assert playbooks.asked[1] == ("-e", f"drill_compare_with={STOCK.drill_id}")
    assert "2 drills: 2 PASS" in capsys.readouterr().out


def test_a_stock_drill_that_measured_nothing_ends_the_comparison(tmp_path, monkeypatch):
    playbooks = Playbooks(tmp_path, replace(STOCK, outcome="aborted"), FAST)
    outcomes = runner.drill_all(controller(tmp_path, monkeypatch, playbooks, extra=("drill_compare=true",)))
    assert [outcome.verdict for outcome in outcomes] == [Verdict.ABORTED]


def test_repeat_leaves_one_page(tmp_path, monkeypatch, capsys):
    later = replace(FAST, started=FAST.started + timedelta(minutes=10))
    playbooks = Playbooks(tmp_path, FAST, later)
    runner.drill_all(controller(tmp_path, monkeypatch, playbooks, repeat=2))
    assert (tmp_path / f"summary-{later.drill_id}.html").exists()
    assert f"summary-{later.drill_id}.html" in capsys.readouterr().out


@pytest.mark.parametrize(("whole", "page"), [(1, False), (2, True)])
def test_what_was_ended_early_is_not_taken_for_all_of_it(tmp_path, monkeypatch, capsys, whole, page):
    samples = [replace(FAST, started=FAST.started + timedelta(minutes=10 * n)) for n in range(whole)]
    playbooks = Playbooks(tmp_path, *samples)
    ended = controller(tmp_path, monkeypatch, playbooks, repeat=20)
    monkeypatch.setattr(runner, "abort", lambda *_: None)

    def play(playbook, *extra):
        if not playbooks.samples:
            raise KeyboardInterrupt
        return playbooks(playbook, *extra)

    monkeypatch.setattr(ended, "play", play)
    with pytest.raises(runner.DrillInterruptedError):
        runner.drill_all(ended)
    told = capsys.readouterr().out
    assert f"only {whole} of 20 drills: {whole} PASS" in told
    assert ("all of them" in told) is page


def test_the_verdict_table_names_the_ratio(tmp_path):
    assert "compared, haproxy" in table(beside(tmp_path, STOCK.drill_id), tmp_path)
