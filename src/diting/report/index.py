# SPDX-License-Identifier: GPL-3.0-or-later
"""The index page: all drills, the RTO of each level over time, and what has expired."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from . import chain, charts, inputs, render, text

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "index.html"


def collect(evidence: Path) -> list[dict[str, Any]]:
    """Sealed reports, newest first; one that is gone or unreadable is listed as such, not left out.

    Raises ChainError when the chain itself is broken.
    """
    records = sorted(chain.records(evidence), key=lambda record: str(record["run"]), reverse=True)
    return [_row(evidence, record) for record in records]


def _row(evidence: Path, record: dict[str, Any]) -> dict[str, Any]:
    run = record["run"]
    try:
        report = inputs.read_json(evidence / run / "report.json")
        problem = None
        if not isinstance(report, dict) or chain.seal_of(report) != record["report_sha256"]:
            report, problem = None, "its report is not the one that was sealed"
    except (OSError, ValueError) as error:
        report, problem = None, str(error)
    return {"run": run, "report": report, "problem": problem}


def levels(rows: list[dict[str, Any]], today: date) -> list[dict[str, Any]]:
    """Per level: its drills in order of time, the last PASS, and whether that still counts."""
    reports = [row["report"] for row in reversed(rows) if row["report"]]
    found = []
    for level in sorted({report["level"] for report in reports}):
        mine = sorted((r for r in reports if r["level"] == level), key=lambda r: r["started_at"])
        passed = [r for r in mine if r["verdict"] == "PASS" and r["header"]["kind"] != "planned"]
        last = passed[-1] if passed else None
        found.append(
            {
                "level": level,
                "name": render.LEVELS.get(level, ""),
                "drills": mine,
                "last_pass": last,
                "expires_on": last["validity"]["expires_on"] if last else None,
                "expired": last is None or expired(last, today),
                "points": [_point(r) for r in mine],
            }
        )
    return found


def _point(report: dict[str, Any]) -> charts.Point:
    experiment = report["fault"] + (f", {report['preset']}" if report["preset"] else "")
    return charts.Point(report["started_at"], experiment, report["rto_client_seconds"], report["verdict"])


def expired(report: dict[str, Any], today: date) -> bool:
    """Is the evidence too old to show that recovery works today?"""
    return date.fromisoformat(report["validity"]["expires_on"]) < today


def page(evidence: Path, today: date | None = None) -> str:
    """The index as a stand-alone page. ``today`` decides what has expired; default: now, UTC."""
    import markupsafe

    day = today or datetime.now(UTC).date()
    rows = collect(evidence)
    known = {row["run"] for row in rows}
    unsealed = sorted(
        p.parent.name
        for p in evidence.glob("*/drill.json")
        if p.parent.name not in known and not p.parent.is_symlink()
    )
    groups = levels(rows, day)
    for group in groups:
        group["experiments"] = charts.experiments(group["points"])
        group["wide"] = markupsafe.Markup(charts.trend(group["points"], charts.WIDE))  # noqa: S704 - every text in it went through escape()
        group["narrow"] = markupsafe.Markup(charts.trend(group["points"], charts.NARROW))  # noqa: S704 - as above
    return (
        render.environment()
        .get_template("index.html.j2")
        .render(
            rows=rows,
            levels=groups,
            today=day.isoformat(),
            unsealed=unsealed,
            expired=lambda report: expired(report, day),
            seconds=text.seconds,
        )
    )


def write(evidence: Path, today: date | None = None) -> Path:
    """Write ``index.html`` and return its path."""
    path = evidence / INDEX
    inputs.write_durably(path, page(evidence, today))
    return path
