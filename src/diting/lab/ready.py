# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until every host of a lab answers SSH and its systemd has finished starting.

``python -m diting.lab.ready --lab-home DIR`` exits 0 when all are ready, 1 when one is not within the deadline,
and says which and why.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from diting.lab import instance as lab
from diting.lab.view import ssh_command

if TYPE_CHECKING:
    from diting.lab.instance import Instance

# A unit that failed is for the role that owns it; a host that is still starting is not ready.
READY = ("running", "degraded")


# All containers together otherwise weigh as much as one ordinary process of the machine: a build in another
# terminal would then make a drill's prober late. Cgroup v1, then v2; the kernel's defaults are 1024 and 100.
WEIGHTS = (
    (Path("/sys/fs/cgroup/cpu/libpod_parent/cpu.shares"), 16384),
    (Path("/sys/fs/cgroup/libpod_parent/cpu.weight"), 1600),
)


def give_weight(weights: tuple[tuple[Path, int], ...] = WEIGHTS) -> list[Path]:
    """Give the lab's hosts together the processor share of many processes; returns what was written.

    A cgroup that is not there, or may not be written, leaves the default: the lab works, only less evenly.
    """
    written = []
    for path, weight in weights:
        try:
            if int(path.read_text(encoding="ascii")) < weight:
                path.write_text(f"{weight}\n", encoding="ascii")
                written.append(path)
        except (OSError, ValueError):
            continue
    return written


def wait_for(instance: Instance, host: str, seconds: float) -> str:
    """Wait for one host; returns why it is not ready, or an empty text."""
    deadline = time.monotonic() + seconds
    problem = "not asked"
    while (left := deadline - time.monotonic()) > 0:
        command = ssh_command(instance, host, "systemctl is-system-running --wait")
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=max(left, 1.0),
            )
        except subprocess.TimeoutExpired:
            problem = f"no answer within {seconds:g} s"
            break
        if done.stdout.strip() in READY:
            return ""
        problem = done.stdout.strip() or (done.stderr.strip().splitlines() or ["no output"])[-1]
        time.sleep(min(0.2, max(left, 0.0)))
    return problem


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m diting.lab.ready", description="Wait for a lab's hosts.")
    parser.add_argument("--lab-home", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    args = parser.parse_args(argv)
    try:
        instance = lab.load(args.lab_home)
    except lab.InstanceError as error:
        parser.exit(1, f"{error}\n")
    give_weight()
    with ThreadPoolExecutor(max_workers=len(instance.hosts)) as pool:
        problems = pool.map(lambda host: wait_for(instance, host, args.seconds), instance.hosts)
    late = [f"{host}: {problem}\n" for host, problem in zip(instance.hosts, problems, strict=True) if problem]
    sys.stderr.writelines(late)
    return 1 if late else 0


if __name__ == "__main__":
    raise SystemExit(main())
