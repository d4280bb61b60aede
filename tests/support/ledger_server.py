# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL 15 with TLS on loopback, and the ledger's programs started beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from support.servers import (
    PG_BIN,
    as_postgres,
    checked,
    free_port,
    own,
    require_postgres,
    self_signed,
    wait_until,
)

CONFIG = """
listen_addresses = '127.0.0.1'
ssl = on
max_connections = 350
fsync = off
shared_buffers = 32MB
wal_level = replica
hot_standby = on
max_wal_size = 256MB
logging_collector = off
"""


class Server:
    """One cluster of its own under /tmp, run by the user postgres."""

    def __init__(self, base: Path, port: int) -> None:
        self.base = base
        self.port = port
        self.data = base / "data"
        self.ca = base / "server.crt"

    @classmethod
    def create(cls) -> Server:
        require_postgres()
        server = cls(_home("diting-ledger-"), free_port())
        try:
            server._set_up()
        except BaseException:
            server.destroy()
            raise
        return server

    def _set_up(self) -> None:
        (self.base / "pwfile").write_text("super\n", encoding="ascii")
        checked(
            *(PG_BIN / "initdb", "-D", self.data, "-A", "scram-sha-256", "-k", "-N"),
            *("--pwfile", self.base / "pwfile"),
            cwd=self.base,
        )
        _certificate(self.base)
        self.configure(CONFIG)
        self.start()
        with self.admin("postgres") as conn:
            conn.execute("CREATE ROLE diting_prober LOGIN PASSWORD 'probe-secret'")
            conn.execute("CREATE DATABASE diting")
        with self.admin() as conn:
            conn.execute("CREATE SCHEMA diting_ledger AUTHORIZATION diting_prober")

    def standby(self) -> Server:
        """A streaming replica of this server."""
        other = Server(_home("diting-ledger-standby-"), free_port())
        shutil.copy(self.ca, other.ca)
        dsn = f"host=127.0.0.1 port={self.port} user=postgres password=super"
        checked(
            *(PG_BIN / "pg_basebackup", "-D", other.data, "-d", dsn, "-R", "-c", "fast", "-X", "stream"),
            cwd=other.base,
        )
        other.configure(f"port = {other.port}\nprimary_conninfo = '{dsn} application_name=standby'\n")
        other.start()
        wait_until("the standby streams", lambda: self.value("SELECT count(*) FROM pg_stat_replication") == 1)
        return other

    def configure(self, text: str) -> None:
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"port = {self.port}\nunix_socket_directories = '{self.base}'\n{text}")

    def start(self) -> None:
        def attempt() -> bool:
            done = as_postgres(
                *(PG_BIN / "pg_ctl", "-D", self.data, "-l", self.base / "log", "-w", "-s", "start"),
                cwd=self.base,
            )
            return done.returncode == 0

        # After a kill the last orphans may still hold the shared memory for a moment.
        wait_until("PostgreSQL starts", attempt)

    def stop(self, mode: str = "immediate") -> None:
        as_postgres(PG_BIN / "pg_ctl", "-D", self.data, "-m", mode, "-w", "-s", "stop", cwd=self.base)

    def admin(self, dbname: str = "diting") -> psycopg.Connection[Any]:
        return psycopg.connect(
            f"host={self.base} port={self.port} user=postgres password=super dbname={dbname} connect_timeout=5",
            autocommit=True,
        )

    def value(self, sql: str) -> Any:
        with self.admin() as conn:
            row = conn.execute(sql).fetchone()
            return row[0] if row else None

    def pids(self) -> list[int]:
        """The postmaster and all its children."""
        main = int((self.data / "postmaster.pid").read_text(encoding="ascii").split()[0])
        found = Path(f"/proc/{main}/task/{main}/children").read_text(encoding="ascii").split()
        return [main, *map(int, found)]

    def freeze(self) -> None:
        """SIGSTOP as a black hole looks: connections are accepted by the kernel, nothing answers."""
        # The postmaster first: while it runs it may start a child that is not on the list yet.
        os.kill(self.pids()[0], signal.SIGSTOP)
        for pid in self.pids()[1:]:
            with contextlib.suppress(ProcessLookupError):  # a session that has just ended
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        # The postmaster first: it is going on that has some of the others end.
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def destroy(self) -> None:
        with contextlib.suppress(OSError):
            self.thaw()
        self.stop()
        shutil.rmtree(self.base, ignore_errors=True)


