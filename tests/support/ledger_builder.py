# SPDX-License-Identifier: GPL-3.0-or-later
"""Made-up runs for the tests of the ledger's judge: a schedule, a service that fails, a final read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from diting.ledger.judge import judge
from diting.ledger.model import Ledger, Op, parse_ledger, ranges
from diting.ledger.settings import Settings

NS = 1_000_000_000
RUN = "run-1"

Fate = tuple[str, float, str | None]
"""Outcome, seconds from due time to its end, reason."""


def fine(_due: float) -> Fate:
    return "ok", 0.003, None


def black_hole(start: float, end: float, deadline: float) -> Callable[[float], Fate]:
    """A service that neither answers nor refuses in [start, end), then answers what is waiting."""

    def fate(due: float) -> Fate:
        if not start <= due + 0.003 < end:
            return fine(due)
        if end - due + 0.003 <= deadline:
            return "ok", end - due + 0.003, None
        return "info", deadline, "deadline"

    return fate


@dataclass
class Run:
    """A run on one path, fault at ``inject`` seconds; every part can be bent by a test."""

    interval: float = 0.01
    deadline: float = 1.0
    duration: float = 60.0
    inject: float = 10.0
    effect: float | None = 10.05
    fate: Callable[[float], Fate] = fine
    path: str = "dsn"
    header: dict[str, Any] = field(default_factory=dict)
    footer: dict[str, Any] = field(default_factory=dict)
    dispatch_delay: Callable[[int], float] = lambda _seq: 0.0001
    with_footer: bool = True

    def records(self) -> list[dict[str, Any]]:
        slots = round(self.duration / self.interval)
        out: list[dict[str, Any]] = [
            {
                "k": "header",
                "run_id": RUN,
                "path": self.path,
                "failure_zone": "zone_infra",
                "boot_id": "boot-1",
                "interval_ns": round(self.interval * NS),
                "op_deadline_ns": round(self.deadline * NS),
                "connect_spacing_ns": 100_000_000,
                "late_slot_ns": 50_000_000,
                **self.header,
            }
        ]
        for seq in range(slots):
            due = seq * self.interval
            outcome, seconds, reason = self.fate(due)
            dispatch = due + self.dispatch_delay(seq)
            out.append({"k": "i", "seq": seq, "due_ns": ns(due)})
            out.append(
                {
                    "k": "o",
                    "seq": seq,
                    "dispatch_ns": ns(dispatch),
                    "send_ns": None if reason == "not_sent" else ns(dispatch),
                    "end_ns": ns(due + seconds),
                    "outcome": outcome,
                    "reason": reason,
                    "c": 1,
                }
            )
        if self.with_footer:
            out.append({"k": "footer", "slots": slots, "clock_step_ns": 1000, **self.footer})
        return out

    def ledger(self) -> Ledger:
        return parse_ledger(self.records())

    def marks(self) -> list[dict[str, Any]]:
        moments = {"control_start": 1.0, "control_end": 9.0, "inject_sent": self.inject}
        if self.effect is not None:
            moments["effect_confirmed"] = self.effect
        return [
            {"k": "mark", "label": label, "mono_ns": ns(at), "boot_id": "boot-1"}
            for label, at in moments.items()
        ]


def ns(seconds: float) -> int:
    return round(seconds * NS)


def op(seq: int, outcome: str, due: float = 0.0, end: float | None = 0.0, reason: str | None = None) -> Op:
    return Op(seq, ns(due), outcome, reason, ns(due), ns(due), None if end is None else ns(end))


def found(
    ledgers: list[Ledger],
    *,
    host: str = "pg2",
    in_recovery: bool = False,
    missing: set[int] | None = None,
    extra: set[int] | None = None,
    twice: set[int] | None = None,
) -> dict[str, Any]:
    """A final read that holds every acknowledged operation, bent as told."""
    entries: dict[str, Any] = {}
    for ledger in ledgers:
        seqs = {o.seq for o in ledger.ops if o.ok} - (missing or set()) | (extra or set())
        entries[ledger.path] = {
            "ranges": ranges(seqs),
            "duplicates": {str(seq): 2 for seq in twice or ()},
        }
    return {
        "schema_version": 1,
        "run_id": RUN,
        "host": host,
        "port": 5432,
        "in_recovery": in_recovery,
        "lsn": "0/5000148",
        "system_identifier": "7710539336507780640",
        "timeline": 2,
        "found": entries,
    }


SETTINGS = Settings(run_id=RUN, paths=("dsn",), failed_zone="zone_pg1", rto_target_seconds=60)


def verdict_of(
    run: Run,
    *,
    documents: list[dict[str, Any]] | None = None,
    watch: list[dict[str, Any]] | None = None,
    marks: list[dict[str, Any]] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Judge one made-up run."""
    ledger = run.ledger()
    return judge(
        [ledger],
        [found([ledger])] if documents is None else documents,
        run.marks() if marks is None else marks,
        watch or [],
        replace(SETTINGS, **settings),
    )


def codes(result: dict[str, Any], verdict: str | None = None) -> set[str]:
    """Codes of the reasons, of one verdict if named."""
    return {r["code"] for r in result["reasons"] if verdict in (None, r["verdict"])}
