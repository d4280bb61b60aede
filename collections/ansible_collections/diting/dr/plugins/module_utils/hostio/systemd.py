# SPDX-License-Identifier: GPL-3.0-or-later
"""Word to systemd: readiness, status, watchdog."""

from __future__ import annotations

import os
import socket


def notify(message: str) -> bool:
    """Tell systemd (``READY=1``, ``WATCHDOG=1``, ``STOPPING=1``) if it asked; silent otherwise.

    Never waits: a service manager that does not read must not stop what it manages. False if the word
    was not taken; one that must arrive (``READY=1``) is worth another try.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return True
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(
        socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    ) as sock:
        try:
            sock.sendto(message.encode(), name)
        except OSError:
            # A vanished service manager is no reason to stop working.
            return False
    return True
