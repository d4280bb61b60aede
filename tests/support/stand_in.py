# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that are all this machine, each with a few programs of its own in place of the real ones.

For what a role concludes from answers that a healthy host does not give. What the programs really answer is for
molecule and the lab to show.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from diting.core.gate import DEFAULT_POLICY
from diting.hostio.gate_store import GateFiles
from support.playbook import run_playbook
from support.tree import ROOT


class Hosts:
    """An inventory of stand-ins below a directory; ``bin/<host>`` comes first in each host's PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hosts: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, list[str]] = {}
        self.gate = GateFiles(root / "gate", root / "policy.json")
        self.gate.directory.mkdir()
        self.gate.policy_file.write_text(json.dumps(DEFAULT_POLICY))

    def add(
        self, name: str, /, programs: dict[str, str] | None = None, *, group: str = "", **variables: Any
    ) -> None:
        """A host with the text of its own shell programs, and its variables."""
        place = self.root / "bin" / name
        place.mkdir(parents=True)
        for program, text in (programs or {}).items():
            (place / program).write_text(f"#!/bin/sh\n{text}\n")
            (place / program).chmod(0o755)
        self.hosts[name] = variables
        if group:
            self.groups.setdefault(group, []).append(name)

    def run(self, book: Path, plays: list[dict[str, Any]], *options: str, **variables: Any) -> str:
        """Run a playbook; returns what was printed, and leaves the status in ``status``."""
        shared = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_user": "root",
            **variables,
        }
        groups = {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in self.groups.items()}
        inventory = {"all": {"hosts": self.hosts, "vars": shared, "children": groups}}
        (self.root / "hosts.yml").write_text(yaml.safe_dump(inventory))
        path = f"{self.root}/bin/{{{{ inventory_hostname }}}}:{os.environ['PATH']}:/usr/sbin:/sbin"
        gate = {"gate_dir": str(self.gate.directory), "policy_file": str(self.gate.policy_file)}
        for play in plays:
            play |= {"environment": {"PATH": path}, "module_defaults": {"diting.dr.gate": gate}}
            play["gather_subset"] = [
                "!all"
            ]  # all facts of this machine, once per stand-in, would take the most time
        book.write_text(yaml.safe_dump(plays, sort_keys=False))
        done = run_playbook(book, "-i", str(self.root / "hosts.yml"), *options, timeout=300)
        self.status = done.returncode
        return done.stdout

    def play(self, tasks: list[dict[str, Any]], *options: str, **variables: Any) -> str:
        """Run tasks on all hosts at once."""
        play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
        return self.run(self.root / "book.yml", [play], *options, **variables)

    def operate(self, name: str, *options: str, **variables: Any) -> str:
        """Run a playbook of playbooks/operate, with a gate of its own on the host ``ops1``."""
        folder = self.root / "operate"
        folder.mkdir(exist_ok=True)
        if not (self.root / "tasks").exists():
            (self.root / "tasks").symlink_to(ROOT / "playbooks" / "tasks")
        plays = yaml.safe_load((ROOT / f"playbooks/operate/{name}.yml").read_text(encoding="utf-8"))
        return self.run(folder / f"{name}.yml", plays, *options, **variables)

    @property
    def outcomes(self) -> list[str]:
        """What the gate was told of how runs ended, one after the other."""
        return [r["outcome"] for r in self.gate.journal.records() if r["event"] == "outcome"]

    def findings(self, role: str, **variables: Any) -> dict[str, str]:
        """What operate/verify.yml would print in the row of each host; empty where all is well."""
        keep = {
            "dest": f"{self.root}/{{{{ inventory_hostname }}}}.rows",
            "content": "{{ verify_rows | to_json }}",
        }
        printed = self.play(
            [
                {
                    "ansible.builtin.include_tasks": str(ROOT / "playbooks/tasks/verify_part.yml"),
                    "vars": {"verify_role": role},
                },
                {"ansible.builtin.copy": keep},
            ],
            **variables,
        )
        assert self.status == 0, printed
        rows = {name: json.loads((self.root / f"{name}.rows").read_text()) for name in self.hosts}
        return {name: row[0]["detail"] for name, row in rows.items()}
