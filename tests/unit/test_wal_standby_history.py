# SPDX-License-Identifier: GPL-3.0-or-later
"""A standby that follows a new primary does not wait for a history that streaming has brought already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOW = 1_800_000_000.0
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "roles/walg/files/usr/local/lib/diting-wal"))

from diting_wal import child, restore  # noqa: E402


@pytest.fixture
def asked(monkeypatch):
    """Remembers whether the store was asked; it always has the file."""
    calls = []

    def supervise(_work, _late):
        calls.append(True)
        return child.Outcome(code=0, output="", reason="")

    monkeypatch.setattr(child, "supervise", supervise)
    return calls


def job(tmp_path, name):
    (tmp_path / "pg_wal").mkdir(exist_ok=True)
    settings = type("Settings", (), {"state_dir": str(tmp_path), "restore_standby_seconds": 1.0})()
    return restore._Job(settings, name, "pg_wal/RECOVERYHISTORY", str(tmp_path), 0.0)


def make(path, age_seconds=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (NOW - age_seconds, NOW - age_seconds))


@pytest.mark.parametrize(
    ("name", "age", "code", "questions"),
    [
        ("00000003.history", 1, restore.EXIT_ABSENT, 0),
        ("00000003.history", 100, 0, 1),  # older than this server's start
        ("00000003.history", None, 0, 1),
        ("00000002000000000000000C", 1, 0, 1),
    ],
)
def test_only_a_history_that_has_just_come_is_not_asked_for(tmp_path, asked, name, age, code, questions):
    make(tmp_path / "postmaster.opts", 10)
    # Written at every change of state, and so no measure of the start.
    make(tmp_path / "postmaster.pid", 0.5)
    if age is not None:
        make(tmp_path / "pg_wal" / name, age)
    assert job(tmp_path, name).for_standby() == code
    assert len(asked) == questions


@pytest.mark.parametrize(
    ("name", "path", "files", "front_answers"),
    [
        ("00000003.history", "pg_wal/RECOVERYHISTORY", ["standby.signal", "pg_wal/00000003.history"], True),
        # The last step of a promotion: the signal files are gone, the server runs.
        ("00000003.history", "pg_wal/RECOVERYHISTORY", ["pg_wal/00000003.history"], True),
        (
            "00000003.history",
            "pg_wal/RECOVERYHISTORY",
            ["standby.signal", "pg_wal/00000003.history of old"],
            False,
        ),
        ("00000003.history", "pg_wal/RECOVERYHISTORY", ["recovery.signal", "pg_wal/00000003.history"], False),
        ("00000004.history", "pg_wal/RECOVERYHISTORY", ["standby.signal", "pg_wal/00000003.history"], False),
        ("00000003.history", "/other/pg_wal/x", ["standby.signal", "pg_wal/00000003.history"], False),
        (
            "000000030000000000000001",
            "pg_wal/x",
            ["standby.signal", "pg_wal/000000030000000000000001"],
            False,
        ),
    ],
)
def test_the_front_answers_that_alone_and_leaves_the_rest(tmp_path, name, path, files, front_answers):
    # Beside a program that only shows that it was asked, and with what.
    front = tmp_path / "bin" / "diting-wal-restore"
    front.parent.mkdir()
    front.write_bytes((ROOT / "roles/walg/files/usr/local/bin/diting-wal-restore").read_bytes())
    front.chmod(0o755)
    program = tmp_path / "lib" / "diting-wal.pyz"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\nexit 9\n')
    program.chmod(0o755)
    data = tmp_path / "data"
    make(data / "postmaster.opts", 10)
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n")
    (data / "pg_wal").mkdir()
    for file in files:
        make(data / file.removesuffix(" of old"), 100 if file.endswith(" of old") else 1)
    done = subprocess.run([front, name, path], cwd=data, capture_output=True, text=True, check=False)
    if front_answers:
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    else:
        assert (done.returncode, done.stdout) == (9, f"diting-wal-restore {name} {path}\n")
