# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""A member that was rewound onto an idle primary gets in, although nobody writes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2
import pytest

from support.wal_cluster import PG_BIN, ROOT, Cluster, as_postgres, checked, wait_until
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
        )
        program.write_text(text)
        started.append(
            subprocess.Popen(
                ["sh", program], user="postgres", cwd="/", env={"PGPORT": str(beside.port), "PATH": "/bin"}
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


def test_a_rewound_member_of_an_idle_cluster_is_let_in(
    cluster: Cluster, standby_of: Callable[[Cluster], Cluster], nudge: Callable[[Cluster], None]
) -> None:
    # Nothing that runs by itself may write in the meantime.
    cluster.configure(archive_mode="off", autovacuum="off", wal_keep_size="256MB", wal_log_hints="on")
    cluster.start()
    cluster.sql("create table t (n bigint)")
    new = standby_of(cluster)
    checked(PG_BIN / "pg_ctl", "-D", new.data, "promote", "-w", "-t", "30", cwd=new.socket_dir)
    cluster.sql("insert into t values (1)")  # only here: the timelines part
    cluster.stop()
    new.sql("insert into t values (2); checkpoint")
    new.sql("select pg_switch_wal()")
    checked(
        *(PG_BIN / "pg_rewind", "--target-pgdata", cluster.data),
        *("--source-server", f"host={new.socket_dir} port={new.port} user=postgres dbname=postgres"),
        cwd=new.socket_dir,
    )
    follow(cluster, new)
    wait_until("it streams", lambda: streams(new))
    assert not reads(cluster)
    assert "Consistent recovery state has not been yet reached" in cluster.log.read_text()
    nudge(new)
    wait_until("it can be read", lambda: reads(cluster))
    written = new.sql("select pg_current_wal_insert_lsn()")
    # Once for each standby: an idle cluster must stay idle, or it archives a segment every minute.
    with pytest.raises(AssertionError):
        wait_until(
            "a second record", lambda: new.sql("select pg_current_wal_insert_lsn()") != written, seconds=2
        )
