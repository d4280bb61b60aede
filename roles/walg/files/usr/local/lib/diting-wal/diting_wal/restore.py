# SPDX-License-Identifier: GPL-3.0-or-later
"""restore_command: tell "the store does not have it" from "I could not look".

PostgreSQL takes any exit of 1 to 125 for "the archive ends here". When it recovers to a target
that is a silent loss of everything after it, so 1 is said only after the store itself was asked
and answered. A standby is the other way round: an exit above 125 takes the standby down, and it
asks in the middle of a promotion, so it gets an answer in time whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence

from . import child, config, memory, store
from .postmaster import (
    RecoveryMode,
    ServerState,
    data_directory,
    major_version,
    recovery_mode,
    server_state,
    system_identifier,
)

PROGRAM = "diting-wal-restore"
EXIT_ABSENT = 1
EXIT_COULD_NOT_LOOK = 200
EXIT_REFUSED = 201
EXIT_SETTINGS = 202
_ASK_SECONDS = 10.0
_MARGIN_SECONDS = 0.25
"""Kept for leaving: killing the worker and ending the interpreter."""
_AHEAD_SHARE = 1 / 3
"""Of the time that a store has for one question: how long all questions to come may hold up the answer to it."""
_CODE_ABSENT, _CODE_SILENT, _CODE_BAD, _CODE_FAILED = 11, 12, 13, 14


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the file named on the command line; returns the exit code for PostgreSQL."""
    started = child.process_start()
    places = {"name": "%f of restore_command", "path": "%p of restore_command"}
    words = child.command_line(PROGRAM, "restore_command for WAL-G", places, arguments)
    data_dir = data_directory(words["path"])
    standby = _must_not_wait(data_dir)
    try:
        settings = config.load(words["config"])
    except config.ConfigError as error:
        child.say(PROGRAM, str(error))
        return EXIT_ABSENT if standby else EXIT_SETTINGS
    job = _Job(settings, words["name"], words["path"], data_dir, started)
    return job.for_standby() if standby else job.for_target()


def _must_not_wait(data_dir: str) -> bool:
    """Is this a standby, or a server in the last step of a promotion?

    PostgreSQL removes the signal files and only then asks once more, for the history of the
    timeline that it leaves. An exit above 125 there kills the promoted server; after a 1 it takes
    the copy that it has in pg_wal.
    """
    mode = recovery_mode(data_dir)
    if mode is RecoveryMode.NONE:
        return server_state(data_dir) is not ServerState.ABSENT
    return mode is RecoveryMode.STANDBY


