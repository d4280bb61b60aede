# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: no promise is made to anybody outside it.
"""The options that modules share which read an archive of WAL-G; documented by the fragment ``diting.dr.archive``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .hostio.archive_store import ArchiveError, look_at, settings_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .hostio.archive_store import Look

ARCHIVE_OPTIONS: dict[str, dict[str, Any]] = {
    "settings_file": {"type": "path", "default": "/etc/wal-g/wal-g.json"},
    "wal_segment_bytes": {"type": "int", "default": 16777216},
}
_LEAST, _MOST = 2**20, 2**30


def look_from(params: Mapping[str, Any]) -> Look:
    """Look at the archive that a module's parameters name. Raises ArchiveError."""
    size = params["wal_segment_bytes"]
    if not _LEAST <= size <= _MOST or size & (size - 1):
        raise ArchiveError(f"wal_segment_bytes is {size}, wanted a power of two from {_LEAST} to {_MOST}")
    return look_at(settings_from(Path(params["settings_file"])), size)
