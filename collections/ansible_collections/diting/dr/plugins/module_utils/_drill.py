# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection.
"""Files and processes behind ``diting.dr.drill``: the run directory, and the floor on the control host."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import socket
from typing import Any

from ansible_collections.diting.dr.plugins.module_utils.core.drill import Holder, Owner
from ansible_collections.diting.dr.plugins.module_utils.hostio import files


class DrillError(Exception):
    """The drill cannot go on; the message names the file or the value, and what to do."""


def write_durably(path: pathlib.Path, data: Any) -> None:
    """Replace ``path`` by ``data`` as JSON so that a crash leaves the old or the new file, whole."""
    files.write_atomic(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def _stat_fields(pid: int) -> list[str]:
    text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return text.rpartition(")")[2].split()


def process_start(pid: int) -> int | None:
    """Start time of ``pid`` in clock ticks since boot, None when it does not run."""
    try:
        return int(_stat_fields(pid)[19])
    except (OSError, IndexError, ValueError):
        return None


def controller_owner() -> Owner:
    """The ``ansible-playbook`` process above this module, found by walking up the parents.

    Falls back to the direct parent where no ancestor is called so (a test, ``ansible`` ad hoc).
    """
    pid = chosen = os.getppid()
    while pid > 1:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(part.endswith(b"ansible-playbook") for part in command[:3]):
            chosen = pid  # the outermost one: workers carry the same command line
        pid = int(_stat_fields(pid)[1])
    return Owner(
        hostname=socket.gethostname(),
        boot_id=pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        pid=chosen,
        pid_start=process_start(chosen) or 0,
    )


def is_alive(owner: Owner) -> bool:
    """Whether exactly that process still runs on this machine."""
    return process_start(owner.pid) == owner.pid_start


class FloorFile:
    """The lock of the estate's drills, one file on the control host, changed under ``flock``."""

    def __init__(self, path: str) -> None:
        self.path = pathlib.Path(path)

    def read(self) -> Holder | None:
        """The holder, None when the floor is free. ``DrillError`` when the file is garbage."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return Holder.from_dict(json.loads(text))
        except ValueError as problem:
            msg = (
                f"{self.path}: {problem}. Wanted the record of one drill. If no drill is running, "
                f"look at the hosts with operate/verify.yml and then remove the file"
            )
            raise DrillError(msg) from None

    def swap(self, expected: str | None, holder: Holder | None) -> None:
        """Set the holder if the present one is ``expected`` (a drill id, None for free)."""
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w", encoding="ascii") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            present = self.read()
            found = present.drill_id if present else None
            if found != expected:
                msg = f"the floor is held by {found or 'nobody'}, expected {expected or 'nobody'}: another drill came first"
                raise DrillError(msg)
            if holder is None:
                self.path.unlink(missing_ok=True)
            else:
                write_durably(self.path, holder.as_dict())


def merge_sections(run_dir: str, name: str, sections: dict[str, Any]) -> bool:
    """Merge ``sections`` into ``<run_dir>/<name>`` one level deep; True when the file changed.

    A list is appended to, a dictionary is updated, anything else is replaced.
    """
    path = pathlib.Path(run_dir) / name
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        data = {}
    except ValueError as problem:
        msg = f"{path} is not JSON: {problem}"
        raise DrillError(msg) from None
    before = json.dumps(data, sort_keys=True)
    for key, value in sections.items():
        present = data.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            data[key] = {**present, **value}
        elif isinstance(present, list) and isinstance(value, list):
            data[key] = [*present, *value]
        else:
            data[key] = value
    if json.dumps(data, sort_keys=True) == before:
        return False
    write_durably(path, data)
    return True
