# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Points recorded on a real primary, and the module that restores to them, from the plan to the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ansible_collections.diting.dr.plugins.modules import recovery_point, restore_test
from ansible_collections.diting.dr.plugins.modules.recovery_point import PointsError
from ansible_collections.diting.dr.plugins.modules.restore_test import RecordsError
from diting.hostio import recovery_points
from support.restore_place import TABLES, RestorePlace, archive_only, restore_place  # noqa: F401 - fixtures
from support.servers import PG_BIN
from support.wal_cluster import BIN
from support.wal_fixtures import archiving, base, cluster, clusters, host, pristine, standby_of, store  # noqa: F401 - fixtures

pytestmark = pytest.mark.process


def asked(place: RestorePlace, **changes: Any) -> dict[str, Any]:
    """Parameters of the module that records."""
    tables = [{"database": database, "table": table} for database, table in TABLES]
    given = {
        "state": "present",
        "name": None,
        "tables": tables,
        "lock_seconds": 0.2,
        "lock_tries": 2,
        "query_seconds": 60,
        "keep_days": 35,
        "switch_wal": True,
        "login_unix_socket": str(place.cluster.socket_dir),
        "login_port": place.cluster.port,
        "login_user": "postgres",
        "login_db": "postgres",
    }
    return {**given, **changes}


def test_a_point_holds_what_the_tables_hold(restore_place: RestorePlace) -> None:
    place = restore_place
    # Nothing is changed by looking, and nothing by a check run.
    for params, check in ((asked(place, state="listed"), False), (asked(place), True)):
        found = recovery_point.run(params, check)
        assert (found["point"], found["points"], found["in_recovery"]) == (None, [], False)
    assert place.cluster.sql("select to_regnamespace('diting_proof') is null") == "t"

    before = place.cluster.sql("select pg_walfile_name(pg_current_wal_lsn())")
    found = recovery_point.run(asked(place), False)
    assert found["changed"] is True
    assert found["points"] == [found["point"]]
    point = found["point"]
    assert {table["table"]: table["rows"] for table in point["tables"]} == {
        "public.orders": 2000,
        'public.odd "name%s"': 1,
        "diting_proof.sentinel": 1,
    }
    assert 0 < point["held_seconds"] < 5
    place.cluster.sql("insert into orders (note) values ('in the next segment')")
    assert place.cluster.sql("select pg_walfile_name(pg_current_wal_lsn())") > before
    place.cluster.sql("delete from orders where note ~ 'next'")
    with pytest.raises(PointsError, match="there is a point"):
        recovery_point.run(asked(place, name=point["name"]), False)
    # The same content has the same digest, in whatever order it lies, and other content another one.
    place.cluster.sql("update orders set note = note; update orders set note = note where id % 3 = 0")
    second = recovery_point.run(asked(place, name="second"), False)["point"]
    place.cluster.sql("update orders set price = price + 1 where id = 77")
    third = recovery_point.run(asked(place, name="third"), False)["point"]
    orders = [{table["table"]: table["digest"] for table in one["tables"]} for one in (point, second, third)]
    digests = [one["public.orders"] for one in orders]
    assert digests[0] == digests[1] != digests[2]
    assert [one["name"] for one in recovery_points.recorded(place.login)] == [
        point["name"],
        "second",
        "third",
    ]


def test_nothing_is_committed_between_the_point_and_what_is_recorded(
    restore_place: RestorePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = restore_place
    where = {"host": str(place.cluster.socket_dir), "port": place.cluster.port, "user": "postgres"}
    tried = []
    real = recovery_points._ask

    def ask(connection: Any, query: str, values: Any = ()) -> Any:
        found = real(connection, query, values)
        if "pg_create_restore_point" in query:
            with psycopg.connect(**where, autocommit=True) as writer:
                writer.execute("set lock_timeout = '50ms'")
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    writer.execute("insert into orders (note) values ('between')")
            tried.append(query)
        return found

    monkeypatch.setattr(recovery_points, "_ask", ask)
    point = place.record("diting-between", lock_seconds=5.0)
    assert tried
    assert {table.table: table.rows for table in point.tables}["public.orders"] == 2000


def test_a_transaction_that_stays_open_holds_nobody_up(restore_place: RestorePlace) -> None:
    place = restore_place
    where = {"host": str(place.cluster.socket_dir), "port": place.cluster.port, "user": "postgres"}
    with psycopg.connect(**where) as writer:
        writer.execute("insert into orders (note) values ('not committed')")
        with pytest.raises(
            PointsError,
            match=r"in the way: client backend \d+ with RowExclusiveLock on postgres:(public\.)?orders\.",
        ):
            recovery_point.run(asked(place), False)
        # Nobody waits, and nothing was recorded.
        assert place.cluster.sql("select count(*) from pg_locks where not granted") == "0"
        assert recovery_points.recorded(place.login) == []
        assert (
            place.cluster.sql(
                "select count(*) from pg_stat_activity where application_name ~ 'recovery-point'"
            )
            == "0"
        )


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([{"database": "postgres", "table": "public.nothing"}], 'relation "public.nothing" does not exist'),
        ([{"database": "nowhere", "table": "public.orders"}], 'database "nowhere" does not exist'),
        ([{"database": "postgres", "table": "orders"}], "'orders': wanted schema.table"),
    ],
)
def test_a_table_that_is_not_there_is_named(restore_place: RestorePlace, tables: Any, words: str) -> None:
    with pytest.raises(PointsError, match=words):
        recovery_point.run(asked(restore_place, tables=tables), False)
    assert recovery_points.recorded(restore_place.login) == []


