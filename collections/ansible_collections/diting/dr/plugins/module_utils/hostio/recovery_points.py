# SPDX-License-Identifier: GPL-3.0-or-later
"""Record points of recovery on a primary: a restore point, its LSN and time, and what named tables hold at exactly that point.

"Exactly" needs that no write to those tables is committed between the restore point and the snapshot that is hashed. For those
milliseconds, and for no longer than the lock takes, their writers wait: SHARE locks, which wait in turn for writers that have not
committed yet. A lock that is not had in time is given up and asked for again, so that no queue of writers builds up behind it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..core.restore_sql import SCHEMA, SENTINEL, SETTINGS, digest, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_CONNECT_SECONDS = 10
_TABLES = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    f"REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC",
    f"""CREATE TABLE IF NOT EXISTS {SENTINEL} (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, written_at timestamptz NOT NULL DEFAULT clock_timestamp())""",
    f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.point (
      name text PRIMARY KEY, timeline bigint NOT NULL, lsn pg_lsn NOT NULL, at timestamptz NOT NULL,
      held_seconds float8 NOT NULL, tables jsonb NOT NULL)""",
)
_FORGET = f"DELETE FROM {SCHEMA}.point WHERE at < now() - make_interval(secs => %s)"  # noqa: S608 - constants of ours
_KEEP = f"INSERT INTO {SCHEMA}.point VALUES (%s, %s, %s, %s, %s, %s)"  # noqa: S608 - the same
_LIST = f"SELECT name, timeline, lsn::text, at, held_seconds, tables::text FROM {SCHEMA}.point ORDER BY at"  # noqa: S608 - the same
_MARK = """
SELECT ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::bigint, lsn::text, clock_timestamp()
  FROM (SELECT pg_create_restore_point(%s) AS lsn) point"""
"""The timeline by the name of a file: pg_control_checkpoint() says the old one until the first checkpoint after a promotion."""
_HOLDERS = """
SELECT DISTINCT a.backend_type, l.pid, l.mode, l.relation::regclass::text
  FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.granted AND l.relation = ANY (SELECT unnest(%s::text[])::regclass::oid) AND l.pid <> pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
 ORDER BY 2 LIMIT 5"""
_UNDEFINED_TABLE = "42P01"
_LOCK_NOT_AVAILABLE = "55P03"
_QUERY_CANCELED = "57014"
_HELD_MILLISECONDS = 2000
_WAIT_MILLISECONDS = 30000
"""Longest that one of the small statements around the point may take."""


class PointsError(Exception):
    """A point could not be recorded or read; the message says why and what to do."""


@dataclass(frozen=True)
class Login:
    """How to connect; every connection is one to the local server."""

    host: str
    port: int
    user: str
    database: str

    def connect(self, database: str | None = None) -> Any:
        """An autocommit connection of psycopg 2 or 3. Raises PointsError."""
        driver = _driver()
        try:
            found = driver.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                dbname=database or self.database,
                connect_timeout=_CONNECT_SECONDS,
                application_name="diting-recovery-point",
                # A database in SQL_ASCII would otherwise answer in bytes.
                client_encoding="UTF8",
            )
        except driver.Error as error:
            raise PointsError(f"{database or self.database} of {self.host}: {_words(error)}") from error
        found.autocommit = True
        return found


@dataclass(frozen=True)
class Wish:
    """What is to be recorded. ``tables`` are (database, ``schema.table``); times in seconds."""

    name: str
    tables: tuple[tuple[str, str], ...]
    lock_seconds: float = 0.2
    lock_tries: int = 5
    pause_seconds: float = 1.0
    query_seconds: float = 3600.0
    keep_days: float = 35.0
    switch_wal: bool = True


@dataclass
class _Held:
    """Open connections: those that hold the locks, and those whose snapshot is hashed."""

    holders: dict[str, Any] = field(default_factory=dict)
    readers: dict[str, Any] = field(default_factory=dict)


