# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive of WAL-G holds, from the names and sizes of its objects and its small JSON files. Pure.

Nothing is taken from WAL-G's own listing: v0.2.19 says "No backups found" with a wrong key, and the order of its list differs
between versions. The layout is that of v0.2.19 and v3.0.9, which differ in where the list of files is.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .wal_names import SEGMENT_BYTES, Branch, Segment, lsn_text, owner_of, parse_history, parse_segment, runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BACKUPS = "basebackups_005/"
WAL = "wal_005/"
SENTINEL = "_backup_stop_sentinel.json"
METADATA = "/metadata.json"
FILES_METADATA = "/files_metadata.json"
"""Where v3 has the list of parts, which v0.2.19 has in the sentinel."""
FROZEN = frozenset({"GLACIER", "DEEP_ARCHIVE", "Archive", "ColdArchive", "DeepColdArchive"})
"""Storage classes of S3 and OSS that take hours to be readable again."""
MOST_MISSING = 1000
"""So many segments that are not there are named."""
_NAME = re.compile(r"base_([0-9A-F]{24})(_D_[0-9A-F]{24})?")
_V3 = 2
"""Version of a sentinel whose list of files lies beside it."""
_LSN_END = 2**64
_ENDINGS = frozenset({"", ".lz4", ".lzma", ".zst", ".br", ".lzo"})
"""What WAL-G puts after a name, by the way the object is compressed."""


@dataclass(frozen=True)
class StoredObject:
    """One object: its name below the archive's prefix, its size in bytes, when it was written (seconds since 1970, UTC).

    ``storage_class`` is the store's own word, empty where it has none.
    """

    name: str
    size: int
    modified: float
    storage_class: str = ""


class CatalogError(Exception):
    """An object of the archive does not say what it should; the message names it."""


@dataclass(frozen=True)
class Backup:
    """One finished backup. LSNs are bytes from LSN 0, sizes bytes, moments UTC.

    ``parts`` are the names of its tar files that its sentinel lists, None when it lists none; ``objects`` is what the store has.
    """

    name: str
    timeline: int
    start_time: datetime
    finish_time: datetime
    start_lsn: int
    finish_lsn: int
    pg_version: int
    system_identifier: str
    hostname: str
    is_permanent: bool
    uncompressed_size: int
    compressed_size: int
    delta_from: str | None
    parts: tuple[str, ...] | None
    objects: tuple[StoredObject, ...]

    @property
    def stored_size(self) -> int:
        """Bytes of its tar files that the store has."""
        return sum(item.size for item in self.objects if "/tar_partitions/" in item.name)


@dataclass(frozen=True)
class Unfinished:
    """Objects of a backup that has no sentinel: one that is under way, or was broken off. ``modified`` is its newest object's."""

    name: str
    size: int
    modified: float


@dataclass(frozen=True)
class Window:
    """What can be recovered to from one backup, along one lineage of timelines.

    From ``begin_lsn``, where the backup becomes consistent, to ``end_lsn``, the end of the last segment before a gap (or of
    the newest one). ``missing`` are the first of the segments that are not there although a later one, or the backup, needs them.
    """

    backup: str
    timeline: int
    begin_lsn: int
    end_lsn: int
    begin_time: datetime
    missing: tuple[str, ...]
    missing_count: int

    @property
    def recoverable(self) -> bool:
        """Whether the backup can be recovered at all: WAL from its start to its end is there."""
        return self.end_lsn >= self.begin_lsn

    def as_dict(self) -> dict[str, Any]:
        """Plain values; LSNs as PostgreSQL prints them."""
        return {
            "backup": self.backup,
            "timeline": self.timeline,
            "recoverable": self.recoverable,
            "begin_lsn": lsn_text(self.begin_lsn),
            "begin_time": moment(self.begin_time),
            "end_lsn": lsn_text(self.end_lsn) if self.recoverable else None,
            "missing": list(self.missing),
            "missing_count": self.missing_count,
        }


