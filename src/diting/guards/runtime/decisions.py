# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision journal on disk: the recorder's records, fsynced in a thread, moved aside when it is long."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ...core import journal
from ...hostio import files
from ...hostio.journal import JournalFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ...core.guard_journal import Cycle, Recorder
    from .ports import Clock
    from .settings import Runtime

JOURNAL_NAME = "journal.jsonl"


class DecisionJournal:
    """Everything a guard decided, each line on disk before the first action it led to.

    A decision that does nothing and moves nothing waits for the next one's fsync: in trouble there are fifty a second,
    and etcd, whose word everything then waits for, may share the disk.

    Writes run in one thread of their own: a disk that takes its time must not delay the probes that a
    guard runs beside its cycle.
    """

    def __init__(self, directory: Path, name: str, recorder: Recorder, clock: Clock, limits: Runtime) -> None:
        self.path = directory / JOURNAL_NAME
        self.records = 0
        self._recorder = recorder
        self._clock = clock
        self._max_bytes = limits.journal_max_bytes
        self._keep = limits.journal_keep_files
        self._file = JournalFile(self.path, f"guard:{name}", now=clock.utc)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    async def cycle(self, cycle: Cycle, *, sync: bool = True) -> int:
        """Record a decision if it is worth it; the number of records written.

        Raises OSError or :class:`journal.JournalError` with nothing written: then the cycle never happened.
        """
        if not self._recorder.wants(cycle):
            self._recorder.done(cycle, written=False)
            return 0
        # Also what makes JSON of it: when a guard leaves its steady state that is many cycles at once, and just then
        # nothing of its own must stand still.
        written: int = await self.in_thread(self._write, cycle, sync)
        self.records += written
        return written

    def _write(self, cycle: Cycle, sync: bool) -> int:
        if self._make_room():
            self._recorder.begin_anew("new file")
        written = self._file.append_all(self._recorder.take(cycle), sync=sync)
        self._recorder.done(cycle, written=True)
        return written

    async def event(self, event: str, fields: Mapping[str, Any]) -> None:
        """Record something beside the decisions (a start, how an action went). Raises as :meth:`cycle`."""
        await self.in_thread(self._file.append, event, fields)
        self.records += 1

    def break_off(self, why: str) -> None:
        """What was recorded last did not come true; the next record begins a segment that says so."""
        self._recorder.begin_anew(why)

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run something that waits for the disk, after everything that was given before."""
        # Shielded: a record that is half on its way is not called back by a stop.
        return await asyncio.shield(
            asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        )

    def _make_room(self) -> bool:
        try:
            if self.path.stat().st_size < self._max_bytes:
                return False
        except FileNotFoundError:
            return False
        head = self._head()
        aside = self.path.with_name(f"journal-{self._clock.utc():%Y%m%dT%H%M%S%fZ}.jsonl")
        self.path.rename(aside)
        files.fsync_directory(self.path.parent)
        self._file.append("continues", {"file": aside.name, "last_seq": head.seq, "last_sha256": head.sha256})
        for old in older_files(self.path.parent)[: -self._keep]:
            with contextlib.suppress(OSError):
                old.unlink()
        return True

    def _head(self) -> journal.Head:
        # A record that says so makes the journal's own code find, check and return the end.
        return journal.head_of(self._file.append("continued", {}))

    def close(self) -> None:
        """Let the thread end once what it was given is written."""
        self._thread.shutdown(wait=True)


def older_files(directory: Path) -> list[Path]:
    """Journals that were moved aside, oldest first."""
    return sorted(directory.glob("journal-*.jsonl"))


def all_files(directory: Path) -> Sequence[Path]:
    """Every journal of a guard, oldest first."""
    current = directory / JOURNAL_NAME
    return [*older_files(directory), *([current] if current.exists() else [])]
