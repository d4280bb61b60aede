# SPDX-License-Identifier: GPL-3.0-or-later
"""WAL names as PostgreSQL makes them, and the way of a recovery over several timelines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diting.core.wal_names import (
    Branch,
    Segment,
    lsn_text,
    owner_of,
    parse_history,
    parse_lsn,
    parse_segment,
    runs,
)

MIB = 2**20
HISTORY = (
    "1\t0/5000148\tno recovery target specified\n\n# a note\n2\t0/9000000\tno recovery target specified\n"
)


@pytest.mark.parametrize(
    ("segment_mib", "name", "number"),
    [
        (16, "000000010000000000000006", 6),
        (16, "0000000100000001000000FF", 0x1FF),
        (16, "000000010000000100000100", None),  # 256 segments of 16 MiB make 4 GiB: the last is FF
        (1, "000000010000000100000100", 0x1100),
        (1024, "000000010000000100000003", 7),
        (1024, "000000010000000100000004", None),
        (16, "00000000000000000000000A", None),  # there is no timeline 0
        (16, "00000001000000000000000G", None),
        (16, "000000010000000000000006.partial", None),
        (16, "00000002.history", None),
    ],
)
def test_a_segment_is_known_by_its_name(segment_mib, name, number):
    found = parse_segment(name, segment_mib * MIB)
    assert (found.number if found else None) == number
    assert found is None or found.name(segment_mib * MIB) == name


@given(st.integers(1, 2**32 - 1), st.integers(0, 2**40), st.sampled_from([1, 16, 64, 1024]))
def test_a_name_is_read_as_it_was_written(timeline, number, mib):
    segment = Segment(timeline, number % (2**64 // (mib * MIB)))
    assert parse_segment(segment.name(mib * MIB), mib * MIB) == segment


@given(st.integers(0, 2**64 - 1))
def test_an_lsn_is_read_as_it_was_written(lsn):
    assert parse_lsn(lsn_text(lsn)) == lsn


@pytest.mark.parametrize("text", ["", "16", "16/", "/5", "G/0", "1/123456789", "0/5 "])
def test_what_is_no_lsn_is_refused(text):
    with pytest.raises(ValueError, match="is no LSN"):
        parse_lsn(text)


def test_a_history_tells_where_each_timeline_began():
    lineage = parse_history(3, HISTORY)
    assert lineage == (Branch(1, 0), Branch(2, 0x5000148), Branch(3, 0x9000000))
    # Segment 5 holds the end of timeline 1: the copy that timeline 2 begins with is what is read. Segment 9 begins timeline 3.
    assert [owner_of(lineage, number) for number in (4, 5, 6, 8, 9, 10)] == [1, 2, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("timeline", "text", "words"),
    [
        (3, "x\t0/5000148\n", "line 1 is no history"),
        (3, "1\n", "line 1 is no history"),
        (3, "1\t5000148\n", "is no LSN"),
        (3, "2\t0/5\n1\t0/6\n", "line 2 goes backwards"),
        (3, "1\t0/6\n2\t0/5\n", "line 2 goes backwards"),
        (2, "2\t0/5\n", "line 1 goes backwards"),
        (2, "", "names no parent of timeline 2"),
        (2, "# nothing\n\n", "names no parent of timeline 2"),
    ],
)
def test_a_history_that_is_none_is_refused(timeline, text, words):
    with pytest.raises(ValueError, match=words):
        parse_history(timeline, text)


def test_runs_are_unbroken():
    assert runs([5, 1, 2, 2, 9, 4]) == [(1, 2), (4, 5), (9, 9)]
    assert runs([]) == []
