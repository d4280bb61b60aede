# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""restore_command: recovery to a target never ends early, a standby never waits or falls over."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.servers import PG_BIN, as_postgres, checked, own, wait_until
from support.wal_cluster import BIN, BlackHole, Cluster, Host, S3Server
from support.wal_fixtures import archiving, base, black_hole, cluster, clusters, host, pristine, store  # noqa: F401
from support.wal_front import Front

pytestmark = pytest.mark.process

MakeCluster = Callable[..., Cluster]


@pytest.fixture
def archive(archiving: Cluster, store: S3Server) -> list[str]:
    """Names of five archived segments, with a base backup's folder beside them."""
    names = [archiving.fill_segment() for _ in range(5)]
    wait_until("all are archived", lambda: f"{names[-1]}.lz4" in store.objects())
    marker = store.path("basebackups_005/base_000000010000000000000001_backup_stop_sentinel.json")
    marker.parent.mkdir(exist_ok=True)
    marker.write_text("{}")
    return names


class Asker:
    """Runs the wrapper by hand in a data directory that is (or is not) a standby."""

    def __init__(self, data: Path, host: Host) -> None:
        self.data = data
        self.host = host
        self.target = data / "pg_wal" / "RECOVERYXLOG"

    def mode(self, *signals: str) -> None:
        for name in ("standby.signal", "recovery.signal"):
            (self.data / name).unlink(missing_ok=True)
        for name in signals:
            (self.data / name).touch()

    def ask(self, name: str) -> tuple[int, str, float]:
        begun = time.monotonic()
        done = as_postgres(
            *(BIN / "bin/diting-wal-restore", "--config", self.host.wrapper_config, name),
            "pg_wal/RECOVERYXLOG",
            cwd=self.data,
        )
        took = time.monotonic() - begun
        leftovers = [path.name for path in self.target.parent.glob("RECOVERYXLOG?*")]
        assert leftovers == [], done.stderr
        assert self.target.exists() == (done.returncode == 0)
        return done.returncode, done.stderr, took


@pytest.fixture
def asker(archive: list[str], archiving: Cluster, host: Host) -> Asker:
    archiving.stop()
    result = Asker(archiving.data, host)
    result.mode("recovery.signal")
    return result


def test_target_fetches_what_is_there(asker: Asker, archive: list[str], store: S3Server) -> None:
    code, said, _took = asker.ask(archive[0])
    assert (code, said) == (0, "")
    assert asker.target.read_bytes()[8:16] == int(
        archive[0][8:16] + archive[0][18:24] + "000000", 16
    ).to_bytes(8, "little")


@pytest.mark.parametrize("name", ["0000000100000000000000AA", "00000002.history"])
def test_target_absent_is_one_only_by_the_store(name: str, asker: Asker, host: Host, store: S3Server) -> None:
    assert asker.ask(name)[:2] == (1, "")
    lies = {
        "wrong key": {"AWS_SECRET_ACCESS_KEY": "wrong"},
        "unknown key": {"AWS_ACCESS_KEY_ID": "nobody"},
        "wrong bucket": {"WALG_S3_PREFIX": "s3://other/c1"},
        "wrong prefix": {"WALG_S3_PREFIX": "s3://wal-test/c2"},
        "not a name": {"AWS_ENDPOINT": "http://store.invalid:7070"},
    }
    for what, change in lies.items():
        host.write(store.settings(**change), restore_target_seconds=5)
        code, said, _took = asker.ask(name)
        assert code >= 126, what
        assert "could not" in said, what


@pytest.mark.alone
def test_target_dead_store_is_never_the_end(
    asker: Asker, archive: list[str], host: Host, store: S3Server, black_hole: BlackHole
) -> None:
    host.write(store.settings(AWS_ENDPOINT=f"http://127.0.0.1:{black_hole.port}"), restore_target_seconds=2)
    code, _said, took = asker.ask("0000000100000000000000AA")
    assert code >= 126
    assert took < 4
    store.stop()
    host.write(store.settings(), restore_target_seconds=2)
    assert asker.ask("0000000100000000000000AA")[0] >= 126


