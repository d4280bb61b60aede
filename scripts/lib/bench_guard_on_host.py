# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of bench_guard.py that runs on the guard's host, read from standard input: GUARD RUNS SECONDS.

Prints one line of JSON: a list for each figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PATIENCE_SECONDS = 60


def main() -> None:
    """Measure windows of peace first, then starts."""
    guard, runs, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    unit = f"diting-guard-{guard}.service"
    found: dict[str, list[float]] = {"rss_mib": [], "cpu_percent": [], "start_seconds": []}
    deadline = time.monotonic() + runs * (seconds + PATIENCE_SECONDS)
    while len(found["cpu_percent"]) < runs:
        if time.monotonic() > deadline:
            raise SystemExit(f"{unit}: found no {runs} windows of {seconds:g} s in which it was at peace")
        before, pid = peace(guard, unit), process(unit)
        used, since = processor_seconds(pid), time.monotonic()
        time.sleep(seconds)
        used, took = processor_seconds(pid) - used, time.monotonic() - since
        if peace(guard, unit) == before:
            found["cpu_percent"].append(100 * used / took)
            found["rss_mib"].append(resident_mib(pid))
    for _ in range(runs):
        subprocess.run(["systemctl", "restart", unit], check=True)
        begun, ready = moments(unit)
        found["start_seconds"].append(ready - begun)
        peace(guard, unit)
    print(json.dumps(found))


def show(unit: str, name: str) -> str:
    """One property of the unit."""
    argv = ["systemctl", "show", "--value", "--property", name, unit]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def process(unit: str) -> int:
    """The guard's process."""
    if (pid := int(show(unit, "MainPID"))) == 0:
        raise SystemExit(f"{unit}: does not run")
    return pid


def peace(guard: str, unit: str) -> tuple[str, str]:
    """The guard's phase and process once it says that nothing is wrong; raises SystemExit if it does not come to that."""
    status = Path("/run/diting-guards") / guard / "status.json"
    end = time.monotonic() + PATIENCE_SECONDS
    phase = "nothing"
    while time.monotonic() < end:
        if status.exists():
            told = json.loads(status.read_text(encoding="utf-8"))
            phase = told["phase"]
            if told["steady"]:
                return phase, show(unit, "MainPID")
        time.sleep(0.2)
    raise SystemExit(f"{unit}: says {phase} for {PATIENCE_SECONDS} s, wanted a steady phase")


def processor_seconds(pid: int) -> float:
    """User and system time of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mib(pid: int) -> float:
    """Resident memory, pages of files included."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def moments(unit: str) -> tuple[float, float]:
    """When the process began and when it said that it is ready, seconds since boot."""
    begun, ready = (int(show(unit, f"{name}TimestampMonotonic")) for name in ("ExecMainStart", "ActiveEnter"))
    return begun / 1e6, ready / 1e6


main()
