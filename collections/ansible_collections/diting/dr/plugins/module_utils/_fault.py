# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection.
"""The hands of ``diting.dr.fault``: records on disk, systemd's timers, signals, and the look around."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.diting.dr.plugins.module_utils.core.faults import Scan, check_fault_id
from ansible_collections.diting.dr.plugins.module_utils.core.journal import utc_text_at
from ansible_collections.diting.dr.plugins.module_utils.hostio import files

Command = Callable[[list[str]], "tuple[int, str, str]"]
"""Runs an argument list; returns exit status, standard output, standard error."""


class FaultError(Exception):
    """The fault could not be injected, reverted or looked for; the message says why."""


def utc_now() -> str:
    """Wall clock, a label only; every duration comes from a monotonic clock."""
    return utc_text_at(time.time())


def run_command(argv: list[str]) -> tuple[int, str, str]:
    """Run ``argv`` without a shell, in the C locale, for at most 60 seconds."""
    environment = {**os.environ, "LC_ALL": "C", "LANG": "C"}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return 127, "", str(problem)
    return done.returncode, done.stdout, done.stderr


class FaultStore:
    """Records of injected faults on the host they were injected on, one file per fault."""

    def __init__(self, directory: str, run: Command = run_command) -> None:
        self.directory = pathlib.Path(directory)
        self.run = run

    def path(self, fault_id: str) -> pathlib.Path:
        """File that holds the record of ``fault_id``."""
        return self.directory / f"{check_fault_id(fault_id)}.json"

    def unit(self, fault_id: str) -> str:
        """Name of the transient unit that reverts ``fault_id`` without the controller."""
        return f"diting-fault-{check_fault_id(fault_id)}"

    def exists(self, fault_id: str) -> bool:
        """Whether this fault is on record here."""
        return self.path(fault_id).exists()

    def write(self, fault_id: str, record: dict[str, Any]) -> None:
        """Write the record durably: it is on disk before the fault is injected, or nothing is."""
        self.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        files.write_atomic(self.path(fault_id), json.dumps(record, sort_keys=True))

    def arm_revert(self, fault_id: str, seconds: int, command: str) -> None:
        """Have systemd run ``command`` in ``seconds`` and set the record aside as expired."""
        record = self.path(fault_id)
        script = f"{command}; mv -f {record} {record.with_suffix('.expired')}"
        code, _out, err = self.run(
            [
                "systemd-run",
                f"--unit={self.unit(fault_id)}",
                f"--on-active={seconds}s",
                "--timer-property=AccuracySec=100ms",
                "/bin/sh",
                "-c",
                script,
            ]
        )
        if code != 0:
            msg = f"the revert of {fault_id} could not be armed, so nothing was injected: {err.strip()}"
            raise FaultError(msg)

    def disarm(self, fault_id: str) -> None:
        """Stop the revert timer; it is fine when it is gone already."""
        unit = self.unit(fault_id)
        self.run(["systemctl", "stop", f"{unit}.timer"])
        self.run(["systemctl", "reset-failed", f"{unit}.service"])

    def records(self) -> list[dict[str, Any]]:
        """Every record here, live (``state: injected``) and expired (``state: expired``)."""
        found = []
        for path in sorted(self.directory.glob("*")):
            if path.suffix not in {".json", ".expired"}:
                continue
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as problem:
                record = {"unreadable": str(problem)}
            record["fault_id"] = path.stem
            record["state"] = "expired" if path.suffix == ".expired" else "injected"
            found.append(record)
        return found

    def forget(self, fault_id: str) -> bool:
        """Remove the record, live or expired; True when there was one."""
        gone = False
        for path in (self.path(fault_id), self.path(fault_id).with_suffix(".expired")):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                gone = True
        return gone


def read_postmaster_pid(data_directory: str) -> int:
    """Process id of the running postmaster of ``data_directory``.

    Raises ``FaultError`` when there is none or when the process is something else: a signal is
    never sent on the word of a stale file.
    """
    path = pathlib.Path(data_directory) / "postmaster.pid"
    try:
        pid = int(path.read_text(encoding="ascii").split("\n", 1)[0])
    except (OSError, ValueError) as problem:
        msg = f"{path} does not name a running postmaster ({problem}); is PostgreSQL up on this host?"
        raise FaultError(msg) from None
    try:
        command = pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
    except OSError:
        msg = f"{path} names process {pid}, which does not run; PostgreSQL is down already"
        raise FaultError(msg) from None
    if command != "postgres":
        msg = f"{path} names process {pid}, which is {command!r} and not postgres; nothing was killed"
        raise FaultError(msg)
    return pid


def kill_and_confirm(pid: int, deadline_seconds: float = 5.0) -> dict[str, int]:
    """SIGKILL ``pid`` and wait until the kernel no longer runs it; monotonic stamps in ns."""
    sent = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    limit = time.monotonic() + deadline_seconds
    while time.monotonic() < limit:
        state = process_state(pid)
        if state in {None, "Z", "X"}:
            return {"sent_mono_ns": sent, "gone_mono_ns": time.monotonic_ns()}
        time.sleep(0.002)
    msg = f"process {pid} still ran {deadline_seconds} s after SIGKILL"
    raise FaultError(msg)


def process_state(pid: int) -> str | None:
    """The one-letter state from ``/proc/<pid>/stat``, or None when the process is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[0]


def look_around(host: str, store: FaultStore, fillers: Callable[[], list[str]] = list) -> Scan:
    """One read-only look for what a fault can leave behind on this host."""

    def ask(argv: list[str]) -> str | None:
        code, out, _err = store.run(argv)
        return out if code == 0 else None

    stopped = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and process_state(int(entry.name)) == "T":
            with contextlib.suppress(OSError):
                name = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
                stopped.append(f"{name} ({entry.name})")
    return Scan(
        host=host,
        records=[f"{record['fault_id']} ({record['state']})" for record in store.records()],
        units=ask(["systemctl", "list-units", "diting-fault-*", "--all", "--plain", "--no-legend"]),
        stopped=stopped,
        qdiscs=ask(["tc", "qdisc", "show"]),
        routes=ask(["ip", "-4", "route", "show", "table", "all"]),
        fillers=fillers(),
    )
