# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules over an archive in a directory: what they return, and that "could not look" is never "nothing there"."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.diting.dr.plugins.modules import backup_info, backup_verify
from diting.hostio.archive_store import ArchiveError, open_archive
from support.archives import NOW, SYSTEM, Made


@pytest.fixture
def archive(tmp_path):
    """A directory with one backup and its WAL, and WAL-G's settings for it. Its times are a minute ago."""
    root = tmp_path / "archive"
    made = Made()
    age = 60 - (datetime.now(UTC) - NOW).total_seconds()
    made.backup(6, age=age)
    made.wal(6, 7)
    made.write(root)
    settings = tmp_path / "wal-g.json"
    settings.write_text(json.dumps({"WALG_FILE_PREFIX": str(root)}))
    return root, settings


@pytest.fixture
def call(capsys):
    def call(module, settings, **arguments):
        with patch_module_args({"settings_file": str(settings), **arguments}), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_info_lists_backups_and_windows(archive, call):
    found = call(backup_info, archive[1])
    assert (found["changed"], found["unreadable"], found["unfinished"]) == (False, {}, [])
    assert [backup["name"] for backup in found["backups"]] == ["base_000000010000000000000006"]
    assert found["windows"][0]["end_lsn"] == "0/8000000"
    first, last = "000000010000000000000006", "000000010000000000000007"
    assert found["wal"] == [{"timeline": 1, "first": first, "last": last, "count": 2}]


def test_verify_finds_it_healthy(archive, call):
    found = call(backup_verify, archive[1], system_identifier=SYSTEM, maximum_wal_age_seconds=600)
    assert (found["verdict"], found["reasons"]) == ("HEALTHY", [])


def test_verify_asks_for_a_proof_where_it_is_told_to(archive, call, tmp_path):
    wanted = {"maximum_proof_age_seconds": 600.0, "records_dir": str(tmp_path / "records")}
    assert [r["code"] for r in call(backup_verify, archive[1], **wanted)["reasons"]] == ["no_proof"]
    (tmp_path / "records").mkdir()
    record = {
        "id": "r",
        "ended": datetime.now(UTC).timestamp() - 60,
        "verdict": "HEALTHY",
        "system_identifier": SYSTEM,
    }
    (tmp_path / "records/r.json").write_text(json.dumps(record))
    assert call(backup_verify, archive[1], **wanted)["verdict"] == "HEALTHY"
    (tmp_path / "records/s.json").write_text("{")
    found = call(backup_verify, archive[1], **wanted)
    assert (found["verdict"], found["reasons"][0]["code"]) == ("UNKNOWN", "records_unreadable")


def test_verify_fails_where_it_is_told_to(archive, call):
    root, settings = archive
    (root / "wal_005/000000010000000000000006.lz4").unlink()
    found = call(backup_verify, settings, fail_on=["UNHEALTHY"])
    assert found["failed"]
    assert found["msg"].startswith(f"backup_not_good: the archive of {settings} is UNHEALTHY: ")
    assert "000000010000000000000006" in found["msg"]
    assert "failed" not in call(backup_verify, settings)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root, settings: settings.unlink(), "No such file"),
        (lambda root, settings: settings.write_text("{"), "is not JSON"),
        (lambda root, settings: settings.write_text("[]"), "wanted an object of WAL-G's settings"),
        (lambda root, settings: settings.write_text("{}"), "found no prefix in the settings"),
        (
            lambda root, settings: settings.write_text('{"WALG_OSS_PREFIX": "oss://b/x"}'),
            "found WALG_OSS_PREFIX in the settings",
        ),
        (
            lambda root, settings: settings.write_text(
                json.dumps({"WALG_FILE_PREFIX": str(root), "WALG_S3_PREFIX": "s3://b/x"})
            ),
            "nobody can tell which WAL-G writes to",
        ),
        (lambda root, settings: root.rename(root.with_name("away")), "is it mounted?"),
    ],
)
def test_what_cannot_be_looked_at_is_unknown_and_never_empty(archive, call, spoil, words):
    spoil(*archive)
    verdict = call(backup_verify, archive[1], fail_on=["UNKNOWN"])
    assert (verdict["verdict"], verdict["failed"]) == ("UNKNOWN", True)
    assert words in verdict["msg"]
    info = call(backup_info, archive[1])
    assert info["failed"]
    assert info["msg"].startswith("could_not_look: ")
    assert "backups" not in info


@pytest.mark.parametrize("size", [0, 3, 2**19, 2**31, 3 * 2**20])
def test_a_length_that_no_segment_has_is_refused(archive, call, size):
    assert f"wal_segment_bytes is {size}" in call(backup_info, archive[1], wal_segment_bytes=size)["msg"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("content_workers", 0), ("content_sample", -1), ("content_seconds", -1), ("maximum_age_seconds", -1)],
)
def test_a_number_that_is_none_is_refused_by_name(archive, call, name, value):
    found = call(backup_verify, archive[1], **{name: value})
    assert found["failed"]
    assert found["msg"].startswith(f"{name} is {value}")


def test_a_list_that_a_store_cuts_off_is_not_the_whole(monkeypatch):
    """As a store answers that knows only the older way of asking."""
    archive = open_archive({"WALG_S3_PREFIX": "s3://bucket/c1", "AWS_ENDPOINT": "http://127.0.0.1:1"})
    page = {"IsTruncated": True, "Contents": []}
    paginator = SimpleNamespace(paginate=lambda **_where: [page])
    monkeypatch.setattr(archive, "_client", SimpleNamespace(get_paginator=lambda _name: paginator))
    with pytest.raises(ArchiveError, match="does not say how to go on"):
        archive.objects()


def test_an_s3_prefix_without_a_bucket_is_refused():
    with pytest.raises(ArchiveError, match="wanted s3://bucket/path"):
        open_archive({"WALG_S3_PREFIX": "bucket/path"})
