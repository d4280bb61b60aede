# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811, PTH123, PTH208 - fixtures are imported by name; /proc is read as what it is
"""archive_command: it archives, and a dead store never holds up a server that wants to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from support.servers import as_postgres, wait_until
from support.wal_cluster import BIN, BlackHole, Cluster, Host, S3Server
from support.wal_fixtures import archiving, base, black_hole, cluster, clusters, host, pristine, store  # noqa: F401

pytestmark = pytest.mark.process

STOP_LIMIT_SECONDS = 3.0


def archived(cluster: Cluster) -> int:
    return int(cluster.sql("select archived_count from pg_stat_archiver"))


def running_pushes(config: object) -> list[int]:
    """Processes of WAL-G that use this test's settings."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as handle:
                    words = handle.read().split(b"\0")
            except OSError:
                continue
            if b"wal-push" in words and str(config).encode() in words:
                found.append(int(entry))
    return found


def make_dead(kind: str, cluster: Cluster, store: S3Server, host: Host, hole: BlackHole) -> None:
    """Kill the store, which is known to be this cluster's: its port refuses, or takes connections and never answers."""
    settings = store.settings()
    if kind == "refused":
        store.stop()
    else:
        settings["AWS_ENDPOINT"] = f"http://127.0.0.1:{hole.port}"
        host.write(settings)
    host.belongs_to(cluster, settings)


def push(host: Host, cluster: Cluster, segment: str) -> subprocess.CompletedProcess[str]:
    """Archive a segment by hand, as the server would."""
    words = (BIN / "bin/diting-wal-archive", "--config", host.wrapper_config, f"pg_wal/{segment}")
    return host.run(*words, cwd=cluster.data)


def test_archives_a_segment(archiving: Cluster, store: S3Server) -> None:
    name = archiving.fill_segment()
    wait_until("the segment is in the store", lambda: f"{name}.lz4" in store.objects())
    wait_until("PostgreSQL knows", lambda: archived(archiving) >= 1)


@pytest.mark.parametrize("kind", ["refused", "black hole"])
def test_fast_stop_with_dead_store_and_catch_up(
    kind: str, archiving: Cluster, store: S3Server, host: Host, black_hole: BlackHole
) -> None:
    first = archiving.fill_segment()
    wait_until("archiving works", lambda: f"{first}.lz4" in store.objects())
    make_dead(kind, archiving, store, host, black_hole)
    missed = [archiving.fill_segment() for _ in range(3)]
    # In the middle of an attempt is the hard case: WAL-G is already deep in its retries.
    wait_until("an attempt is under way", lambda: running_pushes(host.walg_config))
    took = archiving.stop()
    assert took <= STOP_LIMIT_SECONDS, f"shutdown took {took:.1f} s"
    assert not running_pushes(host.walg_config)
    log = archiving.log.read_text()
    assert log.count("exit code 200") == 1  # the archiver did not try again

    host.write(store.settings())
    if store.process is None:
        store.start()
    archiving.start()
    wait_until("archiving catches up", lambda: {f"{name}.lz4" for name in missed} <= set(store.objects()))


def test_the_server_and_its_clients_go_first(
    archiving: Cluster, store: S3Server, host: Host, black_hole: BlackHole
) -> None:
    make_dead("black hole", archiving, store, host, black_hole)
    archiving.fill_segment()
    pushes = wait_until("an upload is under way", lambda: running_pushes(host.walg_config))
    server = int((archiving.data / "postmaster.pid").read_text().split()[0])
    for pid in pushes:
        mine, theirs = (os.getpriority(os.PRIO_PROCESS, p) for p in (pid, server))
        assert mine == min(19, theirs + 5)


@pytest.mark.parametrize(("age", "waits"), [(0, False), (3600, True), (-3600, True)])
def test_a_planned_stop_waits_for_no_upload(
    age: int, waits: bool, archiving: Cluster, store: S3Server, host: Host, black_hole: BlackHole
) -> None:
    make_dead("black hole", archiving, store, host, black_hole)
    host.write(store.settings(AWS_ENDPOINT=f"http://127.0.0.1:{black_hole.port}"), archive_stopping_seconds=5)
    name = archiving.fill_segment()
    wait_until("an attempt is under way", lambda: running_pushes(host.walg_config))
    mark = host.state / "planned-stop"
    mark.touch()
    moment = time.time() - age
    os.utime(mark, (moment, moment))
    took = archiving.stop()
    assert (took >= 5) is waits, f"shutdown took {took:.1f} s"
    assert (archiving.data / f"pg_wal/archive_status/{name}.ready").exists()  # nothing is forgotten


