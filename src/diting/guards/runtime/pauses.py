# SPDX-License-Identifier: GPL-3.0-or-later
"""The pause as the cycle sees it: read when the file changes, taken away when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .store import Pause, Store, StoreError, read_pause

if TYPE_CHECKING:
    from .ports import Clock


class PauseWatch:
    """Answers once a cycle whether a person paused the guard. A pause that cannot be read counts as one."""

    def __init__(self, store: Store, clock: Clock, log: Any) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._seen: tuple[int, int] | None = None
        self.pause: Pause | None = None
        self.problem: str | None = None

    @property
    def paused(self) -> bool:
        """As of the last :meth:`look`."""
        return self.pause is not None or self.problem is not None

    def look(self) -> tuple[bool, str | None]:
        """Whether the guard is paused, and what changed since the last look, for the journal."""
        before = self.pause
        try:
            found = self._store.pause_file.stat()
            stamp: tuple[int, int] | None = (found.st_mtime_ns, found.st_ino)
        except FileNotFoundError:
            stamp = None
        except OSError as error:
            return self._unreadable(str(error))
        if stamp != self._seen or self.problem:
            try:
                self.pause = read_pause(self._store)
            except StoreError as error:
                return self._unreadable(str(error))
            self.problem = None
            self._seen = stamp
        if self.pause is not None and self.pause.is_over(self._clock):
            self._store.pause_file.unlink(missing_ok=True)
            self.pause, self._seen = None, None
        change = None
        if self.pause != before:
            change = "paused" if self.pause else "pause_over"
            self._log.info(change, **(self.pause.as_dict() if self.pause else {}))
        return self.paused, change

    def _unreadable(self, problem: str) -> tuple[bool, str | None]:
        news = problem != self.problem
        if news:
            self._log.error("pause cannot be read, counts as one", problem=problem)
        self.problem = problem
        return True, "pause_unreadable" if news else None
