# SPDX-License-Identifier: GPL-3.0-or-later
"""A scratch instance: a data directory that was fetched from the archive, and a server over it that nobody else can reach.

It archives nothing, listens on a socket in its own directory alone, takes none of the source's settings but those that recovery
needs, and is gone when its directory is.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from . import child, proof_sql

PORT = 5432
"""Of the socket's name only: nothing listens on it."""
MARK = "diting-scratch"
AUTO_CONF = "auto.conf.kept"
"""In the root of a copy that lasts: what ALTER SYSTEM set on its source."""
_WRITTEN_DOWN = {
    "wal_level setting": "wal_level",
    "wal_log_hints setting": "wal_log_hints",
    "track_commit_timestamp setting": "track_commit_timestamp",
}
"""What a promotion writes down, or throws data away for want of."""
_FROM_CONTROL = {
    "max_connections setting": ("max_connections", 1000),
    "max_worker_processes setting": ("max_worker_processes", 64),
    "max_wal_senders setting": ("max_wal_senders", 64),
    "max_prepared_xacts setting": ("max_prepared_transactions", 200),
    "max_locks_per_xact setting": ("max_locks_per_transaction", 256),
}
"""What a standby must have at least as much of as its source had."""
_OPTIONS = " ".join(
    f"-c {setting}"
    for setting in (
        "statement_timeout=0",
        "lock_timeout=0",
        "idle_in_transaction_session_timeout=0",
        "default_transaction_read_only=off",
        # Triggers of the source, on events too: theirs is to write elsewhere, or to forbid what is done here.
        "session_replication_role=replica",
        "session_preload_libraries=",
    )
)
"""Instead of what the source's roles and databases are set to, which came with the copy."""
_FLEETING = {"fsync": "off", "full_page_writes": "off", "archive_mode": "off", "archive_command": ""}
"""Nobody's data: what a crash of this machine would cost is one test."""
_LASTING = {"fsync": "on", "full_page_writes": "on", "archive_mode": "on", "archive_command": "/bin/false"}
"""With a command that always fails the history of the new timeline stays marked as to be archived."""
_EVENT_TRIGGERS_OFF = 17
"""From this version on all of them can be switched off."""
_STOP_SECONDS = 30.0
_REMOVE_TRIES, _REMOVE_PAUSE_SECONDS = 10, 0.5
_TAIL_CHARACTERS = 1500
_CONSISTENT = "consistent recovery state reached"
_COULD_NOT_LOOK = "could not look"
"""Of diting-wal-restore, when the store did not answer: that says nothing of the backup."""
_REACHED = re.compile(r"recovery stopping (?:at|before|after) .*")


