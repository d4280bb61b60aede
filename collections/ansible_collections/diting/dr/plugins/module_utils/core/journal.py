# SPDX-License-Identifier: GPL-3.0-or-later
"""Append-only journals as data: canonical JSON lines, each bound by hash to the one before.

Pure: nothing here opens a file. ``hostio.journal`` does the locking, the fsync and the repair of
a line torn by a power loss; this module says what a record is and whether a chain holds.

A hash chain shows that a record was edited, removed from the middle or re-ordered. It cannot show
that the *tail* was cut off; for that a reader keeps the head (``seq`` and ``sha256``) elsewhere
and gives it to :func:`verify_chain` as ``anchor``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GENESIS_SHA256 = "0" * 64
"""``prev_sha256`` of the first record of a journal."""

RESERVED_KEYS = frozenset({"ts", "mono_ns", "source", "event", "seq", "prev_sha256", "sha256"})
"""Keys that the journal itself writes; a caller's fields may not use them."""


class JournalError(Exception):
    """A record or a chain is not what a journal of ours can contain."""


@dataclass(frozen=True)
class Head:
    """The end of a chain: the last record's number (from 1) and hash. ``seq`` 0 is an empty one."""

    seq: int = 0
    sha256: str = GENESIS_SHA256


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_json(value: Any) -> str:
    """The one JSON text of ``value``: sorted keys, no spaces, ASCII only, no NaN.

    ASCII, so that neither a terminal nor an editor can re-encode a line and break its hash.
    Raises :class:`JournalError` for anything JSON cannot carry.
    """
    try:
        return _CANONICAL.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise JournalError(f"cannot be written as JSON: {error}") from error


def sha256_of(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def utc_text(moment: datetime) -> str:
    """``2026-01-31T23:59:59.123456Z``: always UTC, always microseconds, so that text order is time order.

    Raises :class:`ValueError` for a naive datetime: guessing a zone would move an approval's end.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a zone cannot be recorded")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def utc_text_at(unix_seconds: float) -> str:
    """:func:`utc_text` of a UNIX time."""
    return utc_text(datetime.fromtimestamp(unix_seconds, UTC))


def parse_utc(text: str) -> datetime:
    """The reverse of :func:`utc_text`; any ISO 8601 time that names its zone is accepted.

    Raises :class:`ValueError` otherwise.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return moment.astimezone(UTC)


def make_record(
    head: Head, *, ts: datetime, mono_ns: int, source: str, event: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """The record that follows ``head``. ``mono_ns`` is CLOCK_MONOTONIC of the writing host.

    Raises :class:`JournalError` if ``fields`` uses a reserved key or cannot be JSON.
    """
    clash = sorted(RESERVED_KEYS & set(fields))
    if clash:
        raise JournalError(f"fields use the journal's own keys: {', '.join(clash)}")
    record: dict[str, Any] = {
        **fields,
        "ts": utc_text(ts),
        "mono_ns": mono_ns,
        "source": source,
        "event": event,
        "seq": head.seq + 1,
        "prev_sha256": head.sha256,
    }
    record["sha256"] = sha256_of(record)
    return record


def head_of(record: Mapping[str, Any]) -> Head:
    """The head that a journal has once ``record`` is its last line."""
    return Head(seq=int(record["seq"]), sha256=str(record["sha256"]))


def parse_record(line: str) -> dict[str, Any]:
    """One line as a record whose own hash holds. Raises :class:`JournalError` naming what is wrong."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise JournalError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise JournalError("not a JSON object")
    missing = sorted(RESERVED_KEYS - record.keys())
    if missing:
        raise JournalError(f"lacks {', '.join(missing)}")
    # Not isinstance(): True is an int, and no place in a chain.
    if type(record["seq"]) is not int or record["seq"] < 1:  # pylint: disable=unidiomatic-typecheck
        raise JournalError(f"seq is {record['seq']!r}, wanted a number from 1")
    content = {key: value for key, value in record.items() if key != "sha256"}
    if sha256_of(content) != record["sha256"]:
        raise JournalError("sha256 does not match the content: the record was edited")
    return record


def check_link(head: Head, record: Mapping[str, Any]) -> None:
    """Raise :class:`JournalError` unless ``record`` is the one that follows ``head``."""
    if record["seq"] != head.seq + 1:
        raise JournalError(
            f"seq is {record['seq']}, wanted {head.seq + 1}: records were removed, added or moved"
        )
    if record["prev_sha256"] != head.sha256:
        raise JournalError("prev_sha256 is not the hash of the record before")


@dataclass(frozen=True)
class ChainReport:
    """Outcome of :func:`verify_chain`. ``line`` (from 1) and ``problem`` name the first broken link."""

    ok: bool
    records: int
    head: Head
    line: int | None = None
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionary for module results and JSON output."""
        return {
            "ok": self.ok,
            "records": self.records,
            "seq": self.head.seq,
            "sha256": self.head.sha256,
            "line": self.line,
            "problem": self.problem,
        }


def verify_chain(
    lines: Iterable[str], *, start: Head | None = None, anchor: Head | None = None
) -> ChainReport:
    """Follow the chain from ``start`` (default: a new journal) and stop at the first broken link.

    With ``anchor``, a head recorded elsewhere, the chain must also pass through it: a journal whose
    tail was cut off, or that was written anew from scratch, is then found out.
    """
    head = start if start is not None else Head()
    seen_anchor = anchor is None or anchor == head
    count = 0
    number = 0
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_record(line)
            check_link(head, record)
        except JournalError as error:
            return ChainReport(False, count, head, number, str(error))
        head = head_of(record)
        count += 1
        if anchor is not None and head.seq == anchor.seq:
            if head.sha256 != anchor.sha256:
                problem = f"record {head.seq} is not the one that was recorded elsewhere: rewritten"
                return ChainReport(False, count, head, number, problem)
            seen_anchor = True
    if anchor is not None and not seen_anchor:
        problem = f"ends at record {head.seq}, but record {anchor.seq} once existed: cut off"
        return ChainReport(False, count, head, number + 1, problem)
    return ChainReport(True, count, head)
