# SPDX-License-Identifier: GPL-3.0-or-later
"""What power control must not forget: its timers, and the journal of everything it did."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diting.core.journal import utc_text_at
from diting.hostio.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append ``record`` as a line of JSON, on disk before this returns. Several processes may write one file."""
    line = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_journal(
    path: Path, event: str, fields: Mapping[str, Any], source: str = "power"
) -> dict[str, Any]:
    """Append one record, with its time, and return it; see :func:`append_line`."""
    record = {
        "ts": utc_text_at(time.time()),
        "mono_ns": time.monotonic_ns(),
        "source": source,
        "event": event,
        **fields,
    }
    append_line(path, record)
    return record


def timers_fired(path: Path, host: str, incident_id: str) -> list[str]:
    """Ids of an incident's timers that came due for ``host``, by power control's journal at ``path``.

    Raises ``ValueError`` naming the line when a line but the last is unreadable; a torn last line is one
    that is being written.
    """
    fired = []
    for record in journal_records(path):
        timer = record.get("timer") or {}
        due = (record.get("event"), record.get("host")) == ("timer_due", host)
        if due and timer.get("incident_id") == incident_id and timer["id"] not in fired:
            fired.append(timer["id"])
    return fired


def powered_on(path: Path, host: str) -> list[int]:
    """When ``host`` was ordered on, by power control's journal: CLOCK_MONOTONIC in nanoseconds, in order.

    A host that boots answers with RST for what it has forgotten, so a watch for its farewell ends there.
    Raises ``ValueError`` as ``timers_fired`` does.
    """
    return [
        int(record["mono_ns"])
        for record in journal_records(path)
        if (record.get("event"), record.get("host")) == ("power_on_requested", host)
    ]


def journal_records(path: Path) -> list[dict[str, Any]]:
    """Every readable line of power control's journal; a torn last line is one that is being written.

    Raises ``ValueError`` naming the line when any other is unreadable.
    """
    found = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                continue
            raise ValueError(f"{path}:{number}: not JSON: {error}") from error
    return found


def _this_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@dataclass(frozen=True)
class Clocks:
    """Both clocks of this machine. What was promised in seconds is kept by the one that never steps, for as long as it runs."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    boot_id: str = field(default_factory=_this_boot)

    def left(self, unix: float, monotonic: float, boot_id: str) -> float:
        """Seconds to a moment that was written down in both; after a reboot the wall clock has to do."""
        return monotonic - self.monotonic() if boot_id == self.boot_id else unix - self.wall()


@dataclass(frozen=True)
class Timer:
    """One promised action, due ``due_monotonic`` in boot ``boot_id``, and in another boot at ``due_unix``."""

    id: str
    host: str
    action: str
    due_unix: float
    reason: str
    incident_id: str | None
    due_monotonic: float = 0.0
    boot_id: str = ""

    def public(self) -> dict[str, Any]:
        """The timer as the API shows it."""
        return {
            "id": self.id,
            "action": self.action,
            "due_at": utc_text_at(self.due_unix),
            "reason": self.reason,
            "incident_id": self.incident_id,
        }


class TimerStore:
    """Timers in one file, replaced atomically and fsynced before a call returns.

    Raises ``ValueError`` at construction when the file exists and is unreadable: a promise that was
    lost must not look like no promise.
    """

    def __init__(self, path: Path, clocks: Clocks | None = None) -> None:
        self._path = path
        self._clocks = clocks or Clocks()
        self._lock = threading.Lock()
        self._timers: dict[str, Timer] = {}
        if path.exists():
            try:
                self._timers = {item["id"]: Timer(**item) for item in json.loads(path.read_text())}
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path}: unreadable timers: {error!r}") from error

    def _save(self, timers: dict[str, Timer]) -> None:
        write_atomic(self._path, json.dumps([asdict(timer) for timer in timers.values()]))
        self._timers = timers

    def add(
        self, host: str, action: str, after_seconds: float, reason: str, incident_id: str | None
    ) -> Timer:
        """Promise ``action`` for ``host`` in ``after_seconds``."""
        clocks = self._clocks
        unix, monotonic = clocks.wall() + after_seconds, clocks.monotonic() + after_seconds
        timer = Timer(
            secrets.token_hex(8), host, action, unix, reason, incident_id, monotonic, clocks.boot_id
        )
        with self._lock:
            self._save({**self._timers, timer.id: timer})
        return timer

    def remove(self, timer_id: str) -> bool:
        """Forget one timer; False when there is none of that id."""
        with self._lock:
            if timer_id not in self._timers:
                return False
            self._save({key: timer for key, timer in self._timers.items() if key != timer_id})
            return True

    def of(self, host: str) -> list[Timer]:
        """Timers of one host, the next due first."""
        with self._lock:
            return sorted((t for t in self._timers.values() if t.host == host), key=self._left)

    def due(self) -> list[Timer]:
        """Timers whose time has come, the oldest first."""
        with self._lock:
            return sorted((t for t in self._timers.values() if self._left(t) <= 0), key=self._left)

    def seconds_to_next(self) -> float | None:
        """Seconds until the next timer, 0 for an overdue one, None when there is none."""
        with self._lock:
            if not self._timers:
                return None
            return max(0.0, min(map(self._left, self._timers.values())))

    def _left(self, timer: Timer) -> float:
        return self._clocks.left(timer.due_unix, timer.due_monotonic, timer.boot_id)
