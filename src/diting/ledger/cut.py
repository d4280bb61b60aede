# SPDX-License-Identifier: GPL-3.0-or-later
"""What the prober inside a cut proves: that the former primary took no write beside the new one. Pure.

A cut-off primary shows nothing by being silent to those who cannot reach it. So a prober on its own host
goes on writing to it, and only an attempt that reached a live server counts: one that the server answered,
or one sent on a session whose server had shown itself alive shortly before. Too few of them prove
nothing; one acknowledgement after the promotion is two primaries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.verdict import Reason
from . import checks
from .classify import Sets, classify
from .series import NS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .effects import Moments
    from .judge import Findings
    from .model import Found, Ledger, Op
    from .settings import Cut, Settings

ANSWERS = frozenset({"server_error", "session_ended", "sync_wait_cancelled", "incomplete_answer"})
"""Reasons of operations that were not acknowledged and yet answered by a server."""

MIN_ACKS_BEFORE = 10
"""A prober that never had a write acknowledged did not reach the primary in the first place."""


@dataclass(frozen=True)
class Promotion:
    """When another host became primary, between the last look that saw it otherwise and the first that did."""

    host: str
    earliest_ns: int
    confirmed_ns: int


def answered(op: Op) -> bool:
    """The server said something about this operation."""
    return op.outcome in ("ok", "fail") or op.reason in ANSWERS


def reached(ledger: Ledger, start_ns: int, end_ns: int, fresh_ns: int) -> list[Op]:
    """Operations sent in [start, end) that reached a live server, in the order of their sending."""
    alive = dict(ledger.sessions)
    found = []
    events: list[tuple[int, int, Op]] = []
    for op in ledger.ops:
        if op.send_ns is None:
            continue
        events.append((op.send_ns, 1, op))
        if answered(op) and op.end_ns is not None:
            events.append((op.end_ns, 0, op))
    for at, is_send, op in sorted(events, key=lambda event: (event[0], event[1])):
        session = op.session
        if not is_send:
            if session is not None:
                alive[session] = max(at, alive.get(session, at))
            continue
        if not start_ns <= at < end_ns:
            continue
        last = alive.get(session) if session is not None else None
        if answered(op) or (last is not None and 0 <= at - last <= fresh_ns):
            found.append(op)
    return found


def promotion(watch: Iterable[dict[str, Any]], old: str, after_ns: int) -> Promotion | None:
    """The first other host that the watcher saw become primary after ``after_ns``."""
    found = [
        Promotion(
            host=str(record["target"]).rpartition(":")[0],
            earliest_ns=max(after_ns, int(record.get("last_seen_ns") or after_ns)),
            confirmed_ns=int(record["confirmed_ns"]),
        )
        for record in watch
        if record.get("k") == "transition"
        and str(record.get("target")).endswith(":primary")
        and record.get("target") != f"{old}:primary"
        and record.get("to") == "up"
        and record.get("from") is not None
        and int(record["confirmed_ns"]) > after_ns
    ]
    return min(found, key=lambda one: one.confirmed_ns, default=None)


def judge_cut(
    ledger: Ledger | None,
    primary: Found | None,
    watch: Sequence[dict[str, Any]],
    moments: Moments,
    settings: Settings,
    findings: Findings,
) -> dict[str, Any] | None:
    """Judge the ledger from inside the cut; None when no cut was to be judged."""
    cut = settings.cut
    if cut is None:
        return None
    if ledger is None:
        findings.invalid.append(
            Reason("cut_ledger_missing", f"path {cut.path}: nobody wrote inside the cut", None, cut.path)
        )
        return None
    findings.invalid += _sound(ledger, cut, settings)
    start = moments.effect_ns
    if start is None:
        return None  # without the moment of the cut the run is INVALID already
    end = (moments.inject_ns or start) + round(cut.seconds * NS)
    # A fence may come half a second after the cut, and who confirms the cut needs a part of that. So attempts
    # count from the earliest moment it can have been, but for those that were acknowledged before it was certain.
    earliest = min(moments.effect_earliest_ns or start, start)
    hits = [
        op
        for op in reached(ledger, earliest, end, round(cut.fresh_seconds * NS))
        if not (op.ok and op.ack_ns() < start)
    ]
    wanted = cut.min_fenced if cut.fenced else cut.min_unfenced
    if len(hits) < wanted:
        how = "until it was switched off" if cut.fenced else "and it was not switched off"
        text = f"path {cut.path}: {len(hits)} attempts reached the cut-off {cut.host} {how}"
        findings.invalid.append(Reason("few_cut_attempts", text, len(hits), wanted))
    sets: Sets | None = None
    if primary is not None:
        sets = classify(ledger.ops, primary.counts.get(cut.path, {}))
        findings.unsafe += checks.data_safe(cut.path, sets, settings)
    promoted = promotion(watch, cut.host, moments.inject_ns or start)
    late, doubtful = _acks_after(ledger, promoted, cut, findings)
    if promoted is not None:
        text = f"{len(hits)} attempts reached the cut-off {cut.host}; it acknowledged {late} after the promotion of"
        findings.notes.append(Reason("cut_side", f"{text} {promoted.host}", len(hits), wanted))
    zero = moments.inject_ns or start
    return {
        "path": cut.path,
        "host": cut.host,
        "fenced": cut.fenced,
        "reached": len(hits),
        "reached_wanted": wanted,
        "promoted": None if promoted is None else promoted.host,
        "promoted_seconds": None
        if promoted is None
        else [round((at - zero) / NS, 6) for at in (promoted.earliest_ns, promoted.confirmed_ns)],
        "acked_after_cut": sum(op.ok and op.ack_ns() >= start for op in ledger.ops),
        "acked_after_promotion": late,
        "acked_around_promotion": doubtful,
        "counts": None if sets is None else sets.counts(),
        "outcomes": checks.outcome_reasons(ledger),
    }


def _sound(ledger: Ledger, cut: Cut, settings: Settings) -> list[Reason]:
    """Whether this ledger can carry a judgement. One whose host was switched off has no footer and a torn end."""
    where = f"path {cut.path}: "
    found = []
    if ledger.header.get("run_id") != settings.run_id:
        run = ledger.header.get("run_id")
        found.append(Reason("foreign_ledger", f"{where}belongs to run {run}", run, settings.run_id))
    torn = {"the last line is torn"} if cut.fenced else set()
    found += [
        Reason("ledger_damaged", f"{where}{problem}", problem, "a whole ledger")
        for problem in ledger.problems
        if problem not in torn
    ]
    if ledger.footer is None and not cut.fenced:
        found.append(Reason("prober_died", f"{where}the ledger has no footer", None, "an orderly end"))
    acked = sum(op.ok for op in ledger.ops)
    if acked < MIN_ACKS_BEFORE:
        found.append(Reason("few_acks", f"{where}only {acked} acknowledged", acked, MIN_ACKS_BEFORE))
    return found


def _acks_after(
    ledger: Ledger, promoted: Promotion | None, cut: Cut, findings: Findings
) -> tuple[int | None, int | None]:
    """Acknowledgements that the former primary gave after the promotion, and some that nobody can place."""
    if promoted is None:
        findings.invalid.append(
            Reason(
                "promotion_not_seen",
                f"path {cut.path}: the watcher saw no other host become primary",
                None,
                "a primary outside the cut",
            )
        )
        return None, None
    acked = [op.ack_ns() for op in ledger.ops if op.ok]
    late = sum(at >= promoted.confirmed_ns for at in acked)
    doubtful = sum(promoted.earliest_ns <= at < promoted.confirmed_ns for at in acked)
    if late:
        text = f"{cut.host} acknowledged {late} writes after {promoted.host} had become primary"
        findings.unsafe.append(Reason("split_brain", text, late, 0))
    elif doubtful:
        text = f"{cut.host} acknowledged {doubtful} writes while {promoted.host} was becoming primary"
        findings.invalid.append(Reason("cut_ack_doubtful", text, doubtful, 0))
    return late, doubtful
