# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard ``clock`` as a real process, a chronyc that says what a file says, and systemd's end of its socket."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from support.servers import wait_until
from support.tree import ROOT

GOOD, FAR = "0.000012", "0.75"


def diting(*words: Any, **kw: Any) -> subprocess.CompletedProcess[str]:
    """The command, as a person types it."""
    argv = [sys.executable, "-m", "diting.cli.main", *map(str, words)]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=30, check=False, env=environment(), **kw
    )


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "", **more}


class Place:
    """A directory in which a clock guard lives, dies and lives again."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        self.directory = directory
        self.answer = directory / "answer"
        self.says(GOOD)
        chronyc = directory / "chronyc"
        chronyc.write_text(f"#!/bin/sh\nexec cat {self.answer}\n")
        chronyc.chmod(0o755)
        self.config = directory / "clock.json"
        runtime = {
            "interval_seconds": 0.1,
            "state_dir": str(directory / "state"),
            "run_dir": str(directory / "run"),
            "metrics": {"port": 0},
            **changes,
        }
        settings = {"chronyc": str(chronyc), "confirm_seconds": 0.3, "clear_seconds": 0.3}
        self.config.write_text(json.dumps({"guard": "clock", "runtime": runtime, "settings": settings}))
        self.journal = directory / "state" / "journal.jsonl"
        self.log = directory / "log"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(directory / "notify"))
        self.deaf = False
        self._words: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.process: subprocess.Popen[bytes] | None = None

    def says(self, offset: str, leap: str = "Normal") -> None:
        """What chronyc answers from now on; written beside and renamed, so that no answer is half of one."""
        line = f"C0A80101,192.0.2.1,3,1700000000.1,{offset},0.00001,0.00002,1.5,0.001,0.02,0.001,0.0005,64.2,{leap}\n"
        new = self.answer.with_suffix(".new")
        new.write_text(line)
        new.replace(self.answer)

    def start(self) -> float:
        """Start the guard and wait until it says READY; how long that took."""
        began = time.monotonic()
        self.start_only()
        self.hears("READY=1")
        return time.monotonic() - began

    def start_only(self) -> None:
        """Start the guard, ready or not."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "diting.cli.main", "guard", "run", str(self.config)],
                env=environment(NOTIFY_SOCKET=str(self.directory / "notify"), WATCHDOG_USEC="10000000"),
                stdout=log,
                stderr=log,
            )

    def _listen(self) -> None:
        # As systemd does: whatever comes is read at once.
        while word := self.notify.recv(4096).decode():
            self._words.put(word)
            while self.deaf:
                time.sleep(0.01)

    def hears(self, wanted: str) -> list[str]:
        """Every word to systemd since the last call, up to ``wanted``."""
        words: list[str] = []
        while wanted not in words:
            words.append(self._words.get(timeout=15))
        return words

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Signal the guard and wait for its end: exit status and seconds."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(15), time.monotonic() - began

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(15)
        self.deaf = False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.directory / "notify"))
        self._listener.join(5)
        self.notify.close()

    def status(self) -> dict[str, Any]:
        found = json.loads((self.directory / "run" / "status.json").read_text())
        return dict(found)

    def records(self) -> list[dict[str, Any]]:
        text = self.journal.read_text() if self.journal.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def phases(self) -> list[str]:
        """The states of the journal's cycles, repetitions left out."""
        found: list[str] = []
        for record in self.records():
            if record["event"] == "cycle" and found[-1:] != [record["phase"]]:
                found.append(record["phase"])
        return found

    def reaches(self, phase: str) -> None:
        wait_until(f"phase {phase}", lambda: self.phases()[-1:] == [phase])

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def metrics(self) -> dict[str, float]:
        """Name with labels -> value, from the address that the log names."""
        port = next(line["port"] for line in reversed(self.logged()) if line["event"] == "metrics")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if x[:1] != "#")}

    def memory_bytes(self) -> int:
        assert self.process is not None
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def cpu_seconds(self) -> float:
        """Of the guard and of the commands it ran and reaped."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
