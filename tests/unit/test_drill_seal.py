# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealing corrects what two observers saw differently, and only in the cautious direction."""

from __future__ import annotations

import json

import pytest

from diting.drill import seal as sealing
from diting.drill.seal import EXIT_DATA, _judge_input, inventory_hash, main, not_before_recovery


@pytest.mark.parametrize(
    ("whole", "high", "told"), [(1.5, 2.6, 2.6), (33.4, 25.2, 33.4), (None, 2.6, None), (1.5, None, 1.5)]
)
def test_full_redundancy_is_never_before_the_recovery(tmp_path, whole, high, told):
    (tmp_path / "drill.json").write_text(json.dumps({"figures": {"full_redundancy_seconds": whole}}))
    not_before_recovery(tmp_path, {"headline": {"rto_fault_seconds": {"value": 1, "low": 1, "high": high}}})
    found = json.loads((tmp_path / "drill.json").read_text())
    assert found["figures"]["full_redundancy_seconds"] == told


def test_the_limit_of_lost_writes_that_the_report_prints_is_the_one_that_is_judged_by():
    about = {
        "drill_id": "d", "paths": ["dsn"], "failed_zone": "a", "replicas": [], "stability_seconds": 10, "min_acked": 1,
        "effect_targets": ["pg1:host"], "effect_states": ["down"], "targets": {"rpo_count": {"limit": 3}},
    }  # fmt: skip
    assert _judge_input(about)["max_lost"] == 3
    assert _judge_input({**about, "targets": {}})["max_lost"] == 0


def test_the_inventory_is_known_by_names_and_contents(tmp_path):
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "hosts.yml").write_text("a")
    (tmp_path / "group_vars/all.yml").write_text("b")
    first = inventory_hash([str(tmp_path)])
    assert first == inventory_hash([str(tmp_path)])
    (tmp_path / "group_vars/all.yml").write_text("c")
    assert inventory_hash([str(tmp_path)]) != first
    assert inventory_hash(["pg1,pg2"]) is None
    assert inventory_hash([]) is None


def test_a_seal_that_breaks_is_no_verdict(tmp_path, monkeypatch):
    def broken(*_arguments):
        raise KeyError("a bug")

    monkeypatch.setattr(sealing, "seal", broken)
    assert main(["--run-dir", str(tmp_path), "--evidence", str(tmp_path)]) == EXIT_DATA
