# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict of a drill as a table for a terminal: what a person reads first and, at 3 a.m., last. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.verdict import Verdict
from ..report.text import guard as guard_words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULE = "─" * 72
STEPS_SHOWN = 40
"""So many lines of the timeline at most: more of them push the verdict off the screen."""


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f} s"


def _rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "fault", f"{report['level']} {report['fault']}"
    yield "preset", str(report.get("preset") or "not measured")
    if told := guard_words((report.get("preset_detail") or {}).get("guard")):
        yield "guard", told
    yield (
        "RTO (client)",
        f"{_seconds(report['rto_client_seconds'])}  ± {_seconds(report['resolution_seconds'])}",
    )
    yield "RTO (from the fault)", _seconds(report["rto_fault_seconds"])
    yield "acknowledged / lost", f"{report['acked']} / {report['lost']}"
    yield "full redundancy after", _seconds(report["full_redundancy_seconds"])
    if "alert_seconds" in report:
        yield "alert with a receiver after", _seconds(report["alert_seconds"])
    for path, figures in sorted((report.get("paths") or {}).items()):
        # Beside the RTO, which ends with the last failed write: one that is much longer than the silence counts stragglers.
        silence = _seconds(figures.get("largest_ack_gap_seconds"))
        lost = f"lost {figures['lost']} of {figures['acked']}"
        yield (
            f"  path {path}",
            f"RTO {_seconds(figures['rto_client_seconds'])}, longest silence {silence}, {lost}",
        )
    for name, target in sorted((report.get("targets") or {}).items()):
        limit = target.get("limit") if isinstance(target, dict) else target
        yield f"  target {name}", f"<= {limit}"
    if against := report.get("compare"):
        text = f"stock {_seconds(against['stock'])}, configured {_seconds(against['configured'])}"
        ratio = "not measured" if against["ratio"] is None else f"{against['ratio']:g} times"
        yield f"compared, {against['path']}", f"{text}: {ratio}"


def steps(report: dict[str, Any]) -> list[str]:
    """What happened between the fault and the last recovery, a line each: seconds after the fault, host, what.

    The first of them if there are more than ``STEPS_SHOWN``; the report has all.
    """
    timeline = [entry for entry in report.get("timeline") or [] if entry["t_seconds"] >= 0]
    ends = [entry["t_seconds"] for entry in timeline if entry["event"] == "writes_recovered"]
    last = max(ends, default=None)
    lines = [
        f"{entry['t_seconds']:9.3f} s  {entry.get('host') or entry['source']:<8}  {entry['label']}"
        for entry in timeline
        if last is None or entry["t_seconds"] <= last
    ]
    if len(lines) > STEPS_SHOWN:
        return [*lines[:STEPS_SHOWN], f"{'...':>11}  {len(lines) - STEPS_SHOWN} more in the report"]
    return lines


def table(report: dict[str, Any], directory: Path) -> str:
    """The whole table of one report; a drill that did not pass also says what happened when."""
    rows = list(_rows(report))
    width = max(len(name) for name, _ in rows)
    lines = ["", RULE, f"  {report['verdict']}", RULE]
    lines += [f"  {name:<{width}}  {text}" for name, text in rows]
    lines += [f"  ! {reason.get('code')}: {reason.get('message')}" for reason in report.get("reasons") or []]
    if report["verdict"] != Verdict.PASS.value and (happened := steps(report)):
        lines += [RULE, *(f"  {line}" for line in happened)]
    return "\n".join([*lines, RULE, f"  evidence: {directory}/report.html", ""])
