# SPDX-License-Identifier: GPL-3.0-or-later
"""Know whether the lab already is what the tree says, so that a warm drill need not converge again.

The stamp lies on every host: a host that was rebuilt has none, and one answer that is missing or
different means converging everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

STAMP = "/etc/diting/converged"
PARTS = ("roles", "playbooks", "inventories/lab", "src/diting", "collections", "tools")
FILES = ("requirements-host.txt", "requirements.txt", "ansible.cfg", "pyproject.toml")
IGNORED = {"__pycache__", ".pytest_cache", "tests"}
DRILLS_OWN = re.compile(r"drill_\w+=")


def converging(extra: Sequence[str], root: Path) -> list[str]:
    """What of the ``-e`` options may change what a converge does, in their order, since the last value wins.

    Plain ``drill_*=...`` pairs are left out: only drills read them. All else counts as it stands, without
    asking what is in it, and a file by its content. Relative paths begin at ``root``, as for the playbooks.
    """
    found = []
    for value in extra:
        if value.startswith("@"):
            try:
                content = (root / Path(os.path.expandvars(value[1:])).expanduser()).read_bytes()
            except OSError as problem:
                content = str(problem).encode()  # Ansible will refuse it; here it must not pass for no file
            found.append(f"@{hashlib.sha256(content).hexdigest()}")
        elif value.startswith(("{", "[")):
            found.append(value)
        else:
            found += [word for word in shlex.split(value) if not DRILLS_OWN.match(word)]
    return found


def tree_hash(root: Path, extra: Sequence[str]) -> str:
    """SHA-256 over everything that decides what a converge does, and over what ``converging`` found."""
    digest = hashlib.sha256()
    paths = [root / name for name in FILES]
    for part in PARTS:
        paths += sorted(
            path
            for path in (root / part).rglob("*")
            if not IGNORED.intersection(path.relative_to(root).parts) and path.suffix != ".pyc"
        )
    for path in paths:
        if path.is_file():
            digest.update(str(path.relative_to(root)).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(json.dumps(list(extra)).encode())
    return digest.hexdigest()


def inventory_hosts(ansible_inventory: Path, inventory: Path, root: Path) -> dict[str, dict[str, Any]]:
    """Host variables by host name, as Ansible itself resolves them: every host that site.yml stamps."""
    done = subprocess.run(
        [str(ansible_inventory), "-i", str(inventory), "--list"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    data = json.loads(done.stdout)
    hosts: dict[str, dict[str, Any]] = data["_meta"]["hostvars"]
    return hosts


def is_converged(hosts: dict[str, dict[str, Any]], lab_home: Path, wanted: str) -> bool:
    """Whether every lab host carries the stamp ``wanted``; any doubt is a no."""

    def stamp(address: str) -> str:
        argv = [
            "ssh",
            *("-i", str(lab_home / "ssh/id_ed25519")),
            *("-o", f"UserKnownHostsFile={lab_home / 'ssh/known_hosts'}"),
            *("-o", "BatchMode=yes", "-o", "ConnectTimeout=3"),
            f"root@{address}",
            f"cat {STAMP}",
        ]
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, check=False, timeout=10, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout.strip()

    if not hosts:
        return False
    with ThreadPoolExecutor(len(hosts)) as pool:
        stamps = list(pool.map(stamp, [str(h.get("ansible_host", "")) for h in hosts.values()]))
    return all(found == wanted for found in stamps)
