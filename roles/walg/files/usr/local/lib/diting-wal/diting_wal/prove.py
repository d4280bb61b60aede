# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a backup onto a scratch instance, recover it to a recorded point, look at it, and take it away again.

By the path that production uses: WAL-G with production's settings, and the same restore_command. Says what it found, phase by
phase, in a file that is whole after each; what that proves is judged elsewhere. Whatever happens, the instance is taken away.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from . import child, config, store
from .progress import Progress
from .scratch import Scratch, ScratchError, remove

_ASK_SECONDS = 10.0
_KINDS = ("name", "lsn", "time")
_SPARE = 1.1
"""The copy may be so much larger than what the backup says."""
_WAL_BYTES = 2 * 2**30
"""For WAL that is fetched beside it (max_wal_size of the scratch server is half of this), and the checks."""
REQUEST: dict[str, type] = {
    "id": str,
    "root": str,
    "pg_bin": str,
    "restore_command": str,
    "backup": str,
    "backup_bytes": int,
    "backup_start_lsn": int,
    "point_lsn": int,
    "timeline": int,
    "target_type": str,
    "target": str,
    "tables": list,
    "fetch_seconds": float,
    "stall_seconds": float,
    "replay_seconds": float,
    "check_seconds": float,
}


Step = tuple[str, Callable[[], dict[str, Any]]]
"""A phase: its name, and what it does; it returns what it found."""


class RequestError(Exception):
    """The request cannot be carried out; the message names what is wrong with it."""


class _Stopped(BaseException):
    """Somebody asked this program to stop."""


def read_request(
    path: str, wanted: Mapping[str, type] | None = None, kinds: Sequence[str] = _KINDS
) -> dict[str, Any]:
    """The request, that of a proof unless other keys are ``wanted``; every problem named at once. Raises RequestError."""
    wanted = REQUEST if wanted is None else wanted
    try:
        request = config.read_json(path)
    except config.ConfigError as error:
        raise RequestError(str(error)) from error
    problems = [f"/{name}: is missing" for name in wanted if name not in request]
    problems += [f"/{name}: is not known" for name in request if name not in wanted]
    for name, kind in wanted.items():
        kinds_of = (int, float) if kind is float else kind
        if name in request and (
            not isinstance(request[name], kinds_of) or isinstance(request[name], bool) is not (kind is bool)
        ):
            problems.append(f"/{name}: wanted {kind.__name__}, found {request[name]!r}")
    if not problems:
        for name in ("root", "pg_bin"):
            if not request[name].startswith("/"):
                problems.append(f"/{name}: an absolute path is wanted, found {request[name]!r}")
        if request["target_type"] not in kinds:
            problems.append(
                f"/target_type: one of {', '.join(kinds)} is wanted, found {request['target_type']!r}"
            )
        if not re.fullmatch(r"base_[0-9A-F]{24}(_D_[0-9A-F]{24})?", request["backup"]):
            problems.append(f"/backup: the name of a backup is wanted, found {request['backup']!r}")
    if problems:
        raise RequestError(f"{path}: " + "; ".join(problems))
    return request


def run(settings: config.Config, request: dict[str, Any], result: str) -> int:
    """Carry out the request; 0 when every phase ended well. The facts are in ``result``."""
    walg = config.read_json(settings.walg_config)
    user = str(walg.get("PGUSER") or "postgres")
    scratch = Scratch(request["root"], request["pg_bin"], request["restore_command"], user)
    proof = Proof(settings, walg, request, scratch, result)
    _on_signals(_stop)
    return 0 if proof.run() else 1


def clean(root: str) -> None:
    """Take away what a test that was killed has left. Raises OSError."""
    remove(root)


def _stop(_number: int, _frame: FrameType | None = None) -> NoReturn:
    raise _Stopped


def _on_signals(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, handler)


