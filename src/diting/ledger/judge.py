# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement of a run: figures per path, the worse one as headline, reasons, verdict. Pure.

Precedence: a detector that failed its own test makes everything INVALID. Data that was acknowledged
and is gone is a FAIL even in a run with other flaws. Any other doubt about the measurement is
INVALID before a figure is compared with a target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.verdict import Reason, Verdict
from . import checks, effects
from .classify import Sets, classify, self_test
from .cut import judge_cut
from .model import Found, Ledger, parse_found
from .series import NS, latency_summary, reduce
from .timing import Recovery, Timing, analyse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import Settings

SCHEMA_VERSION = 1
EMPTY_FOUND: dict[str, Any] = {"ranges": [], "duplicates": {}}


@dataclass
class Findings:
    """Reasons by weight, in the order of precedence."""

    broken: list[Reason] = field(default_factory=list)
    unsafe: list[Reason] = field(default_factory=list)
    invalid: list[Reason] = field(default_factory=list)
    missed_target: list[Reason] = field(default_factory=list)
    notes: list[Reason] = field(default_factory=list)

    def verdict(self) -> Verdict:
        """The verdict these findings allow."""
        if self.broken:
            return Verdict.INVALID
        if self.unsafe:
            return Verdict.FAIL
        if self.invalid:
            return Verdict.INVALID
        return Verdict.FAIL if self.missed_target else Verdict.PASS

    def reasons(self) -> list[dict[str, Any]]:
        """All but the notes, heaviest first, each with the verdict it stands for."""
        weighted = [
            (Verdict.INVALID, self.broken),
            (Verdict.FAIL, self.unsafe),
            (Verdict.INVALID, self.invalid),
            (Verdict.FAIL, self.missed_target),
        ]
        return [
            {**reason.as_dict(), "verdict": verdict.value}
            for verdict, reasons in weighted
            for reason in reasons
        ]


def judge(
    ledgers: Sequence[Ledger],
    documents: Sequence[dict[str, Any]],
    marks: Sequence[dict[str, Any]],
    watch: Sequence[dict[str, Any]],
    settings: Settings,
) -> dict[str, Any]:
    """Judge one run.

    Args:
        ledgers: one per client path.
        documents: outputs of ``diting ledger read``, the primary's and the replicas'.
        marks: mark records of the prober's host.
        watch: records of the watcher on the same host.
        settings: limits and expectations.
    """
    findings = Findings()
    moments = effects.moments(ledgers, marks, watch, settings)
    findings.invalid += moments.problems
    by_path = {ledger.path: ledger for ledger in ledgers}
    for path in settings.paths:
        if path not in by_path:
            findings.invalid.append(
                Reason("ledger_missing", f"path {path}: no ledger", sorted(by_path), path)
            )
    primary, servers = _servers(documents, settings, findings)
    paths: dict[str, dict[str, Any]] = {}
    tests: dict[str, dict[str, Any]] = {}
    inside = by_path.pop(settings.cut.path, None) if settings.cut is not None else None
    cut = judge_cut(inside, primary, watch, moments, settings, findings)
    for name in sorted(by_path):
        ledger = by_path[name]
        findings.invalid += checks.ledger_sound(ledger, settings)
        paths[name], tests[name] = _path(ledger, primary, documents, moments, settings, findings)
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": settings.run_id,
        "verdict": findings.verdict().value,
        "reasons": findings.reasons(),
        "notes": [note.as_dict() for note in findings.notes],
        "headline": _headline(paths),
        "paths": paths,
        "servers": servers,
        "marks": moments.listed(),
        "effect": moments.effect_dict(),
        "cut": cut,
        "detector_self_test": {
            "passed": bool(tests) and all(test["passed"] for test in tests.values()),
            "paths": tests,
        },
        "settings": settings.as_dict(),
    }


