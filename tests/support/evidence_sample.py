# SPDX-License-Identifier: GPL-3.0-or-later
"""Run directories as a drill leaves them, with made-up but consistent numbers.

The ledger's own files are written and the ledger's own judge judges them, so a report made from a
sample also shows that the two still understand each other.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from diting.ledger.rundir import judge_run
from diting.report.inputs import write_drill

NS = 1_000_000_000
MONO = 8_000 * NS
INTERVAL_NS = 10_000_000
BOOT = "6f1d6c1e-7a43-4b0e-9d5b-2f3f0f6a9c11"
HOSTS = ("pg1", "pg2", "pg3", "store1", "ops1", "client1")


@dataclass
class Sample:
    """What shall have happened. Seconds count from the fault."""

    started: datetime = datetime(2026, 11, 21, 8, 13, 24, tzinfo=UTC)
    fault: str = "host_off"
    kind: str = "crash"
    preset: str = "default"
    before: float = 12.0
    stable: float = 12.0
    gap: dict[str, float | None] = field(default_factory=lambda: {"dsn": 20.31, "haproxy": 21.84})
    lost: int = 0
    rto_limit: float = 60.0
    outcome: str = "completed"
    residue: list[dict[str, Any]] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    """Sections of ``drill.json`` to replace."""

    @property
    def drill_id(self) -> str:
        return f"{self.started:%Y%m%dT%H%M%SZ}-l4-{self.fault}"

    @property
    def inject_ns(self) -> int:
        return MONO + round(self.before * NS)

    def utc(self, seconds: float) -> str:
        """UTC label of a moment ``seconds`` after the fault."""
        moment = self.started + timedelta(seconds=75 + self.before + seconds)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def at(self, seconds: float) -> int:
        """The same moment on the prober's monotonic clock, nanoseconds."""
        return self.inject_ns + round(seconds * NS)

    @property
    def longest(self) -> float:
        return max((gap for gap in self.gap.values() if gap is not None), default=0.0)


def write(evidence: Path, sample: Sample | None = None) -> Path:
    """Write one run directory below ``evidence`` and return it."""
    sample = sample or Sample()
    run = evidence / sample.drill_id
    run.mkdir(parents=True)
    end = sample.longest + sample.stable + 3
    acked = {path: _ledger(run, sample, path, gap, end) for path, gap in sample.gap.items()}
    _found(run, sample, acked)
    _json(run / "judge-input.json", {
        "schema_version": 1, "run_id": sample.drill_id, "paths": sorted(sample.gap),
        "failed_zone": "zone_pg1", "effect": {"target": "pg1-postgres"}, "replicas": ["pg3"],
        "stability_seconds": sample.stable, "rto_target_seconds": sample.rto_limit,
    })  # fmt: skip
    _lines(run / "marks.jsonl", [
        _mark(sample, "control_start", -sample.before + 0.5), _mark(sample, "control_end", -0.02),
        _mark(sample, "inject_sent", 0.0),
    ])  # fmt: skip
    _watch(run, sample, end)
    _json(run / "judge.json", judge_run(run))
    _timeline(run, sample)
    _cluster(run / "cluster_before.json", sample, -sample.before - 3, "pg1", 7)
    _cluster(run / "cluster_after.json", sample, end + 20, "pg2", 8)
    _json(run / "residue.json", {
        "schema_version": 1, "scanned_at": sample.utc(end + 22), "items": sample.residue,
        "hosts": {host: {"looked": True, "error": None} for host in HOSTS},
        "checks": ["fault records", "fault units", "stopped processes", "traffic shaping", "dead routes", "locks"],
        "rollbacks": [{"what": "pg1 powered on", "by": "power control", "at": sample.utc(30), "result": "on"}],
        "backups_valid": {"health": "HEALTHY", "detail": "archiving caught up 4 s after pg1 was back"},
        "redundancy": {"health": "HEALTHY", "detail": "2 replicas streaming, 1 of them synchronous"},
    })  # fmt: skip
    (run / "logs").mkdir()
    (run / "logs" / "ansible.log").write_text("PLAY [L4 drill]\n", encoding="utf-8")
    write_drill(run, _drill(sample, end))
    return run


