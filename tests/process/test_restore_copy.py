# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""A copy of a real cluster as it was at one moment, made beside it from its archive, kept, and promoted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.restore_place import RestorePlace, restore_place  # noqa: F401 - fixtures
from support.servers import PG_BIN, as_postgres, own, wait_until
from support.wal_cluster import BIN
from support.wal_fixtures import archiving, base, cluster, clusters, host, pristine, store  # noqa: F401 - fixtures

pytestmark = pytest.mark.process


class CopyPlace:
    """A cluster, its archive, and the copy beside it."""

    def __init__(self, place: RestorePlace) -> None:
        self.place = place
        self.root = place.base / "copies" / "copy"
        self.data = self.root / "data"
        self.root.parent.mkdir()
        own(self.root.parent)

    def call(self, action: str, kind: str, target: str, *, inclusive: bool, **changes: Any) -> dict[str, Any]:
        """One of the two commands; what it found."""
        request = self.place.base / "copy-request.json"
        result = self.place.base / "copy-result.json"
        values = {
            "id": "copy-1",
            "root": str(self.root),
            "pg_bin": str(PG_BIN),
            "restore_command": self.place.host.restore(),
            **self.place.newest_backup(),
            "point_lsn": 0,
            "timeline": 1,
            "target_type": kind,
            "target": target,
            "inclusive": inclusive,
            "fetch_seconds": 60,
            "stall_seconds": 20,
            "replay_seconds": 60,
            "check_seconds": 60,
            **changes,
        }
        request.write_text(json.dumps(values))
        own(request)
        words = [BIN / "bin/diting-wal", "--config", self.place.host.wrapper_config, action]
        self.done: subprocess.CompletedProcess[str] = as_postgres(
            *words, "--request", request, "--result", result, cwd=self.place.base, timeout=180
        )
        found: dict[str, Any] = json.loads(result.read_text())
        return found

    def archived(self) -> None:
        """Everything up to now is in the archive."""
        name = self.place.cluster.sql("select pg_walfile_name(pg_switch_wal())")
        wait_until(
            "the segment is archived", lambda: any(name in each for each in self.place.store.objects())
        )

    def waits_for_the_archive(self) -> list[str]:
        return sorted(path.name for path in (self.data / "pg_wal/archive_status").glob("*.ready"))


@pytest.fixture
def place(restore_place: RestorePlace) -> CopyPlace:
    return CopyPlace(restore_place)


def ask(data: Path, query: str) -> str:
    """What a server over these data says, started for that alone and for nobody else."""
    words = [
        "/bin/sh",
        "-c",
        'printf "%s\\n" "$1" | "$2" --single -D "$3" postgres',
        "ask",
        query,
        PG_BIN / "postgres",
        data,
    ]
    done = as_postgres(*words, cwd=data)
    return " ".join(done.stdout.split())


def test_the_moment_before_a_drop_comes_back_and_the_cluster_goes_on(place: CopyPlace) -> None:
    cluster = place.place.cluster
    place.place.back_up()
    cluster.sql("insert into orders (note) select 'before' from generate_series(1, 77)")
    dropped = cluster.sql("begin; drop table orders; select pg_current_xact_id()::xid; commit").split()[-1]
    cluster.sql("create table later as select 1")
    place.archived()

    made = place.call("rebuild", "xid", dropped, inclusive=False)

    assert place.done.returncode == 0, place.done.stderr
    assert [phase["status"] for phase in made["phases"]] == ["ok"] * 6
    assert made["last_commit"]
    assert cluster.sql("select to_regclass('later') is not null") == "t", "the cluster goes on"
    archive = place.place.store.objects()

    promoted = place.call("rebuild-promote", "xid", dropped, inclusive=False)

    assert place.done.returncode == 0, promoted
    assert promoted["new_timeline"] == 2
    assert "00000002.history.ready" in place.waits_for_the_archive()
    assert place.place.store.objects() == archive, "nothing is archived before somebody runs it"
    assert '"77"' in ask(place.data, "select count(*)::text from orders where note = 'before'")
    assert "later" not in ask(place.data, "select relname from pg_class where relname = 'later'").replace(
        "relname = 'later'", ""
    )


def test_settings_that_a_standby_needs_stay_those_of_the_cluster(place: CopyPlace) -> None:
    place.place.back_up()
    # On the way to the target the source was restarted with more.
    place.place.cluster.configure(max_connections="61", max_locks_per_transaction="71")
    place.place.cluster.stop()
    place.place.cluster.start()
    target = place.place.cluster.sql("select pg_current_wal_insert_lsn()")
    place.place.cluster.sql("insert into orders (note) values ('after')")
    place.archived()
    place.call("rebuild", "lsn", target, inclusive=True)

    place.call("rebuild-promote", "lsn", target, inclusive=True)

    assert place.done.returncode == 0
    control = as_postgres(PG_BIN / "pg_controldata", place.data, cwd=place.data).stdout
    found = {
        name.strip(): value.strip()
        for name, _, value in (line.partition(":") for line in control.splitlines())
    }
    assert (found["max_connections setting"], found["max_locks_per_xact setting"]) == ("61", "71")


def test_promoted_twice_it_is_on_the_same_timeline(place: CopyPlace) -> None:
    place.place.back_up()
    target = place.place.cluster.sql("select pg_current_wal_insert_lsn()")
    place.place.cluster.sql("insert into orders (note) values ('after')")
    place.archived()
    place.call("rebuild", "lsn", target, inclusive=True)
    first = place.call("rebuild-promote", "lsn", target, inclusive=True)

    again = place.call("rebuild-promote", "lsn", target, inclusive=True)

    assert place.done.returncode == 0, again
    assert (first["new_timeline"], again["new_timeline"]) == (2, 2)


def test_a_target_that_never_comes_leaves_nothing_behind(place: CopyPlace) -> None:
    place.place.back_up()
    place.archived()

    found = place.call("rebuild", "xid", "4000000", inclusive=True, replay_seconds=30)

    assert place.done.returncode == 1
    assert found["phases"][-1]["name"] == "replay"
    assert not place.root.exists()


def test_what_is_not_whole_is_not_promoted(place: CopyPlace) -> None:
    place.place.back_up()

    found = place.call("rebuild-promote", "xid", "4000000", inclusive=True)

    assert place.done.returncode == 1
    assert (found["phases"][0]["code"], len(found["phases"])) == ("not_prepared", 1)
