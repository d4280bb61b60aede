# SPDX-License-Identifier: GPL-3.0-or-later
"""A warm lab is recognised; anything that may change what a converge does makes it a cold one."""

from __future__ import annotations

import sys
from pathlib import Path

from diting.drill.converged import inventory_hosts, is_converged, tree_hash
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
    before = tree_hash(tmp_path, {"patroni_preset": "default"})
    assert tree_hash(tmp_path, {"patroni_preset": "stock"}) != before
    (tmp_path / "roles/a/tests/test.yml").write_text("2")
    assert tree_hash(tmp_path, {"patroni_preset": "default"}) == before
    (tmp_path / "roles/a/tasks/main.yml").write_text("2")
    assert tree_hash(tmp_path, {"patroni_preset": "default"}) != before


def test_a_checkout_below_a_directory_called_tests_is_still_looked_at(tmp_path):
    root = tmp_path / "tests/checkout"
    (root / "roles").mkdir(parents=True)
    empty = tree_hash(root, {})
    (root / "roles/main.yml").write_text("1")
    assert tree_hash(root, {}) != empty
