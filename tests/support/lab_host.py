# SPDX-License-Identifier: GPL-3.0-or-later
"""The host of a molecule scenario, and exact sets of what is on it.

Testinfra's own helpers answer one question per SSH command; these read a whole set in one, because
the assertions are about sets: nothing missing and nothing extra.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml

from support.tree import ROOT

SCENARIO = Path(os.environ.get("MOLECULE_SCENARIO_DIRECTORY", Path.cwd()))
INVENTORIES = (ROOT / ".config" / "molecule" / "inventory", SCENARIO / "inventory")


def _inventory() -> dict[str, Any]:
    return yaml.safe_load((SCENARIO / "inventory" / "hosts.yml").read_text(encoding="utf-8"))["all"]


def home() -> Path:
    """The scenario's own state on the controller: keys, secrets, power control."""
    return Path(os.environ.get("DITING_LAB_HOME") or "/var/lib/diting-lab") / _inventory()["vars"]["lab_name"]


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """The scenario's host by SSH, with its pinned key."""
    inventory = _inventory()
    (entry,) = inventory["children"]["lab_hosts"]["hosts"].values()
    config = tmp_path_factory.mktemp("ssh") / "config"
    config.write_text(
        f"Host *\n  UserKnownHostsFile {home()}/ssh/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
        f"  StrictHostKeyChecking yes\n  IdentitiesOnly yes\n  IdentityFile {home()}/ssh/id_ed25519\n"
    )
    return testinfra.get_host(f"ssh://root@{entry['ansible_host']}", ssh_config=str(config))


def run(host, command: str) -> str:
    """Stdout of a command that has to succeed."""
    done = host.run(command)
    assert done.rc == 0, f"{command}: exit {done.rc}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def modes(host, *paths: str) -> dict[str, str]:
    """Path -> "mode owner:group"; a path that is missing is missing here too."""
    done = host.run(f"stat -c '%n|%a %U:%G' {' '.join(paths)} 2>/dev/null")
    return dict(line.split("|") for line in done.stdout.splitlines())


def listening(host) -> set[str]:
    """Every TCP socket that listens, "address:port program", SSH left out."""
    found = set()
    for line in run(host, "ss -Htlnp").splitlines():
        fields = line.split()
        program = re.search(r'"([^"]+)"', line)
        name = program[1] if program else "?"
        if name not in ("sshd", "systemd"):
            found.add(f"{fields[3]} {name}")
    return found


def datagrams(host) -> set[str]:
    """Every UDP socket that is open to somebody else, "address:port program"."""
    found = set()
    for line in run(host, "ss -Hulnp").splitlines():
        program = re.search(r'"([^"]+)"', line)
        found.add(f"{line.split()[3]} {program[1] if program else '?'}")
    return found


def failed_units(host) -> set[str]:
    """Units that systemd calls failed."""
    return set(run(host, "systemctl list-units --failed --plain --no-legend | cut -d' ' -f1").split())


def unit(host, name: str, *properties: str) -> dict[str, str]:
    """Properties of a unit as systemd sees it (not as its file says)."""
    text = run(host, f"systemctl show {name} -p {','.join(properties)}")
    return dict(line.split("=", 1) for line in text.splitlines())


def world_readable_secrets(host, *folders: str) -> set[str]:
    """Files that others may read and that hold what looks like a key or a password."""
    command = (
        f"find {' '.join(folders)} -type f -perm /o=r -print0 2>/dev/null | "
        "xargs -0r grep -lsE 'PRIVATE KEY-----|[Pp]assword[\"]?[:=] *[\"]?[A-Za-z0-9]{16,}|SECRET[A-Z_]*=.{8,}'"
    )
    return set(host.run(command).stdout.split())


def suid(host) -> set[str]:
    """Programs that run with somebody else's rights."""
    return set(run(host, "find / -xdev -type f -perm /6000 2>/dev/null || true").split())


def playbook(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the scenario on its host."""
    inventories = [word for path in INVENTORIES for word in ("-i", str(path))]
    return subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", *inventories, *options, SCENARIO / name],
        cwd=ROOT,
        env=os.environ
        | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def changes(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Names of the tasks that changed something in a run; a run that never ended has no answer."""
    assert "\nrun_summary: " in done.stdout, f"no summary:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    found, task = [], "?"
    for line in done.stdout.splitlines():
        if match := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*)\] \**$", line):
            task = match[1]
        elif line.startswith("changed: ") and task not in found:
            found.append(task)
    return found


def has_to_run(host, name: str) -> None:
    """A unit runs now and starts at boot; the failure shows what it logged."""
    state = unit(host, name, "ActiveState", "UnitFileState")
    assert state == {"ActiveState": "active", "UnitFileState": "enabled"}, (
        f"{name}: {state}\n{run(host, f'journalctl -u {name} -n 50')}"
    )


def has_to_be_refused(role: str, variables: dict[str, Any], named: str) -> None:
    """A converge with wrong variables of a role stops before it changes anything, and names what is wrong."""
    done = playbook(
        "converge.yml", "--check", "--tags", f"{role}_install", "--extra-vars", json.dumps(variables)
    )
    assert done.returncode != 0, done.stdout[-3000:]
    assert named in done.stdout, done.stdout[-3000:]
    assert changes(done) == [], changes(done)


def verify_while(host, broken: str, *options: str, mended: str) -> subprocess.CompletedProcess[str]:
    """The scenario's verify_roles.yml on a host that one command broke and another mends afterwards."""
    run(host, broken)
    try:
        return playbook("verify_roles.yml", *options)
    finally:
        run(host, mended)


def journal_lines(host, path: str) -> list[dict[str, Any]]:
    """A journal of JSON lines."""
    return [json.loads(line) for line in run(host, f"cat {path}").splitlines()]