class Proof:
    """One restore, phase by phase; ``facts`` say what became of it."""

    def __init__(
        self,
        settings: config.Config,
        walg: dict[str, Any],
        request: dict[str, Any],
        scratch: Scratch,
        result: str,
    ) -> None:
        self._settings = settings
        self._walg = walg
        self._request = request
        self._scratch = scratch
        self._result = result
        self._facts: dict[str, Any] = {
            "schema": 1,
            **{name: request[name] for name in ("id", "root", "backup", "target_type", "target", "timeline")},
            "started": time.time(),
            "phases": [],
            "tables": [],
            "torn_down": False,
        }

    def run(self) -> bool:
        """Whether every phase ended well."""
        good = False
        try:
            good = self._phases()
        except _Stopped:
            pass  # the phase that it was in says so
        finally:
            # Nothing is left behind for want of patience: what ends this now is SIGKILL, and ExecStopPost then cleans up.
            _on_signals(signal.SIG_IGN)
            good = self._tear_down() and good
        return good

    def _steps(self) -> tuple[Step, ...]:
        return (
            ("space", self._space),
            ("fetch", self._fetch),
            ("replay", self._replay),
            ("compare", self._compare),
            ("promote", self._promote),
            ("amcheck", self._amcheck),
            ("stop", self._end),
            ("checksums", self._checksums),
        )

    def _phases(self) -> bool:
        for name, step in self._steps():
            with self._phase(name) as phase:
                phase.update(step())
            if phase["status"] == "failed" and name not in ("compare", "amcheck"):
                return False
        self._facts["complete"] = True
        return all(phase["status"] != "failed" for phase in self._facts["phases"])

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[dict[str, Any]]:
        phase: dict[str, Any] = {"name": name}
        self._facts["phases"].append(phase)
        self._facts["phase"] = name
        begun = time.monotonic()
        try:
            self._save()
            yield phase
            phase.setdefault("status", "ok")
        except _Stopped:
            phase.update(status="failed", code="interrupted", words="a signal asked it to stop")
            raise
        except ScratchError as error:
            phase.update(status="failed", code=error.code, words=str(error))
        except store.StoreError as error:
            phase.update(status="failed", code="store_silent", words=str(error))
        except OSError as error:
            phase.update(status="failed", code="host_failed", words=f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, this phase did not end well
            phase.update(status="failed", code="program_failed", words=f"{type(error).__name__}: {error}")
        finally:
            phase.setdefault("status", "failed")
            if (
                phase["status"] == "failed"
                and "no space left on device" in str(phase.get("words", "")).lower()
            ):
                phase["code"] = "no_space"
            phase["seconds"] = round(time.monotonic() - begun, 3)
            self._save()

    def _space(self) -> dict[str, Any]:
        self._scratch.require_programs()
        self._scratch.prepare()
        found = os.statvfs(self._request["root"])
        free = found.f_bavail * found.f_frsize
        wanted = int(self._request["backup_bytes"] * _SPARE) + _WAL_BYTES
        if free < wanted:
            words = f"{free} bytes are free under {self._request['root']}, wanted {wanted}"
            raise ScratchError("no_space", words)
        return {"free_bytes": free, "wanted_bytes": wanted}

    def _fetch(self) -> dict[str, Any]:
        argv = [self._settings.walg, "--config", self._settings.walg_config, "backup-fetch"]
        argv += [self._scratch.data, self._request["backup"]]
        self._refuse_tablespaces()
        self._require_key()
        begun = time.monotonic()
        watch = Progress(self._request["stall_seconds"])

        def work() -> int:
            # It keeps a note in its home.
            os.execve(argv[0], argv, child.clean_environment(HOME=self._request["root"]))  # noqa: S606 - no shell is wanted

        def late() -> str | None:
            if time.monotonic() - begun > self._request["fetch_seconds"]:
                return f"not fetched after {self._request['fetch_seconds']:g} s"
            return watch.stalled()

        outcome = child.supervise(work, late, watch.begin, _stop)
        _on_signals(_stop)  # supervise() had taken them for itself
        if outcome.code != 0:
            self._why_not(outcome)
        self._all_there()
        restored = _used(self._request["root"])
        self._facts["size_bytes"] = restored
        return {"bytes": restored}

    def _why_not(self, outcome: child.Outcome) -> NoReturn:
        """The store is asked itself: WAL-G tries for ever, and its exit tells not a dead store from a damaged backup.

        Raises ScratchError, StoreError.
        """
        self._sentinel()
        if "openpgp: incorrect key" in outcome.output:
            words = "the key of the settings is not the one that this backup is encrypted by"
            raise ScratchError("key_wrong", f"{words}; take the one in escrow")
        why = outcome.reason if outcome.code is None else f"exit {outcome.code}"
        code = "no_space" if "no space left on device" in outcome.output.lower() else "fetch_failed"
        raise ScratchError(code, f"{why}, although the store answers: {outcome.output}")

    def _require_key(self) -> None:
        """Before anything is fetched: WAL-G tries for ever without it. Raises ScratchError."""
        path = str(self._walg.get("WALG_PGP_KEY_PATH") or "")
        if path and not os.access(path, os.R_OK):
            words = f"WALG_PGP_KEY_PATH: {path} cannot be read, and the backup not without it"
            raise ScratchError("key_absent", f"{words}; put the key back, from escrow if need be")

    def _sentinel(self) -> dict[str, Any]:
        """What WAL-G wrote down of the backup when it was done. Raises StoreError, ValueError."""
        where = store.open_store(self._walg)
        name = f"{store.BACKUP_FOLDER}/{self._request['backup']}_backup_stop_sentinel.json"
        return dict(json.loads(where.read(name, _ASK_SECONDS)))

    def _all_there(self) -> None:
        """Whether every file of the backup came: v0.2.19 does not miss a part that is not in the store. Raises ScratchError."""
        names = [*self._files(), "/PG_VERSION", "/global/pg_control", "/backup_label"]
        missing = [name for name in names if not os.path.lexists(self._scratch.data + name)]
        if missing:
            words = f"WAL-G ended well, and {len(missing)} of {len(names)} files did not come, such as {missing[0]}"
            raise ScratchError("fetch_failed", words)
        if os.listdir(os.path.join(self._scratch.data, "pg_tblspc")):
            raise ScratchError("tablespaces", "the copy has tablespaces, whose paths are production's own")

    def _files(self) -> list[str]:
        """The files that WAL-G says it has backed up: v0.2.19 in the sentinel, v3 beside it, neither when it was told not to."""
        files = self._sentinel().get("Files")
        if not files:
            where = store.open_store(self._walg)
            name = f"{store.BACKUP_FOLDER}/{self._request['backup']}/files_metadata.json"
            if name in where.names(name, 1, _ASK_SECONDS):
                files = json.loads(where.read(name, _ASK_SECONDS)).get("Files")
        return list(files or ())

    def _refuse_tablespaces(self) -> None:
        """Before anything is fetched: WAL-G puts them where they are in production, whatever it is told. Raises ScratchError.

        Neither v0.2.19 nor v3.0.9 heeds ``--restore-spec``, and PostgreSQL follows tablespace_map anyway.
        """
        spaces = (self._sentinel().get("Spec") or {}).get("tablespaces")
        if spaces:
            words = (
                f"the backup has {len(spaces)} tablespaces, which would be restored to production's own paths"
            )
            raise ScratchError("tablespaces", f"{words}; prove it on a host of its own by hand")

    def _replay(self) -> dict[str, Any]:
        request = self._request
        self._configure()
        self._scratch.start()

        def far_enough(lsn: str) -> bool:
            high, _slash, low = lsn.partition("/")
            return (int(high, 16) << 32) + int(low, 16) >= int(request["point_lsn"])

        words, lsn = self._scratch.wait_for_target(far_enough, request["replay_seconds"])
        wal = max(request["point_lsn"] - request["backup_start_lsn"], 0)
        self._facts["wal_bytes"] = wal
        return {"words": words, "replayed_lsn": lsn, "wal_bytes": wal}

    def _configure(self) -> None:
        request = self._request
        self._scratch.configure(request["target_type"], request["target"], request["timeline"])

    def _compare(self) -> dict[str, Any]:
        """Every table, also after one that could not be read: what is known to be damaged is told."""
        problem: ScratchError | None = None
        for table in self._request["tables"]:
            try:
                rows, digest = self._scratch.digest(
                    table["database"], table["table"], self._request["check_seconds"]
                )
            except ScratchError as error:
                problem = problem or error
            else:
                self._facts["tables"].append({**table, "rows": rows, "digest": digest})
        if problem is not None:
            raise problem
        return {"words": f"{len(self._request['tables'])} tables"}

    def _promote(self) -> dict[str, Any]:
        self._scratch.promote(self._request["replay_seconds"])
        return {}

    def _amcheck(self) -> dict[str, Any]:
        words = ["pg_amcheck", "--all", "--install-missing", "--no-password", "--host", self._request["root"]]
        self._scratch.run(
            [*words, "--username", self._scratch.user], self._request["check_seconds"], "amcheck_failed"
        )
        return {}

    def _end(self) -> dict[str, Any]:
        self._scratch.stop()
        return {}

    def _checksums(self) -> dict[str, Any]:
        if self._scratch.control().get("Data page checksum version") == "0":
            return {"status": "skipped", "words": "the cluster has no page checksums (initdb -k)"}
        text = self._scratch.run(
            ["pg_checksums", "--check", "-D", self._scratch.data],
            self._request["check_seconds"],
            "checksums_failed",
        )
        blocks = re.search(r"Blocks scanned: +(\d+)", text)
        return {"blocks": int(blocks[1]) if blocks else None}

    def _tear_down(self) -> bool:
        try:
            self._scratch.destroy()
            self._facts["torn_down"] = True
        except OSError as error:
            self._facts["torn_down_words"] = str(error)
        self._facts["ended"] = time.time()
        with contextlib.suppress(OSError):
            self._save()
        return bool(self._facts["torn_down"])

    def _save(self) -> None:
        part = f"{self._result}.part"
        with open(part, "w", encoding="utf-8") as handle:
            json.dump(self._facts, handle, sort_keys=True)
        os.replace(part, self._result)


def _used(directory: str) -> int:
    """Bytes of all files below a directory."""
    total = 0
    for where, _names, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total
