# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain of evidence: every way to tamper with it is found, and the first broken link is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from diting.cli.main import main
from diting.report import build as building
from diting.report import chain
from diting.report.inputs import EvidenceInputError
from support.evidence_sample import Sample, write

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def sample(day: int) -> Sample:
    return Sample(started=START + timedelta(days=day), gap={"dsn": 1.0}, before=6, stable=2)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evidence = tmp_path_factory.mktemp("sealed")
    for day in range(3):
        building.build(write(evidence, sample(day)))
    return evidence


@pytest.fixture
def evidence(sealed: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "evidence"
    shutil.copytree(sealed, copy, symlinks=True)
    return copy


def runs(evidence: Path) -> list[Path]:
    return sorted(p for p in evidence.iterdir() if p.is_dir() and not p.is_symlink())


def report(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "report.json").read_text()))


def test_each_report_names_the_one_before_and_the_chain_holds(evidence: Path) -> None:
    reports = [report(run) for run in runs(evidence)]
    assert [r["previous_sha256"] for r in reports] == [None, reports[0]["sha256"], reports[1]["sha256"]]
    found = chain.verify(evidence)
    assert (found.broken, found.reports, found.head) == (None, 3, reports[2]["sha256"])
    assert (evidence / "latest").resolve() == runs(evidence)[2]
    assert reports[2]["repeats"]["n"] == 3  # type: ignore[index]


def test_the_worst_of_all_runs_is_not_hidden_by_one_that_has_no_figure(evidence: Path) -> None:
    repeats = report(runs(evidence)[2])["repeats"]
    assert isinstance(repeats, dict)
    times = [run["rto_client_seconds"] for run in repeats["runs"]]
    assert repeats["worst"]["rto_client_seconds"] == max(times)
    stuck = Sample(started=START + timedelta(days=7), gap={"dsn": None}, before=6, stable=2)
    repeats = building.build(write(evidence, stuck))["repeats"]
    assert repeats["n"] == 4
    assert repeats["worst"]["rto_client_seconds"] is None, (
        "a run that never recovered is worse than any figure"
    )
    assert repeats["worst"]["rpo_count"] == 0


def edit_report(run: Path) -> None:
    content = report(run)
    content["lost"] = 7
    (run / "report.json").write_text(json.dumps(content))


def rewrite_report(run: Path) -> None:
    content = report(run)
    content["verdict"] = "PASS" if content["verdict"] != "PASS" else "FAIL"
    content["sha256"] = chain.seal_of(content)
    (run / "report.json").write_text(json.dumps(content))


def append(name: str) -> Callable[[Path], None]:
    def tamper(run: Path) -> None:
        with (run / name).open("a") as stream:
            stream.write(" ")

    return tamper


@pytest.mark.parametrize(
    ("tamper", "file", "problem"),
    [
        (edit_report, "report.json", "was edited"),
        (rewrite_report, "report.json", "is not the report that was sealed"),
        (append("report.html"), "report.html", "was changed"),
        (append("report.md"), "report.md", "was changed"),
        (append("ledger-dsn.jsonl"), "ledger-dsn.jsonl", "was changed"),
        (append("drill.json"), "drill.json", "was changed"),
        (lambda run: (run / "judge.json").unlink(), "judge.json", "is missing"),
        (lambda run: (run / "report.json").unlink(), "report.json", "is missing"),
        (lambda run: (run / "report.json").write_text("{"), "report.json", "cannot be read"),
        (lambda run: (run / "logs" / "late.log").write_text("x"), "logs/late.log", "was added"),
        (lambda run: (run / "link").symlink_to("/etc/hostname"), "", "symbolic link"),
        (shutil.rmtree, "", "is missing"),
    ],
)
def test_the_first_broken_link_is_named(
    evidence: Path, tamper: Callable[[Path], None], file: str, problem: str
) -> None:
    second, third = runs(evidence)[1:]
    tamper(second)
    append("report.html")(third)  # a later break must not hide the first
    found = chain.verify(evidence)
    assert found.broken is not None
    assert (found.broken.run, found.broken.file) == (second.name, file)
    assert problem in found.broken.problem
    assert found.reports == 1