def _ledger(run: Path, sample: Sample, path: str, gap: float | None, end: float) -> list[int]:
    """One prober's file. Returns the sequence numbers that were acknowledged."""
    chance = random.Random(f"{sample.drill_id}{path}")
    header = {
        "k": "header", "run_id": sample.drill_id, "path": path, "host": "client1", "failure_zone": "zone_infra",
        "mono_ns": MONO, "utc": sample.utc(-sample.before), "boot_id": BOOT, "interval_ns": INTERVAL_NS,
        "op_deadline_ns": NS, "late_slot_ns": 50_000_000, "connect_spacing_ns": 100_000_000,
    }  # fmt: skip
    records: list[dict[str, Any]] = [header]
    acked = []
    slots = round((sample.before + end) * NS / INTERVAL_NS)
    back = sample.at(gap) if gap is not None else None
    for seq in range(slots):
        due = MONO + seq * INTERVAL_NS
        records.append({"k": "i", "seq": seq, "due_ns": due})
        latency = round(chance.lognormvariate(-6.1, 0.35) * NS)
        hit = gap != 0 and due + latency >= sample.inject_ns
        sent = due + 90_000
        if not hit or (back is not None and due >= back):
            warm = 1 + 6 * chance.random() if hit and back is not None and due - back < 2 * NS else 1
            end_ns, outcome, reason = sent + round(latency * warm), "ok", None
            acked.append(seq)
        elif chance.random() < 0.04:
            end_ns, outcome, reason = sent + 2_000_000, "fail", "rolled_back"
        elif chance.random() < 0.7:
            end_ns, outcome, reason, sent = due + NS, "info", "not_sent", None
        else:
            end_ns, outcome, reason = due + NS, "info", "deadline"
        records.append({
            "k": "o", "seq": seq, "dispatch_ns": due + 50_000, "send_ns": sent, "end_ns": end_ns,
            "outcome": outcome, "reason": reason, "c": 1,
        })  # fmt: skip
    records.append({"k": "footer", "slots": slots, "clock_step_ns": 900_000})
    _lines(run / f"ledger-{path}.jsonl", records)
    return acked


def _found(run: Path, sample: Sample, acked: dict[str, list[int]]) -> None:
    paths = {}
    for path, seqs in acked.items():
        before = [seq for seq in seqs if MONO + seq * INTERVAL_NS < sample.inject_ns]
        gone = set(before[len(before) - sample.lost :]) if path == max(acked) and sample.lost else set()
        present = [seq for seq in seqs if seq not in gone]
        paths[path] = {"ranges": [[seq, seq] for seq in present], "duplicates": {}}
    for host, replica in (("pg2", False), ("pg3", True)):
        _json(run / f"found-{host}.json", {
            "schema_version": 1, "run_id": sample.drill_id, "host": host, "port": 5432, "in_recovery": replica,
            "lsn": "0/7A3F118", "system_identifier": "7710539336507780640", "timeline": 8, "found": paths,
        })  # fmt: skip


def _watch(run: Path, sample: Sample, end: float) -> None:
    records: list[dict[str, Any]] = [
        {"k": "transition", "target": "pg1-postgres", "from": None, "to": "up", "last_seen_ns": None,
         "confirmed_ns": sample.at(-sample.before), "mono_ns": sample.at(-sample.before), "boot_id": BOOT},
        {"k": "transition", "target": "pg1-postgres", "from": "up", "to": "down", "last_seen_ns": sample.at(-0.004),
         "confirmed_ns": sample.at(0.216), "mono_ns": sample.at(0.216), "detail": "timeout"},
    ]  # fmt: skip
    second = -sample.before
    while second < end:
        records.append({"k": "heartbeat", "mono_ns": sample.at(second)})
        second += 1
    _lines(run / "watch.jsonl", sorted(records, key=lambda record: record["mono_ns"]))


