# SPDX-License-Identifier: GPL-3.0-or-later
"""A warm lab is recognised; anything that may change what a converge does makes it a cold one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from diting.drill import runner
from diting.drill.converged import STAMP, inventory_hosts, is_converged, tree_hash
from diting.drill.progress import PlaybookRun
from support.tree import ROOT


def test_every_host_of_the_lab_is_asked_for_its_stamp():
    hosts = inventory_hosts(Path(sys.executable).parent / "ansible-inventory", ROOT / "inventories/lab", ROOT)
    assert sorted(hosts) == ["client1", "ops1", "pg1", "pg2", "pg3", "store1"]
    assert all(hostvars["ansible_host"] for hostvars in hosts.values())


def test_no_hosts_or_no_answer_means_not_converged(tmp_path):
    assert not is_converged({}, tmp_path, "x")
    assert not is_converged({"pg1": {"ansible_host": "127.0.0.254"}}, tmp_path, "x")


def test_a_changed_file_or_variable_changes_the_hash_and_a_test_does_not(tmp_path):
    for name in ("roles/a/tasks/main.yml", "roles/a/tests/test.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    before = tree_hash(tmp_path, ["patroni_preset=default"])
    assert tree_hash(tmp_path, ["patroni_preset=stock"]) != before
    (tmp_path / "roles/a/tests/test.yml").write_text("2")
    assert tree_hash(tmp_path, ["patroni_preset=default"]) == before
    (tmp_path / "roles/a/tasks/main.yml").write_text("2")
    assert tree_hash(tmp_path, ["patroni_preset=default"]) != before


def test_a_checkout_below_a_directory_called_tests_is_still_looked_at(tmp_path):
    root = tmp_path / "tests/checkout"
    (root / "roles").mkdir(parents=True)
    empty = tree_hash(root, [])
    (root / "roles/main.yml").write_text("1")
    assert tree_hash(root, []) != empty


@pytest.fixture
def stamp(tmp_path, monkeypatch):
    """The stamp that a drill with these ``-e`` options looks for on the hosts of an empty tree."""
    looked_for = []

    def look(_hosts: object, _home: object, wanted: str) -> bool:
        looked_for.append(wanted)
        return True

    monkeypatch.setattr(runner, "inventory_hosts", lambda *_: {"pg1": {}})
    monkeypatch.setattr(runner, "is_converged", look)
    monkeypatch.setattr(runner.Controller, "play", lambda *_a, **_k: PlaybookRun(0, 0.0, 0, (), ""))

    def of(*extra: str) -> str:
        request = runner.Request("l4", extra=extra)
        assert runner.prepare(runner.Controller(root=tmp_path, home=tmp_path, request=request))
        return looked_for[-1]

    return of


def test_a_drill_may_vary_what_only_drills_read(stamp):
    assert stamp("drill_fault=host_off", "drill_store_down=true drill_target=pg2") == stamp()
    assert stamp("drill_fault=host_off patroni_preset=stock") == stamp("patroni_preset=stock")


@pytest.mark.parametrize(
    "extra",
    [
        ("patroni_preset=stock",),
        ("drill_fault=host_off patroni_preset=stock",),
        ('{"patroni_preset": "stock"}',),
        ("[]",),
        ("@vars.yml",),
        ("@missing.yml",),
    ],
)
def test_every_form_of_a_variable_makes_a_warm_lab_a_cold_one(stamp, tmp_path, extra):
    (tmp_path / "vars.yml").write_text("patroni_preset: stock\n")
    assert stamp(*extra) != stamp()


def test_of_a_file_the_content_counts(stamp, tmp_path):
    (tmp_path / "vars.yml").write_text("patroni_preset: stock\n")
    before = stamp("@vars.yml")
    assert stamp("@vars.yml") == before
    (tmp_path / "vars.yml").write_text("patroni_preset: default\n")
    assert stamp("@vars.yml") != before


def test_the_last_of_two_values_wins_so_their_order_counts(stamp):
    stock, default = '{"patroni_preset": "stock"}', "patroni_preset=default"
    assert stamp(stock, default) != stamp(default, stock)


def test_site_takes_the_stamp_away_first_and_writes_it_last():
    """A converge that stops half-way, and one with other variables, must not leave the stamp of an earlier one."""
    plays = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())
    assert [play["hosts"] for play in (plays[0], plays[-1])] == ["all", "all"]
    removal = plays[0]["pre_tasks"][0]
    assert removal["ansible.builtin.file"] == {"path": STAMP, "state": "absent"}
    assert "when" not in removal
    written = plays[-1]["tasks"][-1]
    assert written["ansible.builtin.copy"]["dest"] == STAMP
    # It remembers what was done and is no state of the host: a second run has changed nothing.
    assert (removal["changed_when"], written["changed_when"]) == (False, False)
