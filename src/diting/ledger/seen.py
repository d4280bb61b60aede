# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until the watcher has seen a fault take effect: the drill asks this before it goes on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

POLL_SECONDS = 0.05


def _records(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file that is being written; a torn last line is not one yet."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def mark_ns(path: Path, label: str) -> int | None:
    """Monotonic time of the last mark called ``label``, None without one."""
    found = [int(r["mono_ns"]) for r in _records(path) if r.get("k") == "mark" and r.get("label") == label]
    return found[-1] if found else None


def effect(
    records: Iterable[dict[str, Any]], targets: Iterable[str], states: Iterable[str], since_ns: int
) -> dict[str, Any] | None:
    """The transition with which the last of ``targets`` came into one of ``states`` after ``since_ns``.

    None while any of them was not seen there. A target that flaps counts with its first time.
    """
    wanted, good = set(targets), set(states)
    seen: dict[str, dict[str, Any]] = {}
    for record in records:
        if record.get("k") != "transition" or record.get("target") not in wanted:
            continue
        if record["to"] in good and int(record["confirmed_ns"]) >= since_ns:
            seen.setdefault(str(record["target"]), record)
    if set(seen) != wanted:
        return None
    return max(seen.values(), key=lambda record: int(record["confirmed_ns"]))


def wait_for_effect(
    watch: Path,
    targets: list[str],
    states: list[str],
    since_ns: int,
    timeout_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, Any] | None:
    """Wait for :func:`effect`; None when ``timeout_seconds`` passed without it."""
    deadline = monotonic() + timeout_seconds
    while True:
        if (found := effect(_records(watch), targets, states, since_ns)) is not None:
            return found
        if monotonic() >= deadline:
            return None
        sleep(POLL_SECONDS)
