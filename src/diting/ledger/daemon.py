# SPDX-License-Identifier: GPL-3.0-or-later
"""What a resident measuring process shares: stop signals, its own deadline, word to systemd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from ..hostio.systemd import notify

__all__ = ["Stop", "notify", "prioritise"]


class Stop:
    """Why and when to stop: the first of a signal, the deadline, or a call of :meth:`set`."""

    def __init__(self, max_duration_seconds: float) -> None:
        """Arm SIGTERM, SIGINT and a deadline that needs no controller."""
        self.reason: str | None = None
        self._event = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.set, "signal")
        loop.call_later(max_duration_seconds, self.set, "deadline")

    def set(self, reason: str) -> None:
        """Ask for the stop; the first reason counts."""
        if self.reason is None:
            self.reason = reason
            self._event.set()

    async def wait(self) -> str:
        """Wait for the stop and return its reason."""
        await self._event.wait()
        return self.reason or "unknown"


REALTIME_PRIORITY = 10
NICENESS = -15


def prioritise() -> str:
    """Put this thread, and those it starts, ahead of what it measures; returns what was granted.

    On a busy machine a prober of normal priority measures its own starvation: with eighteen runnable
    processes on two cores its slots came 60 ms late, with a real-time class 3 ms. It needs a few
    percent of a core, so it takes nothing from the database.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))
    except OSError:
        # Denied to users, and in control groups without a real-time budget even to root.
        pass
    else:
        return f"realtime {REALTIME_PRIORITY}"
    # Without the right to raise it further, what the unit asked for stays.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    found = os.getpriority(os.PRIO_PROCESS, 0)
    return f"nice {found}" if found < 0 else "normal"
