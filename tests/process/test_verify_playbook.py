# SPDX-License-Identifier: GPL-3.0-or-later
"""operate/verify.yml tells the truth under every --limit: in its table, and by the status it exits with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.playbook import run_playbook
from support.tree import ROOT

pytestmark = pytest.mark.process

GONE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
# Stands for the module of that name: the real one wants a whole cluster to be healthy.
RECOVERY_CHECK = """#!/usr/bin/python
# WANT_JSON
print(open(%r).read())
"""


class Estate:
    """Two hosts and a control host that are all this machine, with parts that are well or broken as told."""

    def __init__(self, root: Path):
        self.root = root
        self.hosts: dict[str, dict] = {
            name: {"ansible_connection": "local"} for name in ("pg1", "pg2", "ops1")
        }
        self.database = {
            "verdict": "HEALTHY",
            "reasons": [],
            "evidence": {"primary": "pg1", "write_seconds": 0.01},
        }
        collection = root / "ansible_collections/diting/dr"
        parts = {
            "well": {"ansible.builtin.debug": {"msg": "looks well"}},
            "broken": {"ansible.builtin.fail": {"msg": "THE-PART-IS-BROKEN"}},
            # The connection to the host goes away between two questions.
            "vanishing": {"ansible.builtin.ping": {}, "vars": GONE},
        }
        for name, task in parts.items():
            tasks = collection / "roles" / name / "tasks"
            tasks.mkdir(parents=True)
            (tasks / "verify.yml").write_text(yaml.safe_dump([task]))
        (collection / "roles/database_recovery").symlink_to(ROOT / "roles/database_recovery")
        (collection / "plugins/modules").mkdir(parents=True)
        (collection / "plugins/modules/recovery_check.py").write_text(
            RECOVERY_CHECK % str(root / "database.json")
        )

    def verify(self, *options: str) -> subprocess.CompletedProcess[str]:
        (self.root / "database.json").write_text(json.dumps(self.database))
        hosts = {name: {"verify_roles": ["well"], **settings} for name, settings in self.hosts.items()}
        inventory = {
            "all": {
                "hosts": hosts,
                "vars": {
                    "ansible_python_interpreter": sys.executable,
                    "database_recovery_hosts": ["pg1", "pg2"],
                    "database_recovery_control_host": "ops1",
                },
            }
        }
        (self.root / "hosts.yml").write_text(yaml.safe_dump(inventory))
        return run_playbook(
            ROOT / "playbooks/operate/verify.yml", "-i", str(self.root / "hosts.yml"), *options, timeout=120
        )


@pytest.fixture
def estate(tmp_path, monkeypatch):
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", str(tmp_path))
    return Estate(tmp_path)


def rows(output: str) -> set[tuple[str, ...]]:
    """Host, part and verdict of every row of the table."""
    verdicts = {"HEALTHY", "DEGRADED", "UNHEALTHY", "UNKNOWN"}
    lines = [line.strip("- '\",").split() for line in output.splitlines()]
    return {tuple(words[:3]) for words in lines if len(words) > 2 and words[2] in verdicts}


WELL = {("cluster", "database", "HEALTHY"), *((host, "well", "HEALTHY") for host in ("pg1", "pg2", "ops1"))}


def test_a_whole_estate(estate):
    done = estate.verify()
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(done.stdout) == WELL
    assert "--limit" not in done.stdout


@pytest.mark.parametrize("options", [(), ("--limit", "pg2")])
def test_a_broken_part(estate, options):
    estate.hosts["pg2"]["verify_roles"] = ["well", "broken"]
    done = estate.verify(*options)
    assert done.returncode != 0, done.stdout
    assert ("pg2", "broken", "UNHEALTHY") in rows(done.stdout)
    assert "THE-PART-IS-BROKEN" in done.stdout
    assert ("Nobody asked, by --limit: " in done.stdout) == bool(options)


def test_a_limit_leaves_out_what_it_names_and_says_so(estate):
    estate.hosts["pg2"]["verify_roles"] = ["broken"]
    done = estate.verify("--limit", "all:!pg2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(done.stdout) == WELL - {("pg2", "well", "HEALTHY")}
    assert "Nobody asked, by --limit: pg2" in done.stdout


def test_a_database_that_is_not_well(estate):
    estate.database |= {"verdict": "DEGRADED", "reasons": [{"message": "pg2 does not answer"}]}
    done = estate.verify("--limit", "pg1")
    assert done.returncode != 0
    assert ("cluster", "database", "DEGRADED") in rows(done.stdout)


@pytest.mark.parametrize("options", [(), ("--limit", "pg1")])
def test_a_host_that_cannot_be_reached(estate, options):
    estate.hosts["pg1"] |= GONE
    done = estate.verify(*options)
    assert done.returncode != 0
    assert ("pg1", "ssh", "UNKNOWN") in rows(done.stdout), done.stdout
    assert ("cluster", "database", "HEALTHY") in rows(done.stdout)


def test_a_host_that_is_lost_half_way(estate):
    estate.hosts["pg1"]["verify_roles"] = ["well", "vanishing", "well"]
    done = estate.verify()
    assert done.returncode != 0
    assert ("pg1", "ssh", "UNKNOWN") in rows(done.stdout), done.stdout


@pytest.mark.parametrize("options", [(), ("--limit", "pg2")])
def test_every_host_unreachable(estate, options):
    for settings in estate.hosts.values():
        settings.update(GONE)
    done = estate.verify(*options)
    assert done.returncode != 0
    asked = ["pg2"] if options else ["pg1", "pg2", "ops1"]
    unknown = {(host, "ssh", "UNKNOWN") for host in asked}
    assert rows(done.stdout) == {("cluster", "database", "UNKNOWN"), *unknown}, done.stdout


def test_a_look_at_the_database_that_fails(estate):
    estate.database = {"failed": True, "msg": "NO-CERTIFICATE"}
    done = estate.verify()
    assert done.returncode != 0
    assert rows(done.stdout) == WELL - {("cluster", "database", "HEALTHY")} | {
        ("cluster", "database", "UNKNOWN")
    }
    assert "NO-CERTIFICATE" in done.stdout


def test_nothing_to_look_at_is_not_healthy(estate):
    estate.hosts["pg1"]["verify_roles"] = []
    done = estate.verify("--limit", "pg1")
    assert done.returncode != 0
    assert ("pg1", "verify_roles", "UNKNOWN") in rows(done.stdout)
    assert estate.verify("--limit", "localhost").returncode != 0
    estate.hosts = {}
    assert estate.verify().returncode != 0
