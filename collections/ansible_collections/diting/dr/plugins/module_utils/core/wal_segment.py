# SPDX-License-Identifier: GPL-3.0-or-later
"""Is this file what its name says? Checks of fetched WAL before PostgreSQL may see it.

WAL-G v0.2.19 turns a truncated object into a file of the right size with exit 0, so size and first
page prove nothing: every page is looked at, and zeros at the end are accepted only behind the
record that PostgreSQL writes when it leaves a segment early. Record checksums stay PostgreSQL's
business.
"""

from __future__ import annotations

import re
import struct

PAGE_BYTES = 8192
_SHORT = struct.Struct("=HHIQI")
_LONG_TAIL = struct.Struct("=QII")
_SHORT_BYTES = 24
_LONG_BYTES = 40
_RECORD_BYTES = 24
_FIRST_IS_CONTINUATION = 0x0001
_LONG_HEADER = 0x0002
_RM_XLOG = 0
_XLOG_SWITCH = 0x40
_MAGICS = range(0xD000, 0xD200)
_SEGMENT_BYTES = [1 << power for power in range(20, 31)]

MAGIC_BY_MAJOR = {13: 0xD106, 14: 0xD10D, 15: 0xD110, 16: 0xD113, 17: 0xD116}
"""XLOG_PAGE_MAGIC of the versions this project knows (xlog_internal.h)."""

_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")
_HISTORY_LINE = re.compile(rb"\s*(\d+)\s+[0-9A-F]+/[0-9A-F]+(\s.*)?")


class BadFileError(Exception):
    """The file is not what its name says."""


def check(name: str, data: bytes, system_identifier: int | None, major: int | None) -> None:
    """Raise BadFileError unless ``data`` may be handed to PostgreSQL under ``name``.

    ``system_identifier`` and ``major`` are those of the data directory; None skips that comparison.
    """
    history = _HISTORY.fullmatch(name)
    segment = _SEGMENT.fullmatch(name)
    if history:
        _check_history(data, int(history[1], 16))
    elif segment:
        _check_segment(segment, data, system_identifier, major)
    elif not data:
        raise BadFileError("the file is empty")


def _check_history(data: bytes, timeline: int) -> None:
    parents = []
    for line in data.splitlines():
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        match = _HISTORY_LINE.fullmatch(line)
        if match is None:
            raise BadFileError(f"not a line of a timeline history: {line[:60]!r}")
        parents.append(int(match[1]))
    if not parents or parents != sorted(set(parents)) or parents[-1] >= timeline:
        raise BadFileError(f"timeline {timeline} cannot descend from {parents}")


def _check_segment(
    match: re.Match[str], data: bytes, system_identifier: int | None, major: int | None
) -> None:
    timeline, log, number = (int(part, 16) for part in match.groups())
    if len(data) not in _SEGMENT_BYTES:
        raise BadFileError(f"size is {len(data)} bytes, no size a WAL segment can have")
    first_magic, info, *_rest = _SHORT.unpack_from(data)
    wanted_magic = MAGIC_BY_MAJOR.get(major or 0, first_magic)
    if first_magic != wanted_magic or first_magic not in _MAGICS:
        raise BadFileError(f"page magic is {first_magic:04X}, wanted {wanted_magic:04X}")
    if not info & _LONG_HEADER:
        raise BadFileError("the first page has no segment header")
    system, segment_bytes, page_bytes = _LONG_TAIL.unpack_from(data, _SHORT_BYTES)
    if system_identifier is not None and system != system_identifier:
        raise BadFileError(f"is of database system {system}, this one is {system_identifier}")
    if segment_bytes != len(data) or page_bytes != PAGE_BYTES:
        raise BadFileError(
            f"the header says {segment_bytes} bytes in pages of {page_bytes}, "
            f"found {len(data)} in pages of {PAGE_BYTES}"
        )
    start = (log << 32) + number * segment_bytes
    _check_pages(data, first_magic, timeline, start)


def _check_pages(data: bytes, magic: int, timeline: int, start: int) -> None:
    used = len(data) // PAGE_BYTES
    for page in range(used):
        offset = page * PAGE_BYTES
        found, _info, page_timeline, address, _rest = _SHORT.unpack_from(data, offset)
        if found == 0 and page:
            used = page
            break
        if found != magic or address != start + offset or not 0 < page_timeline <= timeline:
            raise BadFileError(
                f"page at {offset} has magic {found:04X}, address {address:X}, timeline "
                f"{page_timeline}; wanted {magic:04X}, {start + offset:X}, at most {timeline}"
            )
    rest = len(data) - used * PAGE_BYTES
    if not rest:
        return
    if data[-rest:] != bytes(rest):
        raise BadFileError(f"data follow an empty page at {used * PAGE_BYTES}")
    if _last_record(data, used) != (_RM_XLOG, _XLOG_SWITCH):
        raise BadFileError(
            f"ends in zeros from {used * PAGE_BYTES} on without a segment switch before them: "
            "the stored object is truncated"
        )


def _header_bytes(data: bytes, page: int) -> int:
    info = _SHORT.unpack_from(data, page * PAGE_BYTES)[1]
    return _LONG_BYTES if info & _LONG_HEADER else _SHORT_BYTES


def _take(data: bytes, position: int, count: int, end: int) -> tuple[bytes, int]:
    """Read ``count`` bytes of record data from ``position``, stepping over page headers."""
    taken = bytearray()
    while len(taken) < count and position < end:
        if position % PAGE_BYTES == 0:
            position += _header_bytes(data, position // PAGE_BYTES)
        upto = min(position + count - len(taken), (position // PAGE_BYTES + 1) * PAGE_BYTES)
        taken += data[position:upto]
        position = upto
    return bytes(taken), position


def _last_record(data: bytes, used: int) -> tuple[int, int] | None:
    """Resource manager and kind of the last whole record in the first ``used`` pages, or None."""
    end = used * PAGE_BYTES
    for page in reversed(range(used)):
        _magic, info, _tli, _address, rest = _SHORT.unpack_from(data, page * PAGE_BYTES)
        header = _header_bytes(data, page)
        skipped = (rest + 7) // 8 * 8 if info & _FIRST_IS_CONTINUATION else 0
        if header + skipped >= PAGE_BYTES:
            continue
        position = page * PAGE_BYTES + header + skipped
        found = None
        while position < end:
            raw, _after = _take(data, position, _RECORD_BYTES, end)
            length = int.from_bytes(raw[:4], "little")
            if length == 0:
                break
            body, position = _take(data, position, (length + 7) // 8 * 8, end)
            if length < _RECORD_BYTES or len(body) < length:
                return None
            found = (body[17], body[16] & 0xF0)
        if found is not None:
            return found
    return None