def _timeline(run: Path, sample: Sample) -> None:
    """Journals fetched from hosts, in the form hosts write them."""
    (run / "timeline").mkdir()
    last = sample.longest
    events = {
        "ops1.drill": [
            (-sample.before - 2, "gate_allowed", {"label": "gate: drill.l4 allowed under its own approval"}),
            (-0.3, "fault_journalled", {"label": "fault journalled, power-on timer of 180 s set"}),
            (last + 0.4, "writes_seen", {"step": "verify"}),
            (last + 15, "pg1_streaming", {"label": "pg1 re-joined and streams", "step": "cleanup"}),
            (last + 38, "full_redundancy", {"label": "full redundancy: 2 replicas streaming", "step": "cleanup"}),
        ],
        "pg2.patroni": [
            (0.93 * last - 0.9, "leader_key_expired",
             {"label": "leader key expired in etcd", "step": "detect", "split": "detected"}),
            (0.93 * last - 0.35, "leader_acquired",
             {"label": "pg2 took the leader key", "step": "decide", "split": "decided"}),
            (0.93 * last + 0.4, "promoted",
             {"label": "pg2 promoted, timeline 8", "step": "act", "split": "acted"}),
        ],
        "pg3.patroni": [(0.93 * last + 0.9, "following", {"label": "pg3 follows pg2", "step": "act"})],
    }  # fmt: skip
    for name, lines in events.items():
        host, source = name.split(".")
        _lines(run / "timeline" / f"{name}.jsonl", [
            {"ts": sample.utc(at), "mono_ns": sample.at(at) if host != "ops1" else None, "source": source,
             "event": event, "actor": "automated", **extra}
            for at, event, extra in lines
        ])  # fmt: skip


def _cluster(path: Path, sample: Sample, at: float, leader: str, timeline: int) -> None:
    members = []
    for name in HOSTS[:3]:
        standby = "sync_standby" if name == {"pg1": "pg2", "pg2": "pg3"}[leader] else "replica"
        members.append({
            "name": name, "role": "leader" if name == leader else standby, "timeline": timeline,
            "state": "running" if name == leader else "streaming", "lag_bytes": None if name == leader else 0,
        })  # fmt: skip
    before = path.name == "cluster_before.json"
    _json(path, {
        "etcd": {"leader": "pg1", "leader_on_target": True, "placement": "on_target"} if before else None,
        "observed_at": sample.utc(at), "health": "HEALTHY", "leader": leader, "timeline": timeline,
        "system_identifier": "7710539336507780640", "lsn": "0/7A3F118", "members": members,
    })  # fmt: skip


