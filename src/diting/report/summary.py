# SPDX-License-Identifier: GPL-3.0-or-later
"""One page over the runs of a repeated drill: n, minimum, median and maximum, and every verdict.

Made from sealed reports and from nothing else. Only runs that measured something (PASS, FAIL) count; the
others are listed and their figures are not used. A figure that a counted run lacks is said to be lacking:
writes that never came back have no time, and must not make the median better.
"""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

from . import inputs, render
from .experiment import Case, case_of, words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COUNTED = frozenset({"PASS", "FAIL"})
VERDICTS = ("PASS", "FAIL", "INVALID", "ABORTED")
FIGURES = ("rto_client_seconds", "rto_fault_seconds", "full_redundancy_seconds")
PATH_FIGURES = ("rto_client_seconds", "largest_ack_gap_seconds")


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """n, min, median and max of what was measured, and how many were not."""
    known = [value for value in values if value is not None]
    return {
        "n": len(known),
        "not_measured": len(values) - len(known),
        "min": min(known, default=None),
        "median": round(statistics.median(known), 6) if known else None,
        "max": max(known, default=None),
    }


def summarise(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The summary of ``reports``, oldest first: one group per case, in the order they first came.

    Raises ``ValueError`` for reports of different levels or faults.
    """
    kinds = {(report["level"], report["fault"]) for report in reports}
    if len(kinds) != 1:
        raise ValueError(f"wanted reports of one level and fault, found {sorted(kinds)}")
    level, fault = kinds.pop()
    cases = list(dict.fromkeys(case_of(report) for report in reports))
    groups = [_group(case, [r for r in reports if case_of(r) == case]) for case in cases]
    return {
        "schema_version": 1,
        "level": level,
        "fault": fault,
        "started_at": reports[0]["started_at"],
        "ended_at": reports[-1]["ended_at"],
        "groups": groups,
    }


def _group(case: Case, reports: list[dict[str, Any]]) -> dict[str, Any]:
    counted = [report for report in reports if report["verdict"] in COUNTED]
    paths = sorted({path for report in counted for path in report["paths"]})
    rows = [(name, [report.get(name) for report in counted]) for name in FIGURES]
    rows += [
        (f"{name}, path {path}", [report["paths"].get(path, {}).get(name) for report in counted])
        for name in PATH_FIGURES
        for path in paths
    ]
    sums: dict[str, int | None] = {}
    for name in ("acked", "lost"):
        known = [report[name] for report in counted if report.get(name) is not None]
        sums[name] = sum(known) if known and len(known) == len(counted) else None
    residue = [report.get("residue") for report in counted]
    return {
        "preset": case[0],
        "case": words(case),
        "runs": len(reports),
        "counted": len(counted),
        "verdicts": {v: sum(report["verdict"] == v for report in reports) for v in VERDICTS},
        "figures": {name: spread(values) for name, values in rows},
        **sums,
        "residue": None if None in residue else sum(len(items or []) for items in residue),
        "ratio": spread([(r.get("compare") or {}).get("ratio") for r in counted if r.get("compare")]),
        "drills": [
            {
                "drill_id": report["header"]["drill_id"],
                "started_at": report["started_at"],
                "verdict": report["verdict"],
                "rto_client_seconds": report["rto_client_seconds"],
                "paths": {p: f.get("rto_client_seconds") for p, f in sorted(report["paths"].items())},
                "lost": report["lost"],
                "full_redundancy_seconds": report["full_redundancy_seconds"],
                "reasons": [reason["code"] for reason in report["reasons"]],
            }
            for report in reports
        ],
    }


def write(evidence: Path, reports: Sequence[dict[str, Any]]) -> Path:
    """Write the summary as JSON, HTML and Markdown beside the runs; returns the page's path.

    It is named after the last run, so a summary never replaces another one.
    """
    told = summarise(reports)
    stem = f"summary-{reports[-1]['header']['drill_id']}"
    environment = render.environment()
    for kind in ("html", "md"):
        page = environment.get_template(f"summary.{kind}.j2").render(s=told)
        inputs.write_durably(evidence / f"{stem}.{kind}", page)
    inputs.write_durably(evidence / f"{stem}.json", json.dumps(told, indent=1, sort_keys=True) + "\n")
    return evidence / f"{stem}.html"
