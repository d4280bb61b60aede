# SPDX-License-Identifier: GPL-3.0-or-later
"""No second way in: whatever changes a live system in anger asks the gate first."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent, indent

import pytest
import yaml

from diting.core.approval import covers
from support.doors import verify_problems, walk
from support.tree import ROOT

PLAYBOOKS = ROOT / "playbooks"
IN_ANGER = ("recover", "operate", "drill", "remediate")
"""Folders whose playbooks change live systems. ``site.yml`` installs; ``lab`` has no live system."""
OTHER_FOLDERS = {"lab", "tasks", "roles", "files", "templates", "vars"}
READ_ONLY_PLAYBOOKS = {"operate/verify.yml", "operate/verify_backups.yml"}
GATES_OWN = {"operate/stop_all.yml", "operate/resume.yml", "operate/pause.yml"}
"""They move the gate's own levers: a lever behind the gate could not be pulled when it matters."""


def playbooks() -> list[str]:
    found = [path for folder in IN_ANGER for path in (PLAYBOOKS / folder).glob("*.y*ml")]
    return sorted(str(path.relative_to(PLAYBOOKS)) for path in found)


@pytest.mark.parametrize("name", playbooks())
def test_a_playbook_asks_the_gate_before_its_first_change(name):
    result = walk(ROOT, PLAYBOOKS / name)
    assert result.problems == []
    if name in READ_ONLY_PLAYBOOKS | GATES_OWN:
        assert (result.changes, result.requests) == (0, 0)
    else:
        assert result.requests >= 1, "a playbook that never asks belongs on no list but the read-only one"


def test_a_drill_is_approved_together_with_the_recovery_it_relies_on():
    tasks = yaml.safe_load((ROOT / "roles/drill/tasks/open.yml").read_text())
    (plan,) = [
        t["ansible.builtin.set_fact"]["__drill_plan"]
        for t in tasks
        if "__drill_plan" in str(t.get("ansible.builtin.set_fact"))
    ]
    # As Ansible fills it in where the inventory names no other cluster.
    covered = [{**entry, "target": entry["target"].replace("{{ database_recovery_cluster | default('diting') }}", "diting")}
               for entry in plan["covers"]]  # fmt: skip
    assert covers({"covers": covered}, "l4.failover", "diting")
    assert covers({"covers": covered}, "l4.reseed_member", "pg2")
    assert not covers({"covers": covered}, "l4.restore", "diting")


def test_no_folder_of_playbooks_is_overlooked():
    folders = {path.name for path in PLAYBOOKS.iterdir() if path.is_dir()}
    assert folders <= set(IN_ANGER) | OTHER_FOLDERS


@pytest.mark.parametrize(
    "path", sorted((ROOT / "roles").glob("*/tasks/verify.yml")), ids=lambda p: p.parts[-3]
)
def test_verify_entry_points_only_look(path):
    assert verify_problems(path) == []


