# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever supervises WAL-G leaves none of it behind, however early it is told to stop."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

LIBRARY = Path(__file__).resolve().parents[2] / "roles/walg/files/usr/local/lib/diting-wal"
PROGRAM = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
number, early = int(sys.argv[2]), sys.argv[3] == "early"
from diting_wal import child

fork, made = os.fork, []

def told_at_once():
    pid = fork()
    if pid:
        made.append(pid)
        if early:
            os.kill(os.getpid(), number)
    return pid

os.fork = told_at_once

def stop(_number, _frame=None):
    raise SystemExit(7)

signal.signal(signal.SIGHUP, stop)

def reason():
    os.kill(os.getpid(), number)
    return None

try:
    child.supervise(lambda: time.sleep(60), reason, None, stop)
finally:
    try:
        os.kill(made[0], 0)
    except ProcessLookupError:
        print("gone")
    else:
        os.kill(made[0], signal.SIGKILL)
        print("left")
"""


@pytest.mark.parametrize("when", ["early", "later"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_a_signal_ends_the_worker_too(number: signal.Signals, when: str) -> None:
    words = [sys.executable, "-c", PROGRAM, str(LIBRARY), str(int(number)), when]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "gone\n", "")


def test_a_worker_can_be_told_to_stop() -> None:
    # What is held back while it is made does not stay so.
    program = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from diting_wal import child

def work():
    os.kill(os.getpid(), signal.SIGTERM)
    return 0

print(child.supervise(work, lambda: None).code)
"""
    words = [sys.executable, "-c", program, str(LIBRARY)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "255\n"), done.stderr
