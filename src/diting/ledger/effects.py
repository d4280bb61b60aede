# SPDX-License-Identifier: GPL-3.0-or-later
"""The moments of a run on the prober's clock, above all: when the fault took effect. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.verdict import Reason
from .series import NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Ledger
    from .settings import Settings

WATCH_SILENCE_NS = 3 * NS
"""The watcher writes every second; a longer silence means that nobody was looking."""


@dataclass
class Moments:
    """Moments in nanoseconds of CLOCK_MONOTONIC of the prober's host, and what is wrong with them."""

    inject_ns: int | None = None
    effect_ns: int | None = None
    effect_earliest_ns: int | None = None
    effect_source: str | None = None
    control_start_ns: int | None = None
    control_end_ns: int | None = None
    marks: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Reason] = field(default_factory=list)

    def listed(self) -> list[dict[str, Any]]:
        """All marks in order, relative to the injection."""
        zero = self.inject_ns
        return [
            {
                "label": mark["label"],
                "t_seconds": None if zero is None else round((mark["mono_ns"] - zero) / NS, 6),
                "mono_ns": mark["mono_ns"],
                "utc": mark.get("utc"),
                "data": mark.get("data"),
            }
            for mark in sorted(self.marks, key=lambda mark: int(mark["mono_ns"]))
        ]

    def effect_dict(self) -> dict[str, Any]:
        """Bracket of the effect, in seconds after the command was sent."""
        zero = self.inject_ns

        def since(value: int | None) -> float | None:
            return None if value is None or zero is None else round((value - zero) / NS, 6)

        return {
            "source": self.effect_source,
            "earliest_seconds": since(self.effect_earliest_ns),
            "confirmed_seconds": since(self.effect_ns),
        }


def moments(
    ledgers: Sequence[Ledger],
    marks: Sequence[dict[str, Any]],
    watch: Sequence[dict[str, Any]],
    settings: Settings,
) -> Moments:
    """Collect the moments and judge whether they can be trusted."""
    found = Moments(marks=[*marks, *(mark for ledger in ledgers for mark in ledger.marks)])
    by_label: dict[str, int] = {}
    for mark in found.marks:
        by_label.setdefault(str(mark["label"]), int(mark["mono_ns"]))
    found.inject_ns = by_label.get("inject_sent")
    found.control_start_ns = by_label.get("control_start")
    found.control_end_ns = by_label.get("control_end")
    for label in ("control_start", "control_end", "inject_sent"):
        if label not in by_label:
            found.problems.append(Reason("mark_missing", f"no mark {label}", None, label))
    found.problems += _one_clock(ledgers, marks, watch)
    if found.inject_ns is None:
        return found
    if settings.effect_target is not None:
        _watched_effect(found, found.inject_ns, watch, settings)
    elif "effect_confirmed" in by_label:
        found.effect_ns = by_label["effect_confirmed"]
        found.effect_earliest_ns = found.inject_ns
        found.effect_source = "mark effect_confirmed"
    if found.effect_ns is None and not any(p.code.startswith("effect") for p in found.problems):
        found.problems.append(
            Reason("effect_unknown", "nothing confirmed that the fault took effect", None, "seen")
        )
    if found.effect_ns is not None and found.effect_ns < found.inject_ns:
        found.problems.append(
            Reason(
                "effect_before_injection",
                "the effect was there before the fault was sent",
                round((found.effect_ns - found.inject_ns) / NS, 6),
                0,
            )
        )
        found.effect_ns = None
    return found


def _watched_effect(
    found: Moments, inject_ns: int, watch: Sequence[dict[str, Any]], settings: Settings
) -> None:
    """The effect is the watcher's first sight of a wanted state after the injection."""
    target = settings.effect_target
    wanted = settings.effect_states
    changes = [w for w in watch if w.get("k") == "transition" and w.get("target") == target]
    before = [w["to"] for w in changes if w["confirmed_ns"] <= inject_ns]
    state = before[-1] if before else None
    if state is None or state in wanted:
        found.problems.append(
            Reason(
                "effect_unknown",
                f"the watcher saw {target} as {state} before the fault",
                state,
                f"a state other than {'/'.join(wanted)}",
            )
        )
        return
    if not _alive_at(watch, inject_ns):
        found.problems.append(
            Reason("effect_unknown", "the watcher was not looking at the injection", None, "alive")
        )
        return
    for change in changes:
        if change["confirmed_ns"] > inject_ns and change["to"] in wanted:
            last_seen = change.get("last_seen_ns")
            found.effect_ns = int(change["confirmed_ns"])
            found.effect_earliest_ns = max(inject_ns, int(last_seen or inject_ns))
            found.effect_source = f"watch {target} {change['to']} ({change.get('detail')})"
            return
    found.problems.append(
        Reason(
            "effect_unknown",
            f"the watcher never saw {target} become {'/'.join(wanted)} after the fault",
            changes[-1]["to"],
            list(wanted),
        )
    )


def _alive_at(watch: Sequence[dict[str, Any]], moment_ns: int) -> bool:
    stamps = [int(record["mono_ns"]) for record in watch]
    earlier = max((stamp for stamp in stamps if stamp <= moment_ns), default=None)
    later = min((stamp for stamp in stamps if stamp > moment_ns), default=None)
    return (
        earlier is not None
        and later is not None
        and moment_ns - earlier <= WATCH_SILENCE_NS
        and later - moment_ns <= WATCH_SILENCE_NS
    )


def _one_clock(
    ledgers: Sequence[Ledger],
    marks: Sequence[dict[str, Any]],
    watch: Sequence[dict[str, Any]],
) -> list[Reason]:
    """Monotonic stamps of different kernels, or of before and after a reboot, do not compare."""
    boots = {ledger.header.get("boot_id") for ledger in ledgers if ledger.header}
    boots |= {record["boot_id"] for record in (*marks, *watch) if "boot_id" in record}
    if len(boots) <= 1:
        return []
    shown = sorted(str(boot) for boot in boots)
    return [Reason("clock_domain", "records carry stamps of more than one clock", shown, 1)]
