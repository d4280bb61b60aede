# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of WAL files, LSNs and timelines, as PostgreSQL writes them (``xlog_internal.h``, ``timeline.c``). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SEGMENT_BYTES = 16 * 2**20
"""Length of a segment unless ``initdb --wal-segsize`` said otherwise."""
_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_XLOG_ID_BYTES = 2**32


@dataclass(frozen=True, order=True)
class Segment:
    """One WAL segment: ``number`` counts segments from LSN 0."""

    timeline: int
    number: int

    def name(self, segment_bytes: int = SEGMENT_BYTES) -> str:
        """The 24 hex digits of its file name."""
        per_id = _XLOG_ID_BYTES // segment_bytes
        return f"{self.timeline:08X}{self.number // per_id:08X}{self.number % per_id:08X}"


def parse_segment(name: str, segment_bytes: int = SEGMENT_BYTES) -> Segment | None:
    """The segment of that file name; None when it is not one, or none of this segment length."""
    match = _SEGMENT.fullmatch(name)
    if match is None:
        return None
    timeline, log_id, low = (int(part, 16) for part in match.groups())
    per_id = _XLOG_ID_BYTES // segment_bytes
    return Segment(timeline, log_id * per_id + low) if timeline > 0 and low < per_id else None


def parse_lsn(text: str) -> int:
    """Bytes from LSN 0. Raises ValueError for anything but ``X/Y`` in hex digits."""
    match = _LSN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no LSN: wanted two hex numbers like 16/B374D848")
    high, low = (int(part, 16) for part in match.groups())
    return high * _XLOG_ID_BYTES + low


def lsn_text(lsn: int) -> str:
    """An LSN as PostgreSQL prints it."""
    return f"{lsn // _XLOG_ID_BYTES:X}/{lsn % _XLOG_ID_BYTES:X}"


@dataclass(frozen=True)
class Branch:
    """A timeline and the LSN from which its history is its own; 0 for the first."""

    timeline: int
    begin_lsn: int


def parse_history(timeline: int, text: str) -> tuple[Branch, ...]:
    """Every timeline that ``timeline`` came through, itself last, from its ``.history`` file. Raises ValueError.

    Each line says where a parent ended: ``parent<TAB>LSN<TAB>reason``.
    """
    branches: list[Branch] = []
    begin = 0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(None, 2)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2 or not words[0].isdigit():
            raise ValueError(f"line {number} is no history: {line!r}")
        parent, end = int(words[0]), parse_lsn(words[1])
        if not (branches[-1].timeline if branches else 0) < parent < timeline or end < begin:
            raise ValueError(f"line {number} goes backwards: {line!r}")
        branches.append(Branch(parent, begin))
        begin = end
    if timeline > 1 and not branches:
        raise ValueError(f"it names no parent of timeline {timeline}")
    return (*branches, Branch(timeline, begin))


def owner_of(lineage: Sequence[Branch], number: int, segment_bytes: int = SEGMENT_BYTES) -> int:
    """The timeline under whose name recovery along ``lineage`` reads segment ``number``.

    A segment in which one timeline ended and the next began is read from the later one, which begins with a copy.
    """
    return next(
        branch.timeline for branch in reversed(lineage) if branch.begin_lsn // segment_bytes <= number
    )


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Consecutive numbers as (first, last), in order."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
