# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Two clusters that are pointed at one prefix by mistake: the second is refused, and nothing of the first is touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from support.restore_place import RestorePlace, restore_place  # noqa: F401 - fixtures
from support.servers import as_postgres, own, wait_until
from support.wal_cluster import BIN, Cluster, Host, S3Server, walg
from support.wal_fixtures import archiving, base, cluster, clusters, host, pristine, store  # noqa: F401 - fixtures

pytestmark = pytest.mark.process


def contents(store: S3Server) -> dict[str, str]:
    root = store.path("")
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_second_cluster_in_a_prefix_is_refused_and_nothing_is_overwritten(
    restore_place: RestorePlace, base: Path, store: S3Server
) -> None:
    place = restore_place
    place.back_up()
    first = place.cluster.fill_segment()
    wait_until("it is archived", lambda: f"{first}.lz4" in store.objects())
    before = contents(store)

    (base / "etc2").mkdir()
    own(base / "etc2")
    other_host = Host(base / "etc2", walg())
    other = Cluster.create(base / "other")
    other.configure(unix_socket_directories=str(base), archive_command=other_host.archive())
    other_host.write(store.settings(PGHOST=str(base), PGPORT=str(other.port), PGUSER="postgres"))
    try:
        other.start()
        name = other.fill_segment()
        wait_until(
            "it tried", lambda: int(other.sql("select failed_count from pg_stat_archiver")) > 0, seconds=60
        )
        mine, theirs = (
            one.sql("select system_identifier from pg_control_system()") for one in (place.cluster, other)
        )
        words = f"of database system {mine}, and this one is {theirs}: give each cluster a prefix of its own"
        assert words in other.log.read_text()
        assert other.sql("select archived_count from pg_stat_archiver") == "0"
        for action in (["first-backup"], ["push", "--kind", "full"]):
            done = as_postgres(
                BIN / "bin/diting-wal", "--config", other_host.wrapper_config, *action, cwd=base
            )
            found = json.loads(done.stdout)
            assert (done.returncode, found["changed"]) == (1, False)
            assert [reason["code"] for reason in found["reasons"]] == ["foreign_backup"]
            assert words in found["reasons"][0]["message"]
        done = as_postgres(BIN / "bin/diting-wal", "--config", other_host.wrapper_config, "status", cwd=base)
        assert "foreign_backup" in [reason["code"] for reason in json.loads(done.stdout)["reasons"]]
        assert contents(store) == before

        # In a prefix of its own it archives what has waited.
        other_host.write(
            {
                **store.settings(PGHOST=str(base), PGPORT=str(other.port), PGUSER="postgres"),
                "WALG_S3_PREFIX": store.settings()["WALG_S3_PREFIX"] + "-of-its-own",
            }
        )
        wait_until(
            "it archives",
            lambda: int(other.sql("select archived_count from pg_stat_archiver")) > 0,
            seconds=90,
        )
        assert {name: digest for name, digest in contents(store).items() if name in before} == before, name
    finally:
        other.destroy()
    # The first goes on; whose the archive is was asked once.
    last = place.cluster.fill_segment()
    wait_until("it is archived", lambda: f"{last}.lz4" in store.objects())
    assert (place.host.state / "owner").read_text().startswith(f"{mine} http")


def test_backups_that_say_nothing_and_old_ones_of_another_hold_nothing_up(
    archiving: Cluster, host: Host, store: S3Server
) -> None:
    mine = archiving.sql("select system_identifier from pg_control_system()")

    def backup(number: int, metadata: str) -> None:
        folder = store.path(f"basebackups_005/base_00000001000000000000000{number}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metadata.json").write_text(metadata)
        Path(f"{folder}_backup_stop_sentinel.json").write_text("{}")

    backup(2, "{}")
    segment = archiving.fill_segment()
    wait_until("it is archived", lambda: f"{segment}.lz4" in store.objects())
    assert not (host.state / "owner").exists(), "nobody has said whose it is"
    backup(3, f'{{"system_identifier": {mine}}}')
    backup(4, '{"system_identifier": null}')
    backup(5, '{"system_identifier": 4711}')
    segment = archiving.fill_segment()
    wait_until("it is archived", lambda: f"{segment}.lz4" in store.objects())
    assert (host.state / "owner").read_text().startswith(f"{mine} http")


def test_where_nobody_answers_nothing_is_written(archiving: Cluster, host: Host, store: S3Server) -> None:
    store.stop()
    archiving.fill_segment()
    wait_until("it tried", lambda: int(archiving.sql("select failed_count from pg_stat_archiver")) > 0)
    assert not (host.state / "owner").exists()
