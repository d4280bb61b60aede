# SPDX-License-Identifier: GPL-3.0-or-later
"""What the data directory says about its server: is it running, stopping, or not there."""

from __future__ import annotations

import enum
import os

_STATUS_LINE = 7
"""Index of the status in postmaster.pid (``LOCK_FILE_LINE_PM_STATUS`` - 1 in miscadmin.h)."""


class ServerState(enum.Enum):
    """State of the server that owns a data directory."""

    RUNNING = "running"
    STOPPING = "stopping"
    ABSENT = "absent"


class RecoveryMode(enum.Enum):
    """What PostgreSQL does with the answer of restore_command."""

    STANDBY = "standby"
    TARGET = "target"
    NONE = "none"


def data_directory(path: str) -> str:
    """Data directory that a ``%p`` belongs to.

    PostgreSQL hands out a path relative to the data directory, which is its working directory;
    Patroni and pg_rewind call the same commands from elsewhere with an absolute one.
    """
    if os.path.isabs(path):
        return os.path.dirname(os.path.dirname(path))
    return os.getcwd()


def server_state(data_dir: str) -> ServerState:
    """Read postmaster.pid; a file whose process is gone counts as no server at all."""
    try:
        with open(os.path.join(data_dir, "postmaster.pid"), encoding="utf-8") as handle:
            lines = handle.read().splitlines()
        # Single-user mode writes a negative number.
        os.kill(abs(int(lines[0])), 0)
    except PermissionError:
        return ServerState.RUNNING
    except (OSError, ValueError, IndexError):
        return ServerState.ABSENT
    if len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "stopping":
        return ServerState.STOPPING
    return ServerState.RUNNING


def recovery_mode(data_dir: str) -> RecoveryMode:
    """Mode by the signal files; with both present PostgreSQL is a standby, and so do we judge."""
    if os.path.exists(os.path.join(data_dir, "standby.signal")):
        return RecoveryMode.STANDBY
    if os.path.exists(os.path.join(data_dir, "recovery.signal")):
        return RecoveryMode.TARGET
    return RecoveryMode.NONE


def system_identifier(data_dir: str) -> int | None:
    """First field of pg_control in every version; None when it cannot be read."""
    try:
        with open(os.path.join(data_dir, "global", "pg_control"), "rb") as handle:
            raw = handle.read(8)
    except OSError:
        return None
    return int.from_bytes(raw, "little") if len(raw) == 8 else None


def major_version(data_dir: str) -> int | None:
    """Major version of the data directory; None when it cannot be read."""
    try:
        with open(os.path.join(data_dir, "PG_VERSION"), encoding="ascii") as handle:
            return int(handle.read().strip())
    except (OSError, ValueError):
        return None
