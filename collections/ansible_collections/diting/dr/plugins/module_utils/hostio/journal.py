# SPDX-License-Identifier: GPL-3.0-or-later
"""A hash-chained journal in a file: locked, fsynced, and mended where a power loss tore it.

A record counts once its line, newline included, is on disk. Bytes after the last newline were
never acknowledged to anybody; :meth:`JournalFile.append` sets them aside in a file of their own and
says so in the journal. A *complete* line that does not hold is another matter: somebody edited
it. Nothing is ever appended after such a line, the writer raises instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..core import journal
from . import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

_BLOCK_BYTES = 65536

_Stamp = tuple[int, int, int, int]


def _stamp(fd: int) -> _Stamp:
    """What another writer, or an editor, would change: device, inode, size in bytes, time of the last change in ns."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def utc_now() -> datetime:
    """The wall clock, with its zone."""
    return datetime.now(UTC)


class JournalFile:
    """One journal file. ``source`` names the writer in every record. Clocks can be replaced."""

    def __init__(
        self,
        path: Path,
        source: str,
        *,
        now: Callable[[], datetime] = utc_now,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        lock_timeout_seconds: float = 5.0,
    ) -> None:
        self.path = path
        self.source = source
        self._now = now
        self._mono_ns = mono_ns
        self._lock_timeout_seconds = lock_timeout_seconds
        self._left: tuple[_Stamp, journal.Head] | None = None

    def append(self, event: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Append one record and return it; it is on disk when this returns."""
        return self._append([(event, fields)], sync=True)[1]

    def append_all(self, events: Iterable[tuple[str, Mapping[str, Any]]], *, sync: bool = True) -> int:
        """Append several records by one write and one fsync; without ``sync`` the next one's fsync is theirs too.

        ``events`` is read one by one, and none of its records is kept. Returns their number. Raises
        :class:`journal.JournalError` if the last line was edited or a record cannot be written as JSON, and :class:`OSError`
        (disk full, locked) with the file as it was before.
        """
        return self._append(events, sync=sync)[0]

    def _append(
        self, events: Iterable[tuple[str, Mapping[str, Any]]], *, sync: bool
    ) -> tuple[int, dict[str, Any]]:
        """Number of ``events``, and the last record."""
        existed = self.path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(self.path, flags, files.FILE_MODE)
        try:
            files.lock(fd, timeout_seconds=self._lock_timeout_seconds, what=str(self.path))
            head, end, torn = self._end(fd)
            aside = self._aside() if torn else self.path
            repair = [("journal_repaired", _repaired(torn, aside))] if torn else []
            record: dict[str, Any] = {}
            lines: list[str] = []
            for event, fields in itertools.chain(repair, events):
                record = journal.make_record(
                    head,
                    ts=self._now(),
                    mono_ns=self._mono_ns(),
                    source=self.source,
                    event=event,
                    fields=fields,
                )
                head = journal.head_of(record)
                lines.append(journal.canonical_json(record) + "\n")
            self._left = None
            if torn:
                # Only now that nothing but the disk can fail: without the record, nothing would say what was cut off.
                self._set_aside(torn, aside)
                os.ftruncate(fd, end)
            try:
                self._write(fd, end, "".join(lines), sync=sync)
            except OSError:
                # Its space was there a moment ago; and where it is not any more, the copy aside has it.
                if torn:
                    with contextlib.suppress(OSError):
                        os.write(fd, torn)
                raise
            self._left = (_stamp(fd), head)
        finally:
            os.close(fd)
        if not existed:
            files.fsync_directory(self.path.parent)
        return len(lines) - len(repair), record

    @staticmethod
    def _write(fd: int, end: int, text: str, *, sync: bool) -> None:
        data = memoryview(text.encode("ascii"))
        try:
            while data:
                data = data[os.write(fd, data) :]
            if sync:
                os.fsync(fd)
        except OSError:
            # A half-written line would look torn to the next writer; better that it never was.
            os.ftruncate(fd, end)
            raise

    def _end(self, fd: int) -> tuple[journal.Head, int, bytes]:
        """As :meth:`_tail`, without reading a file that is as this writer has left it."""
        stamp = _stamp(fd)
        if self._left is not None and self._left[0] == stamp:
            return self._left[1], stamp[2], b""
        return self._tail(fd)

    def _tail(self, fd: int) -> tuple[journal.Head, int, bytes]:
        """Head of the chain, offset in bytes just after its last complete line, and what follows."""
        size = os.fstat(fd).st_size
        start, data = size, b""
        # Two newlines are needed to hold a whole line, unless the file begins within the block.
        while start > 0 and data.count(b"\n") < 2:
            step = min(_BLOCK_BYTES, start)
            start -= step
            data = os.pread(fd, step, start) + data
        complete, newline, torn = data.rpartition(b"\n")
        if not newline:
            return journal.Head(), 0, torn
        last = complete.rpartition(b"\n")[2]
        try:
            record = journal.parse_record(last.decode("ascii", "replace"))
        except journal.JournalError as error:
            raise journal.JournalError(f"{self.path}: last line: {error}") from error
        return journal.head_of(record), size - len(torn), torn

    def _aside(self) -> Path:
        stamp = self._now().strftime("%Y%m%dT%H%M%S%fZ")
        return self.path.with_name(f"{self.path.name}.torn-{stamp}")

    @staticmethod
    def _set_aside(torn: bytes, aside: Path) -> None:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, files.FILE_MODE)
        with os.fdopen(fd, "wb") as stream:
            stream.write(torn)
            stream.flush()
            os.fsync(stream.fileno())
        files.fsync_directory(aside.parent)

    def read_from(self, head: journal.Head, offset_bytes: int) -> tuple[list[dict[str, Any]], int]:
        """Records after ``head``, whose line ends at ``offset_bytes``, and the offset after the last.

        Torn bytes at the end are left out. Raises :class:`journal.JournalError` if the file is
        shorter than that or the chain does not go on from ``head``.
        """
        try:
            with self.path.open("rb") as stream:
                stream.seek(0, os.SEEK_END)
                if stream.tell() < offset_bytes:
                    raise journal.JournalError(
                        f"{self.path} has {stream.tell()} bytes, but {offset_bytes} were once recorded: cut off"
                    )
                stream.seek(offset_bytes)
                data = stream.read()
        except FileNotFoundError:
            if offset_bytes:
                raise journal.JournalError(f"{self.path} is gone") from None
            return [], 0
        complete = data[: data.rfind(b"\n") + 1]
        records: list[dict[str, Any]] = []
        for line in complete.decode("ascii", "replace").split("\n")[:-1]:
            try:
                record = journal.parse_record(line)
                journal.check_link(head, record)
            except journal.JournalError as error:
                raise journal.JournalError(f"{self.path}: after record {head.seq}: {error}") from error
            head = journal.head_of(record)
            records.append(record)
        return records, offset_bytes + len(complete)

    def records(self) -> list[dict[str, Any]]:
        """All complete records. Raises :class:`journal.JournalError` at the first broken link."""
        return self.read_from(journal.Head(), 0)[0]

    def verify(self, anchor: journal.Head | None = None) -> journal.ChainReport:
        """Follow the whole chain; a torn end is a problem here, though :meth:`append` would mend it."""
        data = self.path.read_bytes() if self.path.exists() else b""
        complete, newline, torn = data.decode("ascii", "replace").rpartition("\n")
        report = journal.verify_chain(complete.split("\n") if newline else [], anchor=anchor)
        if report.ok and torn:
            problem = "the last line has no end: torn by a crash; the next append will set it aside"
            line = report.records + 1
            return journal.ChainReport(False, report.records, report.head, line, problem)
        return report


def _repaired(torn: bytes, aside: Path) -> dict[str, Any]:
    """What the journal says of bytes that were set aside."""
    return {
        "torn_bytes": len(torn),
        "torn_sha256": hashlib.sha256(torn).hexdigest(),
        "quarantined_to": aside.name,
    }