class ScratchError(Exception):
    """The instance does not do what it should; ``code`` is for machines, the message for people."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class Scratch:
    """One instance under ``root``, a directory of its own."""

    def __init__(self, root: str, pg_bin: str, restore_command: str, user: str = "postgres") -> None:
        self.root = root
        self.data = os.path.join(root, "data")
        self.log = os.path.join(root, "server.log")
        self._pg_bin = pg_bin
        self._restore_command = restore_command
        self.user = user
        self._server: subprocess.Popen[bytes] | None = None

    def require_programs(self) -> None:
        """Before anything is fetched. Raises ScratchError."""
        for name in ("postgres", "psql", "pg_controldata", "pg_amcheck", "pg_checksums"):
            if not os.access(os.path.join(self._pg_bin, name), os.X_OK):
                raise ScratchError(
                    "program_missing", f"found no {name} in {self._pg_bin}, wanted PostgreSQL's programs"
                )

    def prepare(self) -> None:
        """Make the empty directory. What an earlier one left is taken away. Raises OSError."""
        remove(self.root)
        os.makedirs(self.data, mode=0o700)
        with open(os.path.join(self.root, MARK), "w", encoding="ascii") as handle:
            handle.write("a scratch instance of diting-wal: may be deleted whenever no restore test runs\n")

    def configure(
        self,
        kind: str,
        target: str,
        timeline: int,
        *,
        inclusive: bool | None = None,
        lasting: bool = False,
        exact: bool = False,
    ) -> None:
        """Settings for a recovery to one target that ends there, paused. Raises ScratchError, OSError.

        Of a ``lasting`` instance every write is safe on disk, and what its promotion has to be archived waits for whoever
        runs it afterwards. ``exact`` takes no more of what a standby needs than its source had: a promotion writes it down,
        and whoever takes the instance over would have to keep it.
        """
        for name in ("standby.signal", "postmaster.pid", "postmaster.opts"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.data, name))
        if lasting and not os.path.exists(os.path.join(self.root, AUTO_CONF)):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(
                    os.path.join(self.data, "postgresql.auto.conf"), os.path.join(self.root, AUTO_CONF)
                )
        # Read after every other file: what ALTER SYSTEM set on the source must not set anything here.
        for name, text in (("postgresql.auto.conf", ""), ("recovery.signal", "")):
            self._write(os.path.join(self.data, name), text)
        # Slots of the source, more perhaps than this server would take.
        for slot in os.scandir(os.path.join(self.data, "pg_replslot")):
            shutil.rmtree(slot.path)
        version = int(self._read(os.path.join(self.data, "PG_VERSION")))
        if inclusive is None:
            # The LSN is where a point ends: with what begins there, recovery would go one record too far.
            inclusive = kind != "lsn"
        settings = {
            **self._needed(exact=exact),
            "listen_addresses": "",
            "unix_socket_directories": self.root,
            "unix_socket_permissions": "0700",
            "port": str(PORT),
            "hba_file": os.path.join(self.root, "hba.conf"),
            "ident_file": os.path.join(self.root, "ident.conf"),
            "external_pid_file": "",
            "hot_standby": "on",
            "ssl": "off",
            "shared_buffers": "128MB",
            "max_wal_size": "1GB",
            # So many origins of replication may have come with the copy.
            "max_replication_slots": "100",
            "logging_collector": "off",
            "log_destination": "stderr",
            "log_line_prefix": "%m [%p] ",
            "lc_messages": "C",
            "cluster_name": MARK,
            "shared_preload_libraries": "",
            "primary_conninfo": "",
            "primary_slot_name": "",
            "archive_cleanup_command": "",
            "recovery_end_command": "",
            # A subscription that came with the copy would take over its slot at the publisher once the copy is promoted.
            "max_logical_replication_workers": "0",
            "synchronous_standby_names": "",
            **({**_LASTING, **self._written_down()} if lasting else _FLEETING),
            "autovacuum": "off",
            "restore_command": self._restore_command,
            **({"event_triggers": "off"} if version >= _EVENT_TRIGGERS_OFF else {}),
            f"recovery_target_{kind}": target,
            "recovery_target_inclusive": "on" if inclusive else "off",
            "recovery_target_action": "pause",
            "recovery_target_timeline": str(timeline),
        }
        lines = [f"{name} = '{_escaped(value)}'\n" for name, value in settings.items()]
        self._write(os.path.join(self.root, "postgresql.conf"), "".join(lines))
        self._write(os.path.join(self.root, "hba.conf"), "local all all peer map=scratch\n")
        self._write(os.path.join(self.root, "ident.conf"), f"scratch {_account()} {self.user}\n")

    def _needed(self, *, exact: bool) -> dict[str, str]:
        found = self.control()
        missing = [name for name in _FROM_CONTROL if name not in found]
        if missing:
            raise ScratchError("start_failed", f"pg_controldata of the copy says nothing of {missing[0]}")
        # More, where somebody raises them on the source: recovery would stop there and wait for a restart.
        return {
            setting: str(max(int(found[name]), 0 if exact else least))
            for name, (setting, least) in _FROM_CONTROL.items()
        }

    def _written_down(self) -> dict[str, str]:
        found = self.control()
        return {setting: found[name] for name, setting in _WRITTEN_DOWN.items() if name in found}

    def control(self) -> dict[str, str]:
        """What pg_controldata prints. Raises ScratchError."""
        done = self.run(["pg_controldata", "-D", self.data], 30)
        rows = (line.partition(":") for line in done.splitlines())
        return {name.strip(): value.strip() for name, _colon, value in rows}

    def start(self) -> None:
        """Start the server; that it recovers is for others to see."""
        with open(self.log, "ab") as log:
            self._server = subprocess.Popen(
                [
                    os.path.join(self._pg_bin, "postgres"),
                    "-D",
                    self.data,
                    "-c",
                    f"config_file={self.root}/postgresql.conf",
                ],
                env=child.clean_environment(),
                cwd=self.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=child.die_with_parent,  # noqa: PLW1509 - this program has one thread
            )

    def wait_for_target(self, lsn_wanted: Callable[[str], bool], seconds: float) -> tuple[str, str]:
        """Wait until recovery has paused at its target; returns PostgreSQL's words for it and the LSN that was replayed.

        Consistent is not enough: a server that says it is ready for connections may be anywhere before the target.
        """
        end = time.monotonic() + seconds
        query = "SELECT pg_is_in_recovery() || '|' || pg_get_wal_replay_pause_state() || '|' || pg_last_wal_replay_lsn()"
        while True:
            self._must_run("replay_failed")
            answer = ""
            with contextlib.suppress(ScratchError):
                answer = self.sql("postgres", query, 10)
            recovering, _bar, rest = answer.partition("|")
            state, _bar, lsn = rest.partition("|")
            if recovering == "false":
                raise ScratchError(
                    "target_missed", f"it is a primary, and was to pause at its target: {self.tail()}"
                )
            if state == "paused":
                break
            if time.monotonic() > end:
                raise ScratchError(
                    "replay_late", f"the target was not reached within {seconds:g} s: {self.tail()}"
                )
            time.sleep(0.2)
        logged = self._logged()
        words = _REACHED.findall(logged)
        if not words or not lsn_wanted(lsn) or _CONSISTENT not in logged:
            said = words[-1] if words else "nothing of a target"
            raise ScratchError("target_missed", f"recovery paused at {lsn}, and its log says: {said}")
        return words[-1], lsn

    def promote(self, seconds: float) -> None:
        """End recovery; afterwards it takes writes, on a timeline of its own. Raises ScratchError."""
        if self.sql("postgres", f"SELECT pg_promote(true, {max(int(seconds), 1)})", seconds + 10) != "t":
            raise ScratchError(
                "promote_failed", f"still in recovery {seconds:g} s after the order: {self.tail()}"
            )
        self.sql("postgres", "BEGIN; CREATE TABLE diting_scratch_writes (n int); ROLLBACK", 30)

    def sql(self, database: str, query: str, seconds: float, settings: Sequence[str] = ()) -> str:
        """What psql prints for the last of the statements. Raises ScratchError."""
        words = ["psql", "-XAtqw", "-v", "ON_ERROR_STOP=1", "-h", self.root, "-p", str(PORT), "-U", self.user]
        for text in (*settings, query):
            words += ["-c", text]
        return self.run([*words, "-d", database], seconds, "query_failed").strip()

    def digest(self, database: str, table: str, seconds: float) -> tuple[int, str]:
        """Rows and digest of one table. Raises ScratchError."""
        rows, _space, text = self.sql(
            database, proof_sql.digest(table), seconds, proof_sql.SETTINGS
        ).partition(" ")
        return int(rows), text

    def run(self, words: Sequence[str], seconds: float, code: str = "start_failed") -> str:
        """Output of one of PostgreSQL's programs. Raises ScratchError."""
        program = os.path.join(self._pg_bin, words[0])
        try:
            done = subprocess.run(
                [program, *words[1:]],
                env=child.clean_environment(PGCONNECT_TIMEOUT="5", PGOPTIONS=_OPTIONS),
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
                preexec_fn=child.die_with_parent,
            )
        except OSError as error:
            raise ScratchError(code, f"{program}: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise ScratchError("late", f"{words[0]}: not done after {seconds:g} s") from error
        text = done.stdout.decode("utf-8", "replace")
        if done.returncode != 0:
            raise ScratchError(
                code, f"{words[0]}: exit {done.returncode}: {text.strip()[-_TAIL_CHARACTERS:]}"
            )
        return text

    def stop(self) -> None:
        """Shut down cleanly. Raises ScratchError."""
        self._must_run("stop_failed")
        assert self._server is not None  # noqa: S101 - for the type checker
        self._server.send_signal(signal.SIGINT)
        try:
            code = self._server.wait(_STOP_SECONDS * 4)
        except subprocess.TimeoutExpired as error:
            raise ScratchError(
                "stop_failed", f"still runs {_STOP_SECONDS * 4:g} s after the order"
            ) from error
        self._server = None
        if code != 0:
            raise ScratchError("stop_failed", f"exit {code}: {self.tail()}")

    def wait_for_primary(self, seconds: float) -> None:
        """Wait until it takes writes. Raises ScratchError."""
        end = time.monotonic() + seconds
        answer = ""
        while answer != "f":
            self._must_run("start_failed")
            if time.monotonic() > end:
                raise ScratchError("start_failed", f"no primary within {seconds:g} s: {self.tail()}")
            with contextlib.suppress(ScratchError):
                answer = self.sql("postgres", "SELECT pg_is_in_recovery()", 10)
            time.sleep(0.2)

    def kill(self) -> None:
        """End the server by force, if it runs; its directory stays."""
        server, self._server = self._server, None
        if server is not None and server.poll() is None:
            server.send_signal(signal.SIGQUIT)
            try:
                server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

    def destroy(self) -> None:
        """End the server by force and take the directory away. Raises OSError."""
        self.kill()
        # The last of its processes may still write a file or two.
        for _time in range(_REMOVE_TRIES):
            try:
                remove(self.root)
            except FileExistsError:
                raise
            except OSError:
                time.sleep(_REMOVE_PAUSE_SECONDS)
            else:
                return
        remove(self.root)

    def tail(self) -> str:
        """The end of the server's log, in one line."""
        return " | ".join(self._logged()[-_TAIL_CHARACTERS:].strip().split("\n"))

    def _logged(self) -> str:
        with contextlib.suppress(OSError), open(self.log, encoding="utf-8", errors="replace") as handle:
            return handle.read()
        return ""

    def _must_run(self, code: str) -> None:
        if self._server is None or self._server.poll() is not None:
            tail = self.tail()
            raise ScratchError(
                "store_silent" if _COULD_NOT_LOOK in tail else code, f"the scratch server is gone: {tail}"
            )

    def _read(self, path: str) -> str:
        with open(path, encoding="ascii") as handle:
            return handle.read()

    def _write(self, path: str, text: str) -> None:
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(text)


def remove(root: str) -> None:
    """Take a scratch instance's directory away, and nothing else. Raises OSError."""
    if not os.path.isdir(root):
        return
    if os.listdir(root) and not os.path.exists(os.path.join(root, MARK)):
        raise FileExistsError(f"{root} holds files, and no {MARK}: not made by a restore test, so it stays")
    # The mark last: what is left of a removal that was broken off can be told from anything else.
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if name != MARK:
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(root, MARK))
    os.rmdir(root)


def _escaped(value: str) -> str:
    return value.replace("'", "''")


def _account() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
