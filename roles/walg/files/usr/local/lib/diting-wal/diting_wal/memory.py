# SPDX-License-Identifier: GPL-3.0-or-later
"""What the store said a moment ago, for the questions that PostgreSQL asks one after the other in a promotion.

Three lines: when the store was asked and until when that counts, in hundredths of a second since boot; what it has not
(names, a timeline's eight digits for everything of it, or the word for a silent store); and ``end``. The shell in
front of restore_command reads the same file by the same rules, so it is plain and strict: what is not exactly
this, or of the future, is no memory.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator

FILE = "restore-memory"
SILENT = "silent"
_DIGITS = frozenset("0123456789ABCDEF")
_TICKS = 100
_LONGEST_NUMBER = 15
_LONGEST_FILE = 4096
_TIMELINE = 8
_LAST_TIMELINE = 0xFFFFFFFF
HISTORY = ".history"


def now() -> int:
    """Hundredths of a second on the clock of /proc/uptime, which goes on while the machine sleeps."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)


def write(path: str, asked: int, seconds: float, words: Iterable[str]) -> None:
    """Replace the memory; whoever reads sees the old one or the new one. A place that cannot be written has none."""
    temporary = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError):
        try:
            with open(temporary, "w", encoding="ascii") as handle:
                handle.write(f"{asked} {asked + max(int(seconds * _TICKS), 1)}\n{' '.join(words)}\nend\n")
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)


def forget(path: str) -> None:
    """Drop the memory."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def recall(path: str) -> tuple[frozenset[str], float]:
    """Words that still count, and the seconds since the store was asked; no words when there is no memory."""
    try:
        with open(path, "rb") as handle:
            times, words, *end = handle.read(_LONGEST_FILE).decode("ascii").split("\n")
        asked, until = (_number(text) for text in times.split(" "))
    except (OSError, ValueError):
        return frozenset(), 0.0
    moment = now()
    if end != ["end", ""] or not asked <= moment < until:
        return frozenset(), 0.0
    return frozenset(words.split(" ")), (moment - asked) / _TICKS


def _number(text: str) -> int:
    # The shell takes a number that begins with 0 for an octal one, and stops at one that is too long.
    if not text.isdigit() or text[0] == "0" or len(text) > _LONGEST_NUMBER:
        raise ValueError(text)
    return int(text)


def covers(words: frozenset[str], name: str) -> bool:
    """Did the store say that it has not this history or segment?"""
    return (is_history(name) or len(name) == 3 * _TIMELINE) and (name in words or name[:_TIMELINE] in words)


def is_history(name: str) -> bool:
    """Is it the name of a timeline's history?"""
    return len(name) == _TIMELINE + len(HISTORY) and name.endswith(HISTORY)


def is_question(name: str) -> bool:
    """Is it a name that PostgreSQL asks for, and no other word that the memory could not hold?"""
    return (is_history(name) or len(name) == 3 * _TIMELINE) and _DIGITS.issuperset(name.removesuffix(HISTORY))


def next_questions(name: str, streamed: str | None) -> Iterator[str]:
    """Words for what PostgreSQL asks after ``name``, soonest first; ``streamed`` is the segment it has written last.

    A promotion asks for the next timeline's history, the current segment, and at its very end the history of the
    timeline that it leaves. A standby that follows asks for the history after the new one, and for the
    segment on the new timeline and on the old one.
    """
    timeline = int(name[:_TIMELINE], 16)
    if is_history(name):
        if streamed is not None:
            yield streamed
            yield from _older(f"{timeline:08X}{streamed[_TIMELINE:]}", {streamed})
        yield from _left(timeline - 1)
        ahead = (timeline, timeline + 1)
    else:
        yield from _left(timeline)
        yield from _older(name, set())
        ahead = (timeline + 1, timeline + 2)
    yield from (f"{number:08X}" for number in ahead if number <= _LAST_TIMELINE)


def _left(timeline: int) -> Iterator[str]:
    # Also of the first timeline, which has none: PostgreSQL asks all the same.
    if timeline > 0:
        yield f"{timeline:08X}{HISTORY}"


def _older(segment: str, known: set[str]) -> Iterator[str]:
    """The same segment on the timeline before."""
    timeline = int(segment[:_TIMELINE], 16) - 1
    older = f"{timeline:08X}{segment[_TIMELINE:]}"
    if timeline > 0 and older not in known:
        yield older


def last_written(folder: str, give_up: float) -> str | None:
    """Segment in ``pg_wal`` that was written last; None when there is none or time.monotonic() passes ``give_up``.

    By its time: a file that is kept for later use has the name of a segment to come.
    """
    newest, name = 0, None
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if len(entry.name) != 3 * _TIMELINE or not _DIGITS.issuperset(entry.name):
                continue
            if time.monotonic() > give_up:
                return None
            written = entry.stat().st_mtime_ns
            if written > newest:
                newest, name = written, entry.name
    return name
