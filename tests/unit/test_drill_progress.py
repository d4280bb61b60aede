# SPDX-License-Identifier: GPL-3.0-or-later
"""The face of ./scripts/drill: phases, reasons of failure, usage."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diting.drill import runner
from diting.drill.progress import Progress
from diting.drill.runner import Request, check_request, variables


def feed(*lines: str) -> Progress:
    progress = Progress(out=io.StringIO(), interactive=False)
    for line in lines:
        progress.feed(line)
    return progress


def test_plays_are_shown_and_tasks_counted():
    progress = feed("PLAY [Bring the lab up] ****", "TASK [base : Install] ***", "ok: [pg1]", "TASK [x] **")
    assert "Bring the lab up" in progress.out.getvalue()
    assert progress.tasks == 2


def test_a_phase_is_a_line_that_stays():
    assert "Phase 5: inject" in feed("TASK [diting.dr.drill : Phase 5: inject] ****").out.getvalue()


def test_a_failure_is_told_with_its_host_in_both_result_formats():
    progress = feed(
        "fatal: [pg1]: FAILED! => ",
        "    changed: false",
        "    msg: patroni_scope is empty; wanted a name",
        'fatal: [pg2]: UNREACHABLE! => {"changed": false, "msg": "no route", "unreachable": true}',
    )
    assert progress.failures == ["pg1: patroni_scope is empty; wanted a name", "pg2: no route"]


def test_a_folded_message_is_told_whole():
    progress = feed(
        "fatal: [localhost -> ops1]: FAILED! => ",
        "    changed: false",
        "    msg: 'Refused: the lever is pulled",
        "        by root; put it back'",
        "    recorded: true",
    )
    assert progress.failures == ["localhost -> ops1: 'Refused: the lever is pulled by root; put it back'"]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Request("l9"), "level is 'l9'"),
        (Request("l4", extra=("drill_fault=nonsense",)), "drill_fault is 'nonsense'"),
        (Request("l4", repeat=0), "--repeat is 0"),
    ],
)
def test_wrong_usage_is_named(request_, text):
    assert text in check_request(request_)


def test_good_usage_passes():
    assert check_request(Request("l4", extra=("drill_fault=host_off patroni_preset=stock",))) is None
    assert variables(("a=1 b='x y'", '{"c": 1}')) == {"a": "1", "b": "x y"}


def test_a_cancelled_drill_ends_its_playbook(tmp_path):
    # A job template cancels by SIGTERM to the command alone; the playbook must not go on breaking things.
    mark = tmp_path / "pid"
    program = f"""
import sys, signal
sys.path.insert(0, {str(Path(runner.__file__).parents[2])!r})
from pathlib import Path
from diting.drill import runner
from diting.drill.progress import Progress, TerminatedError, run_playbook
signal.signal(signal.SIGTERM, runner._terminated)
child = ["sh", "-c", "echo $$ > {mark}; exec sleep 60"]
try:
    run_playbook(child, cwd=Path("/"), log=Path({str(tmp_path / "log")!r}), progress=Progress())
except TerminatedError:
    sys.exit(7)
"""
    command = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 20
    while not (mark.exists() and mark.read_text().strip()):
        assert time.monotonic() < deadline, "the playbook did not start"
        time.sleep(0.02)
    command.terminate()
    assert command.wait(timeout=20) == 7
    stat = Path("/proc", mark.read_text().strip(), "stat")
    deadline = time.monotonic() + 20
    # Ended, and perhaps not yet buried by whoever inherits it.
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the playbook goes on"
        time.sleep(0.02)
