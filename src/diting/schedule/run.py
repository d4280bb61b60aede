# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one job of the table: alone, within its time, and so that what came of it is known afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .state import State, StateError, keep, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from .config import Job, Table

EXIT_NOT_RUN = 75
"""It could not be begun, another job being under way (BSD ``EX_TEMPFAIL``)."""
EXIT_LATE = 124
"""It took longer than its table allows, as ``timeout`` reports it."""
EXIT_NO_PROGRAM = 127
"""Its command cannot be started, as shells report it."""
_SIGNALLED = 128
_STOP_SECONDS = 60.0
_LOOK_SECONDS = 0.2
LOCK = "lock"
"""In the directory of states: held while a job is at work."""


@dataclass(frozen=True)
class Outcome:
    """Exit status, and in words what went wrong (empty when nothing did)."""

    status: int
    problem: str = ""


class _Stop:
    """Notes that somebody wants an end (systemctl stop, Ctrl-C), so that the job is ended before we are."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number


def run(table: Table, job: Job) -> Outcome:
    """Wait for our turn, run the command, keep what came of it.

    The job is counted as begun before its command is, so that a host that dies in the midst of it leaves a run without an end.
    """
    stop = _Stop()
    with _listening(stop):
        try:
            with _alone(table, stop) as free:
                if not free:
                    outcome = Outcome(
                        EXIT_NOT_RUN, f"another job was under way for {table.lock_seconds:.0f} s"
                    )
                    return _kept(table, job, time.time(), outcome)
                begun = time.time()
                keep(table.state_dir, _before(table, job, begun).started(begun))
                return _kept(table, job, begun, _carried_out(table, job, stop))
        except StateError as error:
            return Outcome(1, str(error))


def _before(table: Table, job: Job, now: float) -> State:
    return read(table.state_dir, job.name) or State(name=job.name, since=now)


def _kept(table: Table, job: Job, begun: float, outcome: Outcome) -> Outcome:
    now = time.time()
    try:
        keep(table.state_dir, _before(table, job, now).ended_with(begun, now, outcome.status))
    except StateError as error:
        # What nobody can read later was not proven.
        return Outcome(outcome.status or 1, "; ".join(filter(None, (outcome.problem, str(error)))))
    return outcome


def _carried_out(table: Table, job: Job, stop: _Stop) -> Outcome:
    try:
        # Its own process group: what it starts ends with it.
        process = subprocess.Popen(
            job.command, cwd=table.directory, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        where = error.filename or job.command[0]
        return Outcome(EXIT_NO_PROGRAM, f"{job.name}: {where}: {error.strerror}")
    end = time.monotonic() + job.deadline_seconds
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(_LOOK_SECONDS)
            return Outcome(status if status >= 0 else _SIGNALLED - status)
        if stop.signal is not None:
            _end(process)
            return Outcome(_SIGNALLED + stop.signal, f"{job.name}: was stopped by signal {stop.signal}")
        if time.monotonic() >= end:
            _end(process)
            return Outcome(
                EXIT_LATE,
                f"{job.name}: took longer than deadline_seconds, {job.deadline_seconds:.0f} s, and was ended",
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asked first, then forced: a playbook that is asked can still take back what it began."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _alone(table: Table, stop: _Stop) -> Iterator[bool]:
    """One job of a host at a time: after a long time off all are due at once, and a drill beside a restore test measures neither."""
    path = table.state_dir / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from error
    try:
        end = time.monotonic() + table.lock_seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end or stop.signal is not None:
                    yield False
                    return
                time.sleep(_LOOK_SECONDS)
            else:
                break
        yield True
    finally:
        os.close(handle)


@contextlib.contextmanager
def _listening(stop: _Stop) -> Iterator[None]:
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.stdout.flush()