def _servers(
    documents: Sequence[dict[str, Any]], settings: Settings, findings: Findings
) -> tuple[Found | None, dict[str, Any]]:
    """Who was read, and whether the reads fit together."""
    founds = [parse_found(document) for document in documents]
    primaries = [found for found in founds if not found.in_recovery]
    findings.invalid += checks.reads_sound(founds, settings)
    if len(primaries) > 1:
        hosts = sorted(found.host for found in primaries)
        findings.unsafe.append(
            Reason("split_brain", f"two servers take writes: {', '.join(hosts)}", hosts, 1)
        )
    primary = max(primaries, key=lambda found: found.timeline or 0, default=None)
    servers: dict[str, Any] = {}
    for found in founds:
        differing = 0
        for path in settings.paths if primary is not None else ():
            mine, wanted = found.counts.get(path, {}), (primary or found).counts.get(path, {})
            differing += len(mine.items() ^ wanted.items())
        servers[found.host] = {
            "role": "replica" if found.in_recovery else "primary",
            "lsn": found.lsn,
            "timeline": found.timeline,
            "system_identifier": found.system_identifier,
            "found": {path: sum(counts.values()) for path, counts in found.counts.items()},
            "differs_from_primary": differing,
        }
        if not differing or not found.in_recovery:
            continue
        if primary is not None and checks.behind(found, primary):
            findings.invalid.append(
                Reason(
                    "replica_behind",
                    f"{found.host} was read before it had replayed what the primary's read saw",
                    found.lsn,
                    primary.lsn,
                )
            )
        else:
            findings.unsafe.append(
                Reason(
                    "replica_differs",
                    f"{found.host} and the primary differ in {differing} rows of this run",
                    differing,
                    0,
                )
            )
    return primary, servers


