# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate as playbooks meet it, in real runs: after a refusal nothing happens, in any play, on any host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diting.core.gate import DEFAULT_POLICY
from diting.hostio.gate_controls import Controls
from diting.hostio.gate_store import GateFiles
from support.playbook import run_playbook
from support.tree import ROOT

pytestmark = pytest.mark.process

ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
WITNESS = {"ansible.builtin.debug": {"msg": "IT-HAPPENED"}}


class Estate:
    """Three hosts that are all this machine, and a control host with a gate of its own."""

    def __init__(self, root: Path):
        self.root = root
        self.files = GateFiles(root / "gate", root / "policy.json")
        self.files.directory.mkdir()
        self.files.policy_file.write_text(json.dumps(DEFAULT_POLICY))
        self.controls = Controls(self.files)
        self.control = {"ansible_connection": "local"}
        self.variables = {
            "gate_scenario": "operate.switchover",
            "gate_kind": "operate",
            "gate_target": "diting",
        }

    def write_inventory(self) -> None:
        inventory = {
            "control": {"hosts": {"ops1": self.control}},
            "database": {
                "hosts": dict.fromkeys(["pg1", "pg2", "pg3"]),
                "vars": {"ansible_connection": "local"},
            },
            "all": {"vars": {"ansible_python_interpreter": sys.executable}},
        }
        (self.root / "hosts.yml").write_text(yaml.safe_dump(inventory))

    def play(self, *options: str, tasks: list | None = None) -> subprocess.CompletedProcess[str]:
        self.write_inventory()
        ask = {
            "ansible.builtin.include_tasks": str(ROOT / "playbooks/tasks/gate_request.yml"),
            "vars": self.variables,
        }
        paths = {"gate_dir": str(self.files.directory), "policy_file": str(self.files.policy_file)}
        play = {"hosts": "database", "gather_facts": False, "module_defaults": {"diting.dr.gate": paths}}
        book = [
            {**play, "tasks": [ask, *(tasks or []), WITNESS]},
            {"hosts": "database", "gather_facts": False, "tasks": [WITNESS]},
        ]
        (self.root / "book.yml").write_text(yaml.safe_dump(book, sort_keys=False))
        command = [str(ANSIBLE), "-i", str(self.root / "hosts.yml"), str(self.root / "book.yml"), *options]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    @property
    def records(self) -> list[dict]:
        return self.files.journal.records()


@pytest.fixture
def estate(tmp_path):
    if not shutil.which(str(ANSIBLE)):
        pytest.skip("ansible-playbook is not installed beside this Python")
    return Estate(tmp_path)


def complete(outcome: str) -> dict:
    variables = {"gate_scenario": "l4.failover", "gate_target": "diting", "gate_outcome": outcome}
    return {
        "ansible.builtin.include_tasks": str(ROOT / "playbooks/tasks/gate_complete.yml"),
        "vars": variables,
    }


def test_one_question_for_all_hosts_and_one_incident_to_the_end(estate):
    estate.variables = {"gate_scenario": "l4.failover", "gate_kind": "recover", "gate_target": "diting"}
    done = estate.play(tasks=[complete("success")])
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("IT-HAPPENED") == 6
    decision, outcome = estate.records
    assert decision["decision"]["code"] == "pre_approved"
    # A forgotten trigger does not pass for a person.
    assert decision["request"]["trigger"] == "automated"
    assert (outcome["event"], outcome["incident_id"]) == ("outcome", decision["incident_id"])
    assert estate.controls.status()["open_runs"] == []


def test_after_a_refusal_nothing_happens(estate):
    estate.controls.stop(by="alice", reason="exchange fault")
    done = estate.play()
    assert done.returncode == 2
    assert "the stop-all lever is pulled" in done.stdout
    assert "by alice (exchange fault)" in done.stdout
    assert estate.records[-1]["request"]["trigger"] == "person"
    assert "IT-HAPPENED" not in done.stdout


def test_a_gate_that_cannot_be_reached_is_no_yes(estate):
    estate.control = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    done = estate.play()
    assert done.returncode != 0
    assert "IT-HAPPENED" not in done.stdout


def test_a_gate_that_cannot_be_reached_keeps_no_fault_in_place(estate):
    estate.control = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    estate.variables = {"gate_scenario": "drill.l4", "gate_kind": "revert", "gate_target": "diting"}
    done = estate.play()
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("IT-HAPPENED") == 6


def test_check_mode_predicts_a_refusal_too(estate):
    assert estate.play("--check").returncode == 0
    assert estate.records == []
    estate.controls.stop(by="alice", reason="exchange fault")
    done = estate.play("--check")
    assert done.returncode == 2
    assert "IT-HAPPENED" not in done.stdout