def _drill(sample: Sample, end: float) -> Any:
    plan = "4f6a2d0c" * 8
    zones = {name: f"zone_{name}" for name in HOSTS[:3]}
    drill: dict[str, Any] = {
        "schema_version": 1, "drill_id": sample.drill_id, "incident_id": "INC-20261121-081324-3f1c", "level": "l4",
        "fault": sample.fault, "kind": sample.kind, "announced": True,
        "started_at": sample.started.strftime("%Y-%m-%dT%H:%M:%SZ"), "ended_at": sample.utc(end + 25),
        "outcome": sample.outcome, "phase": "evidence",
        "tool": {"version": "0.1.0", "git_sha": "3b237402b1c9f0a4d7e8c5b6a1f2e3d4c5b6a7f8", "git_dirty": False,
                 "plan_sha256": plan, "inventory_sha256": "91be5d17" * 8, "tree_sha256": "c0ffee42" * 8},
        "preset": {"name": sample.preset, "ttl": 20, "loop_wait": 1, "retry_timeout": 9, "synchronous_mode": "quorum"},
        "authorisation": {
            "requester": "root on the controller", "approvers": [{"name": "pre-issued for this plan"}],
            "plan_sha256": plan, "issued_at": sample.utc(-80), "expires_at": sample.utc(3520),
            "change_window": None, "notified": ["the operator at the terminal"], "decision": "allowed",
        },
        "scope": {
            "targets": [{"name": "pg1", "role": "primary", "address": "10.89.77.11", "failure_zone": zones["pg1"]}],
            "max_blast_radius": {"hosts": 1, "of": 3}, "exclusions": ["store1", "ops1", "client1"],
            "blacklist_version": "1",
            "environment": {"name": "lab", "production": False, "differs_from_production": [
                "all hosts are containers on one machine and share its kernel and disk", "network latency below 0.1 ms",
            ]},
            "data_bytes": 41_234_432, "prober_host": "client1", "prober_failure_zone": "zone_infra",
        },
        "hypothesis": {
            "statement": "When the primary's host loses its power, a synchronous standby takes over by itself, "
                         "clients write again within the target, and no acknowledged write is lost.",
            "tolerances": ["RTO at most 60 s", "0 acknowledged writes lost", "full redundancy within 10 minutes"],
        },
        "steady_state": {
            "before": {"health": "HEALTHY", "checks": [
                {"name": "members streaming", "health": "HEALTHY", "observed": 2, "wanted": 2},
                {"name": "synchronous standbys", "health": "HEALTHY", "observed": 1, "wanted": 1}]},
            "during": {"health": "DEGRADED", "checks": [
                {"name": "members streaming", "health": "DEGRADED", "observed": 1, "wanted": 2}]},
            "after": {"health": "HEALTHY", "checks": [
                {"name": "members streaming", "health": "HEALTHY", "observed": 2, "wanted": 2}]},
        },
        "control": {"seconds": sample.before - 0.5},
        "injection": {
            "target": "pg1", "sent": {"mono_ns": sample.at(0), "ts": sample.utc(0)},
            "confirmed": {"mono_ns": sample.at(0.216), "ts": sample.utc(0.216)},
            "confirmed_by": "the watcher on client1: pg1-postgres down (timeout)", "limit_seconds": 180,
            "reverts_by": "power control's persisted timer", "reverted_at": sample.utc(30), "fin_rst_seen": 0,
        },
        "clocks": {"prober_host": "client1", "budget_seconds": 0.05, "hosts": {
            host: {"boot_id": BOOT if host != "ops1" else "another", "offset_seconds_before": 0.00004,
                   "offset_seconds_after": -0.00006, "error_bound_seconds": 0.0011, "stepped": False}
            for host in HOSTS}},
        "targets": {
            "rto_client_seconds": {"limit": sample.rto_limit, "unit": "s", "source": "drill_rto_target_seconds"},
            "rpo_count": {"limit": 0, "unit": "count", "source": "synchronous replication"},
            "full_redundancy_seconds": {"limit": 600, "unit": "s", "source": "drill_redundancy_target_seconds"},
        },
        "figures": {"full_redundancy_seconds": 61.4, "rto_switch_seconds": None},
        "figure_resolutions": {"full_redundancy_seconds": 1.0},
        "safety": {"stop_conditions": [{"name": "stop-all lever", "fired": False},
                                       {"name": "a second member unreachable", "fired": False}],
                   "refused": [], "breaker_trips": [], "escalations": []},
        "findings": [],
        "not_tested": ["loss of two hosts at once", "a partition between the database hosts", "a hang of the primary"],
        "components": {"postgresql": "15.14", "patroni": "4.1.5", "etcd": "3.4.23", "haproxy": "2.6.12",
                       "wal-g": "v0.2.19 (module build)", "versitygw": "v1.7.0", "debian": "12.12",
                       "ansible-core": "2.19.14"},
    }  # fmt: skip
    return drill | sample.changes


def _mark(sample: Sample, label: str, at: float) -> dict[str, Any]:
    return {"k": "mark", "label": label, "mono_ns": sample.at(at), "utc": sample.utc(at), "boot_id": BOOT}


def _json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def _lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
