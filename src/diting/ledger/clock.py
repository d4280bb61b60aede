# SPDX-License-Identifier: GPL-3.0-or-later
"""Clock anchors. Durations come from CLOCK_MONOTONIC of one host; UTC is only a label."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..core.journal import utc_text_at


def anchor() -> dict[str, Any]:
    """Both clocks at one moment; two anchors of one host show whether the wall clock was stepped."""
    mono = time.monotonic_ns()
    wall = time.time_ns()
    return {"mono_ns": mono, "utc_ns": wall, "utc": utc_text_at(wall / 1e9)}


def boot_id() -> str:
    """Identity of the running kernel: monotonic stamps compare only under the same one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
