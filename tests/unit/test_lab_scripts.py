# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripts people start the lab with: what they refuse, and how they say it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def stub(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def bootstrap(path: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    search = os.environ["PATH"] if path is None else f"{path}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", "set -euo pipefail; source scripts/lib/bootstrap.sh; echo ready"],
        cwd=ROOT,
        env={**os.environ, "PATH": search, **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the scripts want root")


@needs_root
def test_too_small_a_disk_is_named_with_the_fix(tmp_path):
    stub(tmp_path, "df", "echo Avail; echo 1048576")
    done = bootstrap(tmp_path, DITING_LAB_HOME=str(tmp_path / "labs"), DITING_BOOTSTRAP_EXIT="3")
    assert done.returncode == 3
    assert f"found: 1 GiB free at {tmp_path}" in done.stderr
    assert "wanted: at least 10 GiB" in done.stderr
    assert "fix: " in done.stderr
    assert done.stdout == ""


@needs_root
def test_with_nothing_to_do_it_says_nothing():
    bootstrap()
    done = bootstrap()
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")


@needs_root
def test_missing_packages_are_named_before_they_are_installed(tmp_path):
    stub(tmp_path, "apt-get", "exit 100")
    wanted = "bootstrap_programs+=(no-such-program:no-such-package); bootstrap_packages"
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail; source scripts/lib/bootstrap.sh; {wanted}"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert "Debian packages to install: no-such-package" in done.stderr
    assert "failed" in done.stderr


@pytest.mark.parametrize("words", [[], ["rubbish"], ["--nothing"]])
def test_wrong_usage_ends_64_and_shows_the_usage(words):
    done = subprocess.run(
        [str(ROOT / "scripts/lab"), *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "usage: ./scripts/lab" in done.stderr) == (64, True)