@dataclass(frozen=True)
class Catalog:
    """The archive: finished backups, oldest first by the time they finished; WAL; what belongs to no finished backup.

    ``newest_wal`` is of the newest timeline alone: an old primary that goes on archiving makes nothing young. ``empty`` are WAL
    objects without a byte, which count as not there; ``frozen`` objects of a storage class that has to be thawed before it is read.
    """

    backups: tuple[Backup, ...]
    segments: frozenset[Segment]
    lineages: Mapping[int, tuple[Branch, ...]]
    unfinished: tuple[Unfinished, ...]
    newest_wal: StoredObject | None
    segment_bytes: int = SEGMENT_BYTES
    wal_size: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)
    empty: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()

    def lineage(self, timeline: int) -> tuple[Branch, ...]:
        """How ``timeline`` came to be; one whose history file is not there stands alone."""
        return self.lineages.get(timeline, (Branch(timeline, 0),))

    @property
    def timelines(self) -> frozenset[int]:
        """Every timeline of which there is WAL or a history."""
        return frozenset(self.lineages) | {segment.timeline for segment in self.segments}

    @property
    def top(self) -> int | None:
        """The newest timeline, which production is on or was on last; None for an archive without WAL."""
        return max(self.timelines, default=None)

    @property
    def leaves(self) -> tuple[int, ...]:
        """Timelines that no other one came from, newest first: where WAL goes on, or where somebody's recovery once went."""
        parents = {branch.timeline for one in self.timelines for branch in self.lineage(one)[:-1]}
        return tuple(sorted(self.timelines - parents, reverse=True))

    def reaches(self, backup: Backup, timeline: int) -> bool:
        """Whether ``timeline`` is the backup's own, or came through it after the backup's end."""
        return timeline == backup.timeline or any(
            branch.timeline == backup.timeline and child.begin_lsn >= backup.finish_lsn
            for branch, child in itertools.pairwise(self.lineage(timeline))
        )

    def newest_timeline(self, backup: Backup) -> int:
        """The latest timeline that can be reached from ``backup``."""
        return max((t for t in self.timelines if self.reaches(backup, t)), default=backup.timeline)

    def window(self, backup: Backup, timeline: int | None = None) -> Window:
        """What ``backup`` can be recovered to along ``timeline``, the newest it can reach unless one is named."""
        timeline = self.newest_timeline(backup) if timeline is None else timeline
        lineage = self.lineage(timeline)
        size = self.segment_bytes
        first = backup.start_lsn // size

        def there(number: int) -> bool:
            return Segment(owner_of(lineage, number, size), number) in self.segments

        own = {branch.timeline for branch in lineage}
        # A backup's own WAL is part of it, so that much is wanted even of an archive that ends before.
        last = max(first, (backup.finish_lsn - 1) // size)
        numbers = {
            s.number for s in self.segments if s.timeline in own and s.number >= first and there(s.number)
        }
        # A history proves that there was WAL up to where its timeline begins, archived or not.
        last = max(last, lineage[-1].begin_lsn // size - 1, *numbers)
        # Not number by number: one object with a name from far away would make that for ever.
        gaps = itertools.chain.from_iterable(
            range(begin + 1, end)
            for begin, end in itertools.pairwise((first - 1, *sorted(numbers), last + 1))
        )
        missing = tuple(itertools.islice(gaps, MOST_MISSING))
        return Window(
            backup=backup.name,
            timeline=timeline,
            begin_lsn=backup.finish_lsn,
            end_lsn=(missing[0] if missing else last + 1) * size,
            begin_time=backup.finish_time,
            missing=tuple(Segment(owner_of(lineage, n, size), n).name(size) for n in missing),
            missing_count=last + 1 - first - len(numbers),
        )


def moment(value: datetime) -> str:
    """ISO 8601 in UTC, to the second."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def without_ending(name: str) -> str | None:
    """The WAL file's own name, for an object that is the whole of it; None for anything else.

    ``SEGMENT.partial.lz4`` is the half that a promotion left behind, ``SEGMENT.00000028.backup.lz4`` a backup's label.
    """
    stem, dot, ending = name.partition(".")
    if stem and dot + ending in _ENDINGS:
        return stem
    if ending == "history" or (ending.startswith("history.") and ending[7:] in _ENDINGS):
        return f"{stem}.history"
    return None


def wanted_files(objects: Iterable[StoredObject]) -> list[str]:
    """Names of the small files whose content :func:`catalog` needs: sentinels, metadata, histories."""
    names = [item.name for item in objects]
    sentinels = [n for n in names if n.startswith(BACKUPS) and n.endswith(SENTINEL)]
    known = set(names)
    bases = [n.removesuffix(SENTINEL) for n in sentinels]
    metadata = [base + ending for base in bases for ending in (METADATA, FILES_METADATA)]
    histories = [
        n
        for n in names
        if n.startswith(WAL) and (without_ending(n.removeprefix(WAL)) or "").endswith(".history")
    ]
    return [*sentinels, *(n for n in metadata if n in known), *histories]


def catalog(
    objects: Iterable[StoredObject], files: Mapping[str, Any], segment_bytes: int = SEGMENT_BYTES
) -> Catalog:
    """Read the archive. ``files`` has the content of :func:`wanted_files`: parsed JSON, or the text of a history.

    A file whose content could not be had is given as an Exception. What cannot be understood is told in ``unreadable`` and
    never silently left out.
    """
    listed = list(objects)
    unreadable: dict[str, str] = {}
    by_backup: dict[str, list[StoredObject]] = {}
    finished = []
    for item in listed:
        base = item.name.removeprefix(BACKUPS)
        if base == item.name:
            continue
        if "/" in base:
            by_backup.setdefault(base.partition("/")[0], []).append(item)
        elif base.endswith(SENTINEL):
            finished.append(base.removesuffix(SENTINEL))
    backups = []
    for name in finished:
        try:
            backups.append(_backup(name, files, tuple(by_backup.get(name, ()))))
        except CatalogError as error:
            unreadable[name] = str(error)
    wal = [item for item in listed if item.name.startswith(WAL)]
    segments, lineages = set(), {}
    dated: list[tuple[int, StoredObject]] = []
    for item in wal:
        stem = without_ending(item.name.removeprefix(WAL))
        segment = parse_segment(stem or "", segment_bytes)
        if segment is not None:
            if item.size > 0:
                segments.add(segment)
                dated.append((segment.timeline, item))
        elif stem is not None and stem.endswith(".history"):
            try:
                timeline = int(stem.removesuffix(".history"), 16)
                lineages[timeline] = parse_history(timeline, _content(files, item.name, str))
                dated.append((timeline, item))
            except (ValueError, CatalogError) as error:
                unreadable[item.name] = str(error)
    return Catalog(
        tuple(sorted(backups, key=lambda backup: (backup.finish_time, backup.name))),
        frozenset(segments),
        lineages,
        tuple(
            Unfinished(name, sum(item.size for item in items), max(item.modified for item in items))
            for name, items in sorted(by_backup.items())
            if name not in finished
        ),
        max(dated, key=lambda pair: (pair[0], pair[1].modified))[1] if dated else None,
        segment_bytes,
        sum(item.size for item in wal),
        unreadable,
        tuple(item.name for item in wal if item.size == 0),
        tuple(item.name for item in listed if item.storage_class in FROZEN),
    )


def _content(files: Mapping[str, Any], name: str, kind: type) -> Any:
    found = files.get(name)
    if isinstance(found, kind):
        return found
    why = (
        str(found) if isinstance(found, Exception) else f"a {type(found).__name__}, wanted a {kind.__name__}"
    )
    raise CatalogError(f"{name}: {'not there' if found is None else why}")


def _backup(name: str, files: Mapping[str, Any], objects: tuple[StoredObject, ...]) -> Backup:
    match = _NAME.fullmatch(name)
    if match is None:
        raise CatalogError(f"{name} is no name of a backup: wanted base_ and 24 hex digits")
    sentinel = _content(files, f"{BACKUPS}{name}{SENTINEL}", dict)
    metadata = _content(files, f"{BACKUPS}{name}{METADATA}", dict)
    delta_from = sentinel.get("DeltaFrom") or None
    if (
        not isinstance(sentinel.get("LSN"), int)
        or not isinstance(delta_from, str | None)
        or delta_from == name
    ):
        raise CatalogError(f"{name}{SENTINEL} cannot be understood: LSN or DeltaFrom is none")
    try:
        found = Backup(
            name=name,
            timeline=int(match[1][:8], 16),
            start_time=_moment(metadata["start_time"]),
            finish_time=_moment(metadata["finish_time"]),
            start_lsn=int(metadata["start_lsn"]),
            finish_lsn=int(metadata["finish_lsn"]),
            pg_version=int(metadata["pg_version"]),
            system_identifier=str(metadata["system_identifier"]),
            hostname=str(metadata.get("hostname", "")),
            is_permanent=bool(metadata.get("is_permanent", False)),
            uncompressed_size=int(metadata["uncompressed_size"]),
            compressed_size=int(metadata["compressed_size"]),
            delta_from=delta_from,
            parts=_parts(name, sentinel, files),
            objects=objects,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CatalogError(f"{name}{METADATA} cannot be understood: {error!r}") from error
    if not 0 < found.start_lsn <= found.finish_lsn < _LSN_END or found.compressed_size <= 0:
        said = f"start {found.start_lsn}, finish {found.finish_lsn}, compressed size {found.compressed_size}"
        raise CatalogError(f"{name}{METADATA} cannot be true: {said}")
    return found


def _parts(name: str, sentinel: Mapping[str, Any], files: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the tar files; None for a backup that was taken without a list of them. Raises CatalogError."""
    if sentinel.get("FilesMetadataDisabled") is True:
        return None
    key = f"{BACKUPS}{name}{FILES_METADATA}"
    version = sentinel.get("Version", 0)
    source = _content(files, key, dict) if isinstance(version, int) and version >= _V3 else sentinel
    tars = source.get("TarFileSets")
    if not isinstance(tars, dict) or not tars:
        raise CatalogError(f"{name} lists no parts: TarFileSets is {type(tars).__name__}")
    return tuple(sorted(tars))


def _moment(text: Any) -> datetime:
    found = datetime.fromisoformat(str(text))
    if found.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return found


def segment_runs(found: Catalog) -> list[dict[str, Any]]:
    """The WAL of each timeline as unbroken runs: ``timeline``, ``first``, ``last``, ``count``."""
    result = []
    for timeline in sorted({segment.timeline for segment in found.segments}):
        for first, last in runs(s.number for s in found.segments if s.timeline == timeline):
            names = (Segment(timeline, n).name(found.segment_bytes) for n in (first, last))
            result.append(
                {
                    "timeline": timeline,
                    **dict(zip(("first", "last"), names, strict=True)),
                    "count": last - first + 1,
                }
            )
    return result