class _Job:
    """One file to fetch."""

    def __init__(self, settings: config.Config, name: str, path: str, data_dir: str, started: float) -> None:
        self.settings = settings
        self.name = name
        self.path = path
        self.part = f"{path}.diting-part"
        self.data_dir = data_dir
        self.started = started
        self.online = server_state(data_dir) is not ServerState.ABSENT
        self.memory = os.path.join(settings.state_dir, memory.FILE)

    def for_standby(self) -> int:
        """Answer within the limit; 0 or 1, never anything else."""
        if self._has_history():
            return EXIT_ABSENT
        words, age = memory.recall(self.memory)
        if self._said_absent(words):
            return EXIT_ABSENT
        if memory.SILENT in words:
            self._warn(f"not asked for: the store was silent {age:.1f} s ago")
            return EXIT_ABSENT
        outcome = self._supervise(self._standby_limit(), self._ask_for_standby)
        if outcome.code == 0:
            return 0
        self._clean()
        # Stopped in the midst of the questions to come: the one that was asked had its answer.
        if outcome.code is None and self._said_absent(memory.recall(self.memory)[0]):
            return EXIT_ABSENT
        if outcome.code in {None, _CODE_SILENT}:
            self._remember_silence()
        if outcome.code != _CODE_ABSENT:
            self._warn(f"could not look, the standby goes on without it: {_why(outcome)}")
        return EXIT_ABSENT

    def _has_history(self) -> bool:
        """Is it a timeline's history that this server has had put into pg_wal since it was started?

        PostgreSQL asks for it all the same when it follows a new primary and at the end of its own promotion, and takes
        its own copy after a 1. In a quorum every client waits for this, so half a second at the store is theirs. A file
        from before this server's start, which is when PostgreSQL writes postmaster.opts (postmaster.pid is written at every
        change of state), may be of a promotion that came to nothing: the store has the true one.
        A segment is another matter: the copy in pg_wal may be the half that the old primary could still send.
        """
        if not self.name.endswith(".history"):
            return False
        try:
            written = os.stat(os.path.join(self.data_dir, "pg_wal", self.name)).st_mtime_ns
            return written > os.stat(os.path.join(self.data_dir, "postmaster.opts")).st_mtime_ns
        except OSError:
            return False

    def _said_absent(self, words: frozenset[str]) -> bool:
        """Did the store say a moment ago that it has no such file?

        Not for the tools that call with a path of their own: they are not the server whose questions come in a row.
        """
        return not os.path.isabs(self.path) and memory.covers(words, self.name)

    def _standby_limit(self) -> float:
        return max(self.settings.restore_standby_seconds - _MARGIN_SECONDS, 0.1)

    def for_target(self) -> int:
        """Answer the truth: 0, 1 when the store says it has no such file, or above 125."""
        # No signal file and no server: the caller is pg_rewind or Patroni, and a member that
        # comes back must not hang on a dead store.
        rejoin = recovery_mode(self.data_dir) is RecoveryMode.NONE
        limit = self.settings.restore_target_seconds
        outcome = self._supervise(limit, self._ask_and_fetch if rejoin else self._fetch)
        if outcome.code == 0:
            return 0
        self._clean()
        if outcome.code == _CODE_BAD:
            self._warn(f"refused: {outcome.output}")
            return EXIT_REFUSED
        if outcome.code is None or outcome.code == _CODE_SILENT:
            self._warn(f"could not look: {_why(outcome)}")
            return EXIT_COULD_NOT_LOOK
        asked = self._supervise_ask()
        if asked.code == _CODE_ABSENT:
            return EXIT_ABSENT
        self._warn(f"could not be fetched: {_why(outcome)}; {_why(asked)}")
        return EXIT_COULD_NOT_LOOK

    def _supervise(self, limit: float, work: Callable[[], int]) -> child.Outcome:
        def late() -> str | None:
            if self.online and server_state(self.data_dir) is ServerState.ABSENT:
                return "the server is gone"
            over = time.monotonic() - self.started >= limit
            return f"no answer within {limit:g} s" if over else None

        return child.supervise(work, late)

    def _supervise_ask(self) -> child.Outcome:
        begun = time.monotonic()

        def late() -> str | None:
            return "the store did not answer" if time.monotonic() - begun > _ASK_SECONDS else None

        return child.supervise(self._ask, late)

    def _ask_for_standby(self) -> int:
        """Worker: as for others, and an absent file is remembered with what will be asked after it."""
        return self._ask_and_fetch(self._remember_absent)

    def _ask_and_fetch(self, absent: Callable[[store.Store, int], None] | None = None) -> int:
        """Worker: one cheap question first, because WAL-G takes a minute to see a dead store."""
        try:
            with self._store().session() as where:
                asked = memory.now()
                if not self._held(where, self.settings.store_probe_seconds):
                    if absent is not None:
                        absent(where, asked)
                    return _CODE_ABSENT
        except (store.StoreError, config.ConfigError) as error:
            return child.tell(str(error), _CODE_SILENT)
        # The store holds it: a WAL-G that says otherwise lacks its compression, or its settings.
        code = self._fetch()
        return _CODE_FAILED if code == _CODE_ABSENT else code

    def _remember_absent(self, where: store.Store, asked: int) -> None:
        """Worker: remember the answer at once, and then what else the store has not, all by the time of the first.

        A promotion asks for one thing after the other, and its clients wait. What is asked ahead costs
        a request each, and no more than its share of the time that this question has.
        """
        if not memory.is_question(self.name):
            return
        seconds = self.settings.restore_absent_seconds
        known = [self.name]
        memory.write(self.memory, asked, seconds, known)
        share = self.settings.store_probe_seconds * _AHEAD_SHARE
        end = min(time.monotonic() + share, self.started + self._standby_limit() - child.POLL_SECONDS)
        streamed = memory.last_written(os.path.join(self.data_dir, "pg_wal"), end)
        try:
            for word in memory.next_questions(self.name, streamed):
                left = end - time.monotonic()
                if left <= 0:
                    break
                if word not in known and store.lacks(where, word, left):
                    known.append(word)
        except (store.StoreError, OSError, ValueError):
            pass  # nobody asked for it: what is known by now is remembered, and nothing else
        # An archive_command that has pushed something meanwhile has dropped the memory, and so it stays.
        if self._said_absent(memory.recall(self.memory)[0]):
            memory.write(self.memory, asked, seconds, known)

    def _fetch(self) -> int:
        """Worker: fetch beside the destination, check, and only then put it there."""
        # Late: most questions of a promotion end with "absent".
        import subprocess

        from . import segment

        self._clean()
        argv = [self.settings.walg, "--config", self.settings.walg_config]
        # Concurrency 1 turns WAL-G's prefetch off: it leaves files inside pg_wal, which breaks
        # pg_rewind, and hands them out later without asking the store.
        done = subprocess.run(
            [*argv, "wal-fetch", self.name, self.part],
            env=child.clean_environment(WALG_DOWNLOAD_CONCURRENCY="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            preexec_fn=child.die_with_parent,
        )
        text = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode != 0:
            absent = f"'{self.name}' does not exist" in text
            return child.tell(text, _CODE_ABSENT if absent else _CODE_FAILED)
        try:
            with open(self.part, "rb") as handle:
                data = handle.read()
            segment.check(self.name, data, system_identifier(self.data_dir), major_version(self.data_dir))
        except segment.BadFileError as error:
            return child.tell(str(error), _CODE_BAD)
        os.replace(self.part, self.path)
        return 0

    def _ask(self) -> int:
        """Worker: does the store itself say that it has no such file?"""
        try:
            where = self._store()
            if self._held(where, _ASK_SECONDS):
                return child.tell("the store holds it", _CODE_FAILED)
            # A typing error in bucket or prefix also answers "nothing here". A recovery came from
            # a base backup, so a prefix without one is not the one that was meant.
            if not where.names(f"{store.BACKUP_FOLDER}/", 1, _ASK_SECONDS):
                return child.tell("the prefix holds no base backup either: wrong prefix?", _CODE_FAILED)
        except (store.StoreError, config.ConfigError) as error:
            return child.tell(str(error), _CODE_SILENT)
        return _CODE_ABSENT

    def _held(self, where: store.Store, timeout_seconds: float) -> bool:
        return store.holds(where, f"{store.WAL_FOLDER}/{self.name}", timeout_seconds)

    def _store(self) -> store.Store:
        return store.open_store(config.read_json(self.settings.walg_config))

    def _clean(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.part)

    def _remember_silence(self) -> None:
        # A promotion asks several times in a row; only the first question may cost time.
        memory.write(self.memory, memory.now(), self.settings.store_silent_seconds, [memory.SILENT])

    def _warn(self, message: str) -> None:
        child.say(PROGRAM, f"WARNING: {self.name}: {message}")


def _why(outcome: child.Outcome) -> str:
    return outcome.output or outcome.reason
