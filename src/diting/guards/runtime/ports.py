# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guard may ask of the world, so that a test can be the world: the clock and commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "LANGUAGE": "C",
}
_OUTPUT_LIMIT_BYTES = 65536


class Clock(Protocol):
    """Time. Only :meth:`monotonic` may enter a decision; :meth:`utc` is for records."""

    def monotonic(self) -> float:
        """Seconds since some moment of this boot; never steps."""
        ...

    def utc(self) -> datetime:
        """The wall clock, with its zone."""
        ...

    async def wait(self, *events: asyncio.Event, seconds: float) -> None:
        """Until one of ``events`` is set, at most ``seconds``."""
        ...

    def boot_id(self) -> str:
        """Names the boot that :meth:`monotonic` counts from."""
        ...


class SystemClock:
    """The clock of this host."""

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC, in seconds."""
        return time.monotonic()

    def utc(self) -> datetime:
        """CLOCK_REALTIME, in UTC."""
        return datetime.now(UTC)

    async def wait(self, *events: asyncio.Event, seconds: float) -> None:
        """See :class:`Clock`."""
        if seconds <= 0 or any(event.is_set() for event in events):
            await asyncio.sleep(0)
            return
        if len(events) <= 1:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await (events[0].wait() if events else asyncio.sleep(seconds))
            return
        tasks = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def boot_id(self) -> str:
        """The kernel's own name of this boot."""
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@dataclass(frozen=True)
class CommandResult:
    """How a command ended: exit status (None if it never started or was killed by us) and its output."""

    status: int | None
    output: str
    error: str


class CommandRunner(Protocol):
    """Runs a command. Never raises for what the command does or for a command that does not exist."""

    async def __call__(self, argv: Sequence[str], *, timeout_seconds: float) -> CommandResult:
        """The result, or a status of None with the reason in ``error`` at the deadline."""
        ...


async def run_command(argv: Sequence[str], *, timeout_seconds: float) -> CommandResult:
    """Run ``argv`` without a shell, in the C locale, killed at the deadline."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_ENVIRONMENT,
            start_new_session=True,
            limit=_OUTPUT_LIMIT_BYTES,
        )
    except OSError as error:
        return CommandResult(None, "", f"{argv[0]}: {error.strerror}")
    try:
        async with asyncio.timeout(timeout_seconds):
            output, problem = await process.communicate()
    except TimeoutError:
        return CommandResult(None, "", f"{argv[0]} gave no answer within {timeout_seconds:g} s")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # The whole session: a wrapper's child must not live on with our pipes.
                os.killpg(process.pid, 9)
    return CommandResult(
        process.returncode, output.decode("utf-8", "replace"), problem.decode("utf-8", "replace")
    )


@dataclass(frozen=True)
class Ports:
    """Everything a guard is given beside its configuration."""

    clock: Clock = field(default_factory=SystemClock)
    run: CommandRunner = run_command
