# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Scheduled backups: one member at a time by a lock in real etcd, and what WAL-G makes of a full one and a delta on a standby."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.etcd_cluster import EtcdCluster
from support.servers import as_postgres, own, wait_until
from support.wal_cluster import BIN, Cluster, Host, S3Server
from support.wal_compat import install_compat
from support.wal_fixtures import archiving, base, cluster, clusters, host, pristine, standby_of, store  # noqa: F401 - fixtures

pytestmark = pytest.mark.process

MEMBERS = [
    {"name": "pg2", "role": "leader", "state": "running"},
    {"name": "pg1", "role": "replica", "state": "streaming", "lag": 0},
]


class Place:
    """etcd, Patroni's answer to one question, and the settings of members beside each other."""

    def __init__(self, folder: Path, etcd: EtcdCluster) -> None:
        self.folder, self.etcd = folder, etcd
        self.members: list[dict[str, Any]] = MEMBERS
        outer = self

        class Patroni(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"members": outer.members}).encode()
                self.send_response(200 if self.path == "/cluster" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_words: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Patroni)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(etcd.folder / "host.crt", etcd.folder / "host.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def settings(self, member: str, script: str, **changes: Any) -> Path:
        """``script`` is what takes the backup."""
        tls = {"ca": "ca.crt", "certificate": "host.crt", "key": "host.key"}
        values = {
            "cluster": "test",
            "member": member,
            "patroni_url": f"https://127.0.0.1:{self.server.server_port}",
            "etcd_endpoints": self.etcd.clients,
            "lock_key": "/test/backup/lock",
            "lock_ttl_seconds": 10,
            "tls": {name: str(self.etcd.folder / file) for name, file in tls.items()},
            "command": ["sh", "-c", script],
            "deadline_seconds": 60,
            "max_lag_bytes": 0,
            "state_file": str(self.folder / f"{member}-state.json"),
            "metrics_file": str(self.folder / f"{member}.prom"),
            **changes,
        }
        path = self.folder / f"{member}.json"
        path.write_text(json.dumps(values))
        return path

    def start(self, config: Path) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "diting.cli.main", "backup", "run", "--config", str(config)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, config: Path) -> tuple[int, dict[str, Any]]:
        process = self.start(config)
        out, err = process.communicate(timeout=90)
        assert out, err
        return process.returncode, json.loads(out)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    folder = tmp_path / "etcd"
    folder.mkdir()
    etcd = EtcdCluster(folder, 1)
    made = Place(tmp_path, etcd)
    yield made
    made.server.shutdown()
    made.server.server_close()
    etcd.stop()


def test_the_member_whose_turn_it_is_takes_it_and_tells(place: Place) -> None:
    answer = '{"changed": true, "kind": "full", "backup": {"name": "b"}}'
    code, said = place.run(place.settings("pg1", f"echo '{answer}'"))
    assert (code, said["changed"], said["backup"]["name"], said["member"]) == (0, True, "b", "pg1")
    found = (place.folder / "pg1.prom").read_text()
    assert 'diting_backup_last_exit_status{cluster="test"} 0' in found
    assert "diting_backup_last_success_timestamp_seconds" in found

    code, said = place.run(place.settings("pg2", "exit 3"))
    assert (code, said["skipped"]) == (0, "pg1 takes it")
    assert not (place.folder / "pg2.prom").exists()

    # What failed is told with its words, and the last success stays.
    for script, words in (
        ("echo no room >&2; exit 3", "exit 3: no room"),
        (
            'echo \'{"reasons": [{"message": "the store did not answer"}]}\'; exit 2',
            "the store did not answer",
        ),
        ("echo '{}'; exit 1", "exit 1"),
    ):
        code, said = place.run(place.settings("pg1", script))
        assert (code, said["problem"], said["changed"]) == (1, words, False)
        after = (place.folder / "pg1.prom").read_text()
        assert 'diting_backup_last_exit_status{cluster="test"} 1' in after
        assert [line for line in found.splitlines() if "success" in line][-1] in after


def test_two_members_never_back_up_at_once(place: Place) -> None:
    going = place.folder / "going"
    first = place.start(place.settings("pg1", f"touch {going}; sleep 12; echo '{{}}'"))
    try:
        wait_until("the first is at it", going.exists)
        # Views differ: to the other one it is the other's turn. The lock outlives its own time to live by being renewed.
        place.members = [MEMBERS[0]]
        for _time in range(3):
            code, said = place.run(place.settings("pg2", "echo '{}'"))
            assert (code, said["skipped"]) == (0, "another member's backup is under way")
        out, err = first.communicate(timeout=60)
        assert first.returncode == 0, out + err
    finally:
        first.kill()
        first.wait()
    # Given back, not run out.
    assert "skipped" not in place.run(place.settings("pg2", "echo '{}'"))[1]


