# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the objects of an archive to their end, and say which of them do not hold what they should.

What is read: the parts of backups as tar files, whole segments page by page, histories line by line. Each object goes through
ordinary programs (:mod:`.archive_decode`), so that a truncated one or a flipped bit is found by the checksums of the compression
and of the encryption. Damage that was stored as such, before compression, only a restore finds.
"""

from __future__ import annotations

import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.backup_catalog import BACKUPS, WAL, StoredObject, without_ending
from ..core.backup_content import Content
from ..core.wal_segment import BadFileError, check
from .archive_decode import CannotDecodeError, DecodeError, Decoder
from .archive_store import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

    from .archive_store import Archive

_BLOCK_BYTES = 2**20


@dataclass
class _Counted:
    """Pieces of an object, and how many bytes they were."""

    pieces: Iterator[bytes]
    size: int = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.size += len(piece)
            yield piece


class ContentReader:
    """Reads objects of one archive, ``workers`` at a time, and begins none after ``seconds``.

    ``segment_bytes`` is the length that a whole segment has to have.
    """

    def __init__(
        self, archive: Archive, decoder: Decoder, segment_bytes: int, workers: int, seconds: float
    ) -> None:
        self._archive = archive
        self._decoder = decoder
        self._segment_bytes = segment_bytes
        self._workers = workers
        self._seconds = seconds

    def read(self, objects: Sequence[StoredObject]) -> Content:
        """Read them all, as far as there is time."""
        begun = time.monotonic()
        content = Content(wanted=len(objects))

        def one(item: StoredObject) -> None:
            if time.monotonic() - begun > self._seconds:
                return
            try:
                size = self._one(item)
            except (DecodeError, BadFileError) as error:
                content.damaged[item.name] = str(error)
            except (ArchiveError, CannotDecodeError) as error:
                content.unread[item.name] = str(error)
            else:
                content.good.append((item.name, size))

        with ThreadPoolExecutor(self._workers) as pool:
            list(pool.map(one, objects))
        content.seconds = time.monotonic() - begun
        return content

    def _one(self, item: StoredObject) -> int:
        """Bytes that were read. Raises what :meth:`read` sorts."""
        counted = _Counted(self._archive.chunks(item.name))
        with self._decoder.stream(item.name, counted) as stream:
            if item.name.startswith(WAL):
                self._wal(item.name, stream)
            elif "/tar_partitions/" in item.name:
                _tar(item.name, stream)
        if counted.size != item.size:
            raise DecodeError(f"{item.name} has {counted.size} bytes, the list of the store says {item.size}")
        return counted.size

    def _wal(self, name: str, stream: IO[bytes]) -> None:
        stem = without_ending(name.removeprefix(WAL))
        if stem is None:
            return
        data = stream.read(self._segment_bytes + 1)
        if not stem.endswith(".history") and len(data) != self._segment_bytes:
            found = f"more than {self._segment_bytes}" if len(data) > self._segment_bytes else len(data)
            raise BadFileError(f"{name} holds {found} bytes, wanted {self._segment_bytes}")
        try:
            check(stem, data, None, None)
        except BadFileError as error:
            raise BadFileError(f"{name}: {error}") from error


def _tar(name: str, stream: IO[bytes]) -> None:
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                while content is not None and content.read(_BLOCK_BYTES):
                    pass
    except (tarfile.TarError, EOFError) as error:
        raise DecodeError(f"{name} is damaged: not a whole tar file: {error}") from error


def readable(objects: Sequence[StoredObject]) -> list[StoredObject]:
    """Those of the objects whose content can be looked at: parts of backups, and WAL."""
    return [
        o
        for o in objects
        if o.name.startswith(WAL) or (o.name.startswith(BACKUPS) and "/tar_partitions/" in o.name)
    ]
