# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks: labelled moments on the clock of the prober's host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clock import anchor, boot_id
from .writer import append_line

if TYPE_CHECKING:
    from pathlib import Path


def write_mark(path: Path, label: str, data: Any = None, mono_ns: int | None = None) -> dict[str, Any]:
    """Append a mark, durable on return, and return it.

    ``mono_ns`` names a moment that was measured before (nanoseconds of CLOCK_MONOTONIC of this
    host, say from the watcher's file); ``utc`` then still labels the time of writing.
    """
    record: dict[str, Any] = {"k": "mark", "label": label, **anchor(), "boot_id": boot_id()}
    if mono_ns is not None:
        record["mono_ns"] = mono_ns
    if data is not None:
        record["data"] = data
    append_line(path, record)
    return record
