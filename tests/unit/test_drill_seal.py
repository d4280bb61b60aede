# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealing corrects what two observers saw differently, and only in the cautious direction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diting.drill import seal as sealing
from diting.drill.seal import EXIT_DATA, _judge_input, inventory_hash, main, not_before_recovery
from support.evidence_sample import Sample, write


@pytest.mark.parametrize(
    ("whole", "high", "told"), [(1.5, 2.6, 2.6), (33.4, 25.2, 33.4), (None, 2.6, None), (1.5, None, 1.5)]
)
def test_full_redundancy_is_never_before_the_recovery(tmp_path, whole, high, told):
    (tmp_path / "drill.json").write_text(json.dumps({"figures": {"full_redundancy_seconds": whole}}))
    not_before_recovery(tmp_path, {"headline": {"rto_fault_seconds": {"value": 1, "low": 1, "high": high}}})
    found = json.loads((tmp_path / "drill.json").read_text())
    assert found["figures"]["full_redundancy_seconds"] == told


def collected(**about) -> dict:
    """What the role keeps of a drill whose ledger is a sample's."""
    whole = {
        "verdict": "HEALTHY",
        "reasons": [],
        "evidence": {"primary": "pg1", "timeline": 7, "members": {}},
    }
    scan = {"__drill_scan_host": "pg1", "residue": []}
    return {
        "before": whole,
        "after": {**whole, "evidence": {**whole["evidence"], "primary": "pg2", "timeline": 8}},
        "scan": [scan],
        "about": {
            "drill_id": "x",
            "paths": ["dsn", "haproxy"],
            "prober_host": "client1",
            "database_hosts": ["pg1", "pg2", "pg3"],
            "failed_zone": "zone_pg1",
            "replicas": ["pg3"],
            "stability_seconds": 12,
            "min_acked": 100,
            "effect_targets": ["pg1-postgres"],
            "effect_states": ["down"],
            **about,
        },
    }


def sealed(tmp_path, fault: str, logs: dict[str, list] | None = None, **about) -> tuple[dict, dict]:
    """The report of a sample that went through ``seal``, and what the judge was told."""
    sample = Sample(fault=fault)
    run = write(tmp_path, sample)
    (run / "ledger").mkdir()
    for path in [*run.glob("*.jsonl"), *run.glob("found-*.json")]:
        path.rename(run / "ledger" / path.name)
    for name in ("watch", "marks"):
        file = run / "ledger" / f"{name}.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        stamped = [{"utc": sample.utc((line["mono_ns"] - sample.inject_ns) / 1e9), **line} for line in lines]
        file.write_text("".join(json.dumps(line) + "\n" for line in stamped))
    (run / "logs").mkdir(exist_ok=True)
    for name, records in (logs or {}).items():
        (run / "logs" / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    (run / "collected.json").write_text(json.dumps(collected(drill_id=sample.drill_id, **about)))
    report = sealing.seal(run, tmp_path, Path.cwd(), "test")
    return report, json.loads((run / "ledger" / "judge-input.json").read_text())


def test_a_role_that_changed_fails_only_a_fault_that_is_lived_through(tmp_path):
    survived, _ = sealed(tmp_path / "a", "replica_off", survived=True)
    assert "role_changed" in {reason["code"] for reason in survived["reasons"]}
    failed_over, _ = sealed(tmp_path / "b", "host_off", survived=False)
    assert "role_changed" not in {reason["code"] for reason in failed_over["reasons"]}


@pytest.mark.parametrize("aside", [0, 3])
def test_what_the_guard_decided_stands_in_the_timeline_and_ends_the_parts_of_the_time(tmp_path, aside):
    """Also when the journal was moved aside in the middle of it."""
    sample = Sample(fault="host_off")

    def cycle(seconds, phase):
        now = sample.at(seconds) / 1e9
        return {"event": "cycle", "ts": sample.utc(seconds), "now": now, "phase": phase, "actions": []}

    journal = [{"event": "segment", "state": {"phase": "watching"}}]
    journal += [cycle(0.2, "suspect"), cycle(0.45, "fencing"), cycle(0.9, "last_look"), cycle(1.1, "telling")]
    guard = {"stopped": False, "verdict": "ok", "armed": True}
    limits = {
        "confirm_seconds": 0.3,
        "hang_seconds": 10.0,
        "fence_max_per_window": 30,
        "fence_window_seconds": 3600.0,
    }
    preset = {
        "name": "default",
        "ttl": 20,
        "loop_wait": 1,
        "retry_timeout": 9,
        "guard": {**guard, "limits": limits},
    }
    logs = {"ops1.failover.journal.jsonl": journal[aside:]}
    if aside:
        logs["ops1.failover.journal-20261121T184356766456Z.jsonl"] = journal[:aside]
    report, _told = sealed(tmp_path, "host_off", logs, preset=preset)
    told = [(e["t_seconds"], e["label"]) for e in report["timeline"] if e["source"] == "guard failover"]
    assert told == [
        (0.2, "guard: no sign of life from the primary"),
        (0.45, "guard: silence confirmed: fence ordered"),
        (0.9, "guard: read back off: looks once more"),
        (1.1, "guard: leader key released: tells the proxies"),
    ]
    assert report["split"]["detect"] == 0.45
    assert report["split"]["decide"] == 0.65
    page = (tmp_path / report["header"]["drill_id"] / "report.md").read_text().replace("\u202f", " ")
    assert "failover guard armed: fences after 0.3 s of silence" in page
    assert "at most 30 in 3600 s" in page


def test_the_judge_is_told_of_a_cut(tmp_path):
    cut = {"path": "cut", "host": "pg1", "watch_host": "ops1", "seconds": 60, "fenced": True}
    report, told = sealed(tmp_path / "a", "partition", cut=cut)
    assert told["cut"] == {"path": "cut", "host": "pg1", "seconds": 60, "fenced": True}
    assert "cut_ledger_missing" in {reason["code"] for reason in report["reasons"]}
    _, told = sealed(tmp_path / "b", "host_off", cut=None)
    assert "cut" not in told


def test_the_limit_of_lost_writes_that_the_report_prints_is_the_one_that_is_judged_by():
    about = {
        "drill_id": "d", "paths": ["dsn"], "failed_zone": "a", "replicas": [], "stability_seconds": 10, "min_acked": 1,
        "effect_targets": ["pg1:host"], "effect_states": ["down"], "targets": {"rpo_count": {"limit": 3}},
    }  # fmt: skip
    assert _judge_input(about)["max_lost"] == 3
    assert _judge_input({**about, "targets": {}})["max_lost"] == 0
    assert _judge_input({**about, "stable_gap_seconds": 1.0})["stable_gap_seconds"] == 1.0
    assert _judge_input(about)["stable_gap_seconds"] == 0.5, "a drill that was opened before it could be set"


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