def lever(estate: Estate, book: str, *options: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run one of the playbooks that move the gate's own levers."""
    plays = yaml.safe_load((ROOT / "playbooks" / "operate" / f"{book}.yml").read_text(encoding="utf-8"))
    paths = {"gate_dir": str(estate.files.directory), "policy_file": str(estate.files.policy_file)}
    plays[0]["module_defaults"] = {"diting.dr.gate": paths}
    (estate.root / f"{book}.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
    inventory = () if "-i" in options else ("-i", str(estate.root / "hosts.yml"))
    extra = ("-e", json.dumps(variables))
    return run_playbook(estate.root / f"{book}.yml", *inventory, *extra, *options, timeout=120)


def test_the_lever_and_the_window_by_playbook(estate):
    estate.write_inventory()
    results = []
    for book, variables in (
        ("stop_all", {"stop_reason": "exchange fault"}),
        ("resume", {"resume_reason": "exchange is back"}),
        ("pause", {"pause_reason": "kernel update", "pause_minutes": 5}),
        ("pause", {"pause_reason": "done early", "pause_minutes": "0"}),
    ):
        done = lever(estate, book, **variables)
        assert done.returncode == 0, done.stdout
        status = estate.controls.status()
        results.append((status["stopped"], status["paused"]))
    assert results == [(True, False), (False, False), (False, True), (False, False)]


@pytest.mark.parametrize(
    "minutes", [{}, {"pause_minute": 30}, {"pause_minutes": "3O"}, {"pause_minutes": -5}]
)
def test_a_mistyped_pause_closes_no_window(estate, minutes):
    estate.write_inventory()
    estate.controls.pause(minutes=30, by="alice", reason="kernel update")
    done = lever(estate, "pause", pause_reason="kernel update", **minutes)
    assert done.returncode == 2, done.stdout
    assert f"pause_minutes is '{minutes.get('pause_minutes', '')}'; wanted" in done.stdout
    assert estate.controls.status()["paused"]


@pytest.mark.parametrize("options", [("--limit", "pg2"), ("-e", "gate_host=nobody"), ("-i", "/dev/null")])
def test_a_lever_is_moved_or_the_playbook_fails(estate, options):
    """Ansible leaves out a play without hosts and exits 0."""
    estate.write_inventory()
    done = lever(estate, "stop_all", *options, stop_reason="exchange fault")
    assert (done.returncode == 0) == estate.controls.status()["stopped"], done.stdout
    if "--limit" in options:
        assert done.returncode == 0, done.stdout


def test_the_lever_in_four_steps(estate):
    """Check, run, run again, check again, to pull it and to release it: what is predicted happens, once."""
    estate.write_inventory()

    def changes(action: str, *options: str) -> bool:
        paths = {"gate_dir": str(estate.files.directory), "policy_file": str(estate.files.policy_file)}
        task = {"diting.dr.gate": {"action": action, "actor": "test", "reason": "four steps", **paths}}
        book = [{"hosts": "ops1", "gather_facts": False, "tasks": [task]}]
        (estate.root / "steps.yml").write_text(yaml.safe_dump(book, sort_keys=False))
        done = run_playbook(
            estate.root / "steps.yml", "-i", str(estate.root / "hosts.yml"), *options, timeout=120
        )
        assert done.returncode == 0, done.stdout
        return "changed=1" in done.stdout

    for action in ("stop", "resume"):
        before = estate.records
        assert changes(action, "--check")
        assert estate.records == before
        assert changes(action)
        after = estate.records
        assert len(after) == len(before) + 1
        assert not changes(action)
        assert not changes(action, "--check")
        assert estate.records == after


@pytest.mark.parametrize(
    ("options", "trigger", "objections"),
    [
        ((), "automated", {"stopped", "paused"}),
        (("-e", "gate_trigger=person"), "person", {"stopped"}),
    ],
)
def test_a_recovery_is_a_persons_only_if_a_person_says_so(estate, options, trigger, objections):
    """Nobody at the keyboard must keep out of a maintenance window and count for the breaker."""
    # The lever refuses whoever asks, so that nothing on this machine is recovered.
    estate.controls.stop(by="alice", reason="exchange fault")
    estate.controls.pause(minutes=30, by="alice", reason="kernel update")
    estate.write_inventory()
    plays = yaml.safe_load((ROOT / "playbooks/recover/l4_database_failure.yml").read_text(encoding="utf-8"))
    paths = {"gate_dir": str(estate.files.directory), "policy_file": str(estate.files.policy_file)}
    # Without the play before it, which looks at --limit only and by a path that is not there.
    plays[-1]["module_defaults"] = {"diting.dr.gate": paths}
    (estate.root / "recover.yml").write_text(yaml.safe_dump(plays[-1:], sort_keys=False))
    about = {"database_recovery_hosts": ["pg1", "pg2", "pg3"], "database_recovery_control_host": "ops1"}
    done = run_playbook(
        estate.root / "recover.yml",
        *("-i", str(estate.root / "hosts.yml"), "-e", json.dumps(about), *options),
        timeout=120,
    )
    assert done.returncode == 2, done.stdout
    request, decision = estate.records[-1]["request"], estate.records[-1]["decision"]
    assert (request["scenario"], request["trigger"]) == ("l4.failover", trigger)
    assert {reason["code"] for reason in decision["reasons"]} == objections
