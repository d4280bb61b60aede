# SPDX-License-Identifier: GPL-3.0-or-later
"""Any guard as a process that can be killed and started again."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.guard_process import environment
from support.wal_cluster import wait_until


class Daemon:
    """One guard as a process; killed and started again at will."""

    def __init__(self, directory: Path, guard: str, settings: dict[str, Any], **runtime: Any) -> None:
        directory.mkdir()
        self.directory = directory
        self.config = directory / "config.json"
        self.runtime = {"state_dir": str(directory / "state"), "run_dir": str(directory / "run"), **runtime}
        self.guard = guard
        self.write(settings)
        self.journal = directory / "state" / "journal.jsonl"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}

    def write(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        document = {"guard": self.guard, "runtime": self.runtime, "settings": settings}
        self.config.write_text(json.dumps(document))

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "nice",
                    "-n",
                    "5",
                    sys.executable,
                    "-m",
                    "diting.cli.main",
                    "guard",
                    "run",
                    str(self.config),
                ],
                env=environment(**self.environment),
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def records(self) -> list[dict[str, Any]]:
        text = self.journal.read_text() if self.journal.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.directory / "run" / "status.json").read_text()))
        return {}

    def phases(self) -> list[str]:
        found: list[str] = []
        for record in self.records():
            if record["event"] == "cycle" and found[-1:] != [record["phase"]]:
                found.append(record["phase"])
        return found

    def reaches(self, *phases: str, seconds: float = 20.0) -> None:
        wait_until(
            f"{self.guard} reaches {phases}",
            lambda: self.phases()[-1:] and self.phases()[-1] in phases,
            seconds,
        )

    def actions(self) -> list[dict[str, Any]]:
        """Every action that was begun, in order."""
        return [
            r["action"] for record in self.records() if record["event"] == "acted" for r in record["results"]
        ]

    def log(self) -> str:
        return (self.directory / "log").read_text()
