# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that WAL-G really wrote: in a store that runs, or a copy in a directory. A test file imports what it uses."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from diting.core.backup_content import Content
from diting.core.backup_judge import Limits, judge
from diting.core.wal_names import SEGMENT_BYTES
from diting.hostio.archive_content import ContentReader, readable
from diting.hostio.archive_decode import Decoder
from diting.hostio.archive_store import look_at
from support.servers import as_postgres, own, wait_until
from support.wal_cluster import BIN, Cluster, Host, S3Server
from support.wal_compat import install_compat

_MADE: list[Path] = []


@pytest.fixture
def archived(archiving: Cluster, host: Host, store: S3Server, base: Path) -> dict[str, str]:
    """Settings of a store with a backup, the WAL after it, and a second timeline."""
    where = {"PGHOST": str(archiving.socket_dir), "PGPORT": str(archiving.port), "PGUSER": "postgres"}
    settings = store.settings(**where, PGDATABASE="postgres")
    host.write(settings)
    install_compat(archiving, base)
    archiving.fill_segment()
    done = as_postgres(BIN / "bin/diting-wal", "--config", host.wrapper_config, "first-backup", cwd=host.root)
    assert done.returncode == 0, done.stdout + done.stderr
    archiving.fill_segment()
    archiving.stop()
    (archiving.data / "standby.signal").touch()
    own(archiving.data / "standby.signal")
    archiving.configure(restore_command=host.restore())
    archiving.start()
    archiving.sql("select pg_promote()")
    wait_until("it is a primary", lambda: archiving.sql("select pg_is_in_recovery()") == "f")
    last = archiving.fill_segment()
    assert last.startswith("00000002"), last
    wanted = {f"{last}.lz4", "00000002.history.lz4"}
    wait_until("all of it is archived", lambda: wanted <= set(store.objects()))
    return settings


@pytest.fixture
def directory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> Path:
    """A copy of such an archive, to be damaged. WAL-G writes it once for all tests of a process."""
    if not _MADE:
        request.getfixturevalue("archived")
        made = tmp_path_factory.mktemp("archive") / "made"
        shutil.copytree(request.getfixturevalue("store").path(""), made)
        _MADE.append(made)
    return Path(shutil.copytree(_MADE[0], tmp_path / "archive"))


def files(directory: Path) -> dict[str, str]:
    """WAL-G's settings for an archive in a directory."""
    return {"WALG_FILE_PREFIX": str(directory)}


def only(directory: Path, pattern: str) -> Path:
    """The one file of that name."""
    (path,) = directory.rglob(pattern)
    return path


def seen(settings: dict[str, str], **limits: Any) -> dict[str, Any]:
    """What the judge says of names and sizes."""
    wanted = Limits(**{"max_age_seconds": 86400, "max_wal_age_seconds": 86400, **limits})
    return judge(look_at(settings, SEGMENT_BYTES).catalog, wanted, datetime.now(UTC)).as_dict()


def codes(found: dict[str, Any]) -> list[str]:
    """The codes of its reasons."""
    return [reason["code"] for reason in found["reasons"]]


def read_all(settings: dict[str, str], seconds: float = 60.0, system: int | None = None) -> Content:
    """Every object read to its end."""
    found = look_at(settings, SEGMENT_BYTES)
    with Decoder(settings) as decoder:
        reader = ContentReader(found.archive, decoder, SEGMENT_BYTES, 2, seconds, system)
        return reader.read(readable(found.objects))