def in_recovery(login: Login) -> bool:
    """Whether the server is a standby, where nothing can be recorded. Raises PointsError."""
    with session(login) as ask:
        return bool(ask("SELECT pg_is_in_recovery()")[0][0])


def recorded(login: Login) -> list[dict[str, Any]]:
    """Every point that is kept, oldest first; none where none was ever recorded. Raises PointsError."""
    with session(login) as ask:
        if ask("SELECT to_regclass(%s)", (f"{SCHEMA}.point",))[0][0] is None:
            return []
        rows = ask(_LIST)
    return [_plain(*row) for row in rows]


def record(login: Login, wish: Wish) -> dict[str, Any]:
    """Record one point on a primary and return it. Raises PointsError; nothing is then recorded.

    A row is written first whose time is known, and its table is always among those that are recorded.
    """
    sentinel = (login.database, SENTINEL)
    wish = replace(wish, tables=tuple(dict.fromkeys((sentinel, *wish.tables))))
    for _database, table in wish.tables:
        try:
            quoted(table)
        except ValueError as error:
            raise PointsError(str(error)) from error
    held = _Held()
    driver = _driver()
    try:
        with session(login) as ask:
            # The point is nobody's data: a standby that does not answer must not make this wait for ever.
            ask("SET synchronous_commit TO local")
            ask(f"SET statement_timeout TO {_WAIT_MILLISECONDS}")
            # Only where it has to be: statements like these have event triggers fire.
            if not ask("SELECT to_regclass(%s) IS NOT NULL", (f"{SCHEMA}.point",))[0][0]:
                for statement in _TABLES:
                    ask(statement)
            ask(_FORGET, (wish.keep_days * 86400,))
            ask(f"INSERT INTO {SENTINEL} DEFAULT VALUES")
            found = _hold(login, ask, wish, held)
            tables = _digests(wish, held)
            ask(_KEEP, (wish.name, *found, json.dumps(tables)))
            if wish.switch_wal:
                # Or the segment that holds the point is archived when it is full, or when archive_timeout is up.
                ask("SELECT pg_switch_wal()")
    except driver.Error as error:
        raise PointsError(_words(error)) from error
    finally:
        for connection in (*held.holders.values(), *held.readers.values()):
            with contextlib.suppress(driver.Error):
                connection.close()
    return _plain(wish.name, *found, json.dumps(tables))


def _hold(login: Login, ask: Any, wish: Wish, held: _Held) -> tuple[int, str, Any, float]:
    """Timeline, LSN and time of the restore point, and for how long writers were held up."""
    # Everything that takes time comes before the locks.
    for database in dict.fromkeys(database for database, _table in wish.tables):
        holder = held.holders[database] = login.connect(database)
        # Should this process stand still, the server lets the writers go.
        _ask(holder, f"SET idle_in_transaction_session_timeout TO {_HELD_MILLISECONDS}")
        reader = held.readers[database] = login.connect(database)
        _ask(reader, f"SET statement_timeout TO {int(wish.query_seconds * 1000)}")
        _ask(reader, "SET idle_in_transaction_session_timeout TO 0")
        for statement in SETTINGS:
            _ask(reader, statement)
    if any(row[0] == wish.name for row in ask(f"SELECT name FROM {SCHEMA}.point")):  # noqa: S608 - a constant of ours
        raise PointsError(f"there is a point {wish.name} already; recovery would stop at the first of two")
    for number in range(1, wish.lock_tries + 1):
        found = _try(ask, wish, held)
        if found is not None:
            return found
        if number < wish.lock_tries:
            time.sleep(wish.pause_seconds)
    raise PointsError(
        f"no lock on the named tables within {wish.lock_seconds:g} s, {wish.lock_tries} times; in the way:"
        f" {_in_the_way(wish, held) or 'nobody any more'}. Wait for it, end it, name fewer tables, or raise"
        " lock_seconds, for which writers then wait (autovacuum gives way after deadlock_timeout, 1 s)"
    )