def test_standby_answers_in_time_whatever_happens(
    asker: Asker, archive: list[str], host: Host, store: S3Server, black_hole: BlackHole
) -> None:
    asker.mode("standby.signal", "recovery.signal")
    absent = "0000000100000000000000AA"
    cases = {
        "refused": {"AWS_ENDPOINT": "http://127.0.0.1:9"},
        "black hole": {"AWS_ENDPOINT": f"http://127.0.0.1:{black_hole.port}"},
        "no such name": {"AWS_ENDPOINT": "http://store.invalid:7070"},
        "wrong key": {"AWS_SECRET_ACCESS_KEY": "wrong"},
    }
    for what, change in cases.items():
        host.write(store.settings(**change))
        tries = []
        # The limit is ours, a machine that is busy with other things is not: the best of three counts.
        while len(tries) < 3 and min(tries, default=9) >= 1.0:
            (host.state / "restore-memory").unlink(missing_ok=True)
            code, said, took = asker.ask(archive[0])
            tries.append(took)
            assert code == 1, what
            assert "WARNING" in said, what
        assert min(tries) < 1.0, f"{what}: {tries}"
    (host.state / "restore-memory").unlink(missing_ok=True)
    host.write(store.settings(), restore_standby_seconds=5)
    code, said, _took = asker.ask(absent)
    assert (code, said) == (1, "")
    assert asker.ask(archive[0])[0] == 0


def test_standby_asks_a_silent_store_once(
    asker: Asker, archive: list[str], host: Host, store: S3Server, black_hole: BlackHole
) -> None:
    """A promotion asks several times; only the first answer may cost time."""
    asker.mode("standby.signal")
    host.write(
        store.settings(AWS_ENDPOINT=f"http://127.0.0.1:{black_hole.port}"),
        store_silent_seconds=3,
        restore_standby_seconds=10,
    )
    asker.ask(archive[0])
    _code, said, _took = asker.ask(archive[1])
    assert "not asked for" in said
    host.write(store.settings(), restore_standby_seconds=10)
    wait_until("the memory ends and it asks again", lambda: asker.ask(archive[1])[0] == 0)


def truncate(store: S3Server, name: str) -> None:
    path = store.path(f"wal_005/{name}.lz4")
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


@pytest.mark.parametrize(("signal_file", "code"), [("recovery.signal", 201), ("standby.signal", 1)])
def test_truncated_object_is_refused(
    signal_file: str, code: int, asker: Asker, archiving: Cluster, host: Host, store: S3Server
) -> None:
    """A full segment cut in the middle: v0.2.19 hands it out with exit 0 and the right size."""
    asker.mode()
    archiving.start()
    archiving.sql("create table big as select g, md5(g::text) from generate_series(1, 300000) g")
    archiving.fill_segment()
    full = wait_until(
        "a full segment is archived",
        lambda: [name for name in store.objects() if store.path(f"wal_005/{name}").stat().st_size > 1 << 20],
    )[0].removesuffix(".lz4")
    archiving.stop()
    host.write(store.settings(), restore_standby_seconds=10)
    asker.mode(signal_file)
    assert asker.ask(full)[0] == 0
    asker.target.unlink()
    truncate(store, full)
    found, said, _took = asker.ask(full)
    assert found in {code, 200} if code > 1 else found == 1
    assert "WARNING" in said


@pytest.mark.parametrize("signal_file", ["recovery.signal", "standby.signal"])
def test_foreign_and_mixed_up_segments_are_refused(
    signal_file: str, asker: Asker, archive: list[str], host: Host, store: S3Server
) -> None:
    host.write(store.settings(), restore_standby_seconds=10)
    asker.mode(signal_file)
    first, second = (store.path(f"wal_005/{name}.lz4") for name in archive[:2])
    first.write_bytes(second.read_bytes())
    code, said, _took = asker.ask(archive[0])
    assert code == (201 if signal_file == "recovery.signal" else 1)
    assert "page at 0 has" in said
    control = asker.data / "global/pg_control"
    control.write_bytes(b"\x01" * 8 + control.read_bytes()[8:])
    code, said, _took = asker.ask(archive[1])
    assert code == (201 if signal_file == "recovery.signal" else 1)
    assert "database system" in said


