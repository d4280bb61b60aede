# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of this cluster in the store: which are there, is archiving well, and take the first.

Everything is judged by what the store and the server say. "Could not look" is an outcome of its
own and never "none": a second full backup is cheap, a cluster without one is not.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from . import child, config, owner, store

PROGRAM = "diting-wal"
EXIT_WELL, EXIT_UNWELL, EXIT_UNKNOWN, EXIT_USAGE = 0, 1, 2, 64
_ASK_SECONDS = 10.0
_SERVER_SECONDS = 900
"""A checkpoint writes all that is in memory and not on disk."""
_MOST_NAMES = 100_000
_STATE_QUERY = """
select json_build_object(
  'in_recovery', pg_is_in_recovery(),
  'timeline', case when pg_is_in_recovery()
    then (select received_tli from pg_stat_wal_receiver)
    else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int end,
  'system_identifier', (select system_identifier::text from pg_control_system()),
  'redo_wal_file', (select redo_wal_file from pg_control_checkpoint()),
  'server_version_num', current_setting('server_version_num')::int,
  'data_directory', current_setting('data_directory'),
  'archive_mode', current_setting('archive_mode'),
  'archived_count', a.archived_count,
  'last_archived_wal', a.last_archived_wal,
  'last_archived_age_seconds', extract(epoch from now() - a.last_archived_time),
  'failed_count', a.failed_count,
  'last_failed_wal', a.last_failed_wal,
  'failing', coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false),
  'ready_count', (select count(*) from pg_ls_archive_statusdir() where name like '%.ready')
) from pg_stat_archiver a
"""


class UnknownError(Exception):
    """Nobody could look; the message says where."""


@dataclass(frozen=True)
class Backup:
    """One finished backup in the store."""

    name: str
    system_identifier: str
    pg_version: int
    finish_time: str

    @property
    def kind(self) -> str:
        """By its name: a delta's has its base's in it."""
        return "delta" if "_D_" in self.name else "full"

    @property
    def timeline(self) -> int:
        """By its name."""
        return int(self.name[5:13], 16)


@dataclass(frozen=True)
class Reason:
    """One finding, in the words of the project's judges."""

    code: str
    message: str
    observed: object = None
    limit: object = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; most print one JSON object."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Backups and WAL of this cluster")
    parser.add_argument("--config", default=config.DEFAULT_PATH, help="wrapper settings (JSON)")
    parser.add_argument("--user", default="postgres", help="system user to work as (default: %(default)s)")
    actions = parser.add_subparsers(dest="action", required=True)
    status = actions.add_parser("status", help="judge store, backups and archiving; changes nothing")
    status.add_argument("--ready-limit", type=int, default=10, help="files that may wait to be archived")
    first = actions.add_parser(
        "first-backup", help="take a full backup unless the store has one of this cluster"
    )
    first.add_argument("--check", action="store_true", help="only say whether one would be taken")
    first.add_argument("--seconds", type=float, default=3600.0, help="longest it may take")
    push = actions.add_parser("push", help="take one more backup; the store has to show it")
    push.add_argument("--kind", choices=("auto", "full", "delta"), default="auto")
    push.add_argument(
        "--full-after", type=float, default=82800.0, help="seconds after which auto takes a full one"
    )
    push.add_argument("--delta-steps", type=int, default=24, help="most deltas one upon the other")
    push.add_argument("--seconds", type=float, default=14400.0, help="longest it may take")
    proof = actions.add_parser("prove", help="restore onto a scratch instance, look at it, take it away")
    proof.add_argument("--request", required=True, help="what to restore and where (JSON)")
    proof.add_argument("--result", required=True, help="file for what was found (JSON)")
    for name, words in (
        ("bootstrap", "fetch the data directory of a cluster that is lost, for Patroni to begin with"),
        ("rebuild", "recover a copy of the cluster to a moment, beside it, and keep it"),
        ("rebuild-promote", "promote that copy, once the cluster has stopped"),
    ):
        copy = actions.add_parser(name, help=words)
        copy.add_argument("--request", required=True, help="what to restore and where (JSON)")
        copy.add_argument("--result", required=True, help="file for what was found (JSON)")
    actions.add_parser("holds", help="name the finished backups of whatever cluster the archive has")
    tidy = actions.add_parser("scratch-clean", help="take away what a restore that was killed has left")
    tidy.add_argument("root", help="directory of the scratch instance")
    counts = actions.add_parser("archive-metrics", help="write what waits to be archived, for Prometheus")
    counts.add_argument("--cluster", required=True, help="name of the cluster")
    counts.add_argument("--data-directory", required=True, help="of the server, which is not asked")
    counts.add_argument("--file", required=True, help="in the folder of node exporter's textfile collector")
    options = parser.parse_args(arguments)
    if options.action == "archive-metrics":
        from . import waiting

        return waiting.run(options.cluster, options.data_directory, options.file)
    if options.action in ("prove", "scratch-clean", "bootstrap", "rebuild", "rebuild-promote"):
        return _prove(options)
    try:
        _become(options.user)
        settings = config.load(options.config)
        walg = config.read_json(settings.walg_config)
        if options.action == "status":
            code, result = _status(walg, options.ready_limit)
        elif options.action == "holds":
            code, result = (
                EXIT_WELL,
                {"changed": False, "backups": [asdict(one) for one in _backups(walg, "")[1]]},
            )
        elif options.action == "push":
            with _lock(settings.state_dir):
                code, result = _one_more(settings, walg, options)
        else:
            with _lock(settings.state_dir):
                code, result = _first(settings, walg, check=options.check, seconds=options.seconds)
    except (UnknownError, config.ConfigError, store.StoreError) as error:
        reason = Reason("could_not_look", str(error))
        code, result = EXIT_UNKNOWN, {"health": "UNKNOWN", "changed": False, "reasons": [asdict(reason)]}
    print(json.dumps(result, sort_keys=True))
    return code


