# SPDX-License-Identifier: GPL-3.0-or-later
"""Who was told of a drill's fault, and after how long. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..core.journal import parse_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FIGURE = "alert_seconds"
"""Seconds from the fault to the first alert about it that a receiver has."""

_SLACK = timedelta(seconds=1)
"""Between the clock that says when an alert began, and the prober's."""


def arrivals(
    rows: Iterable[Mapping[str, Any]],
    names: Iterable[str],
    sent: Mapping[str, Any],
    hosts: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The rows (``at``, ``alert``, ``status``, maybe ``starts_at``) that tell of the fault sent at ``sent``, in order.

    Of an alert about an instance only one about any of ``hosts`` counts, where these are given.
    An alert of before that is told again, and one that has begun before, are of something else.
    """
    zero = parse_utc(str(sent["ts"])) - _SLACK
    wanted = frozenset(names)
    return sorted(
        (
            dict(row)
            for row in rows
            if row.get("alert") in wanted
            and row.get("status") == "firing"
            and _about(row, hosts)
            and parse_utc(str(row["at"])) >= zero
            and (not row.get("starts_at") or parse_utc(str(row["starts_at"])) >= zero)
        ),
        key=lambda row: str(row["at"]),
    )


def _about(row: Mapping[str, Any], hosts: Sequence[str]) -> bool:
    instance = str((row.get("labels") or {}).get("instance") or "").partition(":")[0]
    return not hosts or instance in hosts


def timeline(told: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first arrival of each alert at each receiver, as timeline lines; the receiver's clock is the controller's."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in told:
        receiver = f"{row.get('kind', 'receiver')} {row.get('room', '')}".strip()
        line: dict[str, Any] = {
            "ts": str(row["at"]),
            "host": "controller",
            "source": "alert",
            "event": "alert_arrived",
            "label": f"{receiver} has the alert {row['alert']}",
            "step": None,
            "actor": "automated",
            "split": None,
        }
        if row.get("mono_ns") is not None:
            line["mono_ns"] = int(row["mono_ns"])
        lines.setdefault((str(row["alert"]), receiver), line)
    return list(lines.values())


def seconds(first: Mapping[str, Any], sent: Mapping[str, Any], one_clock: bool) -> float:
    """From the fault to that arrival; by the monotonic clock where receiver and prober share one."""
    if one_clock and first.get("mono_ns") is not None:
        return round((int(first["mono_ns"]) - int(sent["mono_ns"])) / 1e9, 3)
    return round((parse_utc(str(first["at"])) - parse_utc(str(sent["ts"]))).total_seconds(), 3)


def one_clock(clocks: Mapping[str, Any] | None) -> bool:
    """Whether controller and prober run on one kernel."""
    hosts = (clocks or {}).get("hosts") or {}
    prober = hosts.get(str((clocks or {}).get("prober_host")), {}).get("boot_id")
    return prober is not None and prober == hosts.get("controller", {}).get("boot_id")


def judge(
    asked: Mapping[str, Any], sent: Mapping[str, Any], clocks: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the drill's evidence has of it: ``figures``, ``lines`` of the timeline, ``reasons``."""
    told = arrivals(asked.get("rows") or [], asked["names"], sent, asked.get("hosts") or ())
    if not told:
        message = f"no receiver was told of the fault by {' or '.join(asked['names'])} within {asked['limit_seconds']:g} s"
        reason = {
            "verdict": "FAIL",
            "code": "alert_missing",
            "message": message,
            "limit": asked["limit_seconds"],
        }
        return {"figures": {}, "lines": [], "reasons": [reason]}
    value = min(seconds(row, sent, one_clock(clocks)) for row in told)
    return {"figures": {FIGURE: value}, "lines": timeline(told), "reasons": []}