def test_stop_without_the_wrapper_is_held_up(cluster: Cluster, store: S3Server, host: Host) -> None:
    """The trouble the wrapper exists for is real; if this fails the test above proves nothing."""
    cluster.configure(archive_command=f"{host.walg} --config {host.walg_config} wal-push %p")
    cluster.start()
    store.stop()
    cluster.fill_segment()
    wait_until("an attempt is under way", lambda: running_pushes(host.walg_config))
    done = cluster.ctl("stop", "-m", "fast", "-w", "-t", str(int(STOP_LIMIT_SECONDS) + 2))
    assert done.returncode != 0
    assert "does not shut down" in done.stderr


def test_catches_up_without_a_restart(archiving: Cluster, store: S3Server, host: Host) -> None:
    host.write(store.settings(), archive_deadline_seconds=1)
    store.stop()
    name = archiving.fill_segment()
    wait_until(
        "an attempt failed", lambda: int(archiving.sql("select failed_count from pg_stat_archiver")) >= 1
    )
    store.start()
    host.write(store.settings())
    # The archiver itself looks again at the latest a minute after its third failure; a switch of
    # segments wakes it.
    archiving.fill_segment()
    wait_until("the segment is in the store", lambda: f"{name}.lz4" in store.objects(), seconds=70)


@pytest.mark.alone
def test_running_server_gets_a_code_that_keeps_the_archiver(
    archiving: Cluster, store: S3Server, host: Host, black_hole: BlackHole
) -> None:
    host.write(store.settings(AWS_ENDPOINT=f"http://127.0.0.1:{black_hole.port}"), archive_deadline_seconds=1)
    segment = archiving.fill_segment()
    begun = time.monotonic()
    done = push(host, archiving, segment)
    assert done.returncode == 1
    assert time.monotonic() - begun < 2
    assert "1 s are up" in done.stderr


def test_wrong_key_is_a_failure(archiving: Cluster, store: S3Server, host: Host) -> None:
    host.write(store.settings(AWS_SECRET_ACCESS_KEY="wrong"), archive_deadline_seconds=5)
    segment = archiving.fill_segment()
    done = push(host, archiving, segment)
    assert done.returncode == 1
    assert "wrong" not in done.stderr.replace("wrong key", "")


@pytest.mark.alone
def test_killed_server_can_start_again_at_once(
    archiving: Cluster, store: S3Server, host: Host, black_hole: BlackHole
) -> None:
    make_dead("black hole", archiving, store, host, black_hole)
    archiving.fill_segment()
    wait_until("an attempt is under way", lambda: running_pushes(host.walg_config))
    begun = time.monotonic()
    os.kill(archiving.postmaster_pid(), signal.SIGKILL)
    wait_until("the attempt ends with its server", lambda: not running_pushes(host.walg_config), 3)
    wait_until("it starts", lambda: archiving.ctl("start", "-w", "-t", "20").returncode == 0, 10)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL])
def test_wal_g_dies_with_the_wrapper(
    signum: signal.Signals,
    archiving: Cluster,
    store: S3Server,
    host: Host,
    black_hole: BlackHole,
) -> None:
    make_dead("black hole", archiving, store, host, black_hole)
    archiving.fill_segment()
    wait_until("an attempt is under way", lambda: running_pushes(host.walg_config))
    pushes = running_pushes(host.walg_config)
    for pid in pushes:
        with open(f"/proc/{pid}/stat") as handle:
            os.kill(int(handle.read().rpartition(")")[2].split()[1]), signum)
    wait_until("WAL-G is gone", lambda: not set(pushes) & set(running_pushes(host.walg_config)), 3)


@pytest.mark.alone
def test_rejoining_member_does_not_wait_for_a_dead_store(
    archiving: Cluster, store: S3Server, host: Host, black_hole: BlackHole
) -> None:
    """Patroni archives left-over files of a stopped server, with an absolute path."""
    make_dead("black hole", archiving, store, host, black_hole)
    name = archiving.fill_segment()
    archiving.stop()
    path = archiving.data / "pg_wal" / name
    command = [BIN / "bin/diting-wal-archive", "--config", host.wrapper_config, path]
    begun = time.monotonic()
    done = as_postgres(*command, cwd=host.root)
    assert done.returncode == 1
    assert time.monotonic() - begun < 4
    host.write(store.settings())
    assert as_postgres(*command, cwd=host.root).returncode == 0
    assert f"{name}.lz4" in store.objects()


def test_settings_errors_name_every_problem(host: Host, store: S3Server, base: object) -> None:
    host.write(store.settings(), archive_deadline_seconds=0, nonsense=1)
    done = host.run(
        BIN / "bin/diting-wal-archive", "--config", host.wrapper_config, "pg_wal/x", cwd=host.root
    )
    assert done.returncode == 1
    assert "/archive_deadline_seconds: seconds above 0 are wanted, found 0" in done.stderr
    assert "/nonsense: is not a known setting" in done.stderr
