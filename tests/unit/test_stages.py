# SPDX-License-Identifier: GPL-3.0-or-later
"""The test runner counts right: a tool that lies about its result would hide every other fault."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from diting.core.faults import CATALOGUE
from support.tree import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import pytest_stage
import sanity
import stages
import tally as tallies

JUNIT = """<testsuites><testsuite tests="5" failures="1" errors="1" skipped="1">
<testcase classname="a" name="good"/><testcase classname="a" name="fine"/>
<testcase classname="a" name="bad"><failure message="m"/></testcase>
<testcase classname="a" name="broken"><error message="m"/></testcase>
<testcase classname="a" name="left"><skipped message="no psql here"/></testcase>
</testsuite></testsuites>"""


def test_the_matrix_has_every_fault():
    drilled = {name for name, fault in CATALOGUE.items() if not fault.companion}
    assert {fault for fault, _extra in stages.DRILLS_ALL} == drilled
    assert ("host_off", ("drill_compare=true",)) in stages.DRILLS_ALL


def counts(tally):
    return tally.passed, tally.failed, tally.skipped


def test_junit_is_counted(tmp_path):
    path = tmp_path / "junit.xml"
    path.write_text(JUNIT)
    tally = pytest_stage.count_junit(path)
    assert counts(tally) == (2, 2, 1)
    assert tally.notes == ["failed: a::bad", "failed: a::broken", "skipped: a::left: no psql here"]


@pytest.mark.parametrize("content", [None, "", "<testsuite"])
def test_results_that_are_missing_or_cut_off_are_a_failure(tmp_path, content):
    path = tmp_path / "junit.xml"
    if content is not None:
        path.write_text(content)
    assert counts(pytest_stage.count_junit(path)) == (0, 1, 0)


def test_tests_marked_alone_run_after_the_others_and_both_runs_are_counted(monkeypatch):
    seen = []

    def run(argv, limit_seconds):
        seen.append(argv)
        return tallies.Tally(passed=len(seen), failed=len(seen) - 1)

    monkeypatch.setattr(pytest_stage, "run", run)
    monkeypatch.setattr(pytest_stage.os, "cpu_count", lambda: 2)
    tally = pytest_stage.pytest_stage("tests/unit", limit_seconds=1, workers=4, timed_alone=True)()
    assert seen == [
        ["-n", "2", "--dist", "loadfile", "-m", "not alone", "tests/unit"],
        ["-m", "alone", "tests/unit"],
    ]
    assert counts(tally) == (3, 1, 0)


def test_a_tool_that_hangs_is_killed_with_its_children():
    started = time.monotonic()
    status = tallies.call(["sh", "-c", "sleep 60 & wait"], limit_seconds=0.3)
    assert status == 124
    assert time.monotonic() - started < 10


def test_output_of_a_quiet_tool_is_shown_only_when_it_fails(capfdbinary):
    assert tallies.call(["sh", "-c", "echo calm"], limit_seconds=10, quiet=True) == 0
    assert tallies.call(["sh", "-c", "echo trouble; exit 3"], limit_seconds=10, quiet=True) == 3
    assert capfdbinary.readouterr().out == b"trouble\n"


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        ([], ["lint", "unit", "process", "build", "sanity", "molecule", "lab", "e2e"]),
        (["unit", "lint"], ["lint", "unit"]),
        (["faults"], ["faults"]),
    ],
)
def test_stages_run_in_one_order_and_the_long_one_only_by_name(argv, names):
    assert stages.parse(argv) == names


def test_unknown_stage_is_wrong_usage():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/lib/stages.py", "units"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert "unknown stage 'units'" in done.stderr


def run_with(monkeypatch, capsys, *results):
    made = {name: stages.Stage("made up", lambda t=tally: t) for name, tally in results}
    monkeypatch.setattr(stages, "STAGES", made)
    status = stages.main([])
    return status, capsys.readouterr().out.splitlines()


def test_the_last_line_is_the_count(monkeypatch, capsys):
    status, lines = run_with(
        monkeypatch,
        capsys,
        ("one", tallies.Tally(passed=3)),
        ("two", tallies.Tally(passed=1, skipped=2, notes=["skipped: x: no root"])),
    )
    assert status == 0
    assert lines[-1] == "4 passed, 0 failed, 2 skipped"
    assert "  skipped: x: no root" in lines


def test_one_failure_fails_the_run_and_the_other_stages_still_run(monkeypatch, capsys):
    status, lines = run_with(
        monkeypatch, capsys, ("one", tallies.Tally(failed=1)), ("two", tallies.Tally(passed=1))
    )
    assert status == 1
    assert lines[-1] == "1 passed, 1 failed, 0 skipped"


def test_an_interrupted_run_is_no_success(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "STAGES", {"one": stages.Stage("made up", interrupted)})
    assert stages.main([]) == 130
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"


def test_every_folder_of_tests_belongs_to_a_stage():
    source = (ROOT / "scripts/lib/stages.py").read_text()
    folders = {path.parent.relative_to(ROOT).parts[1] for path in (ROOT / "tests").rglob("test_*.py")}
    assert not [name for name in folders if f'"tests/{name}"' not in source]


LISTED = """Running sanity test "compile" on Python 3.11
Running sanity test "import" on Python 3.11
ERROR: Found 1 import issue(s) on python 3.11 which need to be resolved:
Running sanity test "yamllint"
FATAL: The 1 sanity test(s) listed below (out of 3) failed. See error output above for details.
import --python 3.11
"""


def test_failed_sanity_tests_are_the_listed_ones():
    assert sanity.outcome(LISTED, 1) == {"compile": "ok", "import": "failed", "yamllint": "ok"}


def test_sanity_that_crashes_blames_the_test_that_ran():
    output = (
        'Running sanity test "compile"\nRunning sanity test "validate-modules"\nFATAL: Command returned 1.\n'
    )
    assert sanity.outcome(output, 1) == {"compile": "ok", "validate-modules": "failed"}


@pytest.mark.parametrize("status", [1, 137])
def test_sanity_that_never_started_is_a_failure(status):
    assert sanity.outcome("no such command\n", status) == {"sanity": "failed"}


def test_sanity_that_says_nothing_is_no_success():
    assert sanity.outcome("", 0) == {"sanity": "failed"}


def test_sanity_that_lacks_a_program_is_skipped_and_says_which():
    output = 'Running sanity test "shellcheck"\nWARNING: Required program "shellcheck" not found.\nRunning sanity test "symlinks"\n'
    assert sanity.outcome(output, 0) == {"shellcheck": "shellcheck is not installed", "symlinks": "ok"}


@pytest.mark.parametrize(
    ("ends", "good", "started"),
    [([0], 1, 1), ([2, 2, 0], 1, 3), ([2, 2, 2, 0], 0, 3), ([1, 0], 0, 1), ([2, 3, 0], 0, 2)],
)
def test_only_a_drill_that_measured_nothing_is_started_again(monkeypatch, ends, good, started):
    left = list(ends)
    monkeypatch.setattr(stages, "no_containers", lambda: "")
    monkeypatch.setattr(stages, "call", lambda _words, limit_seconds: left.pop(0))
    tally = stages.drills((("host_off", ()),))()
    assert (tally.passed, len(ends) - len(left)) == (good, started)
