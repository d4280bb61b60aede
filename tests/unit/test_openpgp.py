# SPDX-License-Identifier: GPL-3.0-or-later
"""Literal data packets: every way of writing their length, and every place where they can end too early."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diting.hostio.openpgp import PacketError, literal

HEAD = b"t\x03abc\x00\x00\x00\x00"


def length(size):
    if size < 192:
        return bytes([size])
    if size < 8384:
        return bytes([(size - 192 >> 8) + 192, (size - 192) & 0xFF])
    return b"\xff" + size.to_bytes(4, "big")


def packet(content, *partial):
    """A packet whose first parts are of 2**p bytes."""
    body = HEAD + content
    made = b"\xcb"
    for power in partial:
        made += bytes([224 + power]) + body[: 1 << power]
        body = body[1 << power :]
    return made + length(len(body)) + body


def read(raw):
    return b"".join(literal(io.BytesIO(raw)))


@pytest.mark.parametrize("size", [0, 1, 182, 183, 184, 5000, 8374, 8375, 100_000])
def test_each_way_of_writing_a_length(size):
    content = b"\r\n" * (size // 2) + b"x" * (size % 2)
    assert read(packet(content)) == content


@given(st.binary(max_size=3000), st.lists(st.integers(0, 9), max_size=4))
def test_a_packet_in_parts_is_its_content(content, partial):
    while sum(1 << power for power in partial) > len(HEAD + content):
        partial.pop()
    assert read(packet(content, *partial)) == content


def test_what_is_cut_off_anywhere_is_told():
    whole = packet(bytes(range(256)) * 2, 9)
    for end in range(len(whole)):
        with pytest.raises(PacketError):
            read(whole[:end])


@pytest.mark.parametrize("raw", [b"", b"\xc3\x01x", b"\xac\x05abcde"])
def test_another_packet_is_refused(raw):
    with pytest.raises(PacketError, match="where a literal data packet should begin"):
        read(raw)
