# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Figures of what waits to be archived, beside a real server and the packed program: they say what the server would say."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.servers import as_postgres, wait_until
from support.wal_cluster import BIN, Cluster, Host, S3Server
from support.wal_fixtures import archiving, base, cluster, clusters, host, pristine, standby_of, store  # noqa: F401 - fixtures

pytestmark = pytest.mark.process


def command(cluster: Cluster, file: Path) -> list[str]:
    words = [
        "archive-metrics",
        "--cluster",
        "test",
        "--data-directory",
        str(cluster.data),
        "--file",
        str(file),
    ]
    return [str(BIN / "bin/diting-wal"), *words]


def figures(cluster: Cluster) -> dict[str, float]:
    """As the unit does: by root, without settings and without a word to the server."""
    file = cluster.data.parent / "out.prom"
    done = subprocess.run(command(cluster, file), capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rows = [line.rpartition(" ") for line in file.read_text().splitlines() if not line.startswith("#")]
    assert all(row[0].endswith('{cluster="test"}') for row in rows)
    return {row[0].partition("{")[0].removeprefix("diting_archive_"): float(row[2]) for row in rows}


def by_the_server(cluster: Cluster) -> tuple[int, int]:
    """Number and bytes of the files that wait."""
    found = cluster.sql(
        "select count(*), coalesce(sum(size), 0) from (select left(name, -6) as name from pg_ls_archive_statusdir() "
        "where name like '%.ready') waiting left join pg_ls_waldir() using (name)"
    )
    number, size = found.split("|")
    return int(number), int(size)


def test_what_the_store_does_not_take_waits_and_gets_old_and_is_gone_when_it_is_back(
    archiving: Cluster, host: Host, store: S3Server
) -> None:
    first = archiving.fill_segment()
    wait_until("it is archived", lambda: f"{first}.lz4" in store.objects())
    wait_until("nothing waits", lambda: figures(archiving)["waiting_files"] == 0)
    assert figures(archiving)["oldest_waiting_seconds"] == 0

    host.belongs_to(archiving, store.settings())
    store.stop()
    for _number in range(3):
        archiving.fill_segment()
    wait_until("all of them are marked", lambda: by_the_server(archiving)[0] >= 3)
    found = figures(archiving)
    assert (found["waiting_files"], found["waiting_bytes"]) == by_the_server(archiving)
    wait_until("it gets old", lambda: figures(archiving)["oldest_waiting_seconds"] > 2)

    # A server that answers nobody, and one that is stopped: what waits is known all the same.
    pid = archiving.postmaster_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert figures(archiving)["waiting_files"] >= 3
    finally:
        os.kill(pid, signal.SIGCONT)
    archiving.stop()
    stopped = figures(archiving)
    assert stopped["waiting_files"] >= 3
    assert stopped["oldest_waiting_seconds"] > found["oldest_waiting_seconds"]

    store.start()
    archiving.start()
    wait_until("all of it is archived", lambda: figures(archiving)["waiting_files"] == 0, seconds=60)


def test_on_a_standby_that_archives_nothing_nothing_waits(
    archiving: Cluster, store: S3Server, host: Host, standby_of: Callable[[Cluster], Cluster]
) -> None:
    standby = standby_of(archiving)
    host.belongs_to(archiving, store.settings())
    store.stop()
    archiving.fill_segment()
    lsn = archiving.sql("select pg_current_wal_lsn()")
    wait_until("it has it", lambda: standby.sql(f"select pg_last_wal_replay_lsn() >= '{lsn}'") == "t")
    assert figures(standby)["waiting_files"] == 0
    wait_until("it waits on the primary", lambda: figures(archiving)["waiting_files"] >= 1)


def test_who_may_not_look_says_so(archiving: Cluster, base: Path) -> None:
    archiving.data.chmod(0o700)
    os.chown(archiving.data, 0, 0)
    try:
        done = as_postgres(*command(archiving, base / "out.prom"), cwd=base)
    finally:
        os.chown(archiving.data, *base.stat()[4:6])
    assert done.returncode == 2
    assert f"{archiving.data}/pg_wal: found Permission denied; wanted " in done.stderr
    assert "Fix: run it as root, or as the owner of the data directory" in done.stderr
    lines = (base / "out.prom").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'diting_archive_could_not_look{cluster="test"} 1'
    ]
