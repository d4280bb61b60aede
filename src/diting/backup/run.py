# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a backup if it is this member's turn, under a lock that all members share."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import ssl
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..core.backup_turn import whose_turn
from ..guards.etcd import Etcd, EtcdError
from ..guards.etcd_lock import Lock
from ..guards.etcd_transport import HttpsTransport
from ..hostio.restore_records import RecordsError, write

if TYPE_CHECKING:
    from .config import Schedule

EXIT_WELL, EXIT_FAILED, EXIT_UNKNOWN = 0, 1, 2
_ASK_SECONDS = 5.0
_STOP_SECONDS = 30.0
_STDERR_CHARACTERS = 2000


class UnknownError(Exception):
    """Nobody could say whose turn it is, or take the lock; the message says why."""


@dataclass(frozen=True)
class Result:
    """How it ended: ``status`` is for the process, ``facts`` for people and programs."""

    status: int
    facts: dict[str, Any]


def run(config: Schedule) -> Result:
    """Ask, lock, back up, and say what came of it."""
    try:
        turn = whose_turn(_members(config), config.max_lag_bytes)
        facts: dict[str, Any] = {
            "changed": False,
            "member": turn.member,
            "why": turn.why,
            "left_out": list(turn.left_out),
        }
        if turn.member is None:
            return _remembered(config, Result(EXIT_UNKNOWN, {**facts, "problem": turn.why}), None)
        if turn.member != config.member:
            return Result(EXIT_WELL, {**facts, "skipped": f"{turn.member} takes it"})
        with _locked(config) as lock:
            if lock is None:
                return Result(EXIT_WELL, {**facts, "skipped": "another member's backup is under way"})
            result = _back_up(config, lock)
    except UnknownError as error:
        return _remembered(config, Result(EXIT_UNKNOWN, {"changed": False, "problem": str(error)}), None)
    return _remembered(config, Result(result.status, {**facts, **result.facts}), result.facts.get("seconds"))


def _members(config: Schedule) -> list[dict[str, Any]]:
    where = urlsplit(config.patroni_url)
    try:
        context = ssl.create_default_context(cafile=str(config.tls.ca))
        context.load_cert_chain(config.tls.certificate, config.tls.key)
        connection = http.client.HTTPSConnection(
            where.hostname or "", where.port, timeout=_ASK_SECONDS, context=context
        )
        with contextlib.closing(connection):
            connection.request("GET", "/cluster")
            answer = connection.getresponse()
            found = json.loads(answer.read())
        members = found["members"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise UnknownError(f"{config.patroni_url}/cluster: {error or type(error).__name__}") from error
    if answer.status != http.client.OK or not isinstance(members, list):
        raise UnknownError(f"{config.patroni_url}/cluster answered {answer.status}")
    return [dict(member) for member in members]


@contextlib.contextmanager
def _locked(config: Schedule) -> Any:
    tls = config.tls
    try:
        transport = HttpsTransport(str(tls.ca), str(tls.certificate), str(tls.key))
    except OSError as error:
        raise UnknownError(f"{tls.certificate}: {error}") from error
    lock = Lock(
        Etcd(config.etcd_endpoints, transport),
        config.lock_key,
        config.member,
        ttl_seconds=config.lock_ttl_seconds,
    )
    try:
        held = lock.hold(_ASK_SECONDS)
    except EtcdError as error:
        raise UnknownError(f"no lock, so no backup: {error}") from error
    try:
        yield lock if held else None
    finally:
        with contextlib.suppress(EtcdError):  # it runs out by itself
            lock.release(_ASK_SECONDS)


def _back_up(config: Schedule, lock: Lock) -> Result:
    begun = time.monotonic()
    problem = None
    process = subprocess.Popen(
        config.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while True:
            try:
                out, err = process.communicate(timeout=config.lock_ttl_seconds / 4)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() - begun > config.deadline_seconds:
                    problem = f"not done after {config.deadline_seconds:g} s"
                # While etcd does not answer nobody else can take the lock either.
                with contextlib.suppress(EtcdError):
                    if not lock.hold(_ASK_SECONDS):
                        problem = "the lock was lost to another member"
            if problem:
                out, err = _end(process)
                break
    except BaseException:
        _end(process)
        raise
    seconds = round(time.monotonic() - begun, 1)
    facts: dict[str, Any] = {"seconds": seconds}
    try:
        said = json.loads(out)
        facts |= {name: said[name] for name in ("changed", "kind", "backup", "skipped") if name in said}
        problem = problem or "; ".join(reason["message"] for reason in said.get("reasons", ()))
    except (ValueError, TypeError, KeyError):
        problem = problem or f"exit {process.returncode}: {(err or out).strip()[-_STDERR_CHARACTERS:]}"
    if process.returncode == 0 and not problem:
        return Result(EXIT_WELL, facts)
    return Result(
        EXIT_FAILED, {**facts, "changed": False, "problem": problem or f"exit {process.returncode}"}
    )


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGTERM)
    try:
        return process.communicate(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def _remembered(config: Schedule, result: Result, seconds: float | None) -> Result:
    """Keep what it came to, for metrics and for the next time. A disk that is full must not hide the result."""
    before: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        before = dict(json.loads(config.state_file.read_text(encoding="utf-8")))
    now = time.time()
    state = {
        **before,
        "ended": now,
        "status": result.status,
        **({"seconds": seconds} if seconds is not None else {}),
        **({"succeeded": now} if result.status == EXIT_WELL else {}),
    }
    try:
        write(config.state_file, json.dumps(state, sort_keys=True) + "\n")
        if config.metrics_file is not None:
            write(config.metrics_file, metrics(config.cluster, state))
    except RecordsError as error:
        return Result(max(result.status, EXIT_FAILED), {**result.facts, "not_remembered": str(error)})
    return result


def metrics(cluster: str, state: dict[str, Any]) -> str:
    """In Prometheus's text format; only members whose turn it was have any."""
    label = cluster.replace("\\", "\\\\").replace('"', '\\"')
    rows = (
        ("diting_backup_last_run_timestamp_seconds", "End of this member's last scheduled backup.", "ended"),
        (
            "diting_backup_last_exit_status",
            "Its exit status: 0 well, 1 failed, 2 nobody could say.",
            "status",
        ),
        ("diting_backup_last_duration_seconds", "How long it took.", "seconds"),
        ("diting_backup_last_success_timestamp_seconds", "End of the last one that ended well.", "succeeded"),
    )
    text = []
    for name, words, key in rows:
        if key in state:
            text += [
                f"# HELP {name} {words}",
                f"# TYPE {name} gauge",
                f'{name}{{cluster="{label}"}} {state[key]}',
            ]
    return "\n".join(text) + "\n"
