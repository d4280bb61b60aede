# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmark of a guard on the lab's own host: memory, processor time in peace, and how fast it starts.

Each figure is printed as n / min / median / max. Peace means that nothing is wrong and no drill runs: the
guard's phase is looked at before and after each window, and a window in which it changed does not count.
The guard is restarted once for each start that is measured; the lab has to be up and configured.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spread import spread

from diting.cli.main import UsageParser
from diting.core.verdict import EXIT_USAGE

if TYPE_CHECKING:
    import argparse

BARS = {"rss_mib": 60.0, "cpu_percent": 1.0, "start_seconds": 1.0}
NAMES = {
    "rss_mib": "resident memory, MiB",
    "cpu_percent": "of one core, %",
    "start_seconds": "start until ready, s",
}
ON_THE_HOST = Path(__file__).with_name("bench_guard_on_host.py")


def main() -> int:
    """Measure and print one line for each figure; 1 if the median of one is over its bar."""
    options = _options()
    found = _measured(options)
    print(
        f"guard {options.guard} on {options.host}; windows of {options.seconds:g} s; n / min / median / max"
    )
    missed = False
    for key, values in found.items():
        missed = missed or statistics.median(values) > BARS[key]
        print(f"{NAMES[key]:>24}  {spread(values):>30}  (bar {BARS[key]:g})")
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = UsageParser(prog="scripts/bench-guard", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--guard", default="failover", help="name of the guard, as in its unit")
    parser.add_argument("--host", default="ops1", help="host of the lab that it runs on")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of one window")
    options = parser.parse_args()
    if not 1 <= options.runs <= 100 or not 1 <= options.seconds <= 600:
        found = f"--runs {options.runs} --seconds {options.seconds:g}"
        parser.exit(EXIT_USAGE, f"bench-guard: found {found}, wanted 1 to 100 runs of 1 to 600 seconds\n")
    return options


def _measured(options: argparse.Namespace) -> dict[str, list[float]]:
    words = ["python3", "-", options.guard, str(options.runs), str(options.seconds)]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("diting")), "lab", "ssh", options.host, *words],
        input=ON_THE_HOST.read_text(encoding="utf-8"),
        stdout=subprocess.PIPE,
        text=True,
        timeout=options.runs * (options.seconds + 60) + 60,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(
            f"bench-guard: nothing was measured on {options.host} (status {done.returncode}); is the lab up?"
        )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {key: [float(value) for value in told[key]] for key in BARS}


if __name__ == "__main__":
    sys.exit(main())
