# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report takes from ``judge.json``, in one place, so that the ledger's shape may grow. Pure.

A figure that is absent stays None all the way to the page: nothing here fills a gap with a zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.verdict import Verdict

COUNTS = (
    "attempted",
    "acked",
    "failed",
    "info",
    "found",
    "lost",
    "ghost",
    "duplicate",
    "recovered_info",
    "unexpected",
)
"""Sets of the classification, in the order people read them."""

NOT_RECOVERED = "not_recovered"


@dataclass(frozen=True)
class Finding:
    """One reason, with the verdict it asks for."""

    verdict: Verdict
    code: str
    message: str
    observed: Any = None
    limit: Any = None

    def as_dict(self) -> dict[str, Any]:
        """The shape of ``reasons[]`` in ``report.json``."""
        return {
            "verdict": self.verdict.value,
            "code": self.code,
            "message": self.message,
            "observed": self.observed,
            "limit": self.limit,
        }


def finding(reason: dict[str, Any] | Any) -> Finding:
    """A reason as drill and ledger write it. Raises KeyError or ValueError when it is not one."""
    return Finding(
        Verdict(reason["verdict"]),
        reason["code"],
        reason["message"],
        reason.get("observed"),
        reason.get("limit"),
    )


@dataclass(frozen=True)
class Bin:
    """Writes that fell due within one bin of the gap plot.

    ``start`` and ``end`` in seconds from the fault, latencies in seconds (None: no write of the bin
    was acknowledged), and counts by outcome.
    """

    start: float
    end: float
    p50: float | None
    high: float | None
    ok: int
    info: int
    fail: int


@dataclass(frozen=True)
class PathResult:
    """One client path: how long it was without acknowledged writes, and what became of each write."""

    name: str
    state: str
    rto_client_seconds: float | None
    rto_at_least_seconds: float | None
    largest_ack_gap_seconds: float | None
    rto_fault_seconds: float | None
    rto_fault_bracket: tuple[float, float] | None
    resolution_seconds: float | None
    rpo_count: int | None
    rpo_time_seconds: float | None
    counts: dict[str, int | None]
    lost_ranges: tuple[tuple[int, int], ...]
    last_ok_at: float | None
    recovered_at: float | None
    missed_ratio: float | None
    latency: dict[str, Any]
    control: dict[str, Any] | None
    outcomes: dict[str, int]
    later_outages: list[dict[str, Any]]
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Judged:
    """The ledger's judgement. ``headline`` names the worse path; None when a path knows no time."""

    headline: str | None
    totals: dict[str, Any]
    paths: dict[str, PathResult]
    findings: list[Finding]
    notes: list[dict[str, Any]]
    self_test: dict[str, Any]
    servers: dict[str, Any]
    marks: list[dict[str, Any]]
    effect: dict[str, Any]
    settings: dict[str, Any]

    @property
    def head(self) -> PathResult | None:
        """The path whose figures are the headline."""
        return self.paths.get(self.headline) if self.headline else None

    @property
    def not_recovered(self) -> bool:
        """Did writes on some path never come back to stay, as far as the record goes?"""
        return any(path.state == NOT_RECOVERED for path in self.paths.values())

    def mark(self, label: str) -> dict[str, Any] | None:
        """The first mark called ``label``: ``mono_ns`` of the prober's clock, ``utc``, ``t_seconds``."""
        return next((mark for mark in self.marks if mark["label"] == label), None)


def from_document(document: dict[str, Any]) -> Judged:
    """Read ``judge.json``. Raises KeyError, TypeError, ValueError or AttributeError when it is not one."""
    headline = document["headline"]
    return Judged(
        headline=headline["path"],
        totals=headline,
        paths={name: _path(name, data, document) for name, data in document["paths"].items()},
        findings=[finding(reason) for reason in document["reasons"]],
        notes=document.get("notes", []),
        self_test=document["detector_self_test"],
        servers=document.get("servers", {}),
        marks=document.get("marks", []),
        effect=document.get("effect", {}),
        settings=document.get("settings", {}),
    )


def _path(name: str, data: dict[str, Any], document: dict[str, Any]) -> PathResult:
    fault = data["rto_fault_seconds"]
    lost = (data["sets"] or {}).get("lost", [])
    return PathResult(
        name=name,
        state=data["state"],
        rto_client_seconds=data["rto_client_seconds"],
        rto_at_least_seconds=data.get("rto_at_least_seconds"),
        largest_ack_gap_seconds=data.get("largest_ack_gap_seconds"),
        rto_fault_seconds=fault["value"] if fault else None,
        rto_fault_bracket=(fault["low"], fault["high"]) if fault else None,
        resolution_seconds=data["resolution_seconds"],
        rpo_count=data["rpo_count"],
        rpo_time_seconds=data["rpo_time_seconds"],
        counts=_counts(name, data, document),
        lost_ranges=tuple((low, high) for low, high in lost),
        last_ok_at=data["t_last_ok_seconds"],
        recovered_at=data["t_recovered_seconds"],
        missed_ratio=data.get("missed_slot_ratio"),
        latency=data.get("latency", {}),
        control=data.get("control"),
        outcomes=data.get("outcomes", {}),
        later_outages=data.get("later_outages", []),
        bins=_bins(data.get("series")),
    )


def _counts(name: str, data: dict[str, Any], document: dict[str, Any]) -> dict[str, int | None]:
    counts: dict[str, int | None] = {key: data.get(key) for key in COUNTS}
    outcomes: dict[str, int] = data.get("outcomes", {})
    for key in ("fail", "info"):
        total = sum(n for label, n in outcomes.items() if label.split(":")[0] == key)
        counts["failed" if key == "fail" else key] = total if outcomes else None
    slots = data.get("slots")
    counts["attempted"] = None if slots is None else slots - outcomes.get("info:not_sent", 0)
    primaries = [s for s in document.get("servers", {}).values() if s["role"] == "primary"]
    newest = max(primaries, key=lambda server: server.get("timeline") or 0, default=None)
    counts["found"] = newest["found"].get(name, 0) if newest else None
    return counts


def _bins(series: dict[str, Any] | None) -> tuple[Bin, ...]:
    if not series:
        return ()
    width = series["bucket_seconds"]
    return tuple(
        Bin(
            start=point["t_seconds"],
            end=round(point["t_seconds"] + width, 6),
            p50=point["median_seconds"],
            high=point["max_seconds"],
            ok=point["ok"],
            info=point["info"],
            fail=point["fail"],
        )
        for point in series["points"]
    )
