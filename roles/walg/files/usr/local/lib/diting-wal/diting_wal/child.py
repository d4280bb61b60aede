# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that ends on time: run it in a process group of its own, and kill the group if need be.

A time-out inside the work is not enough. Name lookups, a hung file system and WAL-G's own
retries do not keep to one, and PostgreSQL waits for as long as its command runs.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import NamedTuple, NoReturn

from .config import DEFAULT_PATH

POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 2000
_REAP_SECONDS = 0.2
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_HELD_BACK = {*_STOP_SIGNALS, signal.SIGHUP}


class Outcome(NamedTuple):
    """How supervised work ended: its exit code, or None and the reason why it was stopped."""

    code: int | None
    reason: str
    output: str


class _Interrupted(BaseException):
    """A signal asked this command to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, even by SIGKILL."""
    import ctypes  # late: 3 ms that only the worker needs

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def clean_environment(**extra: str) -> dict[str, str]:
    """Environment for WAL-G: what it needs, and nothing that PostgreSQL or a shell happens to carry.

    WAL-G lets the environment override its settings file, so a stray ``AWS_*`` or ``PGDATA`` would
    silently send WAL elsewhere.
    """
    kept = {name: os.environ[name] for name in ("HOME", "TZ") if name in os.environ}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", **kept, **extra}


def supervise(
    work: Callable[[], int],
    stop_reason: Callable[[], str | None],
    started: Callable[[int], None] | None = None,
    interrupted_by: Callable[[int], NoReturn] | None = None,
) -> Outcome:
    """Run ``work`` in a forked process group until it ends or ``stop_reason`` names a reason.

    ``stop_reason`` is asked about every 50 ms; ``started`` is told the group's process id. A signal to stop kills the group
    and ends this process with 128 + signal, the form in which PostgreSQL recognises it, unless ``interrupted_by`` takes it.
    """
    output = os.memfd_create("diting-wal-output")

    def interrupted(signum: int, _frame: FrameType | None) -> None:
        raise _Interrupted(signum)

    pid = -1
    try:
        for signum in _STOP_SIGNALS:
            signal.signal(signum, interrupted)
        # One that comes in between would find a worker that nobody knows of yet, and that nobody would then end.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        pid = os.fork()
        if pid == 0:
            _be_child(work, output)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)
        if started is not None:
            started(pid)
        with open(os.pidfd_open(pid), "rb", buffering=0) as handle:
            reason = _watch(handle.fileno(), stop_reason)
        if reason is not None:
            _kill_group(pid)
            return Outcome(None, reason, _tail(output))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except _Interrupted as stop:
        if pid > 0:
            _kill_group(pid)
        if interrupted_by is not None:
            interrupted_by(stop.signum)
        os._exit(128 + stop.signum)
    except BaseException:
        if pid > 0:
            _kill_group(pid)
        raise
    # A killed worker (out of memory, say) has a negative code; that is a failure like any other.
    return Outcome(code if code >= 0 else 255, "ended", _tail(output))


def command_line(
    program: str, description: str, places: Mapping[str, str], arguments: Sequence[str] | None
) -> dict[str, str]:
    """Words of the command line by name, and ``config``; leaves with a usage error as argparse does.

    PostgreSQL gives exactly the words that ``places`` names (name to help). They are taken as they are:
    loading argparse costs 7 ms, several times in a promotion, while clients wait.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) == len(places) and not any(word.startswith("-") for word in given):
        return {**dict(zip(places, given, strict=True)), "config": DEFAULT_PATH}
    import argparse

    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--config", default=DEFAULT_PATH, help="wrapper settings (JSON)")
    for name, text in places.items():
        parser.add_argument(name, help=text.replace("%", "%%"))
    return {name: str(value) for name, value in vars(parser.parse_args(given)).items()}


def tell(message: str, code: int) -> int:
    """In a worker: leave a message for the command that supervises it, and pass on its exit code."""
    os.write(2, message.encode())
    return code


def process_start() -> float:
    """When this process was started, on the clock of time.monotonic().

    A busy machine takes long to start an interpreter; a limit that counts from the first line of
    our own code would be missed by that much. Field 22 of proc(5) counts clock ticks since boot.
    """
    with open("/proc/self/stat", encoding="ascii") as handle:
        ticks = int(handle.read().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - max(age, 0.0)


def say(program: str, message: str) -> None:
    """One line for PostgreSQL's log."""
    sys.stderr.write(f"{program}: {' | '.join(message.split(chr(10)))}\n")


def _be_child(work: Callable[[], int], output: int) -> NoReturn:
    code = 255
    try:
        os.setsid()
        die_with_parent()
        for signum in _STOP_SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = work()
    except BaseException as error:  # noqa: BLE001 - nothing may escape into the parent's code
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    os._exit(code)


def _watch(handle: int, stop_reason: Callable[[], str | None]) -> str | None:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    while not poller.poll(POLL_SECONDS * 1000):
        reason = stop_reason()
        if reason is not None:
            return reason
    return None


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    # A process stuck in the kernel (dead NFS) cannot be reaped; our answer must not wait for it.
    end = time.monotonic() + _REAP_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                time.sleep(0.005)
                continue
        return


def _tail(output: int) -> str:
    size = os.fstat(output).st_size
    raw = os.pread(output, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    return raw.decode("utf-8", "replace").strip()
