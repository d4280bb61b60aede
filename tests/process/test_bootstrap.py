# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""The data directory of a cluster that is lost with all its hosts, from its real archive, as Patroni is given it to begin with."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from support.restore_place import RestorePlace, restore_place  # noqa: F401 - fixtures
from support.servers import PG_BIN, as_postgres, own, wait_until
from support.wal_cluster import BIN
from support.wal_fixtures import archiving, base, cluster, clusters, host, pristine, store  # noqa: F401 - fixtures

pytestmark = pytest.mark.process


class LostPlace:
    """A cluster's archive, and the place where its data are to be again."""

    def __init__(self, place: RestorePlace) -> None:
        self.place = place
        self.root = place.base / "new" / "diting-restore"
        self.data = place.base / "new" / "main"
        self.root.parent.mkdir()
        own(self.root.parent)

    def call(self, **changes: Any) -> dict[str, Any]:
        """The command that Patroni runs; what it found."""
        request = self.place.base / "bootstrap.json"
        result = self.place.base / "bootstrap-result.json"
        backup = self.place.newest_backup()
        values = {
            "id": "rebuild-1",
            "root": str(self.root),
            "pg_bin": str(PG_BIN),
            "data_dir": str(self.data),
            "backup": backup["backup"],
            "backup_bytes": backup["backup_bytes"],
            "target_type": "end",
            "target": "latest",
            "timeline": 1,
            "fetch_seconds": 60,
            "stall_seconds": 20,
            **changes,
        }
        request.write_text(json.dumps(values))
        own(request)
        words = [BIN / "bin/diting-wal", "--config", self.place.host.wrapper_config, "bootstrap"]
        self.done: subprocess.CompletedProcess[str] = as_postgres(
            *words, "--request", request, "--result", result, cwd=self.place.base, timeout=180
        )
        return dict(json.loads(result.read_text())) if result.exists() else {}

    def failed(self, found: dict[str, Any]) -> dict[str, Any]:
        assert self.done.returncode == 1, self.done
        phase: dict[str, Any] = found["phases"][-1]
        assert phase["status"] == "failed"
        return phase

    def nothing_left(self) -> bool:
        return not self.root.exists() and not (self.data.exists() and any(self.data.iterdir()))


@pytest.fixture
def place(restore_place: RestorePlace) -> LostPlace:
    return LostPlace(restore_place)


def test_the_cluster_comes_back_to_the_end_of_its_archive(place: LostPlace) -> None:
    cluster = place.place.cluster
    cluster.sql("select pg_create_physical_replication_slot('of_a_member_that_is_gone', true)")
    place.place.back_up()
    cluster.sql("insert into orders (note) select 'archived' from generate_series(1, 33)")
    name = cluster.sql("select pg_walfile_name(pg_switch_wal())")
    wait_until("the segment is archived", lambda: any(name in each for each in place.place.store.objects()))
    cluster.stop()
    shutil.rmtree(cluster.data)

    found = place.call()

    assert place.done.returncode == 0, found
    assert [phase["status"] for phase in found["phases"]] == ["ok"] * 4
    assert not place.root.exists()
    assert place.data.stat().st_mode & 0o777 == 0o700
    assert not list((place.data / "pg_replslot").iterdir())
    # What Patroni does next.
    with (place.data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"restore_command = '{place.place.host.restore()}'\narchive_mode = off\n")
        settings.write(
            f"recovery_target_action = 'promote'\nunix_socket_directories = '{place.root.parent}'\nlisten_addresses = ''\n"
        )
    (place.data / "recovery.signal").touch()
    own(place.data / "recovery.signal")
    log = place.root.parent / "log"
    as_postgres(PG_BIN / "pg_ctl", "-D", place.data, "-w", "-l", log, "start", cwd=place.data)
    try:
        words = ["psql", "-XAtqh", place.root.parent, "postgres", "-c"]

        def ask(query: str) -> str:
            return as_postgres(*words, query, cwd=place.data).stdout.strip()

        wait_until("it takes writes", lambda: ask("select pg_is_in_recovery()") == "f")
        assert ask("select count(*) from orders where note = 'archived'") == "33"
    finally:
        as_postgres(PG_BIN / "pg_ctl", "-D", place.data, "-w", "-m", "immediate", "stop", cwd=place.data)


def test_data_that_are_there_are_somebodys(place: LostPlace) -> None:
    place.place.back_up()
    place.data.mkdir()
    (place.data / "PG_VERSION").write_text("15\n")
    own(place.data)
    phase = place.failed(place.call())
    assert (phase["name"], phase["code"]) == ("empty", "not_empty")
    assert "PG_VERSION" in phase["words"]
    assert (place.data / "PG_VERSION").read_text() == "15\n"


def test_an_empty_directory_is_in_nobodys_way(place: LostPlace) -> None:
    place.place.back_up()
    place.data.mkdir()
    own(place.data)
    assert place.call()["complete"]
    assert (place.data / "PG_VERSION").exists()


def test_a_part_that_is_gone_leaves_nothing_that_could_be_taken_for_a_database(place: LostPlace) -> None:
    place.place.back_up()
    # Which part holds it is WAL-G's choice; the first has most files.
    min(place.place.store.path("basebackups_005").rglob("part_*.tar.lz4")).unlink()
    phase = place.failed(place.call(stall_seconds=5))
    assert (phase["name"], phase["code"]) == ("fetch", "fetch_failed")
    assert place.nothing_left()


def test_a_request_with_everything_wrong_is_refused_at_once(place: LostPlace) -> None:
    place.place.back_up()
    place.call(fetch_seconds="long", more=1)
    assert place.done.returncode == 64
    assert [word for word in ("/fetch_seconds", "/more") if word not in place.done.stderr] == []
    place.call(backup="LATEST", target_type="time", root="here")
    assert [word for word in ("/backup", "/target_type", "/root") if word not in place.done.stderr] == []
    assert not place.data.exists()


def test_whose_backups_there_are_can_be_asked_without_a_server(place: LostPlace) -> None:
    words = [BIN / "bin/diting-wal", "--config", place.place.host.wrapper_config, "holds"]
    done = as_postgres(*words, cwd=place.place.base)
    assert json.loads(done.stdout)["backups"] == []
    place.place.back_up()
    place.place.cluster.stop()
    done = as_postgres(*words, cwd=place.place.base)
    assert [each["name"][:5] for each in json.loads(done.stdout)["backups"]] == ["base_"]
    place.place.store.stop()
    done = as_postgres(*words, cwd=place.place.base)
    assert (done.returncode, json.loads(done.stdout)["health"]) == (2, "UNKNOWN")
