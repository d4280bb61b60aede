# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a playbook, keep its whole output in a log, and show a person how far it is.

What a person under stress needs is the phase, the time, and on failure the reason; the rest is in
the log whose path is printed.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PLAY = re.compile(r"^PLAY \[(?P<name>.*?)\] \**$")
TASK = re.compile(r"^(TASK|RUNNING HANDLER) \[(?P<name>.*?)\] \**$")
PHASE = re.compile(r"Phase \d+: .*")
FAILED = re.compile(r"^(fatal|failed): \[(?P<host>[^\]]+)\]")
SAID = re.compile(r"^(?P<indent>\s*)\"?msg\"?: (?P<text>.+?)\s*$")
PR_SET_PDEATHSIG = 1
CONTROLLER_NICENESS = 10


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, by which a job template or a service manager cancels a drill; closed like a Ctrl-C."""


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent is killed (``prctl(2)``).

    Without it a killed controller would leave ``ansible-playbook`` running, and a drill that nobody
    watches would go on breaking things.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def step_back() -> None:
    """Die with the parent, and leave the processors to whoever is measured: a lab is on the controller's own machine."""
    die_with_parent()
    os.nice(CONTROLLER_NICENESS)


@dataclass
class Progress:
    """Turns the lines of ``ansible-playbook`` into a few lines for people."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    started: float = field(default_factory=time.monotonic)
    interactive: bool = field(default_factory=sys.stdout.isatty)
    play: str = ""
    tasks: int = 0
    failures: list[str] = field(default_factory=list)
    _failing_host: str | None = None
    _message_indent: int | None = None

    def clock(self) -> str:
        """Time since the start as ``m:ss``."""
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 60:d}:{seconds % 60:02d}"

    def say(self, text: str) -> None:
        """Print one line that stays."""
        lead = "\r\x1b[2K" if self.interactive else ""
        print(f"{lead}[{self.clock()}] {text}", file=self.out, flush=True)

    def feed(self, line: str) -> None:
        """Take one line of output."""
        if self._message_indent is not None:
            # YAML folds a long message over lines that are indented further than its key.
            if line.strip() and len(line) - len(line.lstrip()) > self._message_indent:
                self.failures[-1] += f" {line.strip()}"
                return
            self._message_indent = None
        if match := PLAY.match(line):
            self.play = match["name"]
            self.say(self.play)
        elif match := TASK.match(line):
            self.tasks += 1
            self._failing_host = None
            if phase := PHASE.search(match["name"]):
                self.say(f"  {phase[0]}")
            elif self.interactive:
                text = f"[{self.clock()}]   {match['name']}"[:100]
                print(f"\r\x1b[2K{text}", end="", file=self.out, flush=True)
        elif match := FAILED.match(line):
            self._failing_host = match["host"]
            inline = re.search(r'"msg": "((?:[^"\\]|\\.)*)"', line)
            if inline:
                self.failures.append(f"{match['host']}: {inline[1]}")
                self._failing_host = None
        elif self._failing_host and (match := SAID.match(line)):
            self.failures.append(f"{self._failing_host}: {match['text']}")
            self._failing_host, self._message_indent = None, len(match["indent"])


@dataclass(frozen=True)
class PlaybookRun:
    """What running one playbook came to. ``seconds`` is wall time by a monotonic clock."""

    status: int
    seconds: float
    tasks: int
    failures: tuple[str, ...]
    output: str


def run_playbook(
    argv: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    progress: Progress,
    extra_env: Mapping[str, str] | None = None,
    undisturbed: bool = False,
) -> PlaybookRun:
    """Run ``argv`` (an ``ansible-playbook`` command), log everything, feed ``progress``.

    The child dies with this process. Ctrl-C reaches the child through the terminal's process group;
    the exit status then is Ansible's own. ``undisturbed`` keeps such signals away from it: Ansible
    installs handlers of its own, so that ignoring them here would not be inherited.
    """
    started = time.monotonic()
    tasks_before, failures_before = progress.tasks, len(progress.failures)
    env = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "PYTHONUNBUFFERED": "1", **(extra_env or {})}
    env["ANSIBLE_CALLBACK_RESULT_FORMAT"] = "yaml"
    lines: list[str] = []
    with log.open("a", encoding="utf-8") as sink:
        sink.write(f"$ {' '.join(argv)}\n")
        child = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=undisturbed,
            preexec_fn=step_back,  # noqa: PLW1509 - no threads yet when it runs
        )

        def pump() -> None:
            assert child.stdout is not None  # noqa: S101 - for the type checker: PIPE was asked for
            for raw in child.stdout:
                line = raw.rstrip("\n")
                lines.append(line)
                sink.write(raw)
                sink.flush()
                progress.feed(line)

        reader = threading.Thread(target=pump, daemon=True)
        reader.start()
        try:
            status = child.wait()
        except KeyboardInterrupt as stop:
            # Ansible got the same Ctrl-C, but not what was sent to us alone; give it a moment to end its
            # workers, then insist.
            if isinstance(stop, TerminatedError):
                child.terminate()
            try:
                status = child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            raise
        finally:
            reader.join(timeout=10)
    return PlaybookRun(
        status=status,
        seconds=time.monotonic() - started,
        tasks=progress.tasks - tasks_before,
        failures=tuple(progress.failures[failures_before:]),
        output="\n".join(lines),
    )
