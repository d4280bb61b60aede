# SPDX-License-Identifier: GPL-3.0-or-later
"""Role gate on a host that an earlier release left: its files become readable for the guards that ask."""

from __future__ import annotations

import grp
import os
import sys
from pathlib import Path

import pytest
import yaml

from support.playbook import run_playbook

pytestmark = pytest.mark.process

GROUP = "daemon"
"""Any group that is not root's."""
FILES = ("journal.jsonl", "journal.jsonl.torn-1", "state.json", "maintenance.json", "STOP")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_of_an_earlier_release_become_readable_for_guards_once(tmp_path):
    gate = tmp_path / "gate"
    gate.mkdir(mode=0o750)
    for name in FILES:
        (gate / name).write_text("{}\n")
        (gate / name).chmod(0o640)
    variables = {
        "gate_dir": str(gate),
        "gate_group": GROUP,
        "gate_drill_dir": str(tmp_path / "drill"),
        "gate_policy_file": str(tmp_path / "policy/policy.json"),
        "gate_command": str(Path(sys.executable).with_name("diting")),
    }
    role = {"ansible.builtin.include_role": {"name": "diting.dr.gate", "tasks_from": "configure"}}
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables}
    book = tmp_path / "play.yml"
    book.write_text(yaml.safe_dump([{**play, "tasks": [role]}]))
    first, second = run_playbook(book), run_playbook(book)
    assert first.returncode == 0, first.stdout
    groups = {name: grp.getgrgid((gate / name).stat().st_gid).gr_name for name in FILES}
    assert groups == {**dict.fromkeys(FILES, GROUP), "journal.jsonl.torn-1": "root"}
    assert {name: (gate / name).stat().st_mode & 0o777 for name in FILES} == dict.fromkeys(FILES, 0o640)
    assert "changed=0" in second.stdout
