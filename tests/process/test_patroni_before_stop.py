# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Patroni's before_stop stops PostgreSQL in a planned switchover, and at no other time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest

from support.tree import ROOT
from support.wal_cluster import Cluster
from support.wal_fixtures import base, cluster, clusters, pristine  # noqa: F401

pytestmark = pytest.mark.process
TEMPLATE = ROOT / "roles/patroni/templates/usr/local/bin/diting-patroni-before-stop.j2"
LIMIT_SECONDS = 2


@pytest.fixture
def mark(base: Path) -> Path:
    return base / "planned-stop"


@pytest.fixture
def before_stop(base: Path, cluster: Cluster, mark: Path) -> Callable[[], subprocess.CompletedProcess[str]]:
    """Runs the role's program against a running cluster, as Patroni would."""
    cluster.configure(archive_mode="off")
    cluster.start()
    program = base / "before-stop"
    text = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined).render(
        ansible_managed="a test",
        __patroni_planned_stop_mark=mark,
        __patroni_data_dir=cluster.data,
        patroni_planned_stop_limit_seconds=LIMIT_SECONDS,
        patroni_switchover_timeout_seconds=60,
    )
    program.write_text(text)
    return lambda: subprocess.run(
        ["/usr/bin/python3", "-IBS", program],
        user="postgres",
        group="postgres",
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def leave(mark: Path, age_seconds: float = 0) -> None:
    mark.touch()
    moment = time.time() - age_seconds
    os.utime(mark, (moment, moment))


def test_a_marked_stop_is_done_here_and_uses_the_mark_up(before_stop, cluster, mark):
    leave(mark)
    done = before_stop()
    assert (done.returncode, done.stderr) == (0, "")
    assert not (cluster.data / "postmaster.pid").exists()
    assert "received fast shutdown request" in cluster.log.read_text()
    assert not [path.name for path in mark.parent.glob("planned-stop*")]


@pytest.mark.parametrize("age", [None, 3600, -3600], ids=["no mark", "an old one", "one of the future"])
def test_any_other_stop_is_patronis(before_stop, cluster, mark, age):
    if age is not None:
        leave(mark, age)
    done = before_stop()
    assert (done.returncode, done.stderr) == (0, "")
    assert cluster.sql("select 1") == "1"
    assert not [path.name for path in mark.parent.glob("planned-stop*")]


def test_a_server_that_does_not_stop_is_left_to_patroni(before_stop, cluster, mark):
    pid = cluster.postmaster_pid()
    leave(mark)
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        done = before_stop()
        assert LIMIT_SECONDS <= time.monotonic() - begun < LIMIT_SECONDS + 10
        assert done.returncode == 0
        assert "left to Patroni" in done.stderr
        assert not [path.name for path in mark.parent.glob("planned-stop*")]
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_process_that_only_has_the_number_is_not_touched(before_stop, cluster, mark):
    other = subprocess.Popen(["sleep", "60"], cwd="/")
    try:
        pid_file = cluster.data / "postmaster.pid"
        kept = pid_file.read_text()
        pid_file.write_text(kept.replace(str(cluster.postmaster_pid()), str(other.pid), 1))
        leave(mark)
        done = before_stop()
        pid_file.write_text(kept)
        assert "left to Patroni" in done.stderr
        assert other.poll() is None
        assert cluster.sql("select 1") == "1"
    finally:
        other.kill()
        other.wait()
