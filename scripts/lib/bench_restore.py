# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmark of restores: a database of so many GB, half of it incompressible, backed up by WAL-G into an S3 server on loopback.

In each run, one after the other: plain programs (curl, lz4, tar, as many at once as WAL-G has) into a directory; a whole restore test;
and the archive's verification with every object read. Prints time and speed of each as n / min / median / max, the
base fetch as a share of the plain programs' speed, and how far the forecast for each size, made from the proofs of
the size before, was off. Everything lies in a temporary folder and is removed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from spread import spread

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests"))

from diting.cli.main import UsageParser
from diting.core import restore_proof
from diting.core.restore_proof import Choice, Point
from diting.core.verdict import EXIT_USAGE
from diting.core.wal_names import SEGMENT_BYTES
from diting.hostio import recovery_points
from diting.hostio.archive_store import look_at
from diting.hostio.recovery_points import Login, Wish
from support.servers import PG_BIN, as_postgres, own, wait_until
from support.wal_cluster import BIN, BUCKET, Cluster, Host, S3Server, install_commands, versitygw, walg
from support.wal_compat import install_compat

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

WORKERS = 4
"""At once, for WAL-G and for the plain programs."""
LIMIT_SECONDS = 3600.0
_GB = 10**9
_ROW_BYTES = 1900
"""Less than a page's quarter, so that no row is moved aside and compressed."""
_VERIFY = """
import json, resource, sys, time
from pathlib import Path
from diting.core.backup_content import to_read
from diting.core.wal_names import SEGMENT_BYTES
from diting.hostio.archive_content import ContentReader, readable
from diting.hostio.archive_decode import Decoder
from diting.hostio.archive_store import look_at, settings_from
begun = time.monotonic()
found = look_at(settings_from(Path(sys.argv[1])), SEGMENT_BYTES)
with Decoder(found.settings) as decoder:
    content = ContentReader(found.archive, decoder, SEGMENT_BYTES, 2, 3600).read(readable(found.objects))
peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
good = not (content.damaged or content.unread)
print(json.dumps({"seconds": time.monotonic() - begun, "rss_mib": peak / 1024, "good": good}))
"""


@dataclass
class Results:
    """Seconds of each run, and peak memory of the verification in MiB."""

    plain: list[float] = field(default_factory=list)
    fetch: list[float] = field(default_factory=list)
    verify: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)


def main() -> int:
    """Measure each size, the smallest first."""
    options = _options()
    missing = [name for name in ("curl", "lz4", "tar") if shutil.which(name) is None]
    if missing or os.geteuid() != 0 or not (PG_BIN / "initdb").exists():
        print(
            f"bench-restore: found no {', '.join(missing) or 'PostgreSQL 15, or am not root'};"
            " fix: apt-get install postgresql-15 curl lz4, run as root",
            file=sys.stderr,
        )
        return EXIT_USAGE
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; n / min / median / max; archive not encrypted, lz4"
    )
    before: list[dict[str, Any]] = []
    good = True
    for size in options.sizes:
        with _place(options.dir, size) as (base, host, store, cluster):
            results = _measure(base, host, store, cluster, options.runs)
        _print(results, before)
        good = good and all(restore_proof.proven(record) for record in results.records)
        before = results.records
    return 0 if good else 1


def _options() -> argparse.Namespace:
    parser = UsageParser(prog="scripts/bench-restore", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--sizes", default="1.25,5", help="GB of the database, the smallest first (default %(default)s)"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--dir", type=Path, default=Path("/var/lib"), help="with room for five times the largest"
    )
    options = parser.parse_args()
    try:
        options.sizes = sorted(float(size) for size in options.sizes.split(","))
    except ValueError:
        parser.exit(EXIT_USAGE, f"--sizes: found {options.sizes!r}, wanted numbers such as 1.25,5\n")
    if options.runs < 1 or options.sizes[0] <= 0:
        parser.exit(EXIT_USAGE, "--runs and --sizes: wanted more than 0\n")
    free = shutil.disk_usage(options.dir).free
    if free < options.sizes[-1] * 5 * _GB:
        parser.exit(EXIT_USAGE, f"--dir: {free / _GB:.0f} GB are free, wanted {options.sizes[-1] * 5:.0f}\n")
    return options


