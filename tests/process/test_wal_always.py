# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""archive_mode = always: a failover while the store is dead leaves no gap in the archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.servers import PG_BIN, checked, wait_until
from support.wal_cluster import Cluster, Host, S3Server
from support.wal_fixtures import base, cluster, clusters, host, pristine, standby_of, store  # noqa: F401

pytestmark = pytest.mark.process


@pytest.fixture
def pair(
    cluster: Cluster, standby_of: Callable[[Cluster], Cluster], host: Host, store: S3Server
) -> tuple[Cluster, Cluster]:
    """A primary and a standby that streams from it; both archive."""
    cluster.configure(
        archive_mode="always",
        archive_command=host.archive(),
        restore_command=host.restore(),
        wal_keep_size="512MB",
    )
    cluster.start()
    cluster.sql("create table rows (n bigint)")
    return cluster, standby_of(cluster)


def in_store(store: S3Server, names: list[str]) -> bool:
    return {f"{name}.lz4" for name in names} <= set(store.objects())


def test_a_standby_leaves_the_work_to_the_primary(
    pair: tuple[Cluster, Cluster], store: S3Server, host: Host
) -> None:
    primary, standby = pair
    host.write(store.settings(), archive_standby_patience_seconds=60)
    names = [primary.fill_segment() for _ in range(2)]
    wait_until("the store has them", lambda: in_store(store, names))
    wait_until(
        "the standby knows",
        lambda: standby.sql("select last_archived_wal from pg_stat_archiver") == names[-1],
    )
    assert standby.sql("select failed_count from pg_stat_archiver") == "0"


def test_failover_with_a_dead_store_leaves_no_gap(
    pair: tuple[Cluster, Cluster], store: S3Server, host: Host, base: Path
) -> None:
    primary, standby = pair
    host.write(store.settings(), archive_standby_patience_seconds=0.1)
    store.stop()
    names = [primary.fill_segment() for _ in range(3)]
    last = primary.sql("select pg_current_wal_lsn()")
    wait_until("it followed", lambda: standby.sql(f"select pg_last_wal_replay_lsn() >= '{last}'") == "t")
    primary.stop("immediate")
    checked(PG_BIN / "pg_ctl", "-D", standby.data, "promote", "-w", "-t", "30", cwd=base)
    store.start()
    standby.fill_segment()
    wait_until("the old timeline is whole", lambda: in_store(store, names), seconds=75)
