# SPDX-License-Identifier: GPL-3.0-or-later
"""The summary line counts what a person would count."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.tree import ROOT

PLAY = """
- name: Two tasks, one of them skipped, and a handler
  hosts: all
  gather_facts: false
  tasks:
    - name: Changes
      ansible.builtin.debug:
        msg: x
      changed_when: true
      notify: Tell
    - name: Is skipped
      ansible.builtin.debug:
        msg: x
      when: false
  handlers:
    - name: Tell
      ansible.builtin.debug:
        msg: x
"""


def run(play: str, tmp_path: Path) -> str:
    book = tmp_path / "play.yml"
    book.write_text(play)
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "a,b,", "-c", "local", book],
        cwd=ROOT,
        env=os.environ
        | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_tasks_hosts_and_changes_are_counted(tmp_path):
    line = run(PLAY, tmp_path).strip().splitlines()[-1]
    found = re.fullmatch(
        r"run_summary: tasks=(\d+) hosts=(\d+) changed=(\d+) seconds=(\d+\.\d) seconds_per_task=(\d+\.\d\d)",
        line,
    )
    assert found, line
    assert found.groups()[:3] == ("3", "2", "2")
    assert float(found[5]) <= float(found[4])


def test_a_play_without_tasks_divides_by_nothing(tmp_path):
    assert "run_summary: tasks=0" in run("- name: Empty\n  hosts: all\n  gather_facts: false\n", tmp_path)
