# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the objects of an archive to their end, and say which of them do not hold what they should.

What is read: the parts of backups as tar files, whole segments page by page, histories line by line. Each object goes through
ordinary programs (:mod:`.archive_decode`), so that a truncated one is found, and a flipped bit by the checksum of the compression or of
the encryption; what has neither is told. Damage that was stored as such, before compression, only a restore finds.
"""

from __future__ import annotations

import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.backup_catalog import BACKUPS, WAL, StoredObject, without_ending
from ..core.backup_content import Content
from ..core.verdict import Reason
from ..core.wal_names import parse_segment
from ..core.wal_segment import BadFileError, check
from .archive_decode import CannotDecodeError, DecodeError, Decoder
from .archive_store import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import IO

    from ..core.backup_catalog import Backup
    from .archive_store import Archive, Look

_BLOCK_BYTES = 2**20
_HEAD_BYTES = 16
_TAR_BYTES = 512
_TAR_WITHOUT_DATA = frozenset(
    {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE}
)


@dataclass
class _Counted:
    """Pieces of an object, how many bytes they were, and the first few of these."""

    pieces: Iterator[bytes]
    size: int = 0
    head: bytes = b""

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.size += len(piece)
            if len(self.head) < _HEAD_BYTES:
                self.head = (self.head + piece)[:_HEAD_BYTES]
            yield piece


class ContentReader:
    """Reads objects of one archive, ``workers`` at a time, and begins none after ``seconds``.

    ``segment_bytes`` is the length that a whole segment has to have, ``system`` the cluster that it has to be of, if known.
    """

    def __init__(
        self,
        archive: Archive,
        decoder: Decoder,
        segment_bytes: int,
        workers: int,
        seconds: float,
        system: int | None = None,
    ) -> None:
        self._archive = archive
        self._decoder = decoder
        self._segment_bytes = segment_bytes
        self._workers = workers
        self._seconds = seconds
        self._system = system

    def read(self, objects: Sequence[StoredObject]) -> Content:
        """Read them all, as far as there is time."""
        begun = time.monotonic()
        content = Content(wanted=len(objects))

        def one(item: StoredObject) -> None:
            if time.monotonic() - begun > self._seconds:
                return
            try:
                counted = self._one(item)
            except (DecodeError, BadFileError) as error:
                content.damaged[item.name] = str(error)
            except (ArchiveError, CannotDecodeError) as error:
                content.unread[item.name] = str(error)
            except Exception as error:  # noqa: BLE001 - a fault of our own must not be taken for a good object
                content.unread[item.name] = f"{item.name}: {type(error).__name__}: {error}"
            else:
                content.good.append((item.name, counted.size))
                if not self._decoder.proves(item.name, counted.head):
                    content.unproven.append(item.name)

        with ThreadPoolExecutor(self._workers) as pool:
            list(pool.map(one, objects))
        content.seconds = time.monotonic() - begun
        return content

    def _one(self, item: StoredObject) -> _Counted:
        """What was read. Raises what :meth:`read` sorts."""
        counted = _Counted(self._archive.chunks(item.name))
        with self._decoder.stream(item.name, counted) as stream:
            if item.name.startswith(WAL):
                self._wal(item.name, stream)
            elif "/tar_partitions/" in item.name:
                _tar(item.name, stream)
        if counted.size != item.size:
            raise DecodeError(f"{item.name} has {counted.size} bytes, the list of the store says {item.size}")
        return counted

    def _wal(self, name: str, stream: IO[bytes]) -> None:
        stem = without_ending(name.removeprefix(WAL))
        is_segment = parse_segment(stem or "", self._segment_bytes) is not None
        if stem is None or not (is_segment or stem.endswith(".history")):
            return
        data = stream.read(self._segment_bytes + 1)
        if is_segment and len(data) != self._segment_bytes:
            found = f"more than {self._segment_bytes}" if len(data) > self._segment_bytes else len(data)
            raise BadFileError(f"{name} holds {found} bytes, wanted {self._segment_bytes}")
        try:
            check(stem, data, self._system, None)
        except BadFileError as error:
            raise BadFileError(f"{name}: {error}") from error


def read_backups(
    look: Look, backups: Iterable[Backup], segment_bytes: int, workers: int, seconds: float
) -> Content | Reason:
    """Read all parts of these backups to their end; a Reason says why none of them can be."""
    wanted = readable([item for backup in backups for item in backup.objects])
    try:
        with Decoder(look.settings) as decoder:
            return ContentReader(look.archive, decoder, segment_bytes, workers, seconds).read(wanted)
    except CannotDecodeError as error:
        return Reason("content_not_read", str(error))


def _tar(name: str, stream: IO[bytes]) -> None:
    """Walk a tar file to its end, which are two blocks of zeros and nothing else after them.

    ``tarfile`` takes a damaged header, or an end without those, for the end of the archive.
    """
    while True:
        block = _exactly(name, stream, _TAR_BYTES)
        if block == bytes(_TAR_BYTES):
            break
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise DecodeError(f"{name} is damaged: not a whole tar file: {error}") from error
        left = 0 if member.type in _TAR_WITHOUT_DATA else -(-member.size // _TAR_BYTES) * _TAR_BYTES
        while left > 0:
            left -= len(_exactly(name, stream, min(left, _BLOCK_BYTES)))
    while rest := stream.read(_BLOCK_BYTES):
        block += rest
        if any(rest):
            raise DecodeError(f"{name} is damaged: data follow the end of the tar file")
        block = block[: 2 * _TAR_BYTES]
    if len(block) < 2 * _TAR_BYTES:
        raise DecodeError(f"{name} is damaged: the tar file lacks its end")


def _exactly(name: str, stream: IO[bytes], size: int) -> bytes:
    block = stream.read(size)
    if len(block) < size:
        raise DecodeError(f"{name} is damaged: the tar file ends in the middle of a member")
    return block


def readable(objects: Sequence[StoredObject]) -> list[StoredObject]:
    """Those of the objects whose content can be looked at: parts of backups, and WAL."""
    return [
        o
        for o in objects
        if o.name.startswith(WAL) or (o.name.startswith(BACKUPS) and "/tar_partitions/" in o.name)
    ]
