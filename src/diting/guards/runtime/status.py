# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``diting guard status`` shows: written by the guard, judged by the reader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core import journal
from ...core.guard_words import plain_lines
from ...core.plain import to_plain
from . import registry

if TYPE_CHECKING:
    from ...core.guard_words import Line
    from .guard import Guard
    from .loop import Runner
    from .ports import Clock

_STALE_CYCLES = 3
_STALE_FLOOR_SECONDS = 15.0


def describe(runner: Runner, stopped: str | None) -> dict[str, Any]:
    """The status of a running guard as JSON."""
    parts = runner.parts
    spool = parts.notifier.spool
    return {
        "guard": parts.document.title,
        "kind": parts.guard.name,
        "pid": os.getpid(),
        "version": parts.version,
        "run_id": parts.run_id,
        "phase": runner.machine.phase_of(runner.state).value,
        "steady": runner.machine.is_steady(runner.state),
        "ready": runner.ready,
        "cycle": runner.cycle,
        "interval_seconds": runner.interval_seconds,
        "updated_at": journal.utc_text(runner.clock.utc()),
        "updated_monotonic": runner.clock.monotonic(),
        "boot_id": runner.clock.boot_id(),
        "incident_id": runner.incident_id,
        "pause": parts.pauses.pause.as_dict() if parts.pauses.pause else None,
        "problem": runner.last_error or parts.pauses.problem,
        "policy": to_plain(runner.policy),
        "state": to_plain(runner.state),
        "observation": to_plain(runner.observation),
        "last_actions": runner.last_actions,
        "alerts_firing": sorted(alert.labels["alertname"] for alert in spool.standing()),
        "alerts_waiting": len(spool.waiting()),
        "journal": str(parts.journal.path),
        "stopped": stopped,
    }


def described(found: dict[str, Any]) -> list[Line]:
    """What a guard sees and where it stands, in its own words. A status of another release is shown as it is."""
    known = _read(found)
    if known is None:
        return plain_lines(found.get("observation") or {})
    guard, *about = known
    return list(guard.describe(*about))


def hindrances(found: dict[str, Any] | None) -> list[str] | None:
    """What forbids a guard to act now, should it have to; None when its status does not tell."""
    known = _read(found or {})
    if known is None:
        return None
    guard, *about = known
    return list(guard.hindrances(*about))


def _read(found: dict[str, Any]) -> tuple[type[Guard[Any, Any, Any, Any]], Any, Any, Any] | None:
    """The guard's class, its state, observation and policy; None for a status of another release, or before the first look."""
    try:
        guard = registry.load(found["kind"])
        machine = guard.machine
        return (
            guard,
            machine.state_type.from_dict(found["state"]),
            machine.observation_type.from_dict(found["observation"]),
            machine.policy_type.from_dict(found["policy"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def verdict(found: dict[str, Any] | None, clock: Clock) -> tuple[str, str]:
    """``ok``, ``trouble`` or ``unknown``, and why. An old status says nothing about now."""
    if found is None:
        return "unknown", "no status: it never ran since the host started, or not with this run_dir"
    if found["stopped"]:
        return "trouble", f"stopped ({found['stopped']}) at {found['updated_at']}"
    if found["boot_id"] != clock.boot_id():
        return "unknown", f"the status is of an earlier boot, {found['updated_at']}"
    if not Path(f"/proc/{found['pid']}").exists():
        return "trouble", f"process {found['pid']} is gone without a word, last seen {found['updated_at']}"
    age = clock.monotonic() - found["updated_monotonic"]
    if age > max(_STALE_CYCLES * found["interval_seconds"], _STALE_FLOOR_SECONDS):
        return "unknown", f"the status is {age:.1f} s old: process {found['pid']} hangs"
    if found["problem"]:
        return "trouble", str(found["problem"])
    if not found["ready"]:
        return "trouble", "no full cycle yet"
    if not found["steady"]:
        return "trouble", f"not in a steady state: {found['phase']}"
    return "ok", ""
