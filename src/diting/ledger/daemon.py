# SPDX-License-Identifier: GPL-3.0-or-later
"""What a resident measuring process shares: stop signals, its own deadline, word to systemd."""

from __future__ import annotations

import asyncio
import os
import signal
import socket


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


def notify(message: str) -> None:
    """Tell systemd (``READY=1``, ``STOPPING=1``) if it asked; silent otherwise."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(message.encode(), name)
        except OSError:
            # A vanished service manager is no reason to lose a measurement.
            return
