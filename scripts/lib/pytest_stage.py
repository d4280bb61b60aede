# SPDX-License-Identifier: GPL-3.0-or-later
"""A stage of ``scripts/test`` that is a run of pytest, counted test by test."""

from __future__ import annotations

import os
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

from tally import ROOT, Tally, call

if TYPE_CHECKING:
    from collections.abc import Callable


def count_junit(path: Path) -> Tally:
    """Counts from a JUnit file of pytest. A file that is missing or empty is one failure."""
    tally = Tally()
    try:
        suites = ET.parse(path).getroot().iter("testsuite")  # noqa: S314 - written by our own pytest
    except (OSError, ET.ParseError) as error:
        return Tally(failed=1, notes=[f"failed: pytest wrote no results: {error}"])
    for suite in suites:
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        tally.failed += bad
        tally.skipped += skipped
        tally.passed += int(suite.get("tests", 0)) - bad - skipped
        for case in suite.iter("testcase"):
            name = f"{case.get('classname', '')}::{case.get('name', '')}"
            if case.find("failure") is not None or case.find("error") is not None:
                tally.notes.append(f"failed: {name}")
            elif (skip := case.find("skipped")) is not None:
                tally.notes.append(f"skipped: {name}: {skip.get('message', 'no reason given')}")
    return tally


def run(argv: list[str], limit_seconds: float) -> Tally:
    """One run of pytest; what it exited with counts as a failure of its own unless its tests explain it."""
    with tempfile.TemporaryDirectory(prefix="diting-junit-") as scratch:
        junit = Path(scratch) / "junit.xml"
        status = call(["pytest", "-q", f"--junitxml={junit}", *argv], limit_seconds=limit_seconds)
        tally = count_junit(junit)
    if status not in (0, 1) and not tally.failed:
        tally.failed += 1
        tally.notes.append(f"failed: pytest exited {status}")
    return tally


def pytest_stage(
    *paths: str, limit_seconds: float, workers: int = 1, timed_alone: bool = False
) -> Callable[[], Tally]:
    """A stage that is pytest over the paths that exist.

    Args:
        paths: folders of tests, from the root of the tree.
        limit_seconds: for each run of pytest.
        workers: how many take a file at a time, at most as many as there are processors.
        timed_alone: run the files marked ``alone`` afterwards, by one worker. What they judge (a guard that
            confirms silence in a third of a second, a prober's schedule) is decided by moments of the
            processor's time, and a neighbour that takes them would be judged instead.
    """
    workers = min(workers, os.cpu_count() or 1)
    spread = ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []

    def stage() -> Tally:
        present = [path for path in paths if any((ROOT / path).rglob("test_*.py"))]
        if not present:
            return Tally(failed=1, notes=[f"failed: no tests under {', '.join(paths)}"])
        if not timed_alone:
            return run([*spread, *present], limit_seconds)
        tally = run([*spread, "-m", "not alone", *present], limit_seconds)
        tally.merge(run(["-m", "alone", *present], limit_seconds))
        return tally

    return stage
