# SPDX-License-Identifier: GPL-3.0-or-later
"""Several tools at once: each has its own result and its output in one piece, and none outlives an interruption."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.servers import wait_until
from support.tree import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import side_by_side
import stages

MEETS = "touch {mine}; i=0; until [ -e {other} ]; do sleep 0.05; i=$((i+1)); [ $i -lt 200 ] || exit 9; done"


@pytest.fixture(autouse=True)
def logs(monkeypatch, tmp_path):
    monkeypatch.setattr(side_by_side, "ROOT", tmp_path)
    return tmp_path / ".cache"


def job(name, script, clean="true", limit_seconds=30):
    return side_by_side.Job(name, ["sh", "-c", script], ["sh", "-c", clean], limit_seconds)


def counts(tally):
    return tally.passed, tally.failed, tally.skipped


def test_they_run_at_the_same_time(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    jobs = [job("a", MEETS.format(mine=one, other=two)), job("b", MEETS.format(mine=two, other=one))]
    assert counts(side_by_side.side_by_side(jobs, at_once=2)) == (2, 0, 0)


def test_no_more_at_a_time_than_asked_for(tmp_path):
    alone = f"mkdir {tmp_path}/floor || exit 9; sleep 0.3; rmdir {tmp_path}/floor"
    assert counts(side_by_side.side_by_side([job(name, alone) for name in "abc"], at_once=1)) == (3, 0, 0)


def test_a_failure_hides_no_other_result_and_is_cleaned_up_before_the_next_one_begins(tmp_path):
    left = tmp_path / "left"
    jobs = [
        job("bad", f"touch {left}; exit 3", clean=f"rm {left}"),
        job("good", f"[ ! -e {left} ]", clean=f"touch {tmp_path}/needless"),
    ]
    tally = side_by_side.side_by_side(jobs, at_once=1)
    assert counts(tally) == (1, 1, 0)
    assert tally.notes == ["failed: bad"]
    assert not (tmp_path / "needless").exists()


def test_what_each_said_is_printed_in_one_piece_and_kept(capfdbinary, logs):
    speak = "for i in 1 2 3; do echo {0}; echo {0} >&2; sleep 0.1; done"
    jobs = [job(name, speak.format(name), limit_seconds=30) for name in ("one", "two")]
    side_by_side.side_by_side(jobs, at_once=2)
    printed = capfdbinary.readouterr().out
    assert b"one\n" * 6 in printed
    assert b"two\n" * 6 in printed
    assert (logs / "one.log").read_text() == "one\n" * 6


def test_one_that_hangs_is_killed_with_its_children_and_cleaned_up(tmp_path, capfdbinary):
    pid = tmp_path / "pid"
    hang = job(
        "slow", f"sleep 60 & echo $! > {pid}; wait", clean=f"touch {tmp_path}/clean", limit_seconds=0.5
    )
    assert counts(side_by_side.side_by_side([hang, job("quick", "true")], at_once=2)) == (1, 1, 0)
    wait_until("the child is gone", lambda: gone(int(pid.read_text())))
    assert (tmp_path / "clean").exists()
    assert b"killed after" in capfdbinary.readouterr().out


def gone(pid):
    try:
        state = re.search(r"^State:\s+(\S)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return True
    return state is not None and state[1] == "Z"


PROGRAM = """
import signal, sys
sys.path.insert(0, {lib!r})
from pathlib import Path
import side_by_side, stages
side_by_side.ROOT = Path({root!r})
signal.signal(signal.SIGTERM, stages.terminated)
job = lambda name: side_by_side.Job(name, ["sh", "-c", {script!r}.replace("NAME", name)], ["sh", "-c", "echo clean; touch clean-" + name], 60)
stages.STAGES = {{"one": stages.Stage("made up", lambda: side_by_side.side_by_side([job("a"), job("b"), job("c")], 2))}}
sys.exit(stages.main([]))
"""


# Twice is how timeout(1) sends it.
@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_an_interruption_ends_all_and_cleans_up_after_all_that_were_begun(tmp_path, numbers):
    script = "echo $$ > pid-NAME; sleep 60"
    text = PROGRAM.format(lib=str(ROOT / "scripts/lib"), root=str(tmp_path), script=script)
    program = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    pids = [tmp_path / f"pid-{name}" for name in "ab"]
    wait_until("both run", lambda: all(path.exists() and path.read_text() for path in pids))
    for number in numbers:
        program.send_signal(number)
    printed = program.communicate(timeout=60)[0]
    assert program.returncode == stages.EXIT_INTERRUPTED
    assert printed.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"
    assert all(gone(int(path.read_text())) for path in pids)
    assert sorted(path.name for path in tmp_path.glob("clean-*")) == ["clean-a", "clean-b"]
    assert printed.count("\nclean\n") == 2
    assert not (tmp_path / "pid-c").exists()


def test_one_that_does_not_leave_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "LEAVE_SECONDS", 0.5)
    stubborn = job("a", f"trap '' INT; echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done")
    running = side_by_side.Running(stubborn, tmp_path)
    wait_until("it runs", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    side_by_side.break_off([running])
    assert gone(int((tmp_path / "pid").read_text()))


def test_every_scenario_is_a_job_of_its_own(monkeypatch):
    seen = {}

    def side_by_side(jobs, at_once):
        seen.update(jobs={one.name: one for one in jobs}, at_once=at_once)

    monkeypatch.setattr(stages, "no_containers", lambda: None)
    monkeypatch.setattr(stages, "side_by_side", side_by_side)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    stages.molecule()
    assert seen["at_once"] == 1
    assert set(seen["jobs"]) == {
        f"molecule {path.parent.name}" for path in ROOT.glob("molecule/*/molecule.yml")
    }
    assert {tuple(one.clean[:2]) for one in seen["jobs"].values()} == {("molecule", "destroy")}


def test_scenarios_that_cannot_run_here_are_each_skipped_with_the_reason(monkeypatch):
    monkeypatch.setattr(stages, "no_containers", lambda: "no root")
    tally = stages.molecule()
    assert tally.skipped == len(list(ROOT.glob("molecule/*/molecule.yml"))) > 0
    assert all(note.endswith(": no root") for note in tally.notes)
