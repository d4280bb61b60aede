# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a run directory: nothing is lost to one bad key, and nothing bad goes unnamed."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from diting.hostio.journal import JournalFile
from diting.report import inputs
from diting.report.contract import Drill

ID = "20261121T081324Z-l4-host_off"
MINIMAL = {
    "schema_version": 1,
    "drill_id": ID,
    "level": "l4",
    "fault": "host_off",
    "started_at": "2026-11-21T08:13:24Z",
    "outcome": "aborted",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / ID
    directory.mkdir()
    put(directory, "drill.json", MINIMAL)
    return directory


def put(run: Path, name: str, document: Any) -> None:
    path = run / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def problems(run: Path) -> list[str]:
    return [str(problem) for problem in inputs.load_run(run).problems]


@pytest.mark.parametrize("name", ["drill-1", "residue-1", "cluster-1", "timeline-1", "report-1"])
def test_published_schemas_are_schemas_and_ship_with_the_package(name: str) -> None:
    Draft202012Validator.check_schema(inputs.schema(name))
    assert resources.files("diting.report").joinpath("schema", f"{name}.json").is_file()


def test_the_least_a_killed_drill_leaves_is_enough(run: Path) -> None:
    loaded = inputs.load_run(run)
    assert loaded.problems == []
    assert (loaded.judge, loaded.residue, loaded.timeline) == (None, None, [])


def test_every_problem_is_named_and_only_the_broken_section_is_lost(run: Path) -> None:
    put(
        run,
        "drill.json",
        MINIMAL | {"preset": {"ttl": "20"}, "announced": "no", "phase": "inject", "typo": 1},
    )
    loaded = inputs.load_run(run)
    assert len(loaded.problems) == 4
    assert any("'name' is a required property" in str(p) for p in loaded.problems)
    assert any("/preset/ttl" in str(p) for p in loaded.problems)
    assert any("/announced" in str(p) for p in loaded.problems)
    assert any("typo" in str(p) for p in loaded.problems)
    assert "preset" not in loaded.drill
    assert loaded.drill["phase"] == "inject"


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ("", "drill.json"),
        ('{"a": NaN}', "null"),
        ([], "not of type 'object'"),
        (MINIMAL | {"level": "l9"}, "/level"),
        ({k: v for k, v in MINIMAL.items() if k != "outcome"}, "'outcome' is a required property"),
    ],
)
def test_what_cannot_be_understood_is_refused(run: Path, document: Any, word: str) -> None:
    put(run, "drill.json", document)
    with pytest.raises(inputs.EvidenceInputError, match=word):
        inputs.load_run(run)


def test_the_directory_must_be_the_drill(run: Path) -> None:
    put(run, "drill.json", MINIMAL | {"drill_id": "20261121T081325Z-l4-host_off"})
    assert any("/drill_id" in problem for problem in problems(run))


def test_write_drill_refuses_what_the_schema_refuses_and_keeps_the_old_file(run: Path) -> None:
    before = (run / "drill.json").read_text()
    with pytest.raises(inputs.EvidenceInputError, match="/kind"):
        inputs.write_drill(run, cast("Drill", MINIMAL | {"kind": "explosion"}))
    assert (run / "drill.json").read_text() == before
    inputs.write_drill(run, cast("Drill", MINIMAL | {"kind": "crash"}))
    assert inputs.load_run(run).drill["kind"] == "crash"
    assert [p.name for p in run.iterdir()] == ["drill.json"], "no temporary file stays behind"


def test_journals_of_hosts_join_as_they_are(run: Path) -> None:
    good = {
        "ts": "2026-11-21T08:13:24.000001Z",
        "mono_ns": 5,
        "source": "patroni",
        "event": "promoted",
        "x": 1,
    }
    torn = json.dumps(good) + "\n" + json.dumps(good)[:20]
    put(run, "timeline/pg2.patroni.jsonl", torn)
    put(run, "timeline.jsonl", json.dumps(good | {"host": "ops1", "evidence": "logs/a:1"}) + "\n\n")
    loaded = inputs.load_run(run)
    assert loaded.problems == [], "a host that lost its power may leave half a line"
    assert [(line["host"], line["evidence"]) for line in loaded.timeline] == [
        ("ops1", "logs/a:1"),
        ("pg2", "timeline/pg2.patroni.jsonl:1"),
    ]


def test_a_bad_line_in_the_middle_is_a_problem(run: Path) -> None:
    put(run, "timeline/pg2.x.jsonl", '{"half\n{"ts": "yesterday", "source": "s", "event": "e"}\n')
    found = problems(run)
    assert any("timeline/pg2.x.jsonl: line 1" in problem for problem in found)
    assert any("line 2/ts" in problem for problem in found)


def test_residue_and_cluster_are_checked(run: Path) -> None:
    put(
        run,
        "residue.json",
        {"schema_version": 1, "scanned_at": "2026-11-21T08:13:24Z", "hosts": {}, "items": []},
    )
    put(run, "cluster_after.json", {"observed_at": "2026-11-21T08:13:24Z", "health": "GOOD", "members": []})
    loaded = inputs.load_run(run)
    assert {problem.file for problem in loaded.problems} == {"residue.json", "cluster_after.json"}
    assert loaded.residue is None
    assert loaded.cluster_after is None


def test_the_drills_own_journal_joins_and_must_hold(run: Path) -> None:
    journal = JournalFile(run / "journal.jsonl", "drill")
    journal.append("fault_planned", {"label": "fault planned"})
    journal.append("recovery_verified", {})
    loaded = inputs.load_run(run)
    assert loaded.problems == []
    assert [(line["event"], line["host"]) for line in loaded.timeline] == [
        ("fault_planned", "controller"),
        ("recovery_verified", "controller"),
    ]
    good = (run / "journal.jsonl").read_text()
    put(run, "journal.jsonl", good[:-30])
    loaded = inputs.load_run(run)
    assert loaded.problems == [], "a killed controller may leave half a line"
    assert len(loaded.timeline) == 1
    put(run, "journal.jsonl", good.replace("fault_planned", "fault_plannee"))
    loaded = inputs.load_run(run)
    assert [p.file for p in loaded.problems] == ["journal.jsonl"]
    assert loaded.timeline == [], "nothing after a broken link is believed"
