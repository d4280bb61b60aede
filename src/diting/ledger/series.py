# SPDX-License-Identifier: GPL-3.0-or-later
"""Latency figures and the reduced series that a plot of the gap needs. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Op

NS = 1_000_000_000
MAX_POINTS = 400


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest-rank percentile; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latencies(ops: Sequence[Op]) -> list[float]:
    """Seconds from due time to acknowledgement: time in a queue counts."""
    return [(op.ack_ns() - op.due_ns) / NS for op in ops if op.ok]


def latency_summary(ops: Sequence[Op]) -> dict[str, Any]:
    """Count, median, p99 and maximum in seconds."""
    values = latencies(ops)
    return {
        "n": len(values),
        "p50_seconds": percentile(values, 0.5),
        "p99_seconds": percentile(values, 0.99),
        "max_seconds": max(values, default=None),
    }


def reduce(ops: Sequence[Op], zero_ns: int, start_ns: int, end_ns: int) -> dict[str, Any]:
    """Write latency over due time in [start, end), in at most MAX_POINTS buckets.

    ``t_seconds`` is relative to ``zero_ns`` and marks the start of a bucket. A bucket in which
    nothing was acknowledged has latency None; it must not be drawn as 0.
    """
    chosen = [op for op in ops if start_ns <= op.due_ns < end_ns]
    width = max(1, math.ceil((end_ns - start_ns) / MAX_POINTS))
    buckets: dict[int, list[Op]] = {}
    for op in chosen:
        buckets.setdefault((op.due_ns - start_ns) // width, []).append(op)
    points = []
    for index in sorted(buckets):
        members = buckets[index]
        values = latencies(members)
        points.append(
            {
                "t_seconds": round((start_ns + index * width - zero_ns) / NS, 6),
                "ok": len(values),
                "fail": sum(op.outcome == "fail" for op in members),
                "info": sum(op.outcome == "info" for op in members),
                "median_seconds": _rounded(percentile(values, 0.5)),
                "max_seconds": _rounded(max(values, default=None)),
            }
        )
    return {"bucket_seconds": width / NS, "points": points}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
