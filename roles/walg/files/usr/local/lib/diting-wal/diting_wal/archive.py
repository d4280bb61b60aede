# SPDX-License-Identifier: GPL-3.0-or-later
"""archive_command: push one finished file, and never hold up a server that wants to stop.

PostgreSQL waits at shutdown until its archiver is done, and the archiver waits for this command
and tries it three times. With a dead store that is minutes, in which a switchover does not
switch. An exit above 125 ends the archiver at once; the file stays marked as ready and is
archived at the next start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from . import child, config, memory, owner, timeline
from .postmaster import (
    RecoveryMode,
    ServerState,
    data_directory,
    recovery_mode,
    server_state,
    system_identifier,
)

PROGRAM = "diting-wal-archive"
EXIT_FAILED = 1
"""The archiver tries again."""
EXIT_GIVE_UP = 200
"""Above 125: the archiver ends instead of trying again. Only for a server that stops."""
EXIT_USAGE = 64
_OFFLINE_PROBE_SECONDS = 2.0
_ASK_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 1.0
_PLANNED_STOP_VALID_SECONDS = 60.0
_NICENESS = 5
_PLANNED = "the stop is a planned switchover's, and the others hold the same WAL: archived later"


def main(arguments: Sequence[str] | None = None) -> int:
    """Archive the file named on the command line; returns the exit code for PostgreSQL."""
    started = child.process_start()
    # After a promotion it begins at the moment in which clients come back, and they go first.
    os.nice(_NICENESS)
    words = child.command_line(
        PROGRAM, "archive_command for WAL-G", {"path": "%p of archive_command"}, arguments
    )
    try:
        settings = config.load(words["config"])
    except config.ConfigError as error:
        child.say(PROGRAM, str(error))
        return EXIT_FAILED
    return _archive(settings, words["path"], started)


def _archive(settings: config.Config, path: str, started: float) -> int:
    data_dir = data_directory(path)
    state = server_state(data_dir)
    online = state is not ServerState.ABSENT
    if state is ServerState.STOPPING and _planned_stop(settings):
        child.say(PROGRAM, f"{path}: not archived: {_PLANNED}")
        return EXIT_GIVE_UP
    ended = timeline.left_behind(data_dir, path)
    if ended is not None:
        child.say(PROGRAM, f"{path}: not archived, nor needed: its timeline ended at {ended}")
        return 0
    if not online:
        # Patroni archives what is left over before it rewinds a stopped server; a dead store must
        # not keep that member from coming back.
        silent = _silence(settings)
        if silent is not None:
            child.say(PROGRAM, f"{path}: no server runs here and the store is dead: {silent}")
            return EXIT_FAILED
    watch = _watch(settings, data_dir, started, online=online)
    standby = online and recovery_mode(data_dir) is RecoveryMode.STANDBY
    outcome = child.supervise(lambda: _push_own(settings, path, data_dir, standby=standby), watch)
    if outcome.code == 0:
        # restore_command must not go on saying that the store has not what it has now.
        memory.forget(os.path.join(settings.state_dir, memory.FILE))
        return 0
    what = outcome.reason if outcome.code is None else f"wal-g exit {outcome.code}"
    child.say(PROGRAM, f"{path}: not archived: {what}: {outcome.output or 'wal-g said nothing'}")
    if online and server_state(data_dir) is not ServerState.RUNNING:
        return EXIT_GIVE_UP
    return EXIT_FAILED


def _watch(
    settings: config.Config, data_dir: str, started: float, *, online: bool
) -> Callable[[], str | None]:
    """Build the question whether to stop; it sees a shutdown that begins in mid-upload."""
    stopping_since: list[float] = []

    def reason() -> str | None:
        now = time.monotonic()
        state = server_state(data_dir)
        if online and state is ServerState.ABSENT:
            # The archiver is attached to shared memory and waits for us: while it lives, a killed
            # server cannot be started again.
            return "the server is gone"
        if state is ServerState.STOPPING:
            if _planned_stop(settings):
                return _PLANNED
            if not stopping_since:
                stopping_since.append(now if now - started > 2 * child.POLL_SECONDS else started)
            if now - stopping_since[0] >= settings.archive_stopping_seconds:
                return f"the server is stopping and {settings.archive_stopping_seconds:g} s are up"
        if now - started >= settings.archive_deadline_seconds:
            return f"{settings.archive_deadline_seconds:g} s are up"
        return None

    return reason


def _planned_stop(settings: config.Config) -> bool:
    """Is the server stopped for a planned switchover, in which clients would wait for an upload?

    The file is as postgres left it; one that was forgotten, or is of the future, says nothing.
    """
    try:
        age = time.time() - os.stat(settings.planned_stop_file).st_mtime
    except OSError:
        return False
    return 0 <= age <= _PLANNED_STOP_VALID_SECONDS


def _push_unless_held(settings: config.Config, path: str) -> int:
    """Worker on a standby: leave the file to the primary, push it when the primary does not.

    With archive_mode = always every member holds its WAL until the store has it, so a failover
    while the store is dead leaves no gap. One look at the list is all that it costs otherwise.
    """
    from . import store

    end = time.monotonic() + settings.archive_standby_patience_seconds
    name = f"{store.WAL_FOLDER}/{os.path.basename(path)}"
    try:
        where = store.open_store(config.read_json(settings.walg_config))
        while not store.holds(where, name, _ASK_SECONDS):
            if time.monotonic() >= end:
                return _exec_push(settings, path)
            time.sleep(_LOOK_AGAIN_SECONDS)
    except (store.StoreError, config.ConfigError) as error:
        return child.tell(str(error), EXIT_FAILED)
    return 0


def _push_own(settings: config.Config, path: str, data_dir: str, *, standby: bool) -> int:
    """Worker: nothing of this server goes to where another cluster's backups are."""
    try:
        walg = config.read_json(settings.walg_config)
        owner.refuse_foreign(walg, system_identifier(data_dir), settings.state_dir)
    except (owner.OwnerError, config.ConfigError) as error:
        return child.tell(str(error), EXIT_FAILED)
    return (_push_unless_held if standby else _exec_push)(settings, path)


def _exec_push(settings: config.Config, path: str) -> int:
    # One file per call: with concurrency WAL-G v0.2.19 pushes other files behind PostgreSQL's back
    # and remembers them as done in a place that outlives a wiped store.
    environment = child.clean_environment(WALG_UPLOAD_CONCURRENCY="1")
    argv = [settings.walg, "--config", settings.walg_config, "wal-push", path]
    os.execve(settings.walg, argv, environment)  # noqa: S606 - no shell is what is wanted


def _silence(settings: config.Config) -> str | None:
    """Reason why the store is taken for dead, or None when it answers."""
    # Late: the usual call needs no HTTP client, and importing one costs as much as everything else.
    from . import store

    started = time.monotonic()

    def ask() -> int:
        try:
            where = store.open_store(config.read_json(settings.walg_config))
            where.probe(_OFFLINE_PROBE_SECONDS)
        except (store.StoreError, config.ConfigError) as error:
            return child.tell(str(error), EXIT_FAILED)
        return 0

    def late() -> str | None:
        return "no answer" if time.monotonic() - started >= _OFFLINE_PROBE_SECONDS else None

    outcome = child.supervise(ask, late)
    return None if outcome.code == 0 else outcome.output or outcome.reason
