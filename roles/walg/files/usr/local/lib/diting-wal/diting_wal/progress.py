# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a program that fetches still gets anything."""

from __future__ import annotations

import time

_STEP_BYTES = 64 * 2**10


class Progress:
    """Whether a process still gets and writes anything, by the kernel's count of what it read and wrote."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pid = 0
        self._bytes = 0
        self._moved = self._looked = time.monotonic()

    def begin(self, pid: int) -> None:
        """The process that is watched."""
        self._pid = pid
        self._moved = time.monotonic()

    def stalled(self) -> str | None:
        """Why it is stopped: nothing came for too long."""
        now = time.monotonic()
        if now - self._looked < min(1.0, self._seconds / 4):
            return None
        self._looked = now
        try:
            with open(f"/proc/{self._pid}/io", encoding="ascii") as handle:
                counts = dict(line.split(": ") for line in handle.read().splitlines())
            done = int(counts["rchar"]) + int(counts["write_bytes"])
        except (OSError, ValueError, KeyError):
            return None  # it has just ended
        # A program that only tries again and again reads and writes a little, too.
        if done - self._bytes >= _STEP_BYTES:
            self._bytes, self._moved = done, now
        if now - self._moved > self._seconds:
            return f"the store gave nothing for {self._seconds:g} s"
        return None
