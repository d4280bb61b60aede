# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guards' journals say of a drill, as lines of its timeline. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FAILOVER = "failover"

STEPS: Mapping[tuple[str | None, str], tuple[str, str | None, str | None]] = {
    (None, "suspect"): ("no sign of life from the primary", "detect", None),
    ("suspect", "watching"): ("not confirmed: the primary answers, or another leads", "detect", None),
    (None, "fencing"): ("silence confirmed: fence ordered", "detect", "detected"),
    (None, "reading_back"): ("the order has ended: reads back", "decide", None),
    (None, "last_look"): ("read back off: looks once more", "decide", None),
    (None, "isolating"): ("last look clean: has the address cut off on the survivors", "decide", None),
    (None, "releasing"): ("cut off: releases the leader key", "decide", None),
    (None, "telling"): ("leader key released: tells the proxies", "act", "decided"),
    (None, "cooling"): ("the TTL was quicker", "act", None),
    ("telling", "cooling"): ("proxies told", "act", None),
    (None, "returning"): ("takes the routes back", None, None),
    (None, "rejoining"): ("has the fenced host powered on", None, None),
    (None, "watching"): ("watches again", None, None),
    (None, "alert_only"): ("may not fence: leaves it to the TTL", "decide", None),
    (None, "standing_down"): ("not certain: leaves it to the TTL", "decide", None),
    (None, "starting"): ("restarted", None, None),
}
"""(phase before, or None for any; phase) of the failover guard -> label, step, split. Each step ends where the next begins."""


def guard_timeline(
    records: Iterable[Mapping[str, Any]], host: str, guard: str, since: str
) -> list[dict[str, Any]]:
    """Every change of phase in a guard's journal from the UTC time ``since`` on, as timeline lines.

    The place is the moment of the decision on the guard's monotonic clock: what came before it took its time until then.
    """
    lines: list[dict[str, Any]] = []
    phase: str | None = None
    reason: str | None = None
    for record in records:
        if record.get("event") == "segment":
            state = record.get("state") or {}
            phase, reason = str(state.get("phase")), state.get("reason")
        if record.get("event") != "cycle":
            continue
        # Of the state only what a cycle changed is written down.
        changes = record.get("state_changes") or {}
        reason = changes.get("reason", reason)
        before, phase = phase, str(record["phase"])
        if before == phase or str(record.get("ts", "")) < since:
            continue
        words, step, split = _words(guard, before, phase)
        lines.append(
            {
                "ts": str(record["ts"]),
                "mono_ns": round(float(changes.get("since") or record["now"]) * 1e9),
                "host": host,
                "source": f"guard {guard}",
                "event": phase,
                "label": f"guard: {words}",
                "step": step,
                "actor": "automated",
                "split": split,
                "reason": reason or None,
                "actions": [action["name"] for action in record.get("actions") or []],
            }
        )
    return lines


def _words(guard: str, before: str | None, phase: str) -> tuple[str, str | None, str | None]:
    if guard != FAILOVER:
        return f"{guard} {phase}", None, None
    return STEPS.get((before, phase)) or STEPS.get((None, phase)) or (phase, None, None)
