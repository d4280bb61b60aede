# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of an OpenPGP literal data packet, byte by byte (RFC 4880, 4.2 and 5.9).

WAL-G marks what it encrypts as text, which gpg takes literally: its ``--decrypt`` leaves out each carriage return of a base backup.
With ``--unwrap`` it hands out the packet as it is, and what is in it is read here.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LITERAL_TAG = 0xC0 | 11
_BLOCK_BYTES = 2**20
_DATE_BYTES = 4


class PacketError(Exception):
    """It is no such packet, or ends before its end."""


def literal(stream: IO[bytes]) -> Iterator[bytes]:
    """Pieces of the content of the packet at the begin of ``stream``. Raises PacketError."""
    tag = stream.read(1)
    if tag != bytes([_LITERAL_TAG]):
        raise PacketError(
            f"found {tag.hex() or 'nothing'} where a literal data packet should begin ({_LITERAL_TAG:x})"
        )
    body = _body(stream)
    head = b""
    # Format, length of a file name, the name, a date.
    while len(head) < 2 or len(head) < 2 + head[1] + _DATE_BYTES:
        piece = next(body, None)
        if piece is None:
            raise PacketError("the packet ends within its head")
        head += piece
    yield head[2 + head[1] + _DATE_BYTES :]
    yield from body


def _body(stream: IO[bytes]) -> Iterator[bytes]:
    is_last = False
    while not is_last:
        length, is_last = _length(stream)
        while length > 0:
            piece = stream.read(min(length, _BLOCK_BYTES))
            if not piece:
                raise PacketError(f"the packet lacks {length} bytes")
            length -= len(piece)
            yield piece


def _length(stream: IO[bytes]) -> tuple[int, bool]:
    """Bytes of the next part of a body, and whether it is the last one."""
    first = _number(stream, 1)
    if first < 192:
        return first, True
    if first < 224:
        return (first - 192 << 8) + _number(stream, 1) + 192, True
    if first == 255:
        return _number(stream, 4), True
    return 1 << (first & 0x1F), False


def _number(stream: IO[bytes], size: int) -> int:
    raw = stream.read(size)
    if len(raw) < size:
        raise PacketError("the packet ends within a length")
    return int.from_bytes(raw, "big")
