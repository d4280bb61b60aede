# SPDX-License-Identifier: GPL-3.0-or-later
"""The final read: which operations of a run one server holds, and who that server is."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

from psycopg import OperationalError, pq

from .session import ConnectError, connect, query

if TYPE_CHECKING:
    from .config import Connection, Endpoint, ProberConfig

SCHEMA = (
    "CREATE SCHEMA diting_ledger",
    # No unique key: a database that applied an operation twice must be able to show it.
    (
        "CREATE TABLE diting_ledger.ops (run_id text NOT NULL, path text NOT NULL,"
        " seq bigint NOT NULL, due_ns bigint NOT NULL,"
        " written_at timestamptz NOT NULL DEFAULT now())"
    ),
    "CREATE INDEX ops_run ON diting_ledger.ops (run_id, path, seq)",
)
LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
READ_TIMEOUT_SECONDS = 120.0


class ReadError(Exception):
    """The server could not be read; the text says why. Never the same as "nothing found"."""


def prepare(config: ProberConfig, *, keep_days: float) -> None:
    """Create schema and table on the primary if they are missing; delete rows of older runs.

    Raises:
        ReadError: no endpoint takes writes, or the user lacks a right.
    """
    asyncio.run(_guard(_prepare(config, keep_days)))


def read(
    config: ProberConfig, *, run_id: str, host: str, wait_lsn: str | None, timeout_seconds: float
) -> dict[str, Any]:
    """Found operations of ``run_id`` on ``host``, per path, with the server's identity.

    With ``wait_lsn`` a replica is read only once it has replayed that far.

    Raises:
        ReadError: unknown host, no connection, no table, or the replica did not get there in time.
    """
    if wait_lsn is not None and not LSN.fullmatch(wait_lsn):
        raise ReadError(f"--wait-lsn: found {wait_lsn!r}, wanted an LSN such as 0/3000148")
    endpoint = next((e for e in config.connection.endpoints if host in (e.host, str(e))), None)
    if endpoint is None:
        known = ", ".join(e.host for e in config.connection.endpoints)
        raise ReadError(f"--host: found {host!r}, wanted one of {known}")
    return asyncio.run(_guard(_read(config, endpoint, run_id, wait_lsn, timeout_seconds)))


async def _guard(work: Any) -> Any:
    try:
        return await work
    except (ConnectError, OperationalError, OSError) as error:
        raise ReadError(" ".join(str(error).split())) from error
    except TimeoutError as error:
        raise ReadError("no answer in time") from error


async def _open(connection: Connection, endpoint: Endpoint, seconds: float) -> pq.abc.PGconn:
    address = endpoint.hostaddr or endpoint.host
    if endpoint.hostaddr is None:
        loop = asyncio.get_running_loop()
        address = str((await loop.getaddrinfo(endpoint.host, endpoint.port))[0][4][0])
    async with asyncio.timeout(seconds):
        return await connect(connection.conninfo(endpoint, address, {"application_name": "diting-reader"}))


async def _prepare(config: ProberConfig, keep_days: float) -> None:
    failures = []
    for endpoint in config.connection.endpoints:
        try:
            conn = await _open(config.connection, endpoint, config.connect_timeout_seconds * 5)
        except (ConnectError, TimeoutError) as error:
            failures.append(f"{endpoint}: {error or 'no answer in time'}")
            continue
        try:
            in_recovery = await _one(conn, "SELECT pg_is_in_recovery()::text")
            if in_recovery != "false":
                failures.append(f"{endpoint}: read-only")
                continue
            await _create(conn, keep_days)
            return
        finally:
            conn.finish()
    raise ReadError("no endpoint takes writes: " + "; ".join(failures))


async def _create(conn: pq.abc.PGconn, keep_days: float) -> None:
    # CREATE SCHEMA IF NOT EXISTS asks for the right to create before it looks, and the prober's user
    # owns the schema without having that right.
    if await _one(conn, "SELECT to_regnamespace('diting_ledger')::text") is None:
        await _run(conn, SCHEMA[0])
    if await _one(conn, "SELECT to_regclass('diting_ledger.ops')::text") is None:
        for statement in SCHEMA[1:]:
            await _run(conn, statement)
    await _run(
        conn,
        "DELETE FROM diting_ledger.ops WHERE written_at < now() - make_interval(secs => $1)",
        str(keep_days * 86400),
    )


async def _read(
    config: ProberConfig,
    endpoint: Endpoint,
    run_id: str,
    wait_lsn: str | None,
    timeout_seconds: float,
) -> dict[str, Any]:
    conn = await _open(config.connection, endpoint, min(timeout_seconds, 30.0))
    try:
        if wait_lsn is not None:
            await _wait_for_replay(conn, wait_lsn, timeout_seconds)
        # One snapshot for identity and content, so that the position belongs to what was counted.
        await _run(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        server = await _identify(conn)
        rows = await _run(
            conn,
            "SELECT path, seq::text, count(*)::text FROM diting_ledger.ops"
            " WHERE run_id = $1 GROUP BY ops.path, ops.seq ORDER BY ops.path, ops.seq",
            run_id,
        )
        await _run(conn, "COMMIT")
    finally:
        conn.finish()
    found: dict[str, dict[str, Any]] = {}
    for path, seq, count in rows:
        entry = found.setdefault(str(path), {"ranges": [], "duplicates": {}})
        _add(entry, int(seq or 0), int(count or 0))
    return {
        "schema_version": 1,
        "run_id": run_id,
        "host": endpoint.host,
        "port": endpoint.port,
        **server,
        "found": found,
    }


def _add(entry: dict[str, Any], seq: int, count: int) -> None:
    """Add a found operation; numbers arrive in order, so runs of them compress to ranges."""
    ranges = entry["ranges"]
    if ranges and ranges[-1][1] == seq - 1:
        ranges[-1][1] = seq
    else:
        ranges.append([seq, seq])
    if count > 1:
        entry["duplicates"][str(seq)] = count


async def _identify(conn: pq.abc.PGconn) -> dict[str, Any]:
    row = (
        await _run(
            conn,
            "SELECT pg_is_in_recovery()::text,"
            " (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
            " ELSE pg_current_wal_lsn() END)::text,"
            " (SELECT system_identifier::text FROM pg_control_system()),"
            " CASE WHEN pg_is_in_recovery() THEN NULL"
            " ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,"
            # In recovery the control file lags behind a switch of timelines until a restart point;
            # the row of the receiver is empty without the right to see it.
            " (SELECT received_tli::text FROM pg_stat_wal_receiver),"
            " (SELECT timeline_id::text FROM pg_control_checkpoint())",
        )
    )[0]
    timeline = int(row[3], 16) if row[3] is not None else int(row[4] or row[5] or 0)
    return {
        "in_recovery": row[0] == "true",
        "lsn": row[1],
        "system_identifier": row[2],
        "timeline": timeline,
    }


async def _wait_for_replay(conn: pq.abc.PGconn, lsn: str, timeout_seconds: float) -> None:
    limit = time.monotonic() + timeout_seconds
    sql = (
        "SELECT (NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() >= $1::pg_lsn)::text,"
        " pg_last_wal_replay_lsn()::text"
    )
    while True:
        done, position = (await _run(conn, sql, lsn))[0]
        if done == "true":
            return
        if time.monotonic() > limit:
            raise ReadError(f"replayed to {position} after {timeout_seconds:g} s, wanted {lsn}")
        await asyncio.sleep(0.05)


async def _one(conn: pq.abc.PGconn, sql: str) -> str | None:
    return (await _run(conn, sql))[0][0]


async def _run(conn: pq.abc.PGconn, sql: str, *params: str) -> list[tuple[str | None, ...]]:
    values = [value.encode() for value in params]
    async with asyncio.timeout(READ_TIMEOUT_SECONDS):
        return await query(conn, lambda c: c.send_query_params(sql.encode(), values))
