# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection.
"""Stop every process of a PostgreSQL server without ending one: the host lives, the server says nothing.

SIGSTOP is asynchronous and a process may fork while others are being stopped, so this goes round until a
whole round found nobody left to stop.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import time
import typing as t

from ansible_collections.diting.dr.plugins.module_utils._fault import FaultError, process_state

if t.TYPE_CHECKING:
    from collections.abc import Callable

STOPPED = {"T", "t"}
GONE = {None, "Z", "X"}
SERVICE = re.compile(r"(?:name=systemd|^0:):(?P<path>/\S*\.service)(?:/\S*)?$", re.MULTILINE)
PROC = pathlib.Path("/proc")


def parents(proc: pathlib.Path = PROC) -> dict[int, int]:
    """Parent of every process that runs now; one that ends meanwhile is left out."""
    found = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                text = (entry / "stat").read_text(encoding="ascii", errors="replace")
                found[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
    return found


def tree_of(root: int, proc: pathlib.Path = PROC) -> list[int]:
    """``root`` and all its descendants, the parent always before its children."""
    known = parents(proc)
    found = [root]
    for pid in found:
        found += sorted(child for child, parent in known.items() if parent == pid)
    return found


def service_of(pid: int, proc: pathlib.Path = PROC) -> str:
    """Control group of the systemd service that ``pid`` belongs to.

    Raises ``FaultError`` when it belongs to none, or to the one this process is in: what is stopped must be
    a service and never the session of whoever stops it.
    """

    def look(which: str) -> str | None:
        try:
            match = SERVICE.search((proc / which / "cgroup").read_text(encoding="ascii"))
        except OSError:
            return None
        return match["path"] if match else None

    found = look(str(pid))
    if found is None or found == look("self"):
        msg = f"process {pid} belongs to no service of its own (control group {found}); nothing was stopped"
        raise FaultError(msg)
    return found


def members_of(service: str, proc: pathlib.Path = PROC) -> list[int]:
    """Every process in a service's control group or below it."""
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            match = SERVICE.search((entry / "cgroup").read_text(encoding="ascii"))
            if match and match["path"] == service:
                found.append(int(entry.name))
    return sorted(found)


def stop_all(find: Callable[[], list[int]], deadline_seconds: float = 5.0) -> dict[str, object]:
    """SIGSTOP whatever ``find`` lists until nothing of it runs; stamps in ns, and the process ids.

    Raises ``FaultError`` when something still ran at the deadline, or when there was nothing to stop.
    """
    sent = time.monotonic_ns()
    limit = time.monotonic() + deadline_seconds
    hit: set[int] = set()
    while True:
        running = [pid for pid in find() if process_state(pid) not in STOPPED | GONE]
        if not running:
            break
        if time.monotonic() >= limit:
            msg = f"processes {running[:10]} still ran {deadline_seconds} s after SIGSTOP"
            raise FaultError(msg)
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                hit.add(pid)
        time.sleep(0.002)
    if not hit:
        raise FaultError("there was nothing to stop")
    return {"stamps": {"sent_mono_ns": sent, "gone_mono_ns": time.monotonic_ns()}, "pids": sorted(hit)}


def owner_of(pid: int, proc: pathlib.Path = PROC) -> int:
    """User id that ``pid`` runs under."""
    try:
        return (proc / str(pid)).stat().st_uid
    except OSError as problem:
        raise FaultError(f"process {pid} does not run: {problem}") from None


def continue_command(uid: int) -> str:
    """What lets everything of that user run again; to a process that was never stopped it means nothing."""
    return f"pkill -CONT -u {uid}; true"
