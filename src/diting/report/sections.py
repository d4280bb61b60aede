# SPDX-License-Identifier: GPL-3.0-or-later
"""The twelve contents an auditor asks of a drill report, cut from a run. Pure.

Every key of the published schema is always there. What no source provided is null, and
``not_measured`` says why: a reader never has to guess whether a null is an oversight.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..core.journal import parse_utc, utc_text
from . import calendar
from .timeline import Axis, split
from .timeline import build as build_timeline
from .verdict import residue_items

if TYPE_CHECKING:
    from .contract import Drill
    from .inputs import Run
    from .judged import Judged, PathResult

SERIES_DECIMALS = 6


class Gaps:
    """Collects the reasons why keys are null."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def keep(self, key: str, value: Any, reason: str) -> Any:
        """``value``, or None with ``reason`` written down under ``key``."""
        if value is None or value in ({}, []):
            self.reasons[key] = reason
            return None
        return value


def header(drill: Drill, gaps: Gaps) -> dict[str, Any]:
    """Contents 1: who, what, when, with which tool, under which plan."""
    tool = drill.get("tool") or {}
    keys = ("version", "git_sha", "git_dirty", "plan_sha256", "inventory_sha256", "tree_sha256")
    found = {key: gaps.keep(f"header.{key}", tool.get(key), "the drill did not record it") for key in keys}
    return {
        "drill_id": drill["drill_id"],
        "incident_id": gaps.keep(
            "header.incident_id", drill.get("incident_id"), "the drill opened no incident"
        ),
        "kind": gaps.keep("header.kind", drill.get("kind"), "the drill did not say"),
        "announced": gaps.keep("header.announced", drill.get("announced"), "the drill did not say"),
        "outcome": drill["outcome"],
        "last_phase": gaps.keep("header.last_phase", drill.get("phase"), "the drill did not say"),
        "tool_version": found.pop("version"),
        **found,
        "signature": gaps.keep(
            "header.signature", None, "reports are chained by hash; signing with a key is not built yet"
        ),
    }


def given(drill: Drill, gaps: Gaps) -> dict[str, Any]:
    """Contents 3, 4, 5, 8, 10, 11: sections the drill states and the report hands on."""
    reasons = {
        "authorisation": "the drill recorded no approval",
        "scope": "the drill recorded no scope",
        "hypothesis": "the drill stated no hypothesis",
        "steady_state": "the drill recorded no steady state",
        "control": "there was no run without a fault",
        "injection": "no fault was injected",
        "clocks": "the drill recorded no clocks",
        "safety": "the drill recorded no stop conditions",
        "capability": "no capability class is claimed",
    }
    raw: dict[str, Any] = dict(drill)
    sections = {key: gaps.keep(key, raw.get(key), reason) for key, reason in reasons.items()}
    sections["findings"] = drill.get("findings", [])
    sections["not_tested"] = gaps.keep("not_tested", drill.get("not_tested"), "the drill named no limits")
    return sections


def injection_of(drill: Drill) -> dict[str, Any]:
    """The injection as plain data, empty when there was none."""
    return dict(drill.get("injection") or {})


def fault_sent(drill: Drill, judged: Judged | None) -> tuple[int, str] | None:
    """When the fault was sent, on the prober's clock and as a UTC label.

    The ledger's mark comes first, because its figures count from there. A mark may have been written
    after its moment, and its label with it, so the label is taken from the drill where it has one.
    """
    mark = judged.mark("inject_sent") if judged else None
    sent = injection_of(drill).get("sent")
    if mark and sent:
        shift = timedelta(seconds=(mark["mono_ns"] - sent["mono_ns"]) / 1e9)
        return mark["mono_ns"], utc_text(parse_utc(sent["ts"]) + shift)
    if mark and mark.get("utc"):
        return mark["mono_ns"], mark["utc"]
    return (sent["mono_ns"], sent["ts"]) if sent else None


def ledger_entries(drill: Drill, judged: Judged | None) -> list[dict[str, Any]]:
    """Timeline entries on the prober's own clock: the fault, its effect, the marks, and the edges of
    each path's outage. They are exact.
    """
    found: list[dict[str, Any]] = []

    def add(at: float | None, event: str, label: str, source: str, step: str | None = None) -> None:
        if at is not None:
            found.append(exact(at, event, label, source, step))

    injection = injection_of(drill)
    fault = drill["fault"].replace("_", " ")
    if injection.get("target"):
        fault += f" on {injection['target']}"
    sent = fault_sent(drill, judged)
    if sent:
        add(0.0, "fault_sent", f"fault sent: {fault}", "drill")
    seen = judged.effect.get("confirmed_seconds") if judged else None
    by = injection.get("confirmed_by") or (judged.effect.get("source") if judged else None)
    confirmed = injection.get("confirmed")
    if seen is None and confirmed and sent:
        seen = (confirmed["mono_ns"] - sent[0]) / 1e9
    add(seen, "effect_confirmed", f"effect confirmed by {by or 'an independent probe'}", "probe")
    for mark in judged.marks if judged else ():
        if mark["label"] not in {"inject_sent", "effect_confirmed"}:
            add(mark["t_seconds"], mark["label"], mark["label"].replace("_", " "), "mark")
    for path in judged.paths.values() if judged else ():
        source = f"ledger.{path.name}"
        add(path.last_ok_at, "last_acknowledged_write", f"last acknowledged write ({path.name})", source)
        label = f"first write of the stable window ({path.name})"
        add(path.recovered_at, "writes_recovered", label, source, "verify")
    return found


