# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmark of the prober: two client paths at once against a PostgreSQL of its own, with TLS.

For each rate it prints, over all runs and both paths, the share of slots that the prober missed, and
median and p99 of the latency from due time to acknowledgement, each as n / min / median / max. The
server commits to disk as in production; everything lies in a temporary folder and is removed.
"""

from __future__ import annotations

import json
import os
import platform
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spread import spread

from diting.cli.main import UsageParser
from diting.core.verdict import EXIT_USAGE
from diting.ledger.checks import missed_slots
from diting.ledger.rundir import read_ledger
from diting.ledger.series import latency_summary

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

PG_BIN = Path("/usr/lib/postgresql/15/bin")
PATHS = ("dsn", "haproxy")
DEADLINE_SECONDS = 1.0
SERVER_SETTINGS = """
listen_addresses = '127.0.0.1'
ssl = on
max_connections = 2200
shared_buffers = 128MB
"""


def main() -> int:
    """Run the rates and print one line for each; 1 if the drill's rate is not held."""
    options = _options()
    missing = _missing()
    if missing:
        print(f"bench: found no {missing}; fix: apt-get install postgresql-15, run as root", file=sys.stderr)
        return EXIT_USAGE
    print(f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}; two paths at once,")
    print(
        f"{options.seconds:g} s each, deadline {DEADLINE_SECONDS:g} s; n / min / median / max over runs and paths"
    )
    print(f"{'slots/s':>8}  {'missed %':>28}  {'p50 ms':>28}  {'p99 ms':>28}  {'not ok':>7}")
    held = True
    with _server() as connection:
        for rate in options.rates:
            results = [r for _ in range(options.runs) for r in _run(rate, options.seconds, connection)]
            print(_line(rate, results), flush=True)
            if rate == 100:
                held = max(r["missed"] for r in results) < 1.0
    return 0 if held else 1


def _options() -> argparse.Namespace:
    parser = UsageParser(prog="scripts/bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rates", default="100,200,500,1000", help="slots per second and path")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run")
    options = parser.parse_args()
    try:
        options.rates = [int(rate) for rate in options.rates.split(",")]
    except ValueError:
        parser.exit(EXIT_USAGE, f"--rates: found {options.rates!r}, wanted numbers such as 100,200\n")
    if options.runs < 1 or options.seconds < 1 or not all(1 <= r <= 2000 for r in options.rates):
        parser.exit(EXIT_USAGE, "wanted at least one run of one second, rates from 1 to 2000\n")
    return options


def _missing() -> str | None:
    if not (PG_BIN / "initdb").exists():
        return f"{PG_BIN}/initdb"
    return None if os.geteuid() == 0 else "right to start PostgreSQL as user postgres"


@contextmanager
def _server() -> Iterator[dict[str, Any]]:
    """A cluster under the temporary folder; yields the ``connection`` object for the prober."""
    base = Path(tempfile.mkdtemp(prefix="diting-bench-"))
    data, cert = base / "data", base / "server.crt"
    try:
        user = pwd.getpwnam("postgres")
        os.chown(base, user.pw_uid, user.pw_gid)
        base.chmod(0o755)
        _as_postgres(PG_BIN / "initdb", "-D", data, "-A", "trust", "-k")
        port = _unused_port()
        request = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
        names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
        subprocess.run(
            ["openssl", "req", *request, *names, "-keyout", str(data / "server.key"), "-out", str(cert)],
            check=True,
            capture_output=True,
        )
        shutil.copy(cert, data / "server.crt")
        for path in (data / "server.key", data / "server.crt"):
            os.chown(path, user.pw_uid, user.pw_gid)
            path.chmod(0o600)
        with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"{SERVER_SETTINGS}port = {port}\nunix_socket_directories = '{base}'\n")
        _as_postgres(PG_BIN / "pg_ctl", "-D", data, "-l", base / "log", "-w", "-s", "start")
        yield {
            "hosts": ["localhost"],
            "hostaddrs": ["127.0.0.1"],
            "ports": [port],
            "dbname": "postgres",
            "user": "postgres",
            "sslrootcert": str(cert),
        }
    finally:
        if (data / "postmaster.pid").exists():
            _as_postgres(PG_BIN / "pg_ctl", "-D", data, "-m", "immediate", "-s", "stop")
        shutil.rmtree(base, ignore_errors=True)


def _run(rate: int, seconds: float, connection: dict[str, Any]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="diting-bench-run-") as name:
        folder = Path(name)
        files = [_config(folder, path, rate, seconds, connection) for path in PATHS]
        subprocess.run(_command("prepare", files[0]), check=True)
        probers = [
            subprocess.Popen(_command("run", file), stdout=subprocess.PIPE, text=True) for file in files
        ]
        for prober in probers:
            prober.communicate()
            if prober.returncode != 0:
                raise SystemExit(f"bench: a prober left with status {prober.returncode}")
        return [_figures(folder / f"ledger-{path}.jsonl") for path in PATHS]


def _config(folder: Path, path: str, rate: int, seconds: float, connection: dict[str, Any]) -> Path:
    document = {
        "run_id": f"bench-{time.time_ns()}",
        "path": path,
        "output_dir": str(folder),
        "failure_zone": "bench",
        "interval_seconds": 1 / rate,
        "op_deadline_seconds": DEADLINE_SECONDS,
        "max_duration_seconds": seconds + 1,
        "connection": connection,
    }
    file = folder / f"{path}.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def _figures(file: Path) -> dict[str, Any]:
    ledger = read_ledger(file)
    missed, total = missed_slots(ledger)
    latency = latency_summary(ledger.ops)
    return {
        "missed": 100 * missed / total,
        "p50": 1000 * (latency["p50_seconds"] or 0),
        "p99": 1000 * (latency["p99_seconds"] or 0),
        "not_ok": total - latency["n"],
    }


def _line(rate: int, results: Sequence[dict[str, Any]]) -> str:
    missed, p50, p99 = (spread([result[key] for result in results]) for key in ("missed", "p50", "p99"))
    not_ok = sum(result["not_ok"] for result in results)
    return f"{rate:>8}  {missed:>28}  {p50:>28}  {p99:>28}  {not_ok:>7}"


def _command(action: str, config: Path) -> list[str]:
    return [sys.executable, "-m", "diting.cli.main", "ledger", action, "--config", str(config)]


def _as_postgres(*words: object) -> None:
    # A file and not a pipe: the server inherits it and would keep a pipe open for ever.
    with tempfile.TemporaryFile("w+") as out:
        done = subprocess.run(
            [str(word) for word in words],
            stdout=out,
            stderr=out,
            user="postgres",
            group="postgres",
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            check=False,
        )
        if done.returncode != 0:
            out.seek(0)
            raise SystemExit(f"bench: {words[0]}: {out.read()}")


def _unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