def guards_without_gate(folder: Path) -> list[str]:
    """Guards that act (they decide, by the house's contract) and never import the gate."""
    found = []
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        decides = any(isinstance(node, ast.FunctionDef) and node.name == "decide" for node in tree.body)
        imported = {
            f"{node.module or ''}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        if decides and not any("gate_store" in name for name in imported):
            found.append(path.name)
    return found


def test_every_guard_passes_the_gate():
    assert guards_without_gate(ROOT / "src" / "diting" / "guards") == []


def test_a_guard_that_does_not_pass_it_is_found(tmp_path):
    (tmp_path / "a.py").write_text("def decide(state): ...\n")
    (tmp_path / "b.py").write_text("from ..hostio.gate_store import Gate\ndef decide(state): ...\n")
    (tmp_path / "c.py").write_text("def helper(): ...\n")
    assert guards_without_gate(tmp_path) == ["a.py"]


# --- the finder itself: each way to slip past must be seen --------------------------------------

ASK = "- ansible.builtin.include_tasks: ../tasks/gate_request.yml\n"
REPORT = "- ansible.builtin.include_tasks: ../tasks/gate_complete.yml\n"
CHANGE = "- ansible.builtin.service: {name: patroni, state: restarted}\n"
LOOK = "- diting.dr.patroni_info: {members: {}}\n- ansible.builtin.command: {cmd: id}\n  changed_when: false\n  check_mode: false\n"


def tree(tmp_path: Path, tasks: str, *, extra: str = "") -> list[str]:
    folder = tmp_path / "playbooks" / "recover"
    folder.mkdir(parents=True)
    (folder / "more.yml").write_text(CHANGE)
    (folder / "asks.yml").write_text(ASK)
    role = tmp_path / "roles" / "mend" / "tasks"
    role.mkdir(parents=True)
    (role / "main.yml").write_text(CHANGE)
    (role / "asking.yml").write_text(ASK + CHANGE)
    book = folder / "book.yml"
    book.write_text("- hosts: all\n  tasks:\n" + indent(tasks, "    ") + dedent(extra))
    return walk(tmp_path, book).problems


def block(tasks: str, *, rescue: str = "", always: str = "", when: str = "") -> str:
    text = "- block:\n" + indent(tasks, "    ")
    text += f"  when: {when}\n" if when else ""
    text += "  rescue:\n" + indent(rescue, "    ") if rescue else ""
    return text + ("  always:\n" + indent(always, "    ") if always else "")


@pytest.mark.parametrize(
    "tasks",
    [
        LOOK,
        "- diting.dr.patroni_config: {config: {}}\n  check_mode: true\n",
        "- ansible.builtin.uri: {url: https://pg1:8008/reload, method: POST, status_code: [403]}\n",
        ASK + CHANGE + REPORT,
        LOOK + ASK + LOOK + CHANGE + REPORT,
        "- ansible.builtin.include_tasks: asks.yml\n" + CHANGE + REPORT,
        "- ansible.builtin.include_role: {name: diting.dr.mend, tasks_from: asking}\n" + CHANGE + REPORT,
        "- ansible.builtin.include_role: {name: diting.dr.mend, tasks_from: verify}\n",
        block(ASK + CHANGE + REPORT, rescue=REPORT, when="broken"),
        ASK + block(CHANGE, rescue=CHANGE, always=REPORT),
        # The same condition for the question and for the change.
        ASK + "  when: broken\n" + CHANGE + "  when: [broken, also_this]\n" + REPORT,
    ],
)
def test_what_passes_the_gate_is_left_alone(tmp_path, tasks):
    assert tree(tmp_path, tasks) == []


@pytest.mark.parametrize(
    "tasks",
    [
        CHANGE,
        CHANGE + ASK + REPORT,
        "- ansible.builtin.shell: patronictl failover\n  changed_when: false\n",
        "- ansible.builtin.uri: {url: https://pg1:8008/switchover, method: POST}\n",
        "- ansible.builtin.uri: {url: https://pg1:8008/reload, method: POST, status_code: [200, 403]}\n",
        "- diting.dr.patroni_config: {config: {}}\n  check_mode: false\n",
        "- ansible.builtin.include_tasks: more.yml\n" + ASK + REPORT,
        '- ansible.builtin.include_tasks: "{{ whatever }}.yml"\n' + ASK + REPORT,
        "- ansible.builtin.include_role: {name: diting.dr.mend}\n" + ASK + REPORT,
        "- ansible.builtin.import_role: {name: somebody.elses.role}\n" + ASK + REPORT,
        # Asked only sometimes, changed always.
        ASK + "  when: broken\n" + CHANGE + REPORT,
        block(ASK, when="broken") + CHANGE + REPORT,
        # Refused, and carried on regardless.
        block(ASK, rescue=CHANGE) + REPORT,
        block(ASK, always=CHANGE) + REPORT,
        block(ASK + CHANGE, rescue=LOOK) + CHANGE + REPORT,
        ASK + "  ignore_errors: true\n" + CHANGE + REPORT,
        ASK + "  vars: {gate_fail_on_refusal: false}\n" + CHANGE + REPORT,
        # Nobody hears how it ended.
        ASK + CHANGE,
    ],
)
def test_what_slips_past_the_gate_is_found(tmp_path, tasks):
    assert tree(tmp_path, tasks) != []


@pytest.mark.parametrize(
    "extra",
    [
        "  handlers:\n    - ansible.builtin.service: {name: x, state: started}\n",
        "  roles: [diting.dr.mend]\n",
        "- ansible.builtin.import_playbook: other.yml\n",
        "- ansible.builtin.import_playbook: nowhere.yml\n",
        "- ansible.builtin.import_playbook: diting.dr.recover.other\n",
    ],
)
def test_other_parts_of_a_playbook_count_too(tmp_path, extra):
    (tmp_path / "playbooks" / "recover").mkdir(parents=True)
    (tmp_path / "playbooks" / "recover" / "other.yml").write_text(
        "- hosts: all\n  tasks:\n" + indent(CHANGE, "    ")
    )
    book = tmp_path / "playbooks" / "recover" / "book.yml"
    book.write_text("- hosts: all\n  tasks:\n" + indent(LOOK, "    ") + extra)
    assert walk(tmp_path, book).problems != []


def test_a_verify_that_changes_something_is_found(tmp_path):
    path = tmp_path / "role" / "tasks" / "verify.yml"
    path.parent.mkdir(parents=True)
    path.write_text(LOOK + CHANGE + "- ansible.builtin.command: {cmd: rm x}\n")
    assert len(verify_problems(path)) == 2
