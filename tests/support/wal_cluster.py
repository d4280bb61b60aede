# SPDX-License-Identifier: GPL-3.0-or-later
"""Real PostgreSQL, real WAL-G and a real S3 server on loopback, for the tests of the WAL wrappers."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from support.servers import PG_BIN, as_postgres, checked, free_port, own, wait_until
from support.tree import ROOT

BIN = Path(tempfile.mkdtemp(prefix="dwal-bin-", dir="/tmp"))
"""The commands as the role installs them: one archive under three names."""
BUCKET = "wal-test"
ACCESS_KEY, SECRET_KEY = "walg-access", "walg-secret-key"


def install_commands() -> None:
    """Pack the commands as the role does and put them into BIN."""
    if any(BIN.iterdir()):
        return
    atexit.register(shutil.rmtree, BIN, ignore_errors=True)
    BIN.chmod(0o755)
    packed = subprocess.run(
        [sys.executable, ROOT / "roles/walg/files/pack.py", BIN], check=True, capture_output=True, text=True
    )
    # Laid out as on a host: the shells in front find their program beside them.
    for name in ("bin", "lib"):
        (BIN / name).mkdir(mode=0o755)
    (BIN / "lib/diting-wal.pyz").symlink_to(packed.stdout.strip())
    (BIN / "bin/diting-wal").symlink_to(packed.stdout.strip())
    for name in ("diting-wal-archive", "diting-wal-restore"):
        shutil.copy(ROOT / "roles/walg/files/usr/local/bin" / name, BIN / "bin")


@functools.cache
def walg() -> Path:
    """The WAL-G of DITING_TEST_WALG, else the one the repository builds; skips when neither is to be had."""
    return _program(
        "DITING_TEST_WALG",
        ["tools/walg", "github.com/wal-g/wal-g/main/pg", "wal-g"],
        "-s -w -X github.com/wal-g/wal-g/cmd/pg.WalgVersion=v0.2.19",
        {"CGO_ENABLED": "1", "GOFLAGS": "-mod=readonly", "GONOSUMDB": "github.com/wal-g/wal-g"},
    )


@functools.cache
def versitygw() -> Path:
    """The S3 server of DITING_TEST_VERSITYGW, else the one the repository builds; skips like walg()."""
    return _program(
        "DITING_TEST_VERSITYGW",
        ["tools/versitygw", "github.com/versity/versitygw/cmd/versitygw", "versitygw"],
        "-s -w -X main.Version=v1.7.0 -X main.Build=module",
        {"CGO_ENABLED": "0"},
    )


def _program(variable: str, what: list[str], flags: str, environment: dict[str, str]) -> Path:
    named = os.environ.get(variable)
    if named:
        return Path(named)
    # The same words as in the role, so that both share one build in the cache.
    words = [ROOT / "scripts/lib/go.sh", "build", ROOT / what[0], *what[1:], "-ldflags", flags]
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"{what[2]} cannot be built here and {variable} is not set: {done.stderr.strip()[-300:]}")
    return Path(done.stdout.strip().splitlines()[-1])


class BlackHole:
    """A store that takes connections and never says a word: no accept, only the kernel's queue."""

    def __init__(self, port: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
        self.socket.listen(64)
        self.port = int(self.socket.getsockname()[1])

    def close(self) -> None:
        self.socket.close()


class S3Server:
    """versitygw over a directory; can be stopped and started again on the same port."""

    def __init__(self, binary: Path, root: Path) -> None:
        self.binary = binary
        self.root = root
        self.port = free_port()
        self.options: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        (root / "data" / BUCKET).mkdir(parents=True)
        (root / "sidecar").mkdir()

    def start(self) -> None:
        environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        self.process = subprocess.Popen(
            [
                self.binary,
                "--port",
                f"127.0.0.1:{self.port}",
                *self.options,
                "posix",
                "--sidecar",
                self.root / "sidecar",
                self.root / "data",
            ],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until("the S3 server listens", self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def objects(self, folder: str = "wal_005") -> list[str]:
        base = self.root / "data" / BUCKET / "c1" / folder
        return sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())

    def path(self, name: str) -> Path:
        return self.root / "data" / BUCKET / "c1" / name

    def settings(self, **changes: str) -> dict[str, str]:
        return {
            "WALG_S3_PREFIX": f"s3://{BUCKET}/c1",
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "AWS_REGION": "us-east-1",
            "AWS_S3_FORCE_PATH_STYLE": "true",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "WALG_PREVENT_WAL_OVERWRITE": "true",
            **changes,
        }


class Host:
    """The files of the wrappers as one host has them, owned by postgres."""

    def __init__(self, root: Path, walg: Path) -> None:
        self.root = root
        self.walg = walg
        self.walg_config = root / "wal-g.json"
        self.wrapper_config = root / "wrapper.json"
        self.state = root / "state"
        self.state.mkdir()
        own(self.state)

    def write(self, settings: dict[str, str], **wrapper: Any) -> None:
        values = {
            "walg": str(self.walg),
            "walg_config": str(self.walg_config),
            "archive_deadline_seconds": 60,
            "archive_stopping_seconds": 1,
            "archive_standby_patience_seconds": 5,
            "restore_target_seconds": 60,
            "restore_standby_seconds": 1,
            "store_probe_seconds": 0.3,
            "store_silent_seconds": 10,
            "restore_absent_seconds": 1.5,
            "state_dir": str(self.state),
            "planned_stop_file": str(self.state / "planned-stop"),
            **wrapper,
        }
        for path, content in ((self.walg_config, settings), (self.wrapper_config, values)):
            path.write_text(json.dumps(content))
            own(path)
            path.chmod(0o600)

    def belongs_to(self, cluster: Cluster, settings: dict[str, str]) -> None:
        """Have it known that this archive is the cluster's, as once its backups were looked at."""
        system = cluster.sql("select system_identifier from pg_control_system()")
        path = self.state / "owner"
        path.write_text(f"{system} {settings['AWS_ENDPOINT']} {settings['WALG_S3_PREFIX']}\n")
        own(path)

    def archive(self) -> str:
        return f"{BIN}/bin/diting-wal-archive --config {self.wrapper_config} %p"

    def restore(self) -> str:
        return f"{BIN}/bin/diting-wal-restore --config {self.wrapper_config} %f %p"

    def raw_restore(self) -> str:
        return f"{self.walg} --config {self.walg_config} wal-fetch %f %p"

    def run(self, *command: Any, cwd: Path, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        return as_postgres(*command, cwd=cwd, timeout=timeout)


class Cluster:
    """One PostgreSQL data directory on a port of its own."""

    def __init__(self, root: Path) -> None:
        self.data = root
        self.port = free_port()
        self.socket_dir = root.parent

    @classmethod
    def create(cls, root: Path) -> Cluster:
        cluster = cls(root)
        checked(PG_BIN / "initdb", "-D", root, "-A", "trust", "-N", "-k", "--no-locale", cwd=root.parent)
        cluster.configure(
            listen_addresses="",
            unix_socket_directories=str(root.parent),
            shared_buffers="16MB",
            fsync="off",
            archive_mode="on",
            wal_level="replica",
            max_wal_senders="4",
            log_line_prefix="%m [%p] %b ",
        )
        with (root / "pg_hba.conf").open("a") as handle:
            handle.write("local replication all trust\n")
        return cluster

    def configure(self, **settings: str) -> None:
        with (self.data / "postgresql.conf").open("a") as handle:
            for name, value in settings.items():
                handle.write(f"{name} = '{value}'\n")

    @property
    def log(self) -> Path:
        return self.data.parent / f"{self.data.name}.log"

    def ctl(self, action: str, *options: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        return as_postgres(
            PG_BIN / "pg_ctl",
            "-D",
            self.data,
            "-l",
            self.log,
            "-o",
            f"-p {self.port}",
            *options,
            action,
            cwd=self.data.parent,
            timeout=timeout,
        )

    def start(self) -> None:
        done = self.ctl("start", "-w", "-t", "60")
        assert done.returncode == 0, done.stdout + self.log.read_text()[-4000:]

    def stop(self, mode: str = "fast", timeout: float = 60) -> float:
        begun = time.monotonic()
        done = self.ctl("stop", "-m", mode, "-w", "-t", str(int(timeout)))
        assert done.returncode == 0, done.stdout + done.stderr
        return time.monotonic() - begun

    def sql(self, query: str) -> str:
        done = as_postgres(
            PG_BIN / "psql",
            *("-XAtq", "-v", "ON_ERROR_STOP=1"),
            *("-h", self.socket_dir, "-p", str(self.port), "-d", "postgres", "-c", query),
            cwd=self.data.parent,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def fill_segment(self) -> str:
        """Write a little and leave the segment, which then waits to be archived; returns its name."""
        self.sql("create table if not exists t (n bigint); insert into t select count(*) from t")
        name = self.sql("select pg_walfile_name(pg_current_wal_lsn())")
        self.sql("select pg_switch_wal()")
        return name

    def postmaster_pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def destroy(self) -> None:
        if (self.data / "postmaster.pid").exists():
            pid = self.postmaster_pid()
            self.ctl("stop", "-m", "immediate", "-w", "-t", "10")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
