# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""The commands with what other WAL-Gs do: a stand-in plays v3.0.9's exit codes, and a store behind TLS."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from support.servers import as_postgres
from support.wal_cluster import BIN, Host, S3Server
from support.wal_fixtures import base, host, pristine, store  # noqa: F401

pytestmark = pytest.mark.process

SEGMENT = "000000010000000000000007"


@pytest.fixture
def data(base: Path, host: Host, store: S3Server) -> Path:
    """A data directory with nothing in it but what the commands look at."""
    folder = base / "data"
    for path in (folder, folder / "pg_wal", folder / "global"):
        path.mkdir()
        as_root = subprocess.run(["chown", "postgres:", path], check=False)
        assert as_root.returncode == 0
    store.path("basebackups_005").mkdir(parents=True)
    store.path("basebackups_005/x_backup_stop_sentinel.json").write_text("{}")
    return folder


def stand_in(host: Host, store: S3Server, body: str, **wrapper: float) -> None:
    script = host.root / "wal-g"
    script.write_text(f"#!/bin/sh\n# $1 --config $2 file $3 wal-fetch $4 name $5 destination\n{body}\n")
    script.chmod(0o755)
    host.walg = script
    host.write(store.settings(), **wrapper)


def ask(host: Host, data: Path, name: str = SEGMENT) -> subprocess.CompletedProcess[str]:
    done = as_postgres(
        *(BIN / "bin/diting-wal-restore", "--config", host.wrapper_config, name, "pg_wal/RECOVERYXLOG"),
        cwd=data,
    )
    assert list((data / "pg_wal").iterdir()) == []
    return done


ABSENT = "echo \"ERROR: Archive '$4' does not exist.\" >&2; exit 74"
TRUNCATED = ': > "$5"; echo "ERROR: unexpected EOF" >&2; exit 1'
SILENT_SUCCESS = ': > "$5"; exit 0'
NOTHING_WRITTEN = "exit 0"
STUBBORN = "trap '' TERM INT; sleep 30"


@pytest.mark.parametrize("mode", ["recovery.signal", "standby.signal"])
@pytest.mark.parametrize(
    ("body", "held", "target_code"),
    [
        (ABSENT, False, 1),
        (ABSENT, True, 200),
        (TRUNCATED, True, 200),
        (SILENT_SUCCESS, True, 201),
        (NOTHING_WRITTEN, True, 200),
        (STUBBORN, True, 200),
        ("exec /nonexistent/wal-g", True, 200),
    ],
    ids=["absent", "says absent, store holds it", "truncated", "empty", "nothing", "stubborn", "no binary"],
)
@pytest.mark.alone
def test_exit_codes(
    mode: str, body: str, held: bool, target_code: int, data: Path, host: Host, store: S3Server
) -> None:
    (data / mode).touch()
    stand_in(host, store, body, restore_target_seconds=1.5)
    if held:
        path = store.path(f"wal_005/{SEGMENT}.br")
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    begun = time.monotonic()
    done = ask(host, data)
    standby = mode == "standby.signal"
    assert done.returncode == (1 if standby else target_code), done.stderr
    if standby:
        assert time.monotonic() - begun < 1.5
    assert bool(done.stderr) == (held or (not standby and target_code != 1))


def test_a_name_that_only_begins_like_another_is_absent(data: Path, host: Host, store: S3Server) -> None:
    (data / "recovery.signal").touch()
    stand_in(host, store, ABSENT)
    path = store.path("wal_005/00000002.history2.lz4")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert ask(host, data, "00000002.history").returncode == 1


@pytest.fixture
def certificates(base: Path) -> Path:
    """A CA and a server certificate for localhost."""
    folder = base / "tls"
    folder.mkdir()
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    (folder / "ext").write_text("subjectAltName=DNS:localhost\n")
    for command in (
        [*new, "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt"],
        [*new, "-x509", "-subj", "/CN=other", "-keyout", "other.key", "-out", "other.crt"],
        [*new, "-subj", "/CN=localhost", "-keyout", "host.key", "-out", "host.csr"],
        [
            "openssl",
            "x509",
            "-req",
            "-in",
            "host.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "ext",
            "-out",
            "host.crt",
        ],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    for path in folder.iterdir():
        path.chmod(0o644)
    folder.chmod(0o755)
    return folder


def test_tls_is_verified(data: Path, host: Host, store: S3Server, certificates: Path) -> None:
    (data / "recovery.signal").touch()
    store.stop()
    store.options = ["--cert", str(certificates / "host.crt"), "--key", str(certificates / "host.key")]
    store.start()
    good = {
        "AWS_ENDPOINT": f"https://localhost:{store.port}",
        "WALG_S3_CA_CERT_FILE": str(certificates / "ca.crt"),
    }
    host.write(store.settings(**good))
    assert ask(host, data).returncode == 1  # the real WAL-G failed, the store was asked and has none
    for change in (
        {"WALG_S3_CA_CERT_FILE": str(certificates / "other.crt")},
        {"AWS_ENDPOINT": f"https://127.0.0.1:{store.port}"},
        {"AWS_ENDPOINT": f"http://localhost:{store.port}"},
    ):
        host.write(store.settings(**{**good, **change}), restore_target_seconds=3)
        assert ask(host, data).returncode == 200, change