def test_a_report_put_in_by_hand_and_a_removed_record_are_found(evidence: Path) -> None:
    lines = (evidence / "chain.jsonl").read_text().splitlines(keepends=True)
    (evidence / "chain.jsonl").write_text("".join(lines[:2]))
    found = chain.verify(evidence)
    assert found.broken is not None
    assert found.broken.run == runs(evidence)[2].name
    (evidence / "chain.jsonl").write_text("".join([lines[0], lines[2]]))
    found = chain.verify(evidence)
    assert found.broken is not None
    assert found.broken.file == "chain.jsonl"
    assert "line 2" in found.broken.problem


def test_a_cut_off_end_is_found_by_a_head_kept_elsewhere(evidence: Path) -> None:
    head = str(report(runs(evidence)[2])["sha256"])
    lines = (evidence / "chain.jsonl").read_text().splitlines(keepends=True)
    (evidence / "chain.jsonl").write_text("".join(lines[:2]))
    shutil.rmtree(runs(evidence)[2])
    assert chain.verify(evidence).broken is None, "the chain alone cannot know"
    found = chain.verify(evidence, head)
    assert found.broken is not None
    assert "cut off" in found.broken.problem


def test_a_sealed_run_is_built_again_only_if_nothing_changed(evidence: Path) -> None:
    run = runs(evidence)[1]
    before = (evidence / "chain.jsonl").read_text()
    assert building.build(run)["sha256"] == report(run)["sha256"]
    append("drill.json")(run)
    with pytest.raises(building.SealedError):
        building.build(run)
    assert (evidence / "chain.jsonl").read_text() == before


def test_nothing_is_added_after_a_broken_link(evidence: Path) -> None:
    edit_report(runs(evidence)[0])
    run = write(evidence, sample(9))
    with pytest.raises(chain.ChainError, match="not the report that was sealed"):
        building.build(run)
    assert not (run / "report.json").exists()


def test_a_crash_between_report_and_seal_is_made_good(evidence: Path) -> None:
    run = write(evidence, sample(9))
    (run / "report.json").write_text("{}")
    assert chain.verify(evidence).broken is not None
    building.build(run)
    assert chain.verify(evidence).broken is None


def test_an_unsealed_run_is_named_and_breaks_nothing(evidence: Path) -> None:
    run = write(evidence, sample(9))
    found = chain.verify(evidence)
    assert (found.broken, found.unsealed) == (None, [run.name])


def test_commands(evidence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "verify-evidence", "--evidence", str(evidence)]) == 0
    assert "3 reports, the chain holds" in capsys.readouterr().out
    run = write(
        evidence, Sample(started=START + timedelta(days=5), gap={"dsn": 1.0}, before=6, stable=2, lost=2)
    )
    assert main(["report", "check", "--run-dir", str(run)]) == 0
    assert main(["report", "build", "--run-dir", str(run), "--exit-code"]) == 1
    assert capsys.readouterr().out.startswith("FAIL ")
    edit_report(runs(evidence)[0])
    assert main(["report", "verify-evidence", "--evidence", str(evidence)]) == 1
    assert f"{runs(evidence)[0].name}/report.json: was edited" in capsys.readouterr().out
    (run / "drill.json").write_text("[]")
    assert main(["report", "check", "--run-dir", str(run)]) == 65
    assert main(["report", "build", "--run-dir", str(run)]) in {1, 65}
    with pytest.raises(SystemExit, match="64"):
        main(["report", "build"])


def test_an_unusable_drill_is_refused_by_name(tmp_path: Path) -> None:
    run = tmp_path / "20261121T081324Z-l4-host_off"
    run.mkdir()
    with pytest.raises(EvidenceInputError, match=r"drill\.json"):
        building.build(run)
    (run / "drill.json").write_text('{"schema_version": 1}')
    with pytest.raises(EvidenceInputError, match="'drill_id' is a required property"):
        building.build(run)
