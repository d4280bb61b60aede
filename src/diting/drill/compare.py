# SPDX-License-Identifier: GPL-3.0-or-later
"""The same fault twice: with stock timings and no guard, and as configured. Pure.

The second drill's report carries both figures, so that the ratio stands where it was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

STOCK_VARIABLES = ("drill_timings=stock", "drill_guard_stopped=true")
"""What makes a drill the stock one; its own closing takes both back."""

PREFERRED_PATH = "haproxy"
COUNTS = frozenset({"PASS", "FAIL"})
"""Verdicts of drills that measured something."""


def usable(other: Mapping[str, Any], level: str, fault: str) -> str | None:
    """Why ``other``, a report, cannot stand beside a drill of this level and fault; None if it can."""
    if (other.get("level"), other.get("fault")) != (level, fault):
        return f"it is about {other.get('level')} {other.get('fault')}"
    if other.get("verdict") not in COUNTS:
        return f"it is {other.get('verdict')}, which measured nothing"
    return None


def figures(other: Mapping[str, Any], judged: Mapping[str, Any]) -> dict[str, Any] | None:
    """``compare`` of the second report, from the first report and the second's ``judge.json``.

    Seconds without acknowledged writes on one client path: the proxy's where both drills used it, else the
    second one's headline. A figure that one of them did not measure stays null, and so does the ratio. None
    without a path that both have.
    """
    mine, theirs = judged.get("paths") or {}, other.get("paths") or {}
    headline = (judged.get("headline") or {}).get("path")
    shared = [path for path in (PREFERRED_PATH, headline, *sorted(mine)) if path in mine and path in theirs]
    if not shared:
        return None
    path = shared[0]
    stock, configured = theirs[path].get("rto_client_seconds"), mine[path].get("rto_client_seconds")
    ratio = round(stock / configured, 2) if stock is not None and configured else None
    return {"path": path, "stock": stock, "configured": configured, "ratio": ratio}