def test_a_standby_lists_and_a_server_that_is_not_there_is_told(
    restore_place: RestorePlace, standby_of: Any
) -> None:
    place = restore_place
    point = recovery_point.run(asked(place), False)["point"]
    standby = standby_of(place.cluster)
    found = recovery_point.run(asked(place, login_port=standby.port), False)
    assert (found["changed"], found["in_recovery"], found["point"], found["points"]) == (
        False,
        True,
        None,
        [point],
    )
    with pytest.raises(PointsError, match=r"postgres of .*: "):
        recovery_point.run(asked(place, login_port=1), False)


def wanted(place: RestorePlace, points: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Parameters of the module that restores."""
    given = {
        "settings_file": str(place.host.walg_config),
        "wal_segment_bytes": 16777216,
        "points": points,
        "wait_seconds": 30,
        "cluster": "test",
        "root": str(place.root),
        "pg_bin": str(PG_BIN),
        "restore_command": place.host.restore(),
        "program": [str(BIN / "bin/diting-wal"), "--config", str(place.host.wrapper_config)],
        "user": "postgres",
        "fetch_seconds": 60,
        "stall_seconds": 20,
        "replay_seconds": 60,
        "check_seconds": 60,
        "content_seconds": 60.0,
        "content_workers": 2,
        "records_dir": str(place.base / "records"),
        "metrics_file": str(place.base / "metrics" / "restore.prom"),
        "production_size_bytes": 10**12,
        "production_wal_bytes": None,
        "fail_on": [],
    }
    return {**given, **changes}


def test_the_module_proves_keeps_a_record_and_forecasts(restore_place: RestorePlace) -> None:
    place = restore_place
    place.back_up()
    points = recovery_point.run(asked(place), False)["points"]
    params = wanted(place, points)
    found = restore_test.test(params, check_mode=True)
    assert (found["changed"], found["record"], found["plan"]["point"]) == (False, None, points[0]["name"])
    assert (found["verdict"], found["reasons"][0]["code"]) == ("UNKNOWN", "check_mode")
    assert not Path(params["records_dir"]).exists()

    found = restore_test.test(params, check_mode=False)
    assert (found["verdict"], found["reasons"], found["changed"]) == ("HEALTHY", [], True)
    assert found["forecast"]["seconds"] > found["evidence"]["phases"]["fetch"]
    record = json.loads(Path(found["record"]).read_text())
    assert record["facts"]["torn_down"] is True
    assert record["system_identifier"] == place.cluster.sql(
        "select system_identifier from pg_control_system()"
    )
    assert "diting_backup_proven_restore_timestamp_seconds" in Path(params["metrics_file"]).read_text()
    for secret in (place.settings["AWS_SECRET_ACCESS_KEY"], place.settings["AWS_ACCESS_KEY_ID"]):
        assert secret not in Path(found["record"]).read_text()

    # A backup that cannot be restored from: the last proof stays the last proof.
    proven = [
        line for line in Path(params["metrics_file"]).read_text().splitlines() if "proven_restore" in line
    ]
    max(
        place.store.path("basebackups_005").rglob("part_*.lz4"), key=lambda path: path.stat().st_size
    ).unlink()
    found = restore_test.test(params, check_mode=False)
    assert found["verdict"] == "UNHEALTHY"
    assert "did not come" in found["lines"][1]
    after = Path(params["metrics_file"]).read_text()
    assert set(proven) <= set(after.splitlines())
    assert 'diting_restore_test_proven{cluster="test"} 0' in after


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"points": []}, "no_point"),
        ({"points": [{"name": "x"}]}, "point_unreadable"),
        ({"user": "nobody-at-all"}, "not_restored"),
        ({"program": ["/nowhere/diting-wal"]}, "not_restored"),
        ({"pg_bin": "/nowhere"}, "program_missing"),
        ({"settings_file": "/nowhere/wal-g.json"}, "could_not_look"),
    ],
)
def test_what_keeps_it_from_restoring_is_unknown_and_named(
    archive_only: RestorePlace, changes: dict[str, Any], code: str
) -> None:
    place = archive_only
    made = place.made
    tables = [
        {"database": t.database, "table": t.table, "rows": t.rows, "digest": t.digest} for t in made.tables
    ]
    plain = {
        "name": made.name,
        "timeline": made.timeline,
        "lsn": made.target("lsn"),
        "time": made.time.isoformat(),
        "tables": tables,
    }
    found = restore_test.test({**wanted(place, [plain], wait_seconds=0), **changes}, check_mode=False)
    assert ([reason["code"] for reason in found["reasons"]], found["verdict"]) == (
        [code],
        "UNKNOWN",
    )
    assert not place.root.exists()


def test_records_that_cannot_be_read_stop_everything(archive_only: RestorePlace) -> None:
    place = archive_only
    records = place.base / "records"
    records.mkdir()
    (records / "20261122T000000Z.json").write_text("{")
    with pytest.raises(RecordsError, match="move it away"):
        restore_test.test(wanted(place, []), check_mode=False)