def test_absolute_path_of_pg_rewind_is_understood(asker: Asker, archive: list[str], host: Host) -> None:
    asker.mode()
    target = asker.data / "pg_wal" / "wanted"
    done = as_postgres(
        *(BIN / "bin/diting-wal-restore", "--config", host.wrapper_config, archive[1], target), cwd=host.root
    )
    assert done.returncode == 0, done.stderr
    assert target.stat().st_size == 16 << 20


class Recovery:
    """A base backup, rows after it in later segments, and a copy that recovers from the store."""

    def __init__(self, primary: Cluster, clusters: MakeCluster, base: Path) -> None:
        self.primary = primary
        self.clusters = clusters
        self.copy = base / "basebackup"

    def take(self) -> list[str]:
        primary = self.primary
        primary.sql("alter system set wal_keep_size = '512MB'")
        primary.sql("select pg_reload_conf()")
        primary.sql("create table rows (n bigint)")
        checked(
            *(PG_BIN / "pg_basebackup", "-D", self.copy, "-X", "none", "-c", "fast"),
            *("-h", primary.socket_dir, "-p", primary.port),
            cwd=self.copy.parent,
        )
        names = []
        for n in range(4):
            primary.sql(f"insert into rows values ({n})")
            names.append(primary.fill_segment())
        return names

    def restore(self, name: str, command: str, signal_file: str) -> Cluster:
        copy = self.clusters(name, self.copy)
        copy.configure(
            restore_command=command,
            archive_mode="off",
            recovery_target_action="promote",
            port=str(copy.port),
        )
        (copy.data / signal_file).touch()
        own(copy.data / signal_file)
        return copy


@pytest.fixture
def recovery(archiving: Cluster, clusters: MakeCluster, base: Path, store: S3Server) -> Recovery:
    (store.path("basebackups_005")).mkdir(parents=True)
    store.path("basebackups_005/x_backup_stop_sentinel.json").write_text("{}")
    return Recovery(archiving, clusters, base)


def break_one(base: Path, host: Host, command: str, bad: str) -> str:
    """restore_command that works until it is asked for ``bad``, and from then on has a wrong key."""
    script = base / "breaking"
    script.write_text(
        "#!/bin/sh\n"
        # Or WAL-G has the next segments in the background, if it is quick enough, before the key is wrong.
        "export WALG_DOWNLOAD_CONCURRENCY=1\n"
        f'if [ "$1" = {bad} ]; then sed -i \'s/"walg-secret-key"/"wrong"/\' {host.walg_config}; fi\n'
        f"exec {command.replace('%f', '$1').replace('%p', '$2')}\n"
    )
    script.chmod(0o755)
    return f"{script} %f %p"


