# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report takes from ``judge.json``, in one place, so that the ledger's shape may grow. Pure.

A figure that is absent stays None all the way to the page: nothing here fills a gap with a zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..core.verdict import Verdict
from .verdict import Finding


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
    rto_client_seconds: float | None
    rto_fault_seconds: float | None
    rto_fault_bracket: tuple[float, float] | None
    resolution_seconds: float | None
    rpo_count: int | None
    rpo_time_seconds: float | None
    counts: dict[str, int | None]
    first_lost: int | None
    last_lost: int | None
    last_ok_at: float | None
    recovered_at: float | None
    latency: dict[str, Any]
    missed_ratio: float | None
    bins: tuple[Bin, ...]
    raw: dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """The ledger's judgement. ``headline`` is the worse path; its figures head the report."""

    headline: str | None
    paths: dict[str, PathResult]
    findings: list[Finding]
    self_test_ok: bool | None
    self_test: dict[str, Any] | None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> PathResult | None:
        """The path whose figures are the headline."""
        return self.paths.get(self.headline) if self.headline else None


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


def from_document(document: dict[str, Any]) -> Judged:
    """Read ``judge.json``. Raises KeyError, TypeError or ValueError when it is not one."""
    paths = {name: _path(name, data) for name, data in document["paths"].items()}
    findings = [
        Finding(
            Verdict(reason["verdict"]),
            reason["code"],
            reason["message"],
            reason.get("observed"),
            reason.get("limit"),
        )
        for reason in document["reasons"]
    ]
    test = document.get("self_test")
    return Judged(
        headline=document.get("headline_path"),
        paths=paths,
        findings=findings,
        self_test_ok=None if test is None else bool(test["ok"]),
        self_test=test,
    )


def _count(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else value


def _path(name: str, data: dict[str, Any]) -> PathResult:
    fault = data.get("rto_fault_seconds") or {}
    lost = data.get("lost")
    seqs = sorted(lost) if isinstance(lost, list) else []
    return PathResult(
        name=name,
        rto_client_seconds=data.get("rto_client_seconds"),
        rto_fault_seconds=fault.get("value"),
        rto_fault_bracket=(fault["low"], fault["high"]) if "low" in fault else None,
        resolution_seconds=data.get("resolution_seconds"),
        rpo_count=data.get("rpo_count"),
        rpo_time_seconds=data.get("rpo_time_seconds"),
        counts={key: _count(data.get(key)) for key in COUNTS},
        first_lost=seqs[0] if seqs else None,
        last_lost=seqs[-1] if seqs else None,
        last_ok_at=data.get("last_ok_at_seconds"),
        recovered_at=data.get("recovered_at_seconds"),
        latency=data.get("latency") or {},
        missed_ratio=data.get("missed_ratio"),
        bins=tuple(Bin(**one) for one in data.get("series", [])),
        raw={key: value for key, value in data.items() if key != "series"},
    )
