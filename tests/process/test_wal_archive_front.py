# SPDX-License-Identifier: GPL-3.0-or-later
"""The shell in front of archive_command: what it refuses by itself, and what it leaves to the program."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from support.tree import ROOT

sys.path.insert(0, str(ROOT / "roles/walg/files/usr/local/lib/diting-wal"))

from diting_wal import archive

FRONT = ROOT / "roles/walg/files/usr/local/bin/diting-wal-archive"
MARK = "/run/postgresql/diting-planned-stop.active"
SEGMENT = "pg_wal/000000010000000000000007"
LINES = ["{pid}", "/data", "1700000000", "5432", "/run/postgresql", "*", "  1  2"]
PROGRAM = 7
"""What the program behind it answers here."""


def archived(
    root: Path, path: str, status: str | None = "stopping", age: float | None = 1
) -> tuple[int, str]:
    """Exit status and words for a file, by the status of the server and the age of the mark."""
    for folder in ("bin", "lib", "data"):
        (root / folder).mkdir()
    text = FRONT.read_text()
    assert text.count(MARK) == 1
    front, mark = root / "bin/diting-wal-archive", root / "mark"
    front.write_text(text.replace(MARK, str(mark)))
    front.chmod(0o755)
    program = root / "lib/diting-wal.pyz"
    program.write_text(f'#!/bin/sh\necho "program $*" >&2\nexit {PROGRAM}\n')
    program.chmod(0o755)
    if status is not None:
        lines = [*LINES, f"{status:<8}"]
        (root / "data/postmaster.pid").write_text("\n".join(lines).format(pid=os.getpid()) + "\n")
    if age is not None:
        mark.touch()
        os.utime(mark, (time.time() - age,) * 2)
    words = [front, "--config", "/etc/x.json", path]
    done = subprocess.run(words, cwd=root / "data", capture_output=True, text=True, check=False, timeout=20)
    return done.returncode, done.stderr


def test_a_planned_stop_is_answered_without_the_program(tmp_path: Path) -> None:
    code, words = archived(tmp_path, SEGMENT)
    # In the program's own words: whoever reads the server's log need not know who spoke.
    assert (code, words) == (
        archive.EXIT_GIVE_UP,
        f"{archive.PROGRAM}: {SEGMENT}: not archived: {archive._PLANNED}\n",
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "ready"},
        {"status": "starting"},
        {"status": None},
        {"age": None},
        {"age": 3600},
        {"age": -3600},
        {"path": f"/var/lib/postgresql/15/main/{SEGMENT}"},
    ],
    ids=str,
)
def test_everything_else_is_the_programs(tmp_path: Path, changed: dict[str, str | int | None]) -> None:
    code, words = archived(tmp_path, **{"path": SEGMENT, **changed})
    path = changed.get("path", SEGMENT)
    assert (code, words) == (PROGRAM, f"program diting-wal-archive --config /etc/x.json {path}\n")


def test_the_mark_is_where_the_role_and_patroni_put_it() -> None:
    defaults = yaml.safe_load((ROOT / "roles/walg/defaults/main.yml").read_text())
    assert defaults["walg_planned_stop_file"] == MARK
