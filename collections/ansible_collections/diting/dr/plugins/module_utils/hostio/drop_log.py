# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a database write down which transaction dropped a table, so that a cluster can be taken back to just before it.

An event trigger, since nothing else names the table: WAL knows files, and a log line its statement but not its transaction. It never
stands in the way of a drop: what it cannot write down it warns of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .recovery_points import PointsError, session

if TYPE_CHECKING:
    from .recovery_points import Login

SCHEMA = "diting_drops"
VERSION = "2"
"""Of the statements below, kept as the comment of the schema: others are brought up to date by running them again."""
KEEP_DAYS = 35
_STATEMENTS = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    f"REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC",
    f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.dropped (
      at timestamptz NOT NULL, xid text NOT NULL, lsn pg_lsn NOT NULL, timeline bigint NOT NULL, relation text NOT NULL,
      by_user text NOT NULL)""",
    f"""CREATE OR REPLACE FUNCTION {SCHEMA}.note() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $note$
    BEGIN
      INSERT INTO {SCHEMA}.dropped
        SELECT clock_timestamp(), pg_current_xact_id()::xid::text, pg_current_wal_insert_lsn(),
               ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint,
               gone.schema_name || '.' || gone.object_name, session_user
          FROM pg_event_trigger_dropped_objects() gone
         WHERE gone.object_type IN ('table', 'materialized view') AND NOT gone.is_temporary AND gone.schema_name <> '{SCHEMA}';
      IF FOUND THEN
        BEGIN
          -- Waits for nobody, and takes nothing back when it fails.
          DELETE FROM {SCHEMA}.dropped WHERE ctid IN (
            SELECT ctid FROM {SCHEMA}.dropped WHERE at < now() - interval '{KEEP_DAYS} days' FOR UPDATE SKIP LOCKED);
        EXCEPTION WHEN OTHERS THEN
          NULL; -- the next drop tries again
        END;
      END IF;
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'diting: this drop is not written down: %', SQLERRM;
    END $note$""",  # noqa: S608 - constants of ours
    f"REVOKE ALL ON FUNCTION {SCHEMA}.note() FROM PUBLIC",
    "DROP EVENT TRIGGER IF EXISTS diting_note_drops",
    f"CREATE EVENT TRIGGER diting_note_drops ON sql_drop EXECUTE FUNCTION {SCHEMA}.note()",
    # Also what a replication worker or a restore drops was dropped.
    "ALTER EVENT TRIGGER diting_note_drops ENABLE ALWAYS",
    f"COMMENT ON SCHEMA {SCHEMA} IS 'diting {VERSION}'",
)
_INSTALLED = f"""
SELECT coalesce(obj_description(to_regnamespace('{SCHEMA}'), 'pg_namespace'), '') = 'diting {VERSION}'
   AND EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'diting_note_drops' AND evtenabled = 'A')"""  # noqa: S608 - constants of ours
_OWNER = f"""
SELECT nspowner::regrole::text, nspowner::regrole = current_user::regrole FROM pg_namespace WHERE nspname = '{SCHEMA}'"""  # noqa: S608 - the same
_LIST = f"""
SELECT relation, at, xid, lsn::text, timeline, by_user FROM {SCHEMA}.dropped ORDER BY at"""  # noqa: S608 - the same


def installed(login: Login) -> bool:
    """Whether drops in the login's database are written down. Raises PointsError."""
    with session(login) as ask:
        return bool(ask(_INSTALLED)[0][0])


def install(login: Login) -> None:
    """Have them written down from now on; all of it or nothing. Raises PointsError."""
    with session(login) as ask:
        # The function runs with our rights: what it writes to must not be somebody else's, with a trigger of theirs.
        owners = [row[0] for row in ask(_OWNER) if not row[1]]
        if owners:
            raise PointsError(
                f"schema {SCHEMA} of {login.database} belongs to {owners[0]}, wanted {login.user}: not made by this module; look at it, drop it"
            )
        ask("BEGIN")
        # A standby that does not answer must not make this wait for ever: the setting ends with the transaction.
        ask("SET LOCAL synchronous_commit TO local")
        ask("SET LOCAL statement_timeout TO '30s'")
        for statement in _STATEMENTS:
            ask(statement)
        ask("COMMIT")


def dropped(login: Login) -> list[dict[str, Any]]:
    """What was dropped, oldest first; none where nothing was ever written down. Raises PointsError."""
    with session(login) as ask:
        if ask("SELECT to_regclass(%s)", (f"{SCHEMA}.dropped",))[0][0] is None:
            return []
        rows = ask(_LIST)
    return [
        {
            "database": login.database,
            "relation": relation,
            "time": at.isoformat(),
            "xid": xid,
            "lsn": lsn,
            "timeline": int(timeline),
            "user": user,
        }
        for relation, at, xid, lsn, timeline, user in rows
    ]


__all__ = ["PointsError", "dropped", "install", "installed"]