def _home(prefix: str) -> Path:
    base = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    own(base)
    base.chmod(0o755)
    return base


def _certificate(base: Path) -> None:
    key, cert = base / "data/server.key", base / "server.crt"
    self_signed(key, cert, "localhost", "DNS:localhost")
    shutil.copy(cert, base / "data/server.crt")
    for path in (key, base / "data/server.crt"):
        own(path)
        path.chmod(0o600)


class Programs:
    """The ledger's commands as real processes, one run directory."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.run_id = "test-run"
        self.started: list[subprocess.Popen[str]] = []
        self.passfile = directory / "pgpass"
        self.passfile.write_text("*:*:*:diting_prober:probe-secret\n", encoding="ascii")
        self.passfile.chmod(0o600)

    def connection(self, *ports: int) -> dict[str, Any]:
        ports = ports or (self.server.port,)
        return {
            "hosts": ["localhost"] * len(ports),
            "hostaddrs": ["127.0.0.1"] * len(ports),
            "ports": list(ports),
            "dbname": "diting",
            "user": "diting_prober",
            "passfile": str(self.passfile),
            "sslmode": "verify-full",
            "sslrootcert": str(self.server.ca),
        }

    def config(self, path: str = "dsn", ports: tuple[int, ...] = (), **values: Any) -> Path:
        document = {
            "run_id": self.run_id,
            "path": path,
            "output_dir": str(self.directory),
            "failure_zone": "zone_infra",
            "max_duration_seconds": 60,
            "connection": self.connection(*ports),
            **values,
        }
        file = self.directory / f"prober-{path}.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        return file

    def diting(self, *words: object, status: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*words), capture_output=True, text=True, timeout=60, check=False, **options
        )
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done

    def start(self, *words: object, ready: bool = True, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
        self.started.append(process)
        if ready:
            line = process.stdout.readline() if process.stdout else ""
            assert "ready" in line, f"not ready: {line} {process.communicate(timeout=20)}"
        return process

    def probe(self, path: str = "dsn", ports: tuple[int, ...] = (), **values: Any) -> subprocess.Popen[str]:
        return self.start("ledger", "run", "--config", self.config(path, ports, **values))

    def finish(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """SIGTERM, and the footer the prober prints."""
        process.terminate()
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        return json.loads(out.splitlines()[-1])

    def records(self, path: str = "dsn") -> list[dict[str, Any]]:
        text = (self.directory / f"ledger-{path}.jsonl").read_bytes()
        return [json.loads(line) for line in text.split(b"\n")[:-1]]

    def outcomes(self, path: str = "dsn") -> dict[int, dict[str, Any]]:
        return {r["seq"]: r for r in self.records(path) if r["k"] == "o"}

    def found(self, path: str = "dsn") -> set[int]:
        with self.server.admin() as conn:
            rows = conn.execute(
                "SELECT seq FROM diting_ledger.ops WHERE run_id = %s AND path = %s", (self.run_id, path)
            ).fetchall()
        return {row[0] for row in rows}

    def acked(self, path: str = "dsn") -> int:
        """Number of rows that the server shows right now: progress to wait for."""
        return len(self.found(path))

    def mark(self, label: str) -> None:
        self.diting("ledger", "mark", "--file", self.directory / "marks.jsonl", "--label", label)

    def cleanup(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "diting.cli.main", *map(str, words)]
