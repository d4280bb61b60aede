# SPDX-License-Identifier: GPL-3.0-or-later
"""Which segments a server has left behind half-way: the last ones of a timeline that ended.

With ``archive_mode = always`` a standby that follows a new primary marks the segment in which the old timeline
ended as ready, as if it were full (walreceiver.c). What follows the end in that file is whatever was there before, and
another on every member. The store must not get it: the first member's rubbish would stand under the name of WAL, and
every other member's archiver would be refused for ever, because contents differ. All that counts in it is in the first
segment of the new timeline, which begins with a copy.
"""

from __future__ import annotations

import os
import re

_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")
_LINE = re.compile(r"\s*(\d+)\s+([0-9A-F]+)/([0-9A-F]+)")


def left_behind(data_dir: str, path: str) -> str | None:
    """Position at which the timeline of a segment ended inside or before it, as this server's own history tells.

    ``path`` is that of the segment, seen from the working directory. None for other files, for segments
    of a timeline that has not ended, and when nothing can be read: then the file is archived as ever.
    """
    segment = _SEGMENT.fullmatch(os.path.basename(path))
    if segment is None:
        return None
    timeline, log, number = (int(part, 16) for part in segment.groups())
    try:
        file = os.stat(path)
        history = _newest_history(os.path.join(data_dir, "pg_wal"), timeline)
        # A segment that was written after that history came belongs to a timeline that goes on: the history
        # is of a promotion that came to nothing, and leaving the segment out would be a gap in the archive.
        if history is None or file.st_mtime_ns > os.stat(history).st_mtime_ns:
            return None
        with open(history, encoding="ascii", errors="replace") as lines:
            ends = [match for match in map(_LINE.match, lines) if match and int(match[1]) == timeline]
    except OSError:
        return None
    for end in ends:
        position = (int(end[2], 16) << 32) + int(end[3], 16)
        if position < (log << 32) + (number + 1) * file.st_size:
            return f"{end[2]}/{end[3]}"
    return None


def _newest_history(folder: str, after: int) -> str | None:
    """Path of the history with the highest timeline above ``after``; a promotion's line of descent is in it whole."""
    found = [
        name
        for name in os.listdir(folder)
        if (match := _HISTORY.fullmatch(name)) and int(match[1], 16) > after
    ]
    return os.path.join(folder, max(found)) if found else None
