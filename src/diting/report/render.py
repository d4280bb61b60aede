# SPDX-License-Identifier: GPL-3.0-or-later
"""HTML and Markdown from a report, and from nothing else: a page can be made again at any time.

The HTML carries its styles and drawings in itself and runs no script; a content security policy
keeps it from loading anything, so what an auditor opens years later is what was sealed.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING, Any

from . import charts, text

if TYPE_CHECKING:
    import jinja2

TIMELINE_MARGIN_SECONDS = 5.0
FIGURES = ("rto_client_seconds", "rpo_count", "full_redundancy_seconds", "rto_fault_seconds")
LEVELS = {
    "l1": "application crash",
    "l2": "spot reclaim",
    "l3": "feed outage",
    "l4": "database failure",
    "l5": "region failure",
}


@functools.cache
def environment() -> jinja2.Environment:
    """Templates of this package; HTML is escaped, an undefined name is an error."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for filter_name in (
        "seconds",
        "figure",
        "plus_minus",
        "moment",
        "size",
        "plain",
        "number",
        "offset",
        "limit",
        "self_test",
    ):
        made.filters[filter_name] = getattr(text, filter_name)
    made.filters["label"] = text.name
    made.filters["cell"] = _cell
    made.globals["span_name"] = charts.span_name
    made.globals["span_colour"] = charts.span_colour
    made.globals["not_measured"] = text.NOT_MEASURED
    made.globals["style"] = resources.files(__package__).joinpath("templates", "page.css").read_text("utf-8")
    return made


def _cell(value: Any) -> str:
    """One cell of a Markdown table."""
    return text.plain(value).replace("|", "\\|").replace("\n", " ")


def html(report: dict[str, Any]) -> str:
    """The stand-alone page of one report."""
    import markupsafe

    drawn = {
        "wide": markupsafe.Markup(charts.gap_plot(report, charts.WIDE)),  # noqa: S704 - every text in it went through escape()
        "narrow": markupsafe.Markup(charts.gap_plot(report, charts.NARROW)),  # noqa: S704 - as above
    }
    return environment().get_template("report.html.j2").render(plot=drawn, **_view(report))


def markdown(report: dict[str, Any]) -> str:
    """The same report as Markdown, for tickets and terminals."""
    return environment().get_template("report.md.j2").render(**_view(report))


def _view(report: dict[str, Any]) -> dict[str, Any]:
    shown, other = _timeline(report)
    return {
        "r": report,
        "headline": text.headline(report),
        "guard": text.guard((report["preset_detail"] or {}).get("guard")),
        "level_name": LEVELS.get(report["level"], ""),
        "figures": [_figure(report, key) for key in FIGURES],
        "other_targets": {k: v for k, v in report["targets"].items() if k not in FIGURES},
        "key_events": charts.key_events(report),
        "timeline": shown,
        "timeline_other": other,
        "not_measured_list": [
            (key, reason) for key, reason in report["not_measured"].items() if not key.startswith("split.")
        ],
    }


def _figure(report: dict[str, Any], key: str) -> dict[str, Any]:
    """One of the large figures: value, resolution, target, and how much of the target it used."""
    target = report["targets"].get(key)
    unit = "count" if key == "rpo_count" else "s"
    value = report.get(key)
    used = None
    if target and target["worst"] is not None:
        used = min(target["worst"] / target["limit"], 1.0) if target["limit"] else None
    return {
        "key": key,
        "value": value,
        "text": text.figure(value, unit),
        "resolution": text.plus_minus(report["figure_resolutions"].get(key)) if value is not None else "",
        "target": target,
        "limit": text.limit(target["limit"], unit) if target else None,
        "used_percent": None if used is None else round(used * 100, 1),
    }


def _timeline(report: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Entries between the fault and recovery, which are read; and those around them, for the record."""
    ends = [path["recovered_at_seconds"] for path in report["paths"].values()]
    last = max((end for end in ends if end is not None), default=None)
    shown: list[dict[str, Any]] = []
    other: list[dict[str, Any]] = []
    for entry in report["timeline"]:
        close = (
            last is not None
            and -TIMELINE_MARGIN_SECONDS <= entry["t_seconds"] <= last + TIMELINE_MARGIN_SECONDS
        )
        (shown if close or entry["step"] or entry["split"] else other).append(entry)
    return shown, other
