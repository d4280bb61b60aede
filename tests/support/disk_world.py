# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL on a small file system of its own, filled and freed; prints one JSON object.

Run as: unshare --mount python disk_world.py DIRECTORY. The file system exists in this process's mount
namespace only, and goes with it.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ansible_collections.diting.dr.plugins.module_utils import _fault_disk
from ansible_collections.diting.dr.plugins.module_utils._fault import FaultError
from support.ledger_server import Programs, Server
from support.servers import free_port, wait_until

MAXIMUM = 1 << 30


def refused(directory: Path, maximum: int = MAXIMUM) -> str:
    try:
        _fault_disk.own_file_system(str(directory), maximum)
    except FaultError as problem:
        return str(problem)
    return ""


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def run(directory: Path, told: dict[str, Any]) -> None:
    room, bound, run_dir = directory / "room", directory / "bound", directory / "run"
    for path in (room, bound, run_dir):
        path.mkdir()
    mount("-t", "tmpfs", "-o", "size=256m,mode=755", "room", str(room))
    server = Server(room / "pg", free_port())
    server.base.mkdir(mode=0o755)
    user = pwd.getpwnam("postgres")
    os.chown(server.base, user.pw_uid, user.pw_gid)
    programs = Programs(server, run_dir)
    try:
        server._set_up()
        mount("--bind", str(server.base), str(bound))
        told["refused"] = {
            "root": refused(Path("/")),
            "part of another": refused(bound),
            "too large": refused(server.data, 1 << 20),
            "missing": refused(directory / "none"),
        }
        found = _fault_disk.own_file_system(str(server.data), MAXIMUM)
        rule = _fault_disk.boot_rule_of("t-1", directory / "tmpfiles.d")
        filler = _fault_disk.filler_of(found, "t-1")
        target = {"name": "pg", "kind": "space", "interval_seconds": 0.1, "deadline_seconds": 5}
        watch = {"run_id": "t", "output": str(run_dir / "watch.jsonl"), "max_duration_seconds": 60}
        watch["targets"] = [{**target, "connection": programs.connection()}]
        (run_dir / "watch.json").write_text(json.dumps(watch))
        programs.start("ledger", "watch", "--config", run_dir / "watch.json")
        told["filled"] = _fault_disk.fill(filler, rule)
        told["fillers"] = _fault_disk.fillers(rule.parent)
        told["full_ns"] = time.monotonic_ns()
        wait_until("the watcher sees it", lambda: states(run_dir)[-1:] == ["no_space"])
        command = _fault_disk.free_command(filler, rule)
        subprocess.run(["/bin/sh", "-c", command], check=True)
        wait_until("the watcher sees it freed", lambda: states(run_dir)[-1:] == ["up"])
        told["states"] = states(run_dir)
        told["left_behind"] = [filler] * Path(filler).exists() + _fault_disk.fillers(rule.parent)
    finally:
        programs.cleanup()
        server.stop()


def states(run_dir: Path) -> list[str]:
    lines = (run_dir / "watch.jsonl").read_text().split("\n")[:-1]
    return [record["to"] for record in map(json.loads, lines) if record["k"] == "transition"]


if __name__ == "__main__":
    answer: dict[str, Any] = {}
    run(Path(sys.argv[1]), answer)
    print(json.dumps(answer))
