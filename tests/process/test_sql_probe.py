# SPDX-License-Identifier: GPL-3.0-or-later
"""The SQL probe beside a real PostgreSQL: a member in recovery is asked often, and its log stays clean."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest

from diting.core.failover_view import Answer
from diting.guards.probe_ways import SqlWay, conninfo
from support.servers import free_port, own, require_postgres, wait_until
from support.wal_cluster import Cluster

pytestmark = pytest.mark.process


@pytest.fixture
def standby():
    require_postgres()
    root = Path(tempfile.mkdtemp(prefix="dsp-", dir="/tmp"))
    root.chmod(0o755)
    own(root)
    cluster = Cluster.create(root / "data")
    cluster.port = free_port()
    cluster.configure(
        listen_addresses="127.0.0.1",
        unix_socket_directories=str(root),
        archive_mode="off",
        max_wal_senders="10",
    )
    (root / "data/standby.signal").touch()
    own(root / "data/standby.signal")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()
        shutil.rmtree(root, ignore_errors=True)


def test_a_member_in_recovery_is_asked_without_an_error_and_commits_once_it_is_promoted(standby):
    values = {"host": str(standby.socket_dir), "port": standby.port, "user": "postgres"}

    async def ask(times):
        way = SqlWay(conninfo({**values, "dbname": "postgres", "options": "-c synchronous_commit=local"}))
        try:
            return {await way.ask() for _ in range(times)}
        finally:
            way.drop()

    assert asyncio.run(ask(5)) == {Answer.REJECTED}
    assert "ERROR" not in standby.log.read_text()
    standby.sql("select pg_promote()")
    wait_until("it is promoted", lambda: standby.sql("select pg_is_in_recovery()") == "f")
    before = int(standby.sql("select pg_current_xact_id()"))
    assert asyncio.run(ask(5)) == {Answer.OK}
    assert int(standby.sql("select pg_current_xact_id()")) == before + 6, "each answer is a commit of its own"
    assert "ERROR" not in standby.log.read_text()
