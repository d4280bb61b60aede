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

from support.playbook import run_playbook
from support.tree import ROOT


class Hosts:
    """An inventory of stand-ins below a directory; ``bin/<host>`` comes first in each host's PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hosts: dict[str, dict[str, Any]] = {}

    def add(self, name: str, /, programs: dict[str, str] | None = None, **variables: Any) -> None:
        """A host with the text of its own shell programs, and its variables."""
        place = self.root / "bin" / name
        place.mkdir(parents=True)
        for program, text in (programs or {}).items():
            (place / program).write_text(f"#!/bin/sh\n{text}\n")
            (place / program).chmod(0o755)
        self.hosts[name] = variables

    def play(self, tasks: list[dict[str, Any]], *options: str, **variables: Any) -> str:
        """Run tasks on all hosts at once; returns what was printed, and leaves the status in ``status``."""
        shared = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_user": "root",
            **variables,
        }
        (self.root / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": self.hosts, "vars": shared}}))
        play = {
            "hosts": "all",
            "gather_facts": False,
            "environment": {
                "PATH": f"{self.root}/bin/{{{{ inventory_hostname }}}}:{os.environ['PATH']}:/usr/sbin:/sbin"
            },
            "tasks": tasks,
        }
        (self.root / "book.yml").write_text(yaml.safe_dump([play], sort_keys=False))
        done = run_playbook(self.root / "book.yml", "-i", str(self.root / "hosts.yml"), *options, timeout=300)
        self.status = done.returncode
        return done.stdout

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
