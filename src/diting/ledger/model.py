# SPDX-License-Identifier: GPL-3.0-or-later
"""What the judge judges: parsed ledgers and found sets. Pure: no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

OUTCOMES = ("ok", "fail", "info")


@dataclass(frozen=True)
class Op:
    """One slot. Times are CLOCK_MONOTONIC nanoseconds of the prober's host, None if it never came
    to that. ``end_ns`` is the acknowledgement of an ok operation, else the moment of giving up.
    """

    seq: int
    due_ns: int
    outcome: str
    reason: str | None
    dispatch_ns: int | None
    send_ns: int | None
    end_ns: int | None
    session: int | None = None
    """Number of the session it was sent on."""

    @property
    def ok(self) -> bool:
        """Acknowledged without any doubt."""
        return self.outcome == "ok"

    @property
    def attempted(self) -> bool:
        """It may have reached the server. A slot without an outcome counts as attempted."""
        return self.reason != "not_sent"

    def ack_ns(self) -> int:
        """Time of acknowledgement of an ok operation."""
        if self.end_ns is None:
            raise ValueError(f"operation {self.seq} was not acknowledged")
        return self.end_ns


@dataclass(frozen=True)
class Ledger:
    """One prober's file: operations by seq without gaps, header, footer (None: it died), problems."""

    path: str
    header: dict[str, Any]
    ops: tuple[Op, ...]
    footer: dict[str, Any] | None
    marks: tuple[dict[str, Any], ...] = ()
    problems: tuple[str, ...] = ()
    sessions: dict[int, int] = field(default_factory=dict)
    """When each session was open, that is: its server had answered."""

    @property
    def interval_ns(self) -> int:
        """Schedule interval."""
        return int(self.header.get("interval_ns", 0))

    @property
    def deadline_ns(self) -> int:
        """Deadline of an operation."""
        return int(self.header.get("op_deadline_ns", 0))


@dataclass(frozen=True)
class Found:
    """What one server held at the final read: per path the count of each seq."""

    host: str
    run_id: str
    in_recovery: bool
    lsn: str | None
    system_identifier: str | None
    timeline: int | None
    counts: dict[str, dict[int, int]] = field(default_factory=dict)


def parse_ledger(records: Iterable[dict[str, Any]], torn_tail: bool = False) -> Ledger:
    """Build a ledger from its records. Faults become ``problems``; nothing is repaired in silence."""
    header: dict[str, Any] = {}
    footer: dict[str, Any] | None = None
    intents: dict[int, int] = {}
    outcomes: dict[int, dict[str, Any]] = {}
    marks: list[dict[str, Any]] = []
    sessions: dict[int, int] = {}
    sends: dict[int, dict[str, Any]] = {}
    problems: list[str] = ["the last line is torn"] if torn_tail else []
    for record in records:
        kind = record.get("k")
        if kind == "i":
            if record["seq"] in intents:
                problems.append(f"seq {record['seq']} was scheduled twice")
            intents[record["seq"]] = record["due_ns"]
        elif kind == "o":
            seq = record["seq"]
            if seq in outcomes:
                problems.append(f"seq {seq} has two outcomes")
            if seq not in intents:
                problems.append(f"seq {seq} has an outcome but was not scheduled before it")
            if record["outcome"] not in OUTCOMES:
                problems.append(f"seq {seq} has the unknown outcome {record['outcome']!r}")
            outcomes[seq] = record
        elif kind == "mark":
            marks.append(record)
        elif kind == "d":
            sends[int(record["seq"])] = record
        elif kind == "s":
            sessions[int(record["c"])] = int(record["mono_ns"])
        elif kind == "header":
            header = record
        elif kind == "footer":
            footer = record
    if not header:
        problems.append("no header")
    if sorted(intents) != list(range(len(intents))):
        problems.append("sequence numbers are not gap-free from 0")
    if footer is not None and footer.get("slots") != len(intents):
        problems.append(f"the footer counts {footer.get('slots')} slots, found {len(intents)}")
    ops = tuple(_op(seq, intents[seq], outcomes.get(seq), sends.get(seq, {})) for seq in sorted(intents))
    path = str(header.get("path", "unknown"))
    return Ledger(path, header, ops, footer, tuple(marks), tuple(problems), sessions)


def _op(seq: int, due_ns: int, record: dict[str, Any] | None, sent: dict[str, Any]) -> Op:
    if record is None:
        return Op(seq, due_ns, "info", "no_outcome", None, sent.get("send_ns"), None, sent.get("c"))
    known = record["outcome"] in OUTCOMES
    return Op(
        seq,
        due_ns,
        record["outcome"] if known else "info",
        record.get("reason"),
        record.get("dispatch_ns"),
        record.get("send_ns"),
        record.get("end_ns"),
        record.get("c"),
    )


def parse_found(document: dict[str, Any]) -> Found:
    """Build a found set from the output of ``diting ledger read``.

    Raises:
        KeyError, TypeError, ValueError: the document is not one.
    """
    counts: dict[str, dict[int, int]] = {}
    for path, entry in document["found"].items():
        seqs = {seq: 1 for low, high in entry["ranges"] for seq in range(low, high + 1)}
        seqs.update({int(seq): int(count) for seq, count in entry["duplicates"].items()})
        counts[path] = seqs
    return Found(
        host=str(document["host"]),
        run_id=str(document["run_id"]),
        in_recovery=bool(document["in_recovery"]),
        lsn=document.get("lsn"),
        system_identifier=document.get("system_identifier"),
        timeline=document.get("timeline"),
        counts=counts,
    )


def lsn_value(text: str | None) -> int | None:
    """An LSN such as 0/3000148 as a number of bytes; None of what is none."""
    try:
        high, low = (text or "").split("/")
        return (int(high, 16) << 32) + int(low, 16)
    except ValueError:
        return None


def ranges(seqs: Iterable[int]) -> list[list[int]]:
    """Sorted numbers as inclusive ranges."""
    out: list[list[int]] = []
    for seq in sorted(seqs):
        if out and out[-1][1] == seq - 1:
            out[-1][1] = seq
        else:
            out.append([seq, seq])
    return out
