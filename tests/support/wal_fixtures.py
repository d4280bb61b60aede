# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the WAL tests; a test file imports the ones it uses."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.servers import PG_BIN, checked, own, require_postgres, wait_until
from support.wal_cluster import BlackHole, Cluster, Host, S3Server, install_commands, versitygw, walg


@pytest.fixture(scope="session")
def pristine() -> Iterator[Cluster]:
    """A data directory straight from initdb, which tests copy instead of making one each."""
    require_postgres()
    with tempfile.TemporaryDirectory(prefix="dwal-", dir="/tmp") as name:
        own(Path(name))
        yield Cluster.create(Path(name) / "pristine")


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that postgres can enter, which pytest's own folders are not."""
    require_postgres()
    with tempfile.TemporaryDirectory(prefix="dwal-", dir="/tmp") as name:
        own(Path(name))
        yield Path(name)


@pytest.fixture
def store(base: Path) -> Iterator[S3Server]:
    """A running S3 server with an empty bucket."""
    (base / "s3").mkdir()
    server = S3Server(versitygw(), base / "s3")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def host(base: Path, store: S3Server) -> Host:
    """The wrappers' files, pointing at the S3 server."""
    install_commands()
    (base / "etc").mkdir()
    own(base / "etc")
    result = Host(base / "etc", walg())
    result.write(store.settings())
    return result


@pytest.fixture
def cluster(base: Path, pristine: Cluster, clusters: Callable[[str], Cluster]) -> Cluster:
    """A stopped copy of the pristine cluster."""
    return clusters("a")


@pytest.fixture
def clusters(base: Path, pristine: Cluster) -> Iterator[Callable[[str], Cluster]]:
    """Makes copies of the pristine cluster; all are stopped and gone afterwards."""
    made: list[Cluster] = []

    def make(name: str, source: Path | None = None) -> Cluster:
        folder = base / name
        if source is None:
            shutil.copytree(pristine.data, folder, copy_function=shutil.copy2)
        else:
            shutil.copytree(source, folder, copy_function=shutil.copy2)
        for path in [folder, *folder.rglob("*")]:
            own(path)
        folder.chmod(0o700)
        result = Cluster(folder)
        result.configure(unix_socket_directories=str(base))
        made.append(result)
        return result

    yield make
    for cluster in made:
        cluster.destroy()


@pytest.fixture
def archiving(cluster: Cluster, host: Host) -> Cluster:
    """The cluster, running, with the wrapper as its archive_command."""
    cluster.configure(archive_command=host.archive())
    cluster.start()
    return cluster


def follow(standby: Cluster, primary: Cluster) -> None:
    """Make a stopped cluster a standby that streams from another one, and start it without waiting."""
    standby.configure(
        primary_conninfo=f"host={primary.socket_dir} port={primary.port} user=postgres",
        port=str(standby.port),
    )
    (standby.data / "standby.signal").touch()
    own(standby.data / "standby.signal")
    done = standby.ctl("start", "-W")
    assert done.returncode == 0, done.stdout + done.stderr


def streams(primary: Cluster) -> bool:
    """Is there a standby that streams from it?"""
    return primary.sql("select count(*) from pg_stat_replication where state = 'streaming'") == "1"


@pytest.fixture
def standby_of(clusters: Callable[..., Cluster], base: Path) -> Callable[[Cluster], Cluster]:
    """Makes a standby of a running cluster, which streams when this returns."""

    def make(primary: Cluster) -> Cluster:
        checked(
            *(PG_BIN / "pg_basebackup", "-D", base / "copy", "-c", "fast"),
            *("-h", primary.socket_dir, "-p", primary.port),
            cwd=base,
        )
        standby = clusters("standby", base / "copy")
        follow(standby, primary)
        wait_until("it streams", lambda: streams(primary))
        return standby

    return make


@pytest.fixture
def black_hole() -> Iterator[BlackHole]:
    hole = BlackHole()
    yield hole
    hole.close()
