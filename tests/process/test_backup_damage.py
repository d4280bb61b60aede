# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Every damage to an archive that WAL-G wrote is found and named: by names and sizes, or by reading."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.diting.dr.plugins.modules import backup_verify
from ansible_collections.diting.dr.plugins.modules.backup_info import result_of
from diting.core.backup_content import findings
from diting.core.verdict import Health
from diting.core.wal_names import SEGMENT_BYTES
from diting.hostio.archive_store import look_at
from support.archives import flip
from support.wal_fixtures import archiving, base, cluster, clusters, host, pristine, store  # noqa: F401 - fixtures
from support.walg_archive import archived, codes, directory, files, only, read_all, seen  # noqa: F401 - fixtures

pytestmark = pytest.mark.process

HISTORY = "00000002.history.lz4"
SEGMENT = "00000001000000000000000?.lz4"


def shorten(path: Path) -> None:
    """The last tenth is gone."""
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * 9 // 10])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize(
    ("pattern", "spoil", "code"),
    [
        ("part_001.tar.lz4", shorten, "size_differs"),
        ("part_001.tar.lz4", Path.unlink, "part_missing"),
        ("part_001.tar.lz4", empty, "part_empty"),
        ("metadata.json", Path.unlink, "unreadable"),
        ("metadata.json", shorten, "unreadable"),
        ("*_backup_stop_sentinel.json", Path.unlink, "no_backup"),
        ("*_backup_stop_sentinel.json", shorten, "unreadable"),
        (HISTORY, Path.unlink, "history_missing"),
        (HISTORY, shorten, "unreadable"),
        (HISTORY, empty, "unreadable"),
        (HISTORY, flip, "unreadable"),
    ],
)
def test_damage_is_named_by_names_and_sizes(
    directory: Path, pattern: str, spoil: Callable[[Path], None], code: str
) -> None:
    assert seen(files(directory))["verdict"] == "HEALTHY"
    spoil(only(directory, pattern))
    found = seen(files(directory))
    assert code in codes(found), found
    assert found["verdict"] in {"UNHEALTHY", "UNKNOWN"}


@pytest.mark.parametrize("pattern", ["part_001.tar.lz4", "pg_control.tar.lz4", SEGMENT, HISTORY])
@pytest.mark.parametrize("spoil", [flip, shorten, empty, lengthen])
def test_damage_is_found_by_reading(directory: Path, pattern: str, spoil: Callable[[Path], None]) -> None:
    path = min(directory.rglob(pattern))
    spoil(path)
    content = read_all(files(directory))
    name = str(path.relative_to(directory))
    assert (list(content.damaged), content.unread) == ([name], {})
    assert name in content.damaged[name]
    assert len(content.good) == content.wanted - 1


def test_a_segment_of_another_cluster_is_found_by_reading(directory: Path) -> None:
    """A second cluster that archives into the same prefix, and has taken no backup yet."""
    assert read_all(files(directory)).damaged == {}
    content = read_all(files(directory), system=1)
    assert {name[:8] for name in content.damaged} == {"wal_005/"}
    assert "is of database system" in next(iter(content.damaged.values()))


def repack(path: Path, change: Callable[[bytes], bytes], *program: str) -> None:
    """The same object, changed before it was compressed, so that no checksum of the compression tells."""
    raw = subprocess.run(("lz4", "-d", "-c"), input=path.read_bytes(), capture_output=True, check=True).stdout
    done = subprocess.run(program or ("lz4", "-c"), input=change(raw), capture_output=True, check=True)
    path.write_bytes(done.stdout)


