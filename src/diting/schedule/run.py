# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one job of the table: alone, within its time, and so that what came of it is known afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .state import State, StateError, keep, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
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
_OWN_SECONDS = 5.0
LOCK = "lock"
"""In the directory of states: held while a job is at work. After a long time off all are due at once; one at a time, a drill beside a
restore test measures neither."""


def lock_of(name: str) -> str:
    """In the same directory: held from the moment that a job waits for its turn until what came of it is written."""
    return f"{name}.lock"


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
            # Who only looks at it holds the lock for a moment as well.
            with held(table.state_dir / lock_of(job.name), _OWN_SECONDS) as ours:
                if not ours:
                    # What is known of it is the other run's to write.
                    return Outcome(EXIT_NOT_RUN, f"{job.name} is under way already")
                with held(table.state_dir / LOCK, table.lock_seconds, stop) as free:
                    begun = time.time()
                    if not free:
                        return _kept(table, job, begun, _in_vain(table, job, stop))
                    keep(table.state_dir, _before(table, job, begun).started(begun))
                    return _kept(table, job, begun, _carried_out(table, job, stop))
        except StateError as error:
            return Outcome(1, str(error))


def _in_vain(table: Table, job: Job, stop: _Stop) -> Outcome:
    if stop.signal is not None:
        return Outcome(
            _SIGNALLED + stop.signal,
            f"{job.name}: was stopped by signal {stop.signal} while it waited for another job",
        )
    return Outcome(EXIT_NOT_RUN, f"{job.name}: another job was under way for {table.lock_seconds:.0f} s")


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
    """Asked first, then forced. A fault that a drill leaves behind so is reverted by its own time limit, as when a controller dies."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def held(path: Path, seconds: float = 0.0, stop: _Stop | None = None) -> Iterator[bool]:
    """Hold a lock; False when it could not be had within ``seconds``, or before somebody wanted an end. Raises StateError.

    Readable for everybody, which is all that a lock needs: jobs may be run by one user and looked at by another.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from error
    try:
        end = time.monotonic() + seconds
        while True:
            # Asked first: who was told to end must not begin because the other one has ended, too.
            mine = (stop is None or stop.signal is None) and _locked(handle)
            if mine or time.monotonic() >= end or (stop is not None and stop.signal is not None):
                break
            time.sleep(_LOOK_SECONDS)
        yield mine
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _listening(stop: _Stop) -> Iterator[None]:
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