@contextmanager
def _place(directory: Path, size: float) -> Iterator[tuple[Path, Host, S3Server, Cluster]]:
    """A cluster of that size with a backup and a segment of WAL after it in a store, all of it gone afterwards."""
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="diting-bench-", dir=directory)))
        own(base)
        install_commands()
        (base / "s3").mkdir()
        (base / "etc").mkdir()
        own(base / "etc")
        store = S3Server(versitygw(), base / "s3")
        store.start()
        stack.callback(store.stop)
        cluster = Cluster.create(base / "a")
        stack.callback(cluster.destroy)
        where = {"PGHOST": str(cluster.socket_dir), "PGPORT": str(cluster.port), "PGUSER": "postgres"}
        host = Host(base / "etc", walg())
        host.write(
            store.settings(
                **where,
                PGDATABASE="postgres",
                WALG_DOWNLOAD_CONCURRENCY=str(WORKERS),
                WALG_UPLOAD_CONCURRENCY="2",
            ),
            restore_target_seconds=300,
        )
        # What fills it need not be archived.
        cluster.configure(archive_mode="off", max_wal_size="8GB", shared_buffers="256MB", autovacuum="off")
        cluster.start()
        begun = time.monotonic()
        _fill(cluster, size)
        install_compat(cluster, base)
        cluster.stop(timeout=300)
        cluster.configure(archive_mode="on", archive_command=host.archive())
        cluster.start()
        filled = time.monotonic()
        done = as_postgres(
            *(BIN / "bin/diting-wal", "--config", host.wrapper_config, "first-backup"),
            cwd=base,
            timeout=LIMIT_SECONDS,
        )
        if done.returncode != 0:
            raise SystemExit(f"bench-restore: the backup failed: {done.stdout}{done.stderr}")
        print(
            f"{size:g} GB: filled in {filled - begun:.0f} s, backed up in {time.monotonic() - filled:.0f} s",
            flush=True,
        )
        yield base, host, store, cluster


def _fill(cluster: Cluster, size: float) -> None:
    rows = int(size * _GB / 2 / _ROW_BYTES)
    cluster.sql("create extension pgcrypto")
    for name, content in (
        ("noise", f"gen_random_bytes(1000) || gen_random_bytes({_ROW_BYTES - 1000})"),
        ("plain", f"repeat(md5(n::text), {_ROW_BYTES // 32})::bytea"),
    ):
        cluster.sql(
            f"create table {name} (n bigint, raw bytea); alter table {name} alter raw set storage plain"
        )
        step = 100_000
        for begin in range(0, rows, step):
            last = min(begin + step, rows)
            cluster.sql(f"insert into {name} select n, {content} from generate_series({begin + 1}, {last}) n")  # noqa: S608


def _measure(base: Path, host: Host, store: S3Server, cluster: Cluster, runs: int) -> Results:
    login = Login(str(cluster.socket_dir), cluster.port, "postgres", "postgres")
    cluster.sql("insert into noise values (0, '')")
    point = Point.read(recovery_points.record(login, Wish("diting-bench", (("postgres", "public.noise"),))))
    settings = json.loads(host.walg_config.read_text(encoding="utf-8"))

    def chosen() -> Choice | None:
        found = restore_proof.choose(look_at(settings, SEGMENT_BYTES).catalog, [point], 0, Random(1))  # noqa: S311 - there is one to choose
        return found if isinstance(found, Choice) else None

    choice: Choice = wait_until("the point is archived", chosen, 60)
    results = Results()
    for _run in range(runs):
        results.plain.append(_plain(base / "plain", store, choice.backup.name))
        record = _prove(base, host, choice)
        results.records.append(record)
        results.fetch.append(record["evidence"]["phases"]["fetch"])
        done = subprocess.run(
            [sys.executable, "-c", _VERIFY, str(host.walg_config)], capture_output=True, text=True, check=True
        )
        verified = json.loads(done.stdout)
        if not verified["good"]:
            raise SystemExit("bench-restore: the verification found damage")
        results.verify.append(verified["seconds"])
        results.memory.append(verified["rss_mib"])
    return results