def _prove(options: argparse.Namespace) -> int:
    from . import bootstrap, prove, rebuild

    try:
        _become(options.user)
        settings = config.load(options.config)
        if options.action == "scratch-clean":
            # Another test's, if one is under way.
            with _lock(settings.state_dir, "prove.lock"):
                prove.clean(options.root)
            return EXIT_WELL
        if options.action == "prove":
            request, work = prove.read_request(options.request), prove.run
        elif options.action == "bootstrap":
            request = prove.read_request(options.request, bootstrap.REQUEST, bootstrap.KINDS)
            work = bootstrap.run
        else:
            request = prove.read_request(options.request, rebuild.REQUEST, rebuild.KINDS)
            work = rebuild.prepare if options.action == "rebuild" else rebuild.promote
        with _lock(settings.state_dir, "prove.lock"):
            return work(settings, request, options.result)
    except (UnknownError, config.ConfigError, prove.RequestError, OSError) as error:
        print(f"{PROGRAM} {options.action}: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, prove.RequestError) else EXIT_UNKNOWN


def _status(walg: dict[str, Any], ready_limit: int) -> tuple[int, dict[str, Any]]:
    server = _server(walg)
    backups, foreign = _backups(walg, server["system_identifier"])
    reasons = [*_foreign(walg, foreign, server["system_identifier"]), *judge(server, backups, ready_limit)]
    health = "UNHEALTHY" if reasons else "HEALTHY"
    return (EXIT_UNWELL if reasons else EXIT_WELL), {
        "health": health,
        "changed": False,
        "reasons": [asdict(reason) for reason in reasons],
        "server": server,
        "backups": [asdict(backup) for backup in backups],
    }


def judge(server: dict[str, Any], backups: Sequence[Backup], ready_limit: int) -> list[Reason]:
    """What is wrong with backups and archiving; an empty list when nothing is."""
    reasons = []
    if not backups:
        reasons.append(Reason("no_backup", "the store holds no backup of this cluster", 0, 1))
    if server["in_recovery"] and server["archive_mode"] != "always":
        # Only the primary archives; a standby's counters are those of its own past.
        return reasons
    if server["archive_mode"] == "off":
        reasons.append(Reason("archive_off", "archive_mode is off", "off", "on"))
    if server["failing"]:
        reasons.append(
            Reason(
                "archive_failing",
                "the last attempt to archive failed",
                server["last_failed_wal"],
                None,
            )
        )
    if server["ready_count"] > ready_limit:
        reasons.append(
            Reason("archive_behind", "files wait to be archived", server["ready_count"], ready_limit)
        )
    return reasons


def _first(
    settings: config.Config, walg: dict[str, Any], *, check: bool, seconds: float
) -> tuple[int, dict[str, Any]]:
    server = _server(walg)
    if server["in_recovery"]:
        return EXIT_WELL, {"changed": False, "skipped": "in recovery", "server": server}
    system = server["system_identifier"]
    before, foreign = _backups(walg, system)
    if foreign:
        return EXIT_UNWELL, _refused(walg, foreign, system)
    if before:
        return EXIT_WELL, {"changed": False, "backups": [asdict(backup) for backup in before]}
    if check:
        return EXIT_WELL, {"changed": True, "backups": []}
    output = _push(settings, server["data_directory"], seconds)
    after, _others = _backups(walg, system)
    if not after:
        # WAL-G's exit code is not the proof; what the store holds is.
        raise UnknownError(f"backup-push ended well, but the store shows no backup: {output}")
    return EXIT_WELL, {"changed": True, "backups": [asdict(backup) for backup in after]}


def _one_more(
    settings: config.Config, walg: dict[str, Any], options: argparse.Namespace
) -> tuple[int, dict[str, Any]]:
    """On a primary or a standby. A standby's backup can be recovered once its primary has archived the WAL of its end.

    A standby's begins at its last restartpoint, and is named by that: a second one from there would be written over the first.
    """
    server = _server(walg)
    if server["in_recovery"]:
        server = _server(walg, "checkpoint")
    before, foreign = _backups(walg, server["system_identifier"])
    if foreign:
        return EXIT_UNWELL, _refused(walg, foreign, server["system_identifier"])
    twin = next((b.name for b in before if b.name[5:29] == server["redo_wal_file"]), None)
    if server["in_recovery"] and twin is not None:
        words = f"nothing to back up: no checkpoint has come since {twin}, which begins at the same place"
        return EXIT_WELL, {"changed": False, "skipped": words}
    kind = options.kind
    if kind == "auto":
        kind = kind_of_next(before, server["timeline"], time.time(), options.full_after)
    steps = options.delta_steps if kind == "delta" else 0
    output = _push(settings, server["data_directory"], options.seconds, steps)
    known = {backup.name for backup in before}
    new = [b for b in _backups(walg, server["system_identifier"])[0] if b.name not in known]
    if len(new) != 1:
        raise UnknownError(f"backup-push ended well, but the store shows {len(new)} new backups: {output}")
    # A delta without a base is a full one, whatever was asked for.
    return EXIT_WELL, {"changed": True, "kind": new[0].kind, "backup": asdict(new[0])}


def kind_of_next(backups: Sequence[Backup], timeline: int, now: float, full_after: float) -> str:
    """Full unless there is a full one of this timeline that is young enough to build upon.

    A delta holds what changed since its base by the pages' LSNs, which start anew where a timeline began: a full one then.
    """
    full = [b for b in backups if b.kind == "full" and b.timeline == timeline]
    if not full:
        return "full"
    age = now - max(datetime.fromisoformat(b.finish_time).timestamp() for b in full)
    return "full" if age >= full_after else "delta"


def _push(settings: config.Config, data_dir: str, seconds: float, delta_steps: int = 0) -> str:
    begun = time.monotonic()
    argv = [settings.walg, "--config", settings.walg_config, "backup-push", data_dir]
    if not delta_steps:
        argv.insert(-1, "--full")
    environment = child.clean_environment(WALG_DELTA_MAX_STEPS=str(delta_steps))

    def work() -> int:
        os.execve(settings.walg, argv, environment)  # noqa: S606 - no shell is wanted

    def late() -> str | None:
        return f"{seconds:g} s are up" if time.monotonic() - begun > seconds else None

    outcome = child.supervise(work, late)
    if outcome.code != 0:
        raise UnknownError(f"backup-push failed: {outcome.reason} {outcome.code}: {outcome.output}")
    return outcome.output


def _foreign(walg: dict[str, Any], foreign: Sequence[Backup], system: str) -> list[Reason]:
    if not foreign:
        return []
    message = owner.words(walg, foreign[-1].name, foreign[-1].system_identifier, system)
    return [Reason("foreign_backup", message, foreign[-1].system_identifier, system)]


def _refused(walg: dict[str, Any], foreign: Sequence[Backup], system: str) -> dict[str, Any]:
    """Nothing is written beside them: a backup of another cluster can have the same name."""
    reasons = [asdict(reason) for reason in _foreign(walg, foreign, system)]
    return {"health": "UNHEALTHY", "changed": False, "reasons": reasons}


def _backups(walg: dict[str, Any], system_identifier: str) -> tuple[list[Backup], list[Backup]]:
    """Finished backups of this database system, oldest first, and those of others. Raises StoreError."""
    where = store.open_store(walg)
    names = where.names(f"{store.BACKUP_FOLDER}/", _MOST_NAMES, _ASK_SECONDS)
    found = []
    for name in sorted(names):
        base = name.removeprefix(f"{store.BACKUP_FOLDER}/")
        if "/" in base or not base.endswith(owner.SENTINEL):
            continue
        base = base.removesuffix(owner.SENTINEL)
        raw = where.read(f"{store.BACKUP_FOLDER}/{base}/metadata.json", _ASK_SECONDS)
        try:
            meta = json.loads(raw)
            backup = Backup(
                name=base,
                system_identifier=str(meta["system_identifier"]),
                pg_version=int(meta["pg_version"]),
                finish_time=str(meta["finish_time"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UnknownError(f"metadata.json of {base} cannot be understood: {error!r}") from error
        found.append(backup)
    found.sort(key=lambda backup: backup.finish_time)
    own = [backup for backup in found if backup.system_identifier == system_identifier]
    return own, [backup for backup in found if backup not in own]


def _server(walg: dict[str, Any], *first: str) -> dict[str, Any]:
    """What the server says of itself, once it has carried out the statements ``first``."""
    names = {"PGHOST": "-h", "PGPORT": "-p", "PGUSER": "-U", "PGDATABASE": "-d"}
    argv = ["psql", "-XAtqw", "-v", "ON_ERROR_STOP=1"]
    for name, option in names.items():
        if walg.get(name):
            argv += [option, str(walg[name])]
    try:
        done = subprocess.run(
            [*argv, *(word for statement in (*first, _STATE_QUERY) for word in ("-c", statement))],
            env=child.clean_environment(PGCONNECT_TIMEOUT="5"),
            capture_output=True,
            text=True,
            timeout=_SERVER_SECONDS if first else 30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnknownError(f"the server could not be asked: {error}") from error
    if done.returncode != 0:
        raise UnknownError(f"the server could not be asked: {done.stderr.strip()}")
    state: dict[str, Any] = json.loads(done.stdout)
    return state


def _become(user: str) -> None:
    """Drop root for the user that owns the settings and may connect by peer authentication."""
    account = pwd.getpwnam(user)
    if os.geteuid() == account.pw_uid:
        return
    if os.geteuid() != 0:
        raise UnknownError(f"must run as root or {user}")
    os.initgroups(user, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.environ["HOME"] = account.pw_dir
    os.chdir("/")


@contextlib.contextmanager
def _lock(state_dir: str, name: str = "backup.lock") -> Iterator[None]:
    """One backup, and one restore test, at a time on this host. Raises UnknownError when another one is under way."""
    try:
        handle = os.open(os.path.join(state_dir, name), os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UnknownError(f"another one is under way on this host ({name})") from error
    except OSError as error:
        raise UnknownError(f"{state_dir}: {error.strerror}") from error
    try:
        yield
    finally:
        os.close(handle)
