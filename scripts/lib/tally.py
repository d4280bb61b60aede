# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stage of ``scripts/test`` counts, and how it runs a tool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent


@dataclass
class Tally:
    """Counts of one stage, and what a reader has to know about failures and skips."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, good: bool, seconds: float | None = None) -> None:
        """Count one thing and say so at once."""
        took = "" if seconds is None else f"  {seconds:6.1f} s"
        print(f"  {'ok  ' if good else 'FAIL'}  {name:<24}{took}", flush=True)
        self.passed += good
        self.failed += not good
        if not good:
            self.notes.append(f"failed: {name}")

    def skip(self, name: str, reason: str) -> None:
        """Count one thing that cannot run here, with the reason."""
        print(f"  skip  {name:<24}  {reason}", flush=True)
        self.skipped += 1
        self.notes.append(f"skipped: {name}: {reason}")

    def merge(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.notes += other.notes


def call(argv: list[str], *, limit_seconds: float, quiet: bool = False) -> int:
    """Run one tool in a process group of its own; kill the whole group at the limit.

    Ctrl-C is handed on, so that a drill can take its fault back before it leaves.

    Args:
        argv: the command; names without a slash are looked up in the virtual environment first.
        limit_seconds: after this the group is killed and 124 is returned, as timeout(1) does.
        quiet: keep the output back unless the tool fails.
    """
    words = [str(BIN / argv[0]) if (BIN / argv[0]).exists() else argv[0], *argv[1:]]
    environment = os.environ | {"NO_COLOR": "1"} if quiet else None
    with tempfile.TemporaryFile() as kept:
        sink = kept if quiet else None
        process = subprocess.Popen(
            words, cwd=ROOT, stdout=sink, stderr=sink, start_new_session=True, env=environment
        )
        try:
            status = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            print(f"  {argv[0]}: killed after {limit_seconds:.0f} s", flush=True)
            status = 124
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()
            raise
        if quiet and status != 0:
            kept.seek(0)
            sys.stdout.buffer.write(kept.read())
            sys.stdout.flush()
    return status