def test_a_killed_one_takes_its_backup_along_and_the_lock_runs_out(place: Place) -> None:
    going = place.folder / "going"
    first = place.start(place.settings("pg1", f"touch {going}; exec sleep 60"))
    wait_until("it is at it", going.exists)
    first.kill()
    first.communicate()
    place.members = [MEMBERS[0]]
    config = place.settings("pg2", "echo '{}'")
    assert "skipped" in place.run(config)[1]
    wait_until("the lock has run out", lambda: "skipped" not in place.run(config)[1])


def test_what_cannot_be_known_is_no_turn_and_no_backup(place: Place) -> None:
    touched = place.folder / "touched"
    config = place.settings("pg1", f"touch {touched}")
    place.members = []
    assert place.run(config)[0] == 2
    place.members = MEMBERS
    place.etcd.kill(0)
    code, said = place.run(config)
    assert code == 2
    assert "no lock, so no backup" in said["problem"]
    place.server.shutdown()
    place.server.server_close()
    code, said = place.run(config)
    assert code == 2
    assert "/cluster: " in said["problem"]
    assert not touched.exists()
    assert 'diting_backup_last_exit_status{cluster="test"} 2' in (place.folder / "pg1.prom").read_text()


def test_one_that_takes_too_long_is_ended(place: Place) -> None:
    code, said = place.run(place.settings("pg1", "exec sleep 60", deadline_seconds=1))
    assert (code, said["problem"]) == (1, "not done after 1 s")


def push(host: Host, *arguments: str) -> dict[str, Any]:
    done = as_postgres(
        BIN / "bin/diting-wal", "--config", host.wrapper_config, "push", *arguments, cwd=host.root
    )
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, said
    return said


def test_a_standby_takes_full_and_delta_backups_that_restore(
    archiving: Cluster,
    host: Host,
    store: S3Server,
    base: Path,
    standby_of: Callable[[Cluster], Cluster],
    clusters: Any,
) -> None:
    host.write(store.settings())
    install_compat(archiving, base)
    archiving.sql("create table kept as select generate_series(1, 1000) n")
    standby = standby_of(archiving)
    where = {"PGHOST": str(standby.socket_dir), "PGPORT": str(standby.port), "PGUSER": "postgres"}
    host.write(store.settings(**where, PGDATABASE="postgres"), restore_target_seconds=60)
    full = push(host)
    assert full["kind"] == "full"
    # It would take the first one's name, and be written over it.
    before = {
        path: path.stat().st_mtime_ns for path in store.path("basebackups_005").rglob("*") if path.is_file()
    }
    for kind in ("full", "delta"):
        again = push(host, "--kind", kind)
        assert again["changed"] is False
        assert f"no checkpoint has come since {full['backup']['name']}" in again["skipped"]
    now = {
        path: path.stat().st_mtime_ns for path in store.path("basebackups_005").rglob("*") if path.is_file()
    }
    assert now == before
    archiving.sql(
        "update kept set n = n where n % 7 = 0; insert into kept select generate_series(1001, 3000)"
    )
    archiving.sql("checkpoint")
    lsn = archiving.sql("select pg_current_wal_lsn()")
    wait_until("it has come", lambda: standby.sql(f"select pg_last_wal_replay_lsn() >= '{lsn}'") == "t")
    delta = push(host)
    assert delta["kind"] == "delta"
    assert delta["backup"]["name"].startswith("base_")
    last = archiving.fill_segment()
    wait_until("all of it is archived", lambda: f"{last}.lz4" in store.objects())

    target = base / "restored"
    target.mkdir(mode=0o700)
    own(target)
    done = as_postgres(
        host.walg, "--config", host.walg_config, "backup-fetch", target, delta["backup"]["name"], cwd=base
    )
    assert done.returncode == 0, done.stderr
    restored = Cluster(target)
    (target / "recovery.signal").touch()
    own(target / "recovery.signal")
    (target / "standby.signal").unlink(missing_ok=True)
    restored.configure(
        restore_command=host.restore(),
        archive_mode="off",
        primary_conninfo="",
        recovery_target_action="promote",
    )
    restored.start()
    try:
        wait_until("it is a primary", lambda: restored.sql("select pg_is_in_recovery()") == "f")
        assert restored.sql("select count(*), sum(n) from kept") == archiving.sql(
            "select count(*), sum(n) from kept"
        )
    finally:
        restored.destroy()
