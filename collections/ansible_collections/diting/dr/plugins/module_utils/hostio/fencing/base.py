# SPDX-License-Identifier: GPL-3.0-or-later
"""What every fencing agent shares: deadlines that hold, answers that are clear or UNKNOWN, credentials from files."""

from __future__ import annotations

import concurrent.futures
import os
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ...core.fence import Order, Outcome, Power, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...core.fence import Read

T = TypeVar("T")
POLL_SECONDS = 0.2


class FencingError(Exception):
    """The agent cannot be used at all: options, credentials, a missing library. Nothing was ordered."""


class RefusedError(Exception):
    """Whoever holds the power said no, clearly: nothing was switched."""


class UnclearError(Exception):
    """No clear answer: it may or may not have happened."""


class Agent(Protocol):
    """One host's switch outside of that host. Calls block up to ``deadline_seconds`` and never raise for an answer."""

    def off(self, deadline_seconds: float) -> Order:
        """Order "off". DONE means accepted and not yet that it is off."""

    def on(self, deadline_seconds: float, *, leader: str | None = None) -> Order:
        """Order "on". ``leader`` is the member that holds the leader key now, for whoever keeps a fenced host off by it."""

    def state(self, deadline_seconds: float) -> Reading:
        """Read back. UNKNOWN, with words, for everything that is not a clear answer."""


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """Result of ``call``, or :class:`UnclearError` after ``seconds``, whatever it hangs in.

    A socket's own timeout bounds one read, and a name lookup has none: only a thread of its own can
    be walked away from. It is a daemon, so it never keeps the process.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is handed over, whatever it is
            future.set_exception(error)

    threading.Thread(target=run, name=f"fencing {what}", daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except concurrent.futures.TimeoutError as error:
        if future.done():
            raise UnclearError(f"{what}: {error or 'a timeout'}") from error
        raise UnclearError(f"{what}: no answer within {seconds:g} s") from None


def ordered(what: str, seconds: float, call: Callable[[], str]) -> Order:
    """The :class:`Order` that ``call`` (which returns words, or raises) ends in."""
    asked = time.monotonic()
    try:
        outcome, words = Outcome.DONE, within(seconds, what, call)
    except RefusedError as error:
        outcome, words = Outcome.FAILED, str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no clear answer
        outcome, words = Outcome.UNKNOWN, str(error) or type(error).__name__
    return Order(outcome, asked, time.monotonic(), words)


def looked(what: str, seconds: float, call: Callable[[], tuple[Read, Mapping[str, Any]]]) -> Reading:
    """The :class:`Reading` that ``call`` ends in; every failure to look is UNKNOWN."""
    asked = time.monotonic()
    try:
        (power, words), evidence = within(seconds, what, call)
    except Exception as error:  # noqa: BLE001 - could not look is never off
        return Reading(Power.UNKNOWN, asked, time.monotonic(), str(error) or type(error).__name__)
    return Reading(power, asked, time.monotonic(), words, evidence)


def read_until(agent: Agent, wanted: Power, seconds: float, call_seconds: float) -> list[Reading]:
    """Read back until it says ``wanted`` or ``seconds`` have passed; at least once."""
    end = time.monotonic() + seconds
    readings = [agent.state(min(call_seconds, seconds))]
    while readings[-1].power is not wanted:
        left = end - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(POLL_SECONDS, left))
        readings.append(agent.state(min(call_seconds, max(0.05, end - time.monotonic()))))
    return readings


def credentials(path: str | None, names: Sequence[str]) -> dict[str, str]:
    """Values of ``names`` from an environment file (``NAME=value`` lines, as systemd reads them), else the environment.

    The file must not be open to others. Raises :class:`FencingError`; its text never holds a value.
    """
    if path is None:
        return {name: os.environ[name] for name in names if os.environ.get(name)}
    file = Path(path)
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise FencingError(f"credentials_file {path}: {error}") from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise FencingError(f"credentials_file {path}: mode is {stat.filemode(mode)}; want 0600 or 0640")
    found = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith(("#", ";")):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise FencingError(f"credentials_file {path}: line {number} is not NAME=value")
        if name.strip() in names:
            found[name.strip()] = value.strip().strip("'\"")
    return found
