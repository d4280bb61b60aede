# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster that archives, with a backup in its store and a table that is written to; and restores of it for a proof."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from diting.core import restore_proof
from diting.core.restore_proof import Choice, Point
from diting.core.verdict import Health
from diting.core.wal_names import SEGMENT_BYTES
from diting.hostio import recovery_points
from diting.hostio.archive_content import read_backups
from diting.hostio.archive_store import look_at
from diting.hostio.recovery_points import Login, Wish
from support.servers import PG_BIN, as_postgres, own, wait_until
from support.wal_cluster import BIN, Cluster, Host, S3Server
from support.wal_compat import install_compat

TABLES = (("postgres", "public.orders"), ("postgres", 'public.odd "name%s"'))


class RestorePlace:
    """Everything a restore test needs, under one directory."""

    def __init__(
        self, base: Path, cluster: Cluster | None, host: Host, store: S3Server, made: Point | None = None
    ) -> None:
        self.base, self.host, self.store = base, host, store
        self.root = base / "restore-test"
        self.settings = store.settings()
        self._made = made
        host.write(self.settings)
        if cluster is None:
            return
        self.cluster = cluster
        where = {"PGHOST": str(cluster.socket_dir), "PGPORT": str(cluster.port), "PGUSER": "postgres"}
        self.settings = store.settings(**where, PGDATABASE="postgres")
        host.write(self.settings)
        install_compat(cluster, base)
        cluster.sql("create table orders (id bigserial primary key, price float8, note text)")
        odd = '"odd ""name%s"""'
        cluster.sql(f"create table {odd} (at timestamptz, raw bytea, span interval, what jsonb)")
        cluster.sql(
            f"insert into {odd} values (now(), '\\x00ff', '1 day 2 hours', '{{\"a\": 1.0, \"%s\": null}}')"
        )
        cluster.sql(
            "insert into orders (price, note) select random(), repeat('x', 200) from generate_series(1, 2000)"
        )

    @property
    def login(self) -> Login:
        return Login(str(self.cluster.socket_dir), self.cluster.port, "postgres", "postgres")

    def back_up(self) -> None:
        """Take the first backup, as the role does."""
        done = as_postgres(
            BIN / "bin/diting-wal", "--config", self.host.wrapper_config, "first-backup", cwd=self.base
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def record(self, name: str, **wish: Any) -> Point:
        return Point.read(recovery_points.record(self.login, Wish(name, **{"tables": TABLES, **wish})))

    @property
    def made(self) -> Point:
        """The point of an archive that was made once."""
        return self._made or _MADE[0].point

    def points(self) -> list[Point]:
        return [Point.read(plain) for plain in recovery_points.recorded(self.login)]

    def archived(self, point: Point) -> None:
        """Wait until the point can be recovered to."""
        wait_until(f"{point.name} is archived", lambda: isinstance(self.choose([point]), Choice))

    def choose(self, points: list[Point], turn: int = 0, seed: int = 0) -> Any:
        found = look_at(self.settings, SEGMENT_BYTES).catalog
        return restore_proof.choose(found, points, turn, Random(seed))

    def request(self, point: Point, kind: str, **changes: Any) -> Path:
        choice = self.choose([point])
        assert isinstance(choice, Choice), choice
        values = {
            "id": "test-1",
            "root": str(self.root),
            "pg_bin": str(PG_BIN),
            "restore_command": self.host.restore(),
            "backup": choice.backup.name,
            "backup_bytes": choice.backup.uncompressed_size,
            "backup_start_lsn": choice.backup.start_lsn,
            "point_lsn": point.lsn,
            "timeline": point.timeline,
            "target_type": kind,
            "target": point.target(kind),
            "tables": [{"database": one.database, "table": one.table} for one in point.tables],
            "fetch_seconds": 60,
            "stall_seconds": 20,
            "replay_seconds": 60,
            "check_seconds": 60,
            **changes,
        }
        path = self.base / "request.json"
        path.write_text(json.dumps(values))
        own(path)
        return path

    def newest_backup(self) -> dict[str, Any]:
        """As a request names it."""
        backup = look_at(self.settings, SEGMENT_BYTES).catalog.backups[-1]
        return {
            "backup": backup.name,
            "backup_bytes": backup.uncompressed_size,
            "backup_start_lsn": backup.start_lsn,
        }

    def command(self, request: Path) -> list[str]:
        words = [BIN / "bin/diting-wal", "--config", self.host.wrapper_config, "prove"]
        return [str(word) for word in (*words, "--request", request, "--result", self.base / "result.json")]

    def prove(self, request: Path) -> subprocess.CompletedProcess[str]:
        return as_postgres(*self.command(request), cwd=self.base, timeout=180)

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.base / "result.json").read_text())
        return found

    def judged(self, point: Point) -> dict[str, Any]:
        """As the module does: objects are read where the restore says something of them."""
        now = datetime.now(UTC)
        found = restore_proof.judge(self.facts(), point, now, None)
        if found.health is not Health.UNKNOWN:
            look = look_at(self.settings, SEGMENT_BYTES)
            backup = next(one for one in look.catalog.backups if one.name == self.facts()["backup"])
            content = read_backups(look, restore_proof.chain(look.catalog, backup), SEGMENT_BYTES, 2, 60)
            found = restore_proof.judge(self.facts(), point, now, content)
        return found.as_dict()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Inserts, updates and deletes, one transaction after the other, from two sessions."""
        end = threading.Event()
        done = [0, 0]

        def write(number: int) -> None:
            with psycopg.connect(
                host=str(self.cluster.socket_dir), port=self.cluster.port, user="postgres", autocommit=True
            ) as conn:
                while not end.is_set():
                    conn.execute("insert into orders (price, note) values (random(), 'new')")
                    conn.execute("update orders set price = random() where id = (random() * 2000)::int")
                    conn.execute("delete from orders where id = (random() * 2000)::int")
                    done[number] += 1

        threads = [threading.Thread(target=write, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        try:
            wait_until("both write", lambda: min(done) > 20)
            yield
            before = min(done)
            wait_until("both still write", lambda: min(done) > before + 20)
        finally:
            end.set()
            for thread in threads:
                thread.join()


@dataclass(frozen=True)
class Made:
    """A bucket that was filled once, and a point that can be recovered to from it."""

    bucket: Path
    point: Point


_MADE: list[Made] = []


@pytest.fixture
def archive_only(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    base: Path,
    host: Host,
    store: S3Server,
) -> RestorePlace:
    """A store as after a backup and a point that lies some segments later, to be damaged; no server beside it."""
    if not _MADE:
        place: RestorePlace = request.getfixturevalue("restore_place")
        place.back_up()
        for _number in range(3):
            place.cluster.fill_segment()
        point = place.record("diting-made")
        place.archived(point)
        place.cluster.stop()
        bucket = tmp_path_factory.mktemp("bucket") / "made"
        shutil.copytree(store.root, bucket)
        _MADE.append(Made(bucket, point))
        return place
    shutil.copytree(_MADE[0].bucket, store.root, dirs_exist_ok=True)
    return RestorePlace(base, None, host, store, _MADE[0].point)


@pytest.fixture
def restore_place(base: Path, archiving: Cluster, host: Host, store: S3Server) -> RestorePlace:
    """A cluster with tables and a store, and no backup yet."""
    return RestorePlace(base, archiving, host, store)