def _try(ask: Any, wish: Wish, held: _Held) -> tuple[int, str, Any, float] | None:
    """One try; None when the locks were not had in time."""
    driver = _driver()
    begun = time.monotonic()
    try:
        _lock(wish, held, begun)
        found = ask(_MARK, (wish.name,))[0]
        for reader in held.readers.values():
            _ask(reader, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            _ask(reader, "SELECT 1")  # the snapshot is taken by the first query
    except driver.Error as error:
        if _state(error) == _UNDEFINED_TABLE:
            raise PointsError(f"{_words(error)}; wanted tables that exist, as schema.table") from error
        if _state(error) not in (_LOCK_NOT_AVAILABLE, _QUERY_CANCELED):
            raise
        for holder in held.holders.values():
            _ask(holder, "ROLLBACK")
        return None
    try:
        for holder in held.holders.values():
            _ask(holder, "ROLLBACK")
    except driver.Error as error:
        # Its lock went with it, nobody knows when: what was recorded need not be what the snapshot shows.
        raise PointsError(f"a lock was lost before the snapshot was taken: {_words(error)}") from error
    return (*found, round(time.monotonic() - begun, 4))


def _lock(wish: Wish, held: _Held, begun: float) -> None:
    """Lock every table, all within the one limit: writers wait for as long as the first of the locks is held."""
    for database, holder in held.holders.items():
        left = max(int((begun + wish.lock_seconds - time.monotonic()) * 1000), 1)
        _ask(holder, "BEGIN")
        _ask(holder, f"SET LOCAL statement_timeout TO {left}")
        names = ", ".join(quoted(table) for one, table in wish.tables if one == database)
        _ask(holder, f"LOCK TABLE {names} IN SHARE MODE")


def _in_the_way(wish: Wish, held: _Held) -> str:
    """Who holds what a point's lock waits for: transactions that write, and vacuum."""
    found = []
    for database, reader in held.readers.items():
        names = [quoted(table) for one, table in wish.tables if one == database]
        rows = _ask(reader, _HOLDERS, (names,))
        found += [f"{kind} {pid} with {mode} on {database}:{table}" for kind, pid, mode, table in rows]
    return "; ".join(found)


def _digests(wish: Wish, held: _Held) -> list[dict[str, Any]]:
    found = []
    for database, table in wish.tables:
        ((text,),) = _ask(held.readers[database], digest(table))
        rows, _space, sum_of_hashes = text.partition(" ")
        found.append({"database": database, "table": table, "rows": int(rows), "digest": sum_of_hashes})
    return found


def _plain(name: str, timeline: int, lsn: str, at: Any, held_seconds: float, tables: str) -> dict[str, Any]:
    return {
        "name": name,
        "timeline": int(timeline),
        "lsn": lsn,
        "time": at.isoformat(),
        "held_seconds": held_seconds,
        "tables": json.loads(tables),
    }


@contextlib.contextmanager
def session(login: Login) -> Iterator[Any]:
    """One connection, as a function that runs a statement and returns its rows. Raises PointsError."""
    connection = login.connect()
    try:
        yield lambda query, values=(): _ask(connection, query, values)
    except _driver().Error as error:
        raise PointsError(_words(error)) from error
    finally:
        connection.close()


def _ask(
    connection: Any, query: str, values: Sequence[Any] | Mapping[str, Any] = ()
) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        # Without values a "%" in a name is no placeholder.
        cursor.execute(query, values) if values else cursor.execute(query)
        return list(cursor.fetchall()) if cursor.description else []


def _driver() -> Any:
    """The first driver that this host has: Debian puts psycopg 2 beside a server. Raises PointsError."""
    for name in ("psycopg2", "psycopg"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise PointsError("found neither psycopg2 nor psycopg, wanted one of them; install python3-psycopg2")


def _state(error: Any) -> str | None:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return str(state) if state else None


def _words(error: Any) -> str:
    return " ".join(str(error).split()) or type(error).__name__
