# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""An archive as WAL-G writes it into a store: understood, read without WAL-G, and never mistaken when it cannot be."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pytest

from ansible_collections.diting.dr.plugins.modules.backup_info import result_of
from diting.core.wal_names import SEGMENT_BYTES
from diting.hostio import archive_store
from diting.hostio.archive_content import ContentReader, readable
from diting.hostio.archive_decode import CannotDecodeError, Decoder
from diting.hostio.archive_store import ArchiveError, look_at
from support.pgp_keys import pgp_key
from support.servers import own, wait_until
from support.wal_cluster import BlackHole, Cluster, Host, S3Server
from support.wal_fixtures import archiving, base, black_hole, cluster, clusters, host, pristine, store  # noqa: F401 - fixtures
from support.walg_archive import archived, codes, files, only, read_all, seen  # noqa: F401 - fixtures

pytestmark = pytest.mark.process


def test_what_walg_wrote_is_understood_and_can_be_read_without_it(
    archived: dict[str, str], archiving: Cluster, store: S3Server
) -> None:
    info = result_of(look_at(archived, SEGMENT_BYTES).catalog)
    assert info["unreadable"] == {}
    (backup,) = info["backups"]
    system = archiving.sql("select system_identifier from pg_control_system()")
    assert (backup["system_identifier"], backup["timeline"]) == (system, 1)
    # It writes the sum down before the last few bytes are out.
    assert 0 <= backup["stored_size"] - backup["compressed_size"] < 100
    assert backup["compressed_size"] > 10**6
    (window,) = info["windows"]
    assert (window["timeline"], window["recoverable"], window["missing"]) == (2, True, [])
    # Up to the end of the newest segment there is, as the server itself says where that is.
    ahead = archiving.sql(f"select pg_current_wal_lsn() - '{window['end_lsn']}'::pg_lsn")
    assert int(ahead) < SEGMENT_BYTES
    found = seen(archived, system_identifier=system, max_wal_age_seconds=600)
    assert (found["verdict"], found["reasons"]) == ("HEALTHY", [])
    # The same as a directory.
    assert result_of(look_at(files(store.path("")), SEGMENT_BYTES).catalog) == info

    content = read_all(archived)
    assert (content.damaged, content.unread) == ({}, {})
    names = [*store.objects(), *(n for n in store.objects("basebackups_005") if "tar_partitions" in n)]
    assert len(content.good) == content.wanted == len(names)

    # An object that goes away after it was listed: nobody can say that it was damaged.
    look = look_at(archived, SEGMENT_BYTES)
    only(store.path(""), "00000002.history.lz4").unlink()
    with Decoder(archived) as decoder:
        content = ContentReader(look.archive, decoder, SEGMENT_BYTES, 2, 60).read(readable(look.objects))
    assert (list(content.unread), content.damaged) == (["wal_005/00000002.history.lz4"], {})
    assert "NoSuchKey" in content.unread["wal_005/00000002.history.lz4"]


def test_an_encrypted_archive_is_read_with_its_key_and_with_no_other(
    archiving: Cluster, host: Host, store: S3Server, base: Path
) -> None:
    """A wrong key says nothing about the objects: they may be as they should."""
    keys = {name: base / f"{name}.asc" for name in ("right", "wrong")}
    for name, path in keys.items():
        path.write_text(pgp_key(base / name))
        own(path)
    settings = store.settings(WALG_PGP_KEY_PATH=str(keys["right"]))
    host.write(settings)
    segment = archiving.fill_segment()
    wait_until("it is archived", lambda: f"{segment}.lz4" in store.objects())
    name = f"wal_005/{segment}.lz4"
    content = read_all(settings)
    assert (content.damaged, content.unread) == ({}, {})
    assert name in dict(content.good)

    content = read_all({**settings, "WALG_PGP_KEY_PATH": str(keys["wrong"])})
    assert (content.good, content.damaged) == ([], {})
    assert "is encrypted by another key: gpg says" in content.unread[name]
    with pytest.raises(CannotDecodeError, match="No such file"):
        read_all({**settings, "WALG_PGP_KEY_PATH": str(base / "none.asc")})
    keys["wrong"].write_text("no key at all")
    with pytest.raises(CannotDecodeError, match="the PGP key of the settings is none"):
        read_all({**settings, "WALG_PGP_KEY_PATH": str(keys["wrong"])})
    left = [path for where in ("/run", tempfile.gettempdir()) for path in Path(where).glob("dkey-*")]
    assert left == [], "the key is taken away"
    # Without any key it is damage: nothing tells that it is encrypted.
    assert name in read_all(store.settings()).damaged
    raw = bytearray(store.path(name).read_bytes())
    raw[len(raw) // 2] ^= 1
    store.path(name).write_bytes(raw)
    assert "gpg says" in read_all(settings).damaged[name]


def test_an_empty_store_is_no_backup(store: S3Server) -> None:
    assert codes(seen(store.settings())) == ["no_backup", "wal_old"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch (status 403)"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "(status 40"),
        ({"WALG_S3_PREFIX": "s3://other-bucket/c1"}, "NoSuchBucket (status 404)"),
    ],
)
def test_a_refusal_is_not_an_empty_store(store: S3Server, changes: dict[str, str], words: str) -> None:
    with pytest.raises(ArchiveError) as error:
        look_at(store.settings(**changes), SEGMENT_BYTES)
    assert words in str(error.value)
    assert "secret" not in str(error.value)


def test_a_dead_store_and_one_that_hangs_are_told(
    store: S3Server, black_hole: BlackHole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_store, "READ_SECONDS", 0.3)
    store.stop()
    with pytest.raises(ArchiveError, match="could not be listed: Could not connect"):
        look_at(store.settings(), SEGMENT_BYTES)
    begun = time.monotonic()
    with pytest.raises(ArchiveError, match="could not be listed: Read timeout"):
        look_at(store.settings(AWS_ENDPOINT=f"http://127.0.0.1:{black_hole.port}"), SEGMENT_BYTES)
    assert time.monotonic() - begun < 30


def test_a_program_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("lz4"), "the test means nothing without it"
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(CannotDecodeError, match="needs the program lz4, which is not installed here"),
        Decoder({}) as decoder,
    ):
        decoder.read("00000002.history.lz4", b"x")
