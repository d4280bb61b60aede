# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guard keeps in files: its state, its pause, its status, and the lock that makes it the only one."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ...core import journal
from ...core.guard import Action
from ...core.plain import PlainError
from ...hostio import files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .ports import Clock

MAX_PAUSE_MINUTES = 24 * 60
_SHARED_MODE = 0o644


class StoreError(Exception):
    """Something kept cannot be trusted; the text says what, and what to do."""


class AlreadyRunningError(StoreError):
    """Another process runs the same guard."""


@dataclass(frozen=True)
class Saved:
    """What was on disk: the state (JSON form), the actions that were not known to be finished, and context."""

    state: Mapping[str, Any]
    unfinished: tuple[Action, ...]
    boot_id: str
    incident_id: str | None
    saved_at: str


class Store:
    """The state directory of one guard."""

    def __init__(self, state_dir: Path, run_dir: Path, guard: str) -> None:
        self.state_dir = state_dir
        self.run_dir = run_dir
        self._guard = guard
        self._lock_fd: int | None = None

    @property
    def state_file(self) -> Path:
        """The state that must survive."""
        return self.state_dir / "state.json"

    @property
    def pause_file(self) -> Path:
        """The pause, while there is one."""
        return self.state_dir / "pause.json"

    @property
    def status_file(self) -> Path:
        """What ``diting guard status`` reads."""
        return self.run_dir / "status.json"

    def open(self) -> None:
        """Make the directories and become the only one. Raises :class:`StoreError`."""
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
            self.run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
            fd = os.open(self.state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.FILE_MODE)
        except OSError as error:
            raise StoreError(
                f"{error.filename}: {error.strerror}; wanted a directory this user may write"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise AlreadyRunningError(f"{self.state_dir}: another process runs this guard") from error
        self._lock_fd = fd

    def close(self) -> None:
        """Let another one in."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def save(self, saved: Saved) -> None:
        """Write the state; it is on disk when this returns. Raises OSError."""
        content = {
            "guard": self._guard,
            "state": saved.state,
            "unfinished": [action.as_dict() for action in saved.unfinished],
            "boot_id": saved.boot_id,
            "incident_id": saved.incident_id,
            "saved_at": saved.saved_at,
        }
        content["sha256"] = journal.sha256_of(content)
        files.write_atomic(self.state_file, journal.canonical_json(content) + "\n")

    def load(self) -> Saved | None:
        """The state saved last, None if there never was one.

        Raises :class:`StoreError` if it was damaged: a guard that acts must not forget what it did.
        """
        try:
            text = self.state_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error
        try:
            content = json.loads(text)
            digest = content.pop("sha256")
            if journal.sha256_of(content) != digest:
                raise self._damaged("its content was edited or damaged")
            if content["guard"] != self._guard:
                raise self._damaged(f"it belongs to a guard {content['guard']!r}, this is {self._guard!r}")
            return Saved(
                state=content["state"],
                unfinished=tuple(Action.from_dict(item) for item in content["unfinished"]),
                boot_id=content["boot_id"],
                incident_id=content["incident_id"],
                saved_at=content["saved_at"],
            )
        except (ValueError, KeyError, TypeError, AttributeError, PlainError) as error:
            raise self._damaged(repr(error)) from error

    def _damaged(self, why: str) -> StoreError:
        return StoreError(
            f"{self.state_file}: {why}. The guard does not start without knowing what it did. "
            f"Fix: see what {self.state_dir / 'journal.jsonl'} says it did last; once nothing is half-done, move the file away"
        )

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Show people what is going on. Lost with the host, so no fsync."""
        temporary = self.status_file.with_name(f".{self.status_file.name}.new")
        temporary.write_text(json.dumps(status, sort_keys=True), encoding="utf-8")
        temporary.chmod(_SHARED_MODE)
        temporary.replace(self.status_file)

    def read_status(self) -> dict[str, Any] | None:
        """The newest status, None if there is none. Raises :class:`StoreError` for one that cannot be read."""
        try:
            found = json.loads(self.status_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.status_file}: {error}") from error
        return dict(found)


@dataclass(frozen=True)
class Pause:
    """A person's word to keep the hands off for a while. It ends by itself, whatever the wall clock does."""

    until_utc: datetime
    until_monotonic: float
    boot_id: str
    by: str
    reason: str

    def is_over(self, clock: Clock) -> bool:
        """By the monotonic clock within the same boot, by the wall clock only after another."""
        if self.boot_id == clock.boot_id():
            return clock.monotonic() >= self.until_monotonic
        return clock.utc() >= self.until_utc

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**vars(self), "until_utc": journal.utc_text(self.until_utc)}


def begin_pause(store: Store, clock: Clock, *, minutes: float, by: str, reason: str) -> Pause:
    """Write a pause of ``minutes`` from now on. Raises OSError, and ValueError for a length out of range."""
    if not 0 < minutes <= MAX_PAUSE_MINUTES:
        raise ValueError(f"a pause of {minutes:g} minutes; wanted more than 0, at most {MAX_PAUSE_MINUTES}")
    pause = Pause(
        until_utc=clock.utc() + timedelta(minutes=minutes),
        until_monotonic=clock.monotonic() + minutes * 60,
        boot_id=clock.boot_id(),
        by=by,
        reason=reason,
    )
    # The guard runs as another user, and must be able to read what root wrote.
    files.write_atomic(store.pause_file, journal.canonical_json(pause.as_dict()) + "\n", mode=_SHARED_MODE)
    return pause


def read_pause(store: Store) -> Pause | None:
    """The pause on disk, over or not; None if there is none. Raises :class:`StoreError`."""
    try:
        text = store.pause_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{store.pause_file}: {error}") from error
    try:
        content = json.loads(text)
        return Pause(
            until_utc=journal.parse_utc(content["until_utc"]),
            until_monotonic=float(content["until_monotonic"]),
            boot_id=str(content["boot_id"]),
            by=str(content["by"]),
            reason=str(content["reason"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{store.pause_file}: not a pause: {error!r}. Fix: remove it, or pause again"
        ) from error
