# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmark of the lab's alerting: seconds until a receiver has the alert about a proof that is too old, and about the alerting's own death.

Each is done on purpose, waited for in the lab's chat rooms, and taken back before the next. Times begin when the
command on the host has ended. The lab has to be up and converged, and nothing else may be drilled meanwhile.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from spread import spread

from diting.cli.main import UsageParser
from diting.core.verdict import EXIT_USAGE

EXIT_TERMINATED = 143
DITING = str(Path(sys.executable).with_name("diting"))
TEXTFILE = "/var/lib/prometheus/node-exporter/diting_restore_test.prom"
OLD = f'diting_backup_proven_restore_timestamp_seconds{{cluster="diting"}} {time.time() - 365 * 86400:.0f}'
KEPT = "/run/diting-bench-alerts.prom"
CASES = {
    "a proof that is too old": (
        "store1",
        "DitingProofOld",
        f"[ ! -e {TEXTFILE} ] || mv {TEXTFILE} {KEPT}; echo {shlex.quote(OLD)} > {TEXTFILE}",
        f"rm -f {TEXTFILE}; [ ! -e {KEPT} ] || mv {KEPT} {TEXTFILE}",
    ),
    "Alertmanager dead": (
        "ops1",
        "DitingAlertPathSilent",
        "systemctl stop prometheus-alertmanager",
        "systemctl start prometheus-alertmanager",
    ),
    "Prometheus dead": (
        "ops1",
        "DitingAlertPathSilent",
        "systemctl stop prometheus",
        "systemctl start prometheus",
    ),
}
"""What is done -> host, alert, how, how it is taken back."""


def main() -> int:
    """Print one line for each case; 1 when an alert did not come."""
    parser = UsageParser(prog="scripts/bench-alerts", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=180.0, help="seconds that are waited for an alert")
    options = parser.parse_args()
    if not 1 <= options.runs <= 100 or not 1 <= options.limit <= 3600:
        found = f"--runs {options.runs} --limit {options.limit:g}"
        parser.exit(EXIT_USAGE, f"bench-alerts: found {found}, wanted 1 to 100 runs and 1 to 3600 seconds\n")
    # What was done is taken back by "finally", so that an end from outside has to come as an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    for alert in sorted({alert for _, alert, _, _ in CASES.values()}):
        if alert in on("ops1", f"diting-amtool alert query alertname={alert}"):
            parser.exit(1, f"bench-alerts: found {alert} standing already, wanted an alerting in peace\n")
    print("seconds until a receiver has the alert; n / min / median / max")
    missed = False
    for name, (host, alert, do, undo) in CASES.items():
        values = [once(host, alert, do, undo, options.limit) for _ in range(options.runs)]
        came = [value for value in values if value is not None]
        missed = missed or len(came) < len(values)
        text = spread(came) if came else "never"
        print(f"{name:>24}  {text:>30}  ({alert}, {len(values) - len(came)} did not come)", flush=True)
    return int(missed)


def once(host: str, alert: str, do: str, undo: str, limit_seconds: float) -> float | None:
    """Do it, wait for the alert, take it back and wait until that is told as well; None when the alert did not come."""
    try:
        on(host, do)
        began, since = time.monotonic(), datetime.now(UTC)
        told = arrived(alert, "firing", since, limit_seconds)
        seconds = time.monotonic() - began
    finally:
        on(host, undo)
    if not told or not arrived(alert, "resolved", since, limit_seconds):
        return None
    return seconds


def on(host: str, script: str) -> str:
    """Run ``script`` on a host of the lab; what it printed. Raises CalledProcessError."""
    command = [DITING, "lab", "ssh", host, script]
    done = subprocess.run(
        command, check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def arrived(alert: str, status: str, since: datetime, limit_seconds: float) -> bool:
    """Whether the webhook of the lab was told so."""
    words = ["--name", alert, "--status", status, "--since", since.strftime("%Y-%m-%dT%H:%M:%SZ")]
    command = [DITING, "lab", "alerts", *words, "--wait", f"{limit_seconds:g}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=limit_seconds + 60, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(
            f"bench-alerts: the lab's chat rooms cannot be asked (status {done.returncode}); is the lab up?"
        )
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
