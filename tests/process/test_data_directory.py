# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovery and drill look into the data directory that the members have, and say so when they do not find it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.playbook import run_playbook
from support.tree import ROOT

pytestmark = pytest.mark.process


def play(root: Path, tasks: list[dict], variables: dict, **group: object) -> subprocess.CompletedProcess[str]:
    """Run tasks on the controller of an estate of one member, pg1, which is this machine."""
    inventory = {
        "database": {"hosts": {"pg1": {"ansible_connection": "local"}}, "vars": group},
        "all": {"vars": {"ansible_python_interpreter": sys.executable}},
    }
    (root / "hosts.yml").write_text(yaml.safe_dump(inventory))
    book = [{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}]
    (root / "book.yml").write_text(yaml.safe_dump(book, sort_keys=False))
    return run_playbook(root / "book.yml", "-i", str(root / "hosts.yml"), timeout=120)


@pytest.mark.parametrize(("group", "version"), [({}, "15"), ({"postgresql_version": 17}, "17")])
@pytest.mark.parametrize("role", ["database_recovery", "drill"])
def test_the_default_is_that_of_the_members_version(tmp_path, monkeypatch, role, group, version):
    """The controller plays these roles, and variables of the group database are not its own."""
    hollow = tmp_path / "ansible_collections/diting/dr/roles" / role
    (hollow / "tasks").mkdir(parents=True)
    for part in ("defaults", "vars"):
        (hollow / part).symlink_to(ROOT / "roles" / role / part)
    say = {"ansible.builtin.debug": {"msg": f"IT-IS={{{{ {role}_data_directory }}}}="}}
    (hollow / "tasks/main.yml").write_text(yaml.safe_dump([say]))
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", str(tmp_path))
    include = {"ansible.builtin.include_role": {"name": f"diting.dr.{role}"}}
    hosts = {"database_recovery_hosts": ["pg1"], "drill_database_hosts": ["pg1"]}
    done = play(tmp_path, [include], hosts, **group)
    assert f"IT-IS=/var/lib/postgresql/{version}/main=" in done.stdout, done.stdout + done.stderr


class Member:
    """A member whose Patroni uses ``data``; re-seeded up to the point where Patroni would clone."""

    def __init__(self, root: Path):
        self.root = root
        self.data = root / "17/main"
        self.data.parent.mkdir()

    def reseed(self, data_directory: Path) -> subprocess.CompletedProcess[str]:
        config = {"scope": "diting", "postgresql": {"data_dir": str(self.data)}}
        (self.root / "patroni.yml").write_text(yaml.safe_dump(config))
        variables = {
            "__database_recovery_member": "pg1",
            "__database_recovery_patroni_config": str(self.root / "patroni.yml"),
            "database_recovery_data_directory": str(data_directory),
        }
        tasks = ROOT / "roles/database_recovery/tasks"
        steps = [
            {"ansible.builtin.include_tasks": str(tasks / f"{name}.yml")}
            for name in ("reseed_check", "reseed_keep")
        ]
        return play(self.root, steps, variables)

    @property
    def kept(self) -> list[str]:
        return sorted(path.read_text() for path in self.data.parent.glob("main.kept-*/PG_VERSION"))


@pytest.fixture
def member(tmp_path):
    return Member(tmp_path)


def test_what_a_member_holds_is_kept(member):
    member.data.mkdir()
    (member.data / "PG_VERSION").write_text("17")
    done = member.reseed(member.data)
    assert done.returncode == 0, done.stdout
    assert (member.kept, member.data.exists()) == (["17"], False)


def test_a_member_that_lost_its_data_is_reseeded_too(member):
    done = member.reseed(member.data)
    assert done.returncode == 0, done.stdout
    assert "nothing to keep" in done.stdout
    assert member.kept == []


def test_another_directory_than_patronis_is_no_data_directory(member):
    """It is not there, so that there would be nothing to move and Patroni would start on the old data."""
    member.data.mkdir()
    (member.data / "PG_VERSION").write_text("17")
    done = member.reseed(member.root / "15/main")
    assert done.returncode == 2, done.stdout
    assert f"wanted {member.data}" in " ".join(done.stdout.split())
    assert (member.kept, member.data.exists()) == ([], True)


@pytest.mark.parametrize("there", [True, False])
def test_an_archive_that_cannot_be_looked_at_has_not_caught_up(tmp_path, there):
    if there:
        (tmp_path / "main/pg_wal/archive_status").mkdir(parents=True)
        (tmp_path / "main/pg_wal/archive_status/000000010000000000000001.done").touch()
    variables = {
        "__drill_after": {"evidence": {"primary": "pg1"}},
        "__drill_run_dir": str(tmp_path),
        "drill_data_directory": str(tmp_path / "main"),
    }
    done = play(
        tmp_path, [{"ansible.builtin.include_tasks": str(ROOT / "roles/drill/tasks/archive.yml")}], variables
    )
    assert (done.returncode == 0) == there, done.stdout + done.stderr
    assert "RETRYING" not in done.stdout
