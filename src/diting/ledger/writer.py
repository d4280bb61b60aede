# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger file: append-only JSON lines, durable before anything is sent.

One thread owns the file. Records that must be durable wake it; all others ride along, so the number
of disk flushes depends on the batches of the prober and not on its rate (a flush per operation would
compete with the very database that is being measured).
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from ..hostio.files import fsync_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def encode(record: dict[str, Any]) -> bytes:
    """One record as a line."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


class LedgerWriter:
    """Group-committing writer. Callbacks run in the writer's thread."""

    def __init__(self, path: Path, on_error: Callable[[OSError], None]) -> None:
        """Create ``path``; it must not exist, because a ledger is never continued.

        Raises:
            OSError: the file exists or cannot be created.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o640)
        fsync_directory(path.parent)
        self._on_error = on_error
        self._lock = threading.Condition()
        self._lines: list[bytes] = []
        self._callbacks: list[Callable[[], None]] = []
        self._closing = False
        self.max_sync_ns = 0
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; it is written with the next durable batch."""
        line = encode(record)
        with self._lock:
            self._lines.append(line)

    def append_durable(self, records: list[dict[str, Any]], on_durable: Callable[[], None]) -> None:
        """Add records and call ``on_durable`` once they are on disk."""
        lines = [encode(record) for record in records]
        with self._lock:
            self._lines += lines
            self._callbacks.append(on_durable)
            self._lock.notify()

    def close(self) -> None:
        """Write and flush what is left, then close the file."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        self._thread.join()
        os.close(self._fd)

    def _run(self) -> None:
        try:
            while True:
                with self._lock:
                    self._lock.wait_for(lambda: self._callbacks or self._closing)
                    lines, self._lines = self._lines, []
                    callbacks, self._callbacks = self._callbacks, []
                    closing = self._closing
                if lines:
                    _write_all(self._fd, b"".join(lines))
                    before = time.monotonic_ns()
                    os.fdatasync(self._fd)
                    self.max_sync_ns = max(self.max_sync_ns, time.monotonic_ns() - before)
                for callback in callbacks:
                    callback()
                if closing:
                    return
        except OSError as error:
            self._on_error(error)


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append one record to a JSON lines file, created if needed, durable on return.

    A single ``write`` on a descriptor opened for appending does not interleave with other writers.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        _write_all(fd, encode(record))
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