def test_raw_wal_fetch_ends_a_recovery_early_and_the_wrapper_does_not(
    recovery: Recovery, host: Host, store: S3Server, base: Path
) -> None:
    names = recovery.take()
    wait_until("all are archived", lambda: f"{names[-1]}.lz4" in store.objects())
    recovery.primary.stop()

    # Raw: the store breaks in mid recovery, the server comes up and lacks acknowledged rows.
    raw = recovery.restore("raw", break_one(base, host, host.raw_restore(), names[2]), "recovery.signal")
    raw.start()
    wait_until("it is promoted", lambda: raw.sql("select pg_is_in_recovery()") == "f")
    assert raw.sql("select string_agg(n::text, ',' order by n) from rows") == "0,1"

    # Wrapper, same break: the server refuses to come up, and comes up whole once the store is well.
    host.write(store.settings(), restore_target_seconds=10)
    kept = recovery.restore("kept", break_one(base, host, host.restore(), names[2]), "recovery.signal")
    kept.ctl("start", "-w", "-t", "40")
    wait_until("the server gives up", lambda: not (kept.data / "postmaster.pid").exists())
    assert "could not be fetched" in kept.log.read_text()
    assert (kept.data / "recovery.signal").exists()
    host.write(store.settings())
    kept.configure(restore_command=host.restore())
    kept.start()
    wait_until("it is promoted", lambda: kept.sql("select pg_is_in_recovery()") == "f")
    assert kept.sql("select string_agg(n::text, ',' order by n) from rows") == "0,1,2,3"


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["alive", "refused", "black hole"])
def test_promotion_does_not_wait_for_the_store(
    kind: str, recovery: Recovery, host: Host, store: S3Server, base: Path, black_hole: BlackHole
) -> None:
    recovery.take()
    primary = recovery.primary
    standby = recovery.restore("standby", host.restore(), "standby.signal")
    standby.configure(primary_conninfo=f"host={base} port={primary.port} user=postgres")
    standby.start()
    wait_until(
        "it streams",
        lambda: primary.sql("select count(*) from pg_stat_replication where state = 'streaming'") == "1",
    )
    if kind == "refused":
        store.stop()
    elif kind == "black hole":
        host.write(store.settings(AWS_ENDPOINT=f"http://127.0.0.1:{black_hole.port}"))
    primary.sql("insert into rows values (99)")
    primary.stop()
    begun = time.monotonic()
    done = as_postgres(PG_BIN / "pg_ctl", "-D", standby.data, "promote", "-w", "-t", "30", cwd=base)
    assert done.returncode == 0, standby.log.read_text()[-4000:]
    took = time.monotonic() - begun
    assert took < 3, f"promotion took {took:.2f} s"
    assert standby.sql("select max(n) from rows") == "99"
    print(f"promotion with the store {kind}: {took:.2f} s")


def test_a_promotion_starts_the_program_once(
    recovery: Recovery, host: Host, store: S3Server, base: Path
) -> None:
    """Whatever PostgreSQL asks in a row, by the store's word of the first time."""
    names = recovery.take()
    wait_until("all are archived", lambda: f"{names[-1]}.lz4" in store.objects())
    primary = recovery.primary
    # Time enough for a machine that is busy with other things: what is counted here are questions.
    host.write(store.settings(), restore_absent_seconds=60, store_probe_seconds=3, restore_standby_seconds=10)
    front = Front(base / "front", host.state, host.wrapper_config)
    standby = recovery.restore("standby", f"{front.path} %f %p", "standby.signal")
    standby.configure(
        primary_conninfo=f"host={base} port={primary.port} user=postgres", wal_retrieve_retry_interval="200"
    )
    standby.start()
    wait_until(
        "it streams",
        lambda: primary.sql("select count(*) from pg_stat_replication where state = 'streaming'") == "1",
    )
    primary.sql("insert into rows values (99)")  # so the segment it is in has begun
    wait_until("it has come", lambda: standby.sql("select max(n) from rows") == "99")
    (host.state / "restore-memory").unlink(missing_ok=True)
    before = len(front.starts())
    primary.stop("immediate")  # no last push, which would drop the memory: here both have the same
    wait_until("it asks the store", lambda: len(front.starts()) > before)
    done = as_postgres(PG_BIN / "pg_ctl", "-D", standby.data, "promote", "-w", "-t", "30", cwd=base)
    assert done.returncode == 0, standby.log.read_text()[-4000:]
    assert standby.sql("select max(n) from rows") == "99"
    started = front.starts()[before:]
    print(f"the program was started for {started}")
    assert started == ["00000002.history"]


def test_dead_store_never_stops_a_standby(
    recovery: Recovery, host: Host, store: S3Server, base: Path
) -> None:
    names = recovery.take()
    wait_until("all are archived", lambda: f"{names[-1]}.lz4" in store.objects())
    store.stop()
    primary = recovery.primary
    standby = recovery.restore("standby", host.restore(), "standby.signal")
    standby.configure(primary_conninfo=f"host={base} port={primary.port} user=postgres")
    standby.start()
    primary.stop()
    wait_until("it asked the store", lambda: "could not look" in standby.log.read_text())
    assert standby.sql("select pg_is_in_recovery()") == "t"
    primary.start()
    primary.sql("insert into rows values (7)")
    wait_until("it follows again", lambda: standby.sql("select max(n) from rows") == "7")