def _path(
    ledger: Ledger,
    primary: Found | None,
    documents: Sequence[dict[str, Any]],
    moments: effects.Moments,
    settings: Settings,
    findings: Findings,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of one path and the self-test of its classification."""
    sets: Sets | None = None
    test: dict[str, Any] = {"passed": False, "seed": 0, "runs": []}
    if primary is not None:
        sets = classify(ledger.ops, primary.counts.get(ledger.path, {}))
        document = next(d for d in documents if d["host"] == primary.host)
        test = self_test(ledger.ops, document, ledger.path)
        if not test["passed"]:
            findings.broken.append(
                Reason(
                    "detector_self_test",
                    f"path {ledger.path}: planted losses were not reported exactly",
                    test["runs"],
                    "every planted number, and only those",
                )
            )
        findings.unsafe += checks.data_safe(ledger.path, sets, settings)
    timing: Timing | None = None
    control = checks.Control.of(ledger, moments)
    if moments.inject_ns is not None:
        findings.invalid += control.problems(ledger, settings)
        timing = analyse(
            ledger,
            moments.inject_ns,
            stability_ns=round(settings.stability_seconds * NS),
            stable_gap_ns=round(settings.stable_gap_seconds * NS),
            noise_ns=control.largest_gap_ns,
        )
        invalid, missed, notes = checks.timing_sound(ledger, timing, moments, settings)
        findings.invalid += invalid
        findings.missed_target += missed
        findings.notes += notes
    return _figures(ledger, sets, timing, control, moments, settings, findings), test


def _figures(
    ledger: Ledger,
    sets: Sets | None,
    timing: Timing | None,
    control: checks.Control,
    moments: effects.Moments,
    settings: Settings,
    findings: Findings,
) -> dict[str, Any]:
    counts = sets.counts() if sets is not None else dict.fromkeys(Sets.__dataclass_fields__)
    rpo_time = _rpo_time(ledger, sets, timing, moments)
    if (
        rpo_time is not None
        and settings.rpo_target_seconds is not None
        and rpo_time > settings.rpo_target_seconds
    ):
        findings.missed_target.append(
            Reason(
                "rpo_target",
                f"path {ledger.path}: RPO_time {rpo_time:.3f} s, target {settings.rpo_target_seconds:g} s",
                rpo_time,
                settings.rpo_target_seconds,
            )
        )
    missed, total = checks.missed_slots(ledger)
    recovered = timing.recovered_ns if timing is not None else None
    after = [op for op in ledger.ops if recovered is not None and op.due_ns >= recovered]
    zero = moments.inject_ns
    return {
        **counts,
        "sets": sets.listed() if sets is not None else None,
        "rpo_count": counts["lost"],
        "rpo_time_seconds": rpo_time,
        "state": timing.state.value if timing is not None else "unknown",
        "rto_client_seconds": _seconds(timing.duration_ns) if timing is not None else None,
        "rto_at_least_seconds": _seconds(timing.at_least_ns) if timing is not None else None,
        "rto_fault_seconds": _rto_fault(timing, moments),
        "resolution_seconds": _seconds(timing.resolution_ns) if timing is not None else None,
        "largest_ack_gap_seconds": _seconds(timing.largest_gap_ns) if timing is not None else None,
        "t_last_ok_seconds": _since(timing.last_ok_ns if timing is not None else None, zero),
        "t_recovered_seconds": _since(recovered, zero),
        "later_outages": [
            {
                "t_seconds": _since(outage.start_ns, zero),
                "seconds": None if outage.end_ns is None else _seconds(outage.end_ns - outage.start_ns),
            }
            for outage in (timing.later if timing is not None else ())
        ],
        "slots": total,
        "missed_slots": missed,
        "missed_slot_ratio": missed / total if total else None,
        "outcomes": checks.outcome_reasons(ledger),
        "latency": {
            "control": latency_summary(control.ops),
            "after_recovery": latency_summary(after),
        },
        "control": control.as_dict(),
        "series": _series(ledger, timing, zero),
    }


def _series(ledger: Ledger, timing: Timing | None, zero: int | None) -> dict[str, Any] | None:
    """The plot's window: from some seconds before the fault to some seconds after the recovery."""
    if zero is None or timing is None:
        return None
    end = timing.recovered_ns or zero + max(timing.at_least_ns, 5 * NS)
    margin = max(3 * NS, (end - zero) // 4)
    return reduce(ledger.ops, zero, zero - margin, end + margin)


def _rto_fault(timing: Timing | None, moments: effects.Moments) -> dict[str, Any] | None:
    """From the confirmed effect; the bracket is what the prober's clock could tell."""
    if timing is None or moments.inject_ns is None or moments.effect_ns is None:
        return None
    if timing.state is Recovery.NO_OUTAGE:
        return {"value": 0.0, "low": 0.0, "high": 0.0}
    if timing.recovered_ns is None:
        return None
    low = max(0, timing.recovered_ns - moments.effect_ns)
    high = max(0, timing.recovered_ns - moments.inject_ns)
    return {"value": _seconds(low), "low": _seconds(low), "high": _seconds(high)}


def _rpo_time(
    ledger: Ledger, sets: Sets | None, timing: Timing | None, moments: effects.Moments
) -> float | None:
    if sets is None:
        return None
    if not sets.lost:
        return 0.0
    oldest = min(op.ack_ns() for op in ledger.ops if op.seq in sets.lost)
    last_ok = timing.last_ok_ns if timing is not None else None
    reference = last_ok if last_ok is not None else moments.inject_ns
    return None if reference is None else max(0.0, (reference - oldest) / NS)


def _headline(paths: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The worse path's time and the sum of the counts; unknown on any path is unknown here."""
    worst: str | None = None
    if paths and all(p["rto_client_seconds"] is not None for p in paths.values()):
        worst = max(paths, key=lambda n: paths[n]["rto_client_seconds"] + paths[n]["resolution_seconds"])
    chosen = paths[worst] if worst is not None else {}
    rpo_times = [path["rpo_time_seconds"] for path in paths.values()]
    headline: dict[str, Any] = {
        "path": worst,
        "rto_client_seconds": chosen.get("rto_client_seconds"),
        "rto_fault_seconds": chosen.get("rto_fault_seconds"),
        "resolution_seconds": chosen.get("resolution_seconds"),
        "rpo_time_seconds": None if not rpo_times or None in rpo_times else max(rpo_times),
    }
    for name in ("rpo_count", *Sets.__dataclass_fields__):
        values = [path[name] for path in paths.values()]
        headline[name] = None if not values or None in values else sum(values)
    return headline


def _seconds(value_ns: int | None) -> float | None:
    return None if value_ns is None else round(value_ns / NS, 6)


def _since(value_ns: int | None, zero_ns: int | None) -> float | None:
    return None if value_ns is None or zero_ns is None else round((value_ns - zero_ns) / NS, 6)
