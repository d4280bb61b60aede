# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that survive a power loss: locks with a deadline, atomic replacement, fsynced folders."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_MODE = 0o640
_POLL_SECONDS = 0.02


class LockTimeoutError(OSError):
    """Somebody else held the lock until the deadline."""


def lock(fd: int, *, timeout_seconds: float, what: str) -> None:
    """Take an exclusive ``flock`` on ``fd``. Raises :class:`LockTimeoutError` at the deadline.

    ``flock`` and not a pid file: the kernel frees it when its holder dies, however it dies.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                text = f"{what} was locked by another process for {timeout_seconds:g} s"
                raise LockTimeoutError(text) from error
            time.sleep(_POLL_SECONDS)
        else:
            return


@contextlib.contextmanager
def locked(path: Path, *, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock file ``path`` (made if missing, never removed: removing one is a race)."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        lock(fd, timeout_seconds=timeout_seconds, what=str(path))
        yield
    finally:
        os.close(fd)


def fsync_directory(path: Path) -> None:
    """Make a created, renamed or removed name in ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, text: str, *, mode: int = FILE_MODE) -> None:
    """Replace ``path`` so that a reader, or a crash, sees the old text or the new one, never a part."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)
