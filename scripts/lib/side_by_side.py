# SPDX-License-Identifier: GPL-3.0-or-later
"""Long tools that wait more than they compute, several at a time; what each said is printed in one piece."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tally import BIN, ROOT, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LOOK_SECONDS = 0.1
LEAVE_SECONDS = 20.0
"""For a tool to end after Ctrl-C. Both together stay below what .ci/run waits before it kills the whole run."""
CLEAN_SECONDS = 80.0


@dataclass(frozen=True)
class Job:
    """A tool, and what is run when it failed or was broken off, so that nothing of it is left."""

    name: str
    argv: Sequence[str]
    clean: Sequence[str]
    limit_seconds: float


class Running:
    """A job that was started; its output goes to a file that can be followed meanwhile."""

    def __init__(self, job: Job, logs: Path) -> None:
        self.job = job
        self.log = logs / f"{job.name.replace(' ', '-')}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        self.cleaning = False
        self.seconds = 0.0
        """What the tool itself took, once it is over."""
        self._begin(job.argv, job.limit_seconds)

    def _begin(self, argv: Sequence[str], limit_seconds: float) -> None:
        self._started, self._limit_seconds = time.monotonic(), limit_seconds
        words = [str(BIN / argv[0]) if (BIN / argv[0]).exists() else argv[0], *argv[1:]]
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                words,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def clean(self) -> None:
        """Begin to remove what is left of it."""
        if not self.cleaning:
            self.seconds, self.cleaning = time.monotonic() - self._started, True
        self._say("cleaning up")
        self._begin(self.job.clean, CLEAN_SECONDS)

    def over(self) -> int | None:
        """Exit status of what was begun last; None while it runs, unless it is at its limit and killed."""
        status = self._process.poll()
        if status is None and time.monotonic() - self._started >= self._limit_seconds:
            self._say(f"killed after {self._limit_seconds:.0f} s")
            self.end_by(time.monotonic())
            status = self._process.returncode
        if status is not None and not self.cleaning:
            self.seconds = time.monotonic() - self._started
        return status

    def interrupt(self) -> None:
        """Ctrl-C for it and what it started, unless it has ended."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)

    def end_by(self, moment: float) -> None:
        """Wait for its end; kill the whole group at this moment."""
        try:
            self._process.wait(max(0.0, moment - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _say(self, text: str) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n{self.job.name}: {text}\n")

    def show(self) -> None:
        """Print all that it said."""
        print(f"\n--> {self.job.name}", flush=True)
        sys.stdout.buffer.write(self.log.read_bytes())
        sys.stdout.flush()


@contextmanager
def asked_to_end() -> Iterator[list[int]]:
    """The signals that ask for an end, Ctrl-C and TERM, are collected and do nothing else for a while.

    An exception could come between the start of a tool and the note that it runs; and timeout(1) sends its signal
    twice, the second time into the midst of the cleaning up.
    """
    asked: list[int] = []
    kept = {
        number: signal.signal(number, lambda number, _: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield asked
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def break_off(running: Sequence[Running]) -> None:
    """End them all at the same time, then clean up after all, then show what they said."""
    print(f"\ninterrupted: ending {', '.join(one.job.name for one in running)}", flush=True)
    deadline = time.monotonic() + LEAVE_SECONDS
    for one in running:
        one.interrupt()
    for one in running:
        one.end_by(deadline)
    deadline = time.monotonic() + CLEAN_SECONDS
    for one in running:
        one.clean()
    for one in running:
        one.end_by(deadline)
        one.show()


def side_by_side(jobs: Sequence[Job], at_once: int) -> Tally:
    """Run them all, at most ``at_once`` at a time, whatever becomes of the others; each counts as one."""
    tally = Tally()
    waiting, running = list(jobs), list[Running]()
    with asked_to_end() as asked:
        while waiting or running:
            if asked:
                break_off(running)
                raise KeyboardInterrupt
            while waiting and len(running) < at_once:
                running.append(Running(waiting.pop(0), ROOT / ".cache"))
                print(f"  ...   {running[-1].job.name:<24}  writes {running[-1].log}", flush=True)
            time.sleep(LOOK_SECONDS)
            for one in list(running):
                if (status := one.over()) is None:
                    continue
                if status != 0 and not one.cleaning:
                    one.clean()
                    continue
                running.remove(one)
                one.show()
                tally.add(one.job.name, not one.cleaning, one.seconds)
    if asked:  # as the last one ended
        raise KeyboardInterrupt
    return tally