def _plain(target: Path, store: S3Server, backup: str) -> float:
    """Seconds that ordinary programs take for the same objects."""
    settings = store.settings()
    client = boto3.client(
        "s3",
        endpoint_url=settings["AWS_ENDPOINT"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        # Without it a URL is signed as S3 was long ago, which the server does not know.
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    names = [
        name for name in store.objects("basebackups_005") if name.startswith(f"{backup}/tar_partitions/")
    ]
    urls = [
        client.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": f"c1/basebackups_005/{name}"})
        for name in names
    ]
    target.mkdir()
    begun = time.monotonic()
    subprocess.run(
        [
            "xargs",
            "-P",
            str(WORKERS),
            "-d",
            "\n",
            "-I",
            "{}",
            "sh",
            "-c",
            f'curl -sf "$1" | lz4 -dc | tar -xf - -C {target}',
            "sh",
            "{}",
        ],
        input="\n".join(urls),
        text=True,
        check=True,
    )
    seconds = time.monotonic() - begun
    shutil.rmtree(target)
    return seconds


def _prove(base: Path, host: Host, choice: Choice) -> dict[str, Any]:
    backup, point = choice.backup, choice.point
    request = {
        "id": "bench",
        "root": str(base / "scratch"),
        "pg_bin": str(PG_BIN),
        "restore_command": host.restore(),
        "backup": backup.name,
        "backup_bytes": backup.uncompressed_size,
        "backup_start_lsn": backup.start_lsn,
        "point_lsn": point.lsn,
        "timeline": point.timeline,
        "target_type": "lsn",
        "target": point.target("lsn"),
        "tables": [{"database": one.database, "table": one.table} for one in point.tables],
        **dict.fromkeys(("fetch_seconds", "replay_seconds", "check_seconds"), LIMIT_SECONDS),
        "stall_seconds": 60,
    }
    path, result = base / "request.json", base / "result.json"
    path.write_text(json.dumps(request), encoding="utf-8")
    own(path)
    words = (
        BIN / "bin/diting-wal",
        "--config",
        host.wrapper_config,
        "prove",
        "--request",
        path,
        "--result",
        result,
    )
    done = as_postgres(*words, cwd=base, timeout=LIMIT_SECONDS)
    # Speeds are wanted here: what the objects hold is read by the verification that this bench times as well.
    now = datetime.now(UTC)
    judgement = restore_proof.judge(json.loads(result.read_text(encoding="utf-8")), point, now, None)
    if done.returncode != 0:
        raise SystemExit(f"bench-restore: nothing was proven: {judgement.as_dict()['reasons']}{done.stderr}")
    return {**judgement.as_dict(), "ended": time.time()}


def _print(results: Results, before: list[dict[str, Any]]) -> None:
    restored = int(results.records[0]["evidence"]["size_bytes"])
    shares = [100 * plain / fetch for plain, fetch in zip(results.plain, results.fetch, strict=True)]
    for name, values, unit in (
        ("plain programs", results.plain, "s"),
        ("base fetch", results.fetch, "s"),
        ("base fetch", [restored / 2**20 / seconds for seconds in results.fetch], "MiB/s"),
        ("share of plain speed", shares, "%"),
        ("replay", [record["evidence"]["phases"]["replay"] for record in results.records], "s"),
        ("verify, every object", results.verify, "s"),
        ("verify / base fetch", [v / f for v, f in zip(results.verify, results.fetch, strict=True)], ""),
        ("verify, memory", results.memory, "MiB"),
    ):
        print(f"  {name:<22} {spread(values):>30} {unit}", flush=True)
    if not before:
        return
    for record in results.records:
        evidence = record["evidence"]
        ahead = restore_proof.forecast(before, restored, evidence["wal_bytes"])
        record["expected"] = ahead.as_dict()
    errors = [100 * error for error in restore_proof.forecast_errors(results.records)]
    print(f"  {'forecast was off by':<22} {spread(errors):>30} %", flush=True)


if __name__ == "__main__":
    sys.exit(main())