def exact(at: float, event: str, label: str, source: str, step: str | None) -> dict[str, Any]:
    """A timeline entry whose place is exact, because the prober's own clock stamped it."""
    return {
        "t_seconds": round(at, 6),
        "error_bound_seconds": 0.0,
        "ts": None,
        "event": event,
        "label": label,
        "source": source,
        "host": None,
        "step": step,
        "actor": "automated",
        "split": None,
        "evidence": "judge.json",
        "detail": None,
    }


def timeline(run: Run, judged: Judged | None, gaps: Gaps) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Contents 6: the generated timeline, and the RTO's parts from it."""
    sent = fault_sent(run.drill, judged)
    axis = Axis(
        zero_ts=sent[1] if sent else run.drill["started_at"],
        zero_mono_ns=sent[0] if sent else None,
        clocks=run.drill.get("clocks"),
    )
    entries = build_timeline(run.timeline, axis) + ledger_entries(run.drill, judged)
    entries = sorted(entries, key=lambda e: (e["t_seconds"], e["source"], e["event"]))
    head = judged.head if judged else None
    parts = split(entries, head.recovered_at if head else None)
    for name, value in parts.items():
        gaps.keep(f"split.{name}", value, "no event of the timeline marks both of its ends")
    return entries, parts


def data(judged: Judged | None, run: Run, gaps: Gaps) -> dict[str, Any]:
    """Contents 7: every write accounted for, by path."""
    reason = "there is no judgement of the ledger"
    sides = {}
    for key, cluster in (("before", run.cluster_before), ("after", run.cluster_after)):
        picked = None
        if cluster is not None:
            picked = {name: cluster.get(name) for name in ("leader", "timeline", "system_identifier", "lsn")}
        sides[key] = gaps.keep(f"data.lineage.{key}", picked, f"cluster_{key}.json is absent")
    return {
        "classification": gaps.keep(
            "data.classification",
            {name: path.counts for name, path in judged.paths.items()} if judged else None,
            reason,
        ),
        "lost_sequences": gaps.keep(
            "data.lost_sequences",
            {
                name: {
                    "first": path.lost_ranges[0][0],
                    "last": path.lost_ranges[-1][1],
                    "ranges": [list(pair) for pair in path.lost_ranges],
                }
                for name, path in judged.paths.items()
                if path.lost_ranges
            }
            if judged
            else None,
            "no write was lost" if judged else reason,
        ),
        "lineage": sides,
        "detector_self_test": gaps.keep(
            "data.detector_self_test", judged.self_test if judged else None, "the ledger recorded none"
        ),
        "servers": gaps.keep("data.servers", judged.servers if judged else None, reason),
        "notes": judged.notes if judged else [],
        "judge_settings": gaps.keep("data.judge_settings", judged.settings if judged else None, reason),
    }


def path_summary(path: PathResult) -> dict[str, Any]:
    """One entry of ``paths{}``: the five fixed keys and what explains them."""
    return {
        "rto_client_seconds": path.rto_client_seconds,
        "resolution_seconds": path.resolution_seconds,
        "acked": path.counts["acked"],
        "lost": path.counts["lost"],
        "ghost": path.counts["ghost"],
        "state": path.state,
        "rto_at_least_seconds": path.rto_at_least_seconds,
        "largest_ack_gap_seconds": path.largest_ack_gap_seconds,
        "rto_fault_seconds": path.rto_fault_seconds,
        "rto_fault_bracket_seconds": list(path.rto_fault_bracket) if path.rto_fault_bracket else None,
        "rpo_count": path.rpo_count,
        "rpo_time_seconds": path.rpo_time_seconds,
        "last_ok_at_seconds": path.last_ok_at,
        "recovered_at_seconds": path.recovered_at,
        "latency": path.latency,
        "control": path.control,
        "outcomes": path.outcomes,
        "later_outages": path.later_outages,
        "missed_ratio": path.missed_ratio,
        "counts": path.counts,
    }


def series(judged: Judged | None) -> dict[str, list[dict[str, Any]]] | None:
    """Latency around the fault, binned, for the gap plot."""
    if judged is None:
        return None
    return {
        name: [
            {
                "start": round(b.start, SERIES_DECIMALS),
                "end": round(b.end, SERIES_DECIMALS),
                "p50": b.p50,
                "high": b.high,
                "ok": b.ok,
                "info": b.info,
                "fail": b.fail,
            }
            for b in path.bins
        ]
        for name, path in judged.paths.items()
    }


def cleanup(run: Run, gaps: Gaps) -> dict[str, Any]:
    """Contents 9: what was rolled back, what was looked for, what was found."""
    scan = run.residue
    reason = "residue.json is absent: nobody looked"
    fields: dict[str, Any] = dict(scan) if scan else {}
    keys = ("scanned_at", "hosts", "checks", "rollbacks", "backups_valid", "redundancy")
    kept = {
        key: gaps.keep(f"cleanup.{key}", fields.get(key), "not recorded" if scan else reason) for key in keys
    }
    reverted = injection_of(run.drill).get("reverted_at")
    kept["fault_reverted_at"] = gaps.keep("cleanup.fault_reverted_at", reverted, "not recorded")
    return kept


def residue(run: Run, gaps: Gaps) -> list[dict[str, Any]] | None:
    """Top-level ``residue``: a list, empty when the scan found nothing, null when nobody looked."""
    if run.residue is None:
        gaps.reasons["residue"] = "residue.json is absent: nobody looked"
        return None
    return residue_items(run.residue)


def validity(drill: Drill) -> dict[str, str]:
    """Contents 12."""
    day = parse_utc(drill.get("ended_at") or drill["started_at"]).date()
    return calendar.validity(day, drill.get("validity_days"))
