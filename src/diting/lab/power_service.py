# SPDX-License-Identifier: GPL-3.0-or-later
"""Power control as a process: ``python -m diting.lab.power_service ensure|stop|serve --lab-home DIR``.

``ensure`` and ``stop`` print ``{"changed": bool, "pid": int|null}``. The process is known by the lock it
holds, not by a number in a file that another program may have inherited.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from diting.lab import alert_rooms
from diting.lab import instance as lab
from diting.lab.hosts import PodmanHosts
from diting.lab.podman import Podman
from diting.lab.power import serve
from diting.lab.power_client import PowerClient, PowerClientError

if TYPE_CHECKING:
    from diting.lab.instance import Instance

START_DEADLINE_SECONDS = 15.0
STOP_DEADLINE_SECONDS = 40.0  # an order under way may take 30 s
SOURCES = (
    "power.py",
    "power_api.py",
    "power_switches.py",
    "power_service.py",
    "hosts.py",
    "podman.py",
    "records.py",
    "instance.py",
    "alert_rooms.py",
)


def fingerprint(instance: Instance) -> str:
    """Hash of all the daemon's behaviour depends on: a running one with another hash is replaced."""
    digest = hashlib.sha256()
    files = [Path(__file__).with_name(name) for name in SOURCES]
    files += [instance.home / "lab.json", instance.power_dir / "cert.pem", instance.power_dir / "token"]
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def holder(instance: Instance) -> int | None:
    """Process that holds the daemon's lock, or None when nobody does."""
    path = instance.power_dir / "daemon.lock"
    if not path.exists():
        return None
    with path.open("r+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = held.read().strip()
            return int(text) if text.isdigit() else None
    return None


def lock(instance: Instance) -> int:
    """Take the single-instance lock and write our pid into it; exits when another daemon has it."""
    descriptor = os.open(instance.power_dir / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"power control of lab {instance.name!r} already runs") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def stop(instance: Instance) -> bool:
    """Stop the daemon and wait until it is gone; False when there was none."""
    pid = holder(instance)
    if pid is None:
        return False
    handle = os.pidfd_open(pid)  # from here on the number cannot come to mean another process
    try:
        if holder(instance) != pid:
            return True
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        deadline = time.monotonic() + STOP_DEADLINE_SECONDS
        while holder(instance) == pid:
            if time.monotonic() >= deadline:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.05)
    finally:
        os.close(handle)
    return True


def _answers(instance: Instance, wanted: str) -> bool:
    try:
        return bool(PowerClient.for_instance(instance, timeout_seconds=3.0).daemon()["fingerprint"] == wanted)
    except (PowerClientError, KeyError):
        return False


def ensure(instance: Instance) -> bool:
    """Have a daemon of exactly this code and configuration answer; True when one was started."""
    wanted = fingerprint(instance)
    if holder(instance) is not None and _answers(instance, wanted):
        return False
    stop(instance)
    log = instance.power_dir / "daemon.log"
    source = str(Path(__file__).resolve().parents[2])
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "diting.lab.power_service", "serve", "--lab-home", str(instance.home)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": source, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while not _answers(instance, wanted):
        if process.poll() is not None or time.monotonic() >= deadline:
            tail = log.read_text()[-1000:]
            raise SystemExit(f"power control did not start (exit {process.poll()}); end of {log}:\n{tail}")
        time.sleep(0.05)
    return True


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m diting.lab.power_service", description="Power control's process."
    )
    parser.add_argument("action", choices=("ensure", "stop", "serve"))
    parser.add_argument("--lab-home", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        instance = lab.load(args.lab_home)
    except lab.InstanceError as error:
        parser.exit(1, f"{error}\n")
    if args.action == "serve":
        lock(instance)
        # In this process because it lives and ends with the lab as power control does.
        alert_rooms.start(instance)
        serve(instance, PodmanHosts(instance, Podman(instance.podman_home)), fingerprint(instance))
        return 0
    changed = ensure(instance) if args.action == "ensure" else stop(instance)
    sys.stdout.write(json.dumps({"changed": changed, "pid": holder(instance)}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
