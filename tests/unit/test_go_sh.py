# SPDX-License-Identifier: GPL-3.0-or-later
"""scripts/lib/go.sh: which Go it takes, what it says without one, and what it trusts in its cache."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GO_SH = ROOT / "scripts" / "lib" / "go.sh"

FAKE_GO = """#!/bin/bash
if [[ "$1" == env ]]; then echo go{version}; exit 0; fi
while [[ $# -gt 0 ]]; do [[ "$1" == -o ]] && echo built > "$2"; shift; done
echo run >> {log}
"""


@pytest.fixture
def shell(tmp_path):
    """Runs a line of bash after sourcing go.sh, with a cache of its own and without the network."""

    def run(line, *, go=None, fetch="return 1"):
        environment = {**os.environ, "DITING_CACHE": str(tmp_path / "cache")}
        environment.pop("DITING_GO", None)
        if go is not None:
            environment["DITING_GO"] = str(go)
        script = f"set -euo pipefail; source {GO_SH}; _diting_go_fetch() {{ {fetch}; }}; {line}"
        return subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def fake_go(tmp_path):
    def make(version):
        path = tmp_path / f"go-{version}"
        path.write_text(FAKE_GO.format(version=version, log=tmp_path / "runs"))
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def tool(tmp_path):
    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / "go.mod").write_text("module example.invalid/tool\n\ngo 1.25.0\n")
    (folder / "go.sum").write_text("sum\n")
    return folder


def test_the_named_go_comes_first(shell, fake_go):
    go = fake_go("99.1")
    result = shell("diting_go_path", go=go)
    assert (result.returncode, result.stdout.strip()) == (0, str(go))


@pytest.mark.parametrize(
    ("version", "minimum", "status"),
    [("1.25.0", "1.25.0", 0), ("1.25.10", "1.25.9", 0), ("1.9", "1.25.0", 1), ("1.26rc1", "1.26.0", 1)],
)
def test_versions_are_compared_as_numbers(shell, fake_go, version, minimum, status):
    go = fake_go(version)
    line = f'_diting_go_at_least "$(_diting_go_version {go})" {minimum}'
    assert shell(line).returncode == status


def test_an_old_go_gives_way_to_the_fetched_one(shell, fake_go):
    fetched = fake_go("99.9")
    result = shell("diting_go_path 99.0", go=fake_go("1.10"), fetch=f"echo {fetched}")
    assert result.stdout.strip() == str(fetched)


def test_without_one_it_says_found_wanted_and_fix(shell, fake_go):
    old = fake_go("1.10")
    result = shell("diting_go_path 99.0", go=old)
    assert result.returncode == 1
    assert result.stdout == ""
    for part in (f"{old} 1.10", "wanted Go >= 99.0", "fix:"):
        assert part in result.stderr


def test_a_build_is_done_once(shell, fake_go, tool, tmp_path):
    line = f"diting_go_build {tool} example.invalid/x name"
    go = fake_go("99.9")
    first, second = shell(line, go=go), shell(line, go=go)
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert (tmp_path / "runs").read_text() == "run\n"


def test_other_pins_are_another_build(shell, fake_go, tool):
    line = f"diting_go_build {tool} example.invalid/x name"
    go = fake_go("99.9")
    before = shell(line, go=go).stdout
    (tool / "go.sum").write_text("another sum\n")
    assert shell(line, go=go).stdout != before


def test_a_changed_binary_does_not_leave_the_cache(shell, fake_go, tool):
    line = f"diting_go_build {tool} example.invalid/x name"
    go = fake_go("99.9")
    Path(shell(line, go=go).stdout.strip()).write_text("something else\n")
    result = shell(line, go=go)
    assert result.returncode == 1
    assert "differs from what was built" in result.stderr


def test_sources_without_pins_are_refused(shell, fake_go, tool):
    (tool / "go.sum").unlink()
    result = shell(f"diting_go_build {tool} example.invalid/x name", go=fake_go("99.9"))
    assert result.returncode == 1
    assert "go.sum" in result.stderr


def test_wrong_usage_leaves_with_64():
    assert subprocess.run([GO_SH, "dance"], capture_output=True, check=False).returncode == 64