def one_header_off(raw: bytes) -> bytes:
    """The second member's checksum does not hold."""
    first = tarfile.TarInfo.frombuf(raw[:512], "utf-8", "surrogateescape")
    second = 512 + -(-first.size // 512) * 512
    return raw[: second + 5] + bytes([raw[second + 5] ^ 1]) + raw[second + 6 :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (one_header_off, "bad checksum"),
        (lambda raw: raw[:-1024], "in the middle of a member"),
        (lambda raw: raw[:-512], "lacks its end"),
        (lambda raw: raw[:512], "in the middle of a member"),
        (lambda raw: raw + b"x" * 512, "data follow the end"),
        (lambda raw: b"", "in the middle of a member"),
    ],
)
def test_a_tar_file_that_is_none_is_found_by_reading(
    directory: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    path = only(directory, "part_001.tar.lz4")
    raw = subprocess.run(("lz4", "-d", "-c"), input=path.read_bytes(), capture_output=True, check=True).stdout
    assert raw.endswith(bytes(1024)), "as WAL-G ends it"
    repack(path, change)
    assert words in read_all(files(directory)).damaged[str(path.relative_to(directory))]


def test_what_carries_no_checksum_is_not_taken_for_proven(directory: Path) -> None:
    """As WAL-G's own zstd writes it: a wrong byte would be read as if it were right."""
    path = only(directory, HISTORY)
    repack(path, bytes, "zstd", "--no-check", "-c")
    path.rename(path.with_suffix(".zst"))
    content = read_all(files(directory))
    assert (content.damaged, content.unread) == ({}, {})
    assert content.unproven == ["wal_005/00000002.history.zst"]
    ((health, reason),) = findings(content)
    assert (health, reason.code) == (Health.UNKNOWN, "content_unproven")
    repack_checked = subprocess.run(
        ("zstd", "-c"), input=b"1\t0/5000148\tx\n", capture_output=True, check=True
    )
    path.with_suffix(".zst").write_bytes(repack_checked.stdout)
    assert read_all(files(directory)).unproven == []


def test_what_no_program_undoes_is_unread(directory: Path) -> None:
    path = only(directory, HISTORY)
    path.rename(path.with_suffix(".lzo"))
    content = read_all(files(directory))
    assert "for which no program is known" in content.unread["wal_005/00000002.history.lzo"]
    assert content.damaged == {}


def test_a_delta_file_of_walg_is_no_segment(directory: Path) -> None:
    """It lies beside the segments, under the name of one and an ending of its own."""
    path = only(directory, HISTORY)
    (directory / "wal_005/000000010000000000000000_delta.lz4").write_bytes(path.read_bytes())
    content = read_all(files(directory))
    assert (content.damaged, content.unread) == ({}, {})


def test_a_segment_under_another_name_is_found_by_reading(directory: Path) -> None:
    """Whole, and of the right size, but not what its name says."""
    first, second, *_rest = sorted(directory.glob("wal_005/00000001????????????????.lz4"))
    second.write_bytes(first.read_bytes())
    (words,) = read_all(files(directory)).damaged.values()
    assert second.name in words
    assert "page at 0 has" in words


def test_a_segment_that_is_gone_is_named(directory: Path) -> None:
    window = result_of(look_at(files(directory), SEGMENT_BYTES).catalog)["windows"][0]
    segments = {path.name for path in directory.glob("wal_005/????????????????????????.lz4")}
    # The last of the old timeline that is read: the one before the switch.
    gone = max(n for n in segments if n.startswith("00000001") and f"00000002{n[8:]}" not in segments)
    (directory / "wal_005" / gone).unlink()
    found = seen(files(directory))
    assert codes(found) == ["wal_missing"], found
    assert gone.removesuffix(".lz4") in found["reasons"][0]["message"]
    after = result_of(look_at(files(directory), SEGMENT_BYTES).catalog)["windows"][0]
    assert after["end_lsn"] != window["end_lsn"]


def test_what_there_was_no_time_for_is_not_taken_for_good(directory: Path) -> None:
    content = read_all(files(directory), seconds=-1.0)
    assert (content.good, content.damaged) == ([], {})
    ((health, reason),) = findings(content)
    assert (health, reason.code, reason.observed) == (Health.UNKNOWN, "content_not_finished", 0)


def verify(directory: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    """The module as Ansible runs it."""
    settings = directory.parent / "wal-g.json"
    settings.write_text(json.dumps(files(directory)))
    with patch_module_args({"settings_file": str(settings), **options}), pytest.raises(SystemExit):
        backup_verify.main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_module_reads_what_it_is_told_to(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(directory, capsys)["evidence"]["content"] is None
    found = verify(directory, capsys, content="all", fail_on=["UNHEALTHY", "UNKNOWN", "DEGRADED"])
    content = found["evidence"]["content"]
    assert (found["verdict"], content["objects_unread"], content["objects_damaged"]) == ("HEALTHY", 0, 0)
    # The newest backup's parts always, and so many more.
    parts = len(list(directory.rglob("*.tar.lz4")))
    found = verify(directory, capsys, content="sample", content_sample=2)
    assert found["evidence"]["content"]["objects_good"] == parts + 2 < content["objects_good"]

    flip(only(directory, "part_001.tar.lz4"))
    assert verify(directory, capsys)["verdict"] == "HEALTHY", "names and sizes do not tell"
    found = verify(directory, capsys, content="sample", content_sample=0, fail_on=["UNHEALTHY"])
    assert found["failed"]
    assert codes(found) == ["object_damaged"]
    assert "part_001.tar.lz4 is damaged: lz4 says" in found["msg"]


def test_two_clusters_in_one_prefix_are_found(directory: Path) -> None:
    metadata = only(directory, "metadata.json")
    found = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**found, "system_identifier": 1}))
    mine = str(found["system_identifier"])
    assert codes(seen(files(directory), system_identifier=mine)) == ["foreign_backup", "no_backup"]
