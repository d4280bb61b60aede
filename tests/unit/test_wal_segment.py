# SPDX-License-Identifier: GPL-3.0-or-later
"""What is accepted as a WAL segment: whole ones, early ended ones, and nothing that lost its tail."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "roles/walg/files/usr/local/lib/diting-wal"))

from diting_wal.segment import PAGE_BYTES, BadFileError, check  # noqa: E402

SEGMENT = 1 << 20
SYSTEM, MAJOR, MAGIC, TIMELINE, NUMBER = 7123, 15, 0xD110, 3, 5
NAME = f"{TIMELINE:08X}{0:08X}{NUMBER:08X}"


class Writer:
    """Writes records into pages the way XLogInsert does, over page borders."""

    def __init__(self) -> None:
        self.data = bytearray(SEGMENT)
        self.at = 0

    def page(self, remaining: int) -> None:
        info = (0x0001 if remaining else 0) | (0x0002 if self.at == 0 else 0)
        address = NUMBER * SEGMENT + self.at
        struct.pack_into("=HHIQI", self.data, self.at, MAGIC, info, TIMELINE, address, remaining)
        if self.at == 0:
            struct.pack_into("=QII", self.data, 24, SYSTEM, SEGMENT, PAGE_BYTES)
        self.at += 40 if self.at == 0 else 24

    def record(self, length: int, kind: int = 0x00, manager: int = 10) -> None:
        """One record; its header may lie across a page border but never its length field."""
        self.at = (self.at + 7) // 8 * 8
        header = struct.pack("=IIQBBHI", length, 0, 0, kind, manager, 0, 0x55555555)
        body = header + b"\x55" * (length - len(header))
        sent = 0
        while sent < length and self.at < SEGMENT:
            if self.at % PAGE_BYTES == 0:
                self.page(length - sent if sent else 0)
            step = min(length - sent, PAGE_BYTES - self.at % PAGE_BYTES)
            self.data[self.at : self.at + step] = body[sent : sent + step]
            self.at += step
            sent += step

    def switch(self) -> None:
        self.record(24, kind=0x40, manager=0)

    def fill(self) -> None:
        while self.at < SEGMENT:
            self.record(5000)


def judge(data: bytes, name: str = NAME, system: int | None = SYSTEM, major: int | None = MAJOR) -> None:
    check(name, bytes(data), system, major)


def written(lengths: list[int], *, switch: bool, continues: int = 0) -> Writer:
    writer = Writer()
    if continues:
        # The rest of a record that began in the segment before.
        writer.page(continues)
        writer.data[writer.at : writer.at + continues] = b"\x55" * continues
        writer.at += continues
    for length in lengths:
        writer.record(length)
    if switch:
        writer.switch()
    return writer


def test_a_full_segment_is_accepted() -> None:
    writer = Writer()
    writer.fill()
    judge(writer.data)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(24, 20_000), max_size=30),
    st.sampled_from([0, 8, 1001, 8144]),
)
def test_an_early_ended_segment_is_accepted_and_loses_no_page_unseen(
    lengths: list[int], continues: int
) -> None:
    writer = written(lengths, switch=True, continues=continues)
    judge(writer.data)
    used = -(-writer.at // PAGE_BYTES)
    for pages in {1, used // 2, used - 1} - {0, used}:
        cut = bytes(writer.data[: pages * PAGE_BYTES]).ljust(SEGMENT, b"\0")
        with pytest.raises(BadFileError):
            judge(cut)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(24, 20_000), min_size=1, max_size=30))
def test_zeros_without_a_switch_are_refused(lengths: list[int]) -> None:
    with pytest.raises(BadFileError, match="truncated"):
        judge(written(lengths, switch=False).data)


@pytest.mark.parametrize("room", range(0, 48, 8))
def test_a_switch_across_a_page_border_is_seen(room: int) -> None:
    writer = Writer()
    writer.record(PAGE_BYTES - 40 - room)
    writer.switch()
    judge(writer.data)


def test_a_full_segment_cut_anywhere_is_refused() -> None:
    writer = Writer()
    writer.fill()
    for cut in (PAGE_BYTES, 3 * PAGE_BYTES + 100, SEGMENT // 2, SEGMENT - PAGE_BYTES):
        with pytest.raises(BadFileError):
            judge(bytes(writer.data[:cut]).ljust(SEGMENT, b"\0"))
        with pytest.raises(BadFileError, match="size"):
            judge(bytes(writer.data[:cut]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": f"{TIMELINE:08X}{0:08X}{NUMBER + 1:08X}"}, "address"),
        ({"name": f"{TIMELINE - 1:08X}{0:08X}{NUMBER:08X}"}, "timeline"),
        ({"system": SYSTEM + 1}, "database system"),
        ({"major": 16}, "magic"),
    ],
)
def test_segments_of_others_are_refused(change: dict[str, object], says: str) -> None:
    writer = Writer()
    writer.fill()
    with pytest.raises(BadFileError, match=says):
        judge(writer.data, **change)


def test_a_page_from_elsewhere_and_garbage_are_refused() -> None:
    writer = Writer()
    writer.fill()
    swapped = bytearray(writer.data)
    swapped[PAGE_BYTES : 2 * PAGE_BYTES] = writer.data[2 * PAGE_BYTES : 3 * PAGE_BYTES]
    hole = bytearray(writer.data)
    hole[PAGE_BYTES : 2 * PAGE_BYTES] = bytes(PAGE_BYTES)
    for data in (swapped, hole, bytes(SEGMENT), b"", b"\x7fELF".ljust(SEGMENT, b"x")):
        with pytest.raises(BadFileError):
            judge(data)


@pytest.mark.parametrize(
    ("name", "data", "good"),
    [
        ("00000003.history", b"1\t0/3000000\tno recovery target\n\n2\t0/5000000\tx\n", True),
        ("00000002.history", b"1\t0/3000000\tbefore 2000-01-01\n", True),
        ("00000002.history", b"", False),
        ("00000002.history", b"\0" * 80, False),
        ("00000002.history", b"2\t0/3000000\tx\n", False),
        ("00000003.history", b"2\t0/5\tx\n1\t0/3\tx\n", False),
        ("000000010000000000000002.00000028.backup", b"START WAL LOCATION: 0/2000028", True),
        ("000000010000000000000002.00000028.backup", b"", False),
    ],
)
def test_other_files(name: str, data: bytes, good: bool) -> None:
    if good:
        check(name, data, SYSTEM, MAJOR)
    else:
        with pytest.raises(BadFileError):
            check(name, data, SYSTEM, MAJOR)
