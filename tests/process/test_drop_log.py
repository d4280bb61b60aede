# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""What is dropped is written down with its transaction, and nothing is kept from being dropped by it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ansible_collections.diting.dr.plugins.module_utils.hostio.recovery_points import PointsError
from ansible_collections.diting.dr.plugins.modules import drop_log
from support.servers import wait_until
from support.wal_cluster import Cluster
from support.wal_fixtures import archiving, base, cluster, clusters, host, pristine, store  # noqa: F401 - fixtures

pytestmark = pytest.mark.process


def look(cluster: Cluster, *, check: bool = False) -> dict[str, Any]:
    params = {
        "databases": ["postgres"],
        "login_unix_socket": str(cluster.socket_dir),
        "login_port": cluster.port,
        "login_user": "postgres",
    }
    return drop_log.run(params, check)


def test_a_dropped_table_is_named_with_the_transaction_that_commits_it(archiving: Cluster) -> None:
    assert look(archiving, check=True) == {"changed": True, "in_recovery": False, "drops": []}
    assert archiving.sql("select count(*) from pg_event_trigger") == "0", "a check run installs nothing"
    assert look(archiving)["changed"] is True
    assert look(archiving)["changed"] is False
    archiving.sql("create table orders (n int)")
    archiving.sql("create materialized view sums as select 1")
    xid = archiving.sql(
        "begin; savepoint s; drop table orders; release s; select pg_current_xact_id()::xid; commit"
    ).split()[-1]
    archiving.sql("drop materialized view sums")

    found = look(archiving)["drops"]

    assert [drop["relation"] for drop in found] == ["public.orders", "public.sums"]
    assert (found[0]["xid"], found[0]["database"], found[0]["timeline"]) == (xid, "postgres", 1)
    assert found[0]["user"] == "postgres"


def test_what_is_rolled_back_or_temporary_is_not_written_down(archiving: Cluster) -> None:
    look(archiving)
    archiving.sql("create table orders (n int)")
    archiving.sql("begin; drop table orders; rollback")
    archiving.sql("create temporary table t (n int); drop table t")
    archiving.sql("create view v as select 1; drop view v")

    assert look(archiving)["drops"] == []


def test_who_may_drop_may_still_drop_when_it_cannot_be_written_down(archiving: Cluster) -> None:
    look(archiving)
    archiving.sql("create role trader login; create schema desk authorization trader")
    archiving.sql("set role trader; create table desk.orders (n int); drop table desk.orders")
    assert [drop["relation"] for drop in look(archiving)["drops"]] == ["desk.orders"]
    archiving.sql("drop table diting_drops.dropped")
    archiving.sql("create table desk.more (n int)")

    with psycopg.connect(
        host=str(archiving.socket_dir), port=archiving.port, user="postgres", autocommit=True
    ) as session:
        warned: list[str] = []
        session.add_notice_handler(lambda notice: warned.append(str(notice.message_primary)))
        session.execute("drop table desk.more")

    assert archiving.sql("select to_regclass('desk.more') is null") == "t"
    assert any("not written down" in words for words in warned)


def test_a_schema_that_somebody_else_made_is_not_trusted(archiving: Cluster) -> None:
    archiving.sql("create role trader login; create schema diting_drops authorization trader")

    with pytest.raises(PointsError, match="belongs to trader, wanted postgres"):
        look(archiving)

    assert archiving.sql("select count(*) from pg_event_trigger") == "0"


def test_it_is_installed_again_where_somebody_took_it_away(archiving: Cluster) -> None:
    look(archiving)
    archiving.sql("alter event trigger diting_note_drops disable")

    assert look(archiving)["changed"] is True

    archiving.sql("create table orders (n int); drop table orders")
    wait_until("it is written down", lambda: len(look(archiving)["drops"]) == 1)
