# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""A member that was rewound onto an idle primary gets in, although nobody writes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2
import pytest

from support.servers import PG_BIN, as_postgres, checked, wait_until
from support.tree import ROOT
from support.wal_cluster import Cluster
from support.wal_fixtures import base, cluster, clusters, follow, pristine, standby_of, streams  # noqa: F401

pytestmark = pytest.mark.process
TEMPLATE = ROOT / "roles/patroni/templates/usr/local/bin/diting-patroni-nudge.j2"


@pytest.fixture
def nudge(base: Path) -> Iterator[Callable[[Cluster], None]]:
    """Runs the role's program beside a cluster."""
    started: list[subprocess.Popen[bytes]] = []

    def start(beside: Cluster) -> None:
        program = base / "nudge"
        text = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined).render(
            ansible_managed="a test",
            __patroni_bin_dir=PG_BIN,
            __patroni_socket_dir=beside.socket_dir,
            patroni_nudge_interval_seconds=0.2,
            patroni_postgresql_port=beside.port,
        )
        program.write_text(text)
        started.append(
            subprocess.Popen(
                ["sh", program], user="postgres", group="postgres", cwd="/", env={"PATH": "/bin"}
            )
        )

    yield start
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.wait()


def reads(server: Cluster) -> bool:
    done = as_postgres(
        *(PG_BIN / "psql", "-XAtq", "-h", server.socket_dir, "-p", server.port, "-d", "postgres"),
        *("-c", "select pg_is_in_recovery()"),
        cwd=server.socket_dir,
    )
    return done.stdout.strip() == "t"


def records(server: Cluster, start: str) -> int:
    """Messages in the server's WAL from ``start`` on."""
    end = server.sql("select pg_current_wal_flush_lsn()")
    if end == start:
        return 0
    dump = (
        PG_BIN / "pg_waldump",
        "-p",
        server.data / "pg_wal",
        "-r",
        "LogicalMessage",
        "-s",
        start,
        "-e",
        end,
    )
    timeline = server.sql("select timeline_id from pg_control_checkpoint()")
    return as_postgres(*dump, "-t", timeline, cwd=server.socket_dir).stdout.count("MESSAGE")


def leave_the_segment_as_an_idle_server_does(server: Cluster) -> str:
    """Position at the start of a segment that nothing will be written to; returns it.

    By archive_timeout, once the snapshot that follows every activity (within 15 s) is in the WAL: after
    pg_switch_wal() another snapshot would come, and help the member by itself.
    """
    server.sql("checkpoint")
    active = server.sql("select pg_current_wal_insert_lsn()")
    wait_until(
        "the last snapshot", lambda: server.sql("select pg_current_wal_insert_lsn()") != active, seconds=40
    )
    server.configure(archive_mode="on", archive_command="/bin/true", archive_timeout="1s")
    server.ctl("reload")
    at_start = "select pg_current_wal_insert_lsn() - '0/0' - 40 = pg_current_wal_flush_lsn() - '0/0'"
    wait_until("the segment is left", lambda: server.sql(at_start) == "t", seconds=40)
    return server.sql("select pg_current_wal_flush_lsn()")


def test_a_rewound_member_of_an_idle_cluster_is_let_in(
    cluster: Cluster, standby_of: Callable[[Cluster], Cluster], nudge: Callable[[Cluster], None]
) -> None:
    # Nothing that runs by itself may write in the meantime.
    cluster.configure(
        autovacuum="off", wal_keep_size="256MB", wal_log_hints="on", archive_command="/bin/true"
    )
    cluster.start()
    cluster.sql("create table t (n bigint)")
    new = standby_of(cluster)
    checked(PG_BIN / "pg_ctl", "-D", new.data, "promote", "-w", "-t", "30", cwd=new.socket_dir)
    cluster.sql("insert into t values (1)")  # only here: the timelines part
    cluster.stop()
    new.sql("insert into t values (2)")
    start = leave_the_segment_as_an_idle_server_does(new)
    checked(
        *(PG_BIN / "pg_rewind", "--target-pgdata", cluster.data),
        *("--source-server", f"host={new.socket_dir} port={new.port} user=postgres dbname=postgres"),
        cwd=new.socket_dir,
    )
    follow(cluster, new)
    wait_until("it streams", lambda: streams(new))
    # Longer than a snapshot takes: without the nudge nothing lets it in.
    for _ in range(20):
        assert not reads(cluster)
        time.sleep(1)
    assert new.sql("select pg_current_wal_flush_lsn()") == start
    nudge(new)
    wait_until("it can be read", lambda: reads(cluster))
    # Once for each standby, over many looks: an idle cluster must stay idle, or it archives a segment every minute.
    time.sleep(3)
    assert records(new, start) == 1
