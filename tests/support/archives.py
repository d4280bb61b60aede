# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of WAL-G in memory and on disk, as v0.2.19 lays them out."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from diting.core.backup_catalog import BACKUPS, METADATA, SENTINEL, WAL, Catalog, StoredObject, catalog
from diting.core.wal_names import SEGMENT_BYTES, Segment

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SYSTEM = "7710908455821836243"


@dataclass
class Made:
    """Contents by name; ``ages`` in seconds before NOW."""

    contents: dict[str, bytes] = field(default_factory=dict)
    ages: dict[str, float] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)

    def backup(
        self,
        number: int,
        age: float = 3600.0,
        timeline: int = 1,
        *,
        base: str = "",
        parts: int = 2,
        **metadata: Any,
    ) -> str:
        """One full backup, or a delta to ``base``, that begins in segment ``number`` and ends within it."""
        name = f"base_{Segment(timeline, number).name()}" + (f"_D_{base[5:29]}" if base else "")
        finish = NOW - timedelta(seconds=age)
        tars = {f"part_{part:03}.tar.lz4": b"x" * (100 + part) for part in range(1, parts + 1)}
        for tar, content in tars.items():
            self.put(f"{BACKUPS}{name}/tar_partitions/{tar}", content, age)
        self.put(f"{BACKUPS}{name}/tar_partitions/pg_control.tar.lz4", b"c" * 50, age)
        sentinel: dict[str, Any] = {
            "LSN": number * SEGMENT_BYTES + 40,
            "TarFileSets": {tar: [] for tar in tars},
        }
        if base:
            sentinel["DeltaFrom"] = base
        values = {
            "start_time": (finish - timedelta(seconds=4)).isoformat().replace("+00:00", "Z"),
            "finish_time": finish.isoformat().replace("+00:00", "Z"),
            "start_lsn": number * SEGMENT_BYTES + 40,
            "finish_lsn": number * SEGMENT_BYTES + 10024,
            "pg_version": 150020,
            "system_identifier": int(SYSTEM),
            "hostname": "pg1",
            "is_permanent": False,
            "uncompressed_size": 3000,
            "compressed_size": 50 + sum(map(len, tars.values())),
            **metadata,
        }
        self.put(f"{BACKUPS}{name}{SENTINEL}", json.dumps(sentinel).encode(), age)
        self.put(f"{BACKUPS}{name}{METADATA}", json.dumps(values).encode(), age)
        return name

    def wal(self, *numbers: int, timeline: int = 1, age: float = 60.0, ending: str = ".lz4") -> None:
        """Whole segments."""
        for number in numbers:
            self.put(f"{WAL}{Segment(timeline, number).name()}{ending}", b"w", age)

    def history(self, timeline: int, *switches: tuple[int, str], age: float = 60.0) -> None:
        """``switches`` are (parent, LSN at which it ended)."""
        text = "".join(f"{parent}\t{lsn}\tno recovery target specified\n" for parent, lsn in switches)
        self.put(f"{WAL}{timeline:08X}.history", text.encode(), age)

    def put(self, name: str, content: bytes, age: float = 60.0) -> None:
        """One object."""
        self.contents[name], self.ages[name] = content, age

    def objects(self) -> list[StoredObject]:
        """As a store lists them."""
        at = NOW.timestamp()
        return [
            StoredObject(name, len(content), at - self.ages[name], self.classes.get(name, ""))
            for name, content in sorted(self.contents.items())
        ]

    def catalog(self) -> Catalog:
        """As it is read when everything can be read."""
        files: dict[str, Any] = {}
        for name, content in self.contents.items():
            if name.endswith(".json"):
                try:
                    files[name] = json.loads(content)
                except ValueError as error:
                    files[name] = error
            elif ".history" in name:
                files[name] = content.decode()
        return catalog(self.objects(), files)

    def write(self, root: Path) -> None:
        """As files, for the loader of directories."""
        for name, content in self.contents.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def flip(path: Path) -> None:
    """Spoil an object that lz4 has compressed by one bit in its middle, or by the next one that matters.

    Not each does: of a match among equal bytes another distance says the same.
    """
    raw = path.read_bytes()
    whole = _decoded(raw)
    for place in range(len(raw) // 2, len(raw)):
        spoilt = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        if _decoded(spoilt) != whole:
            path.write_bytes(spoilt)
            return
    raise AssertionError(f"{path}: no bit of its second half matters")


def _decoded(raw: bytes) -> bytes | None:
    """What lz4 makes of it; None when it finds it damaged."""
    done = subprocess.run(("lz4", "-d", "-c"), input=raw, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None
