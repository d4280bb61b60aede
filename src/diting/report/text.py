# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures as people read them. Pure; a figure that was not measured is never shown as a number."""

from __future__ import annotations

import re
from datetime import UTC
from typing import Any

from ..core.journal import parse_utc

NOT_MEASURED = "not measured"
THIN = "\u202f"
NBSP = "\u00a0"
MINUS = "\u2212"
FAULTS = {
    "host_off": "{target} lost its power",
    "postgres_kill": "PostgreSQL on {target} was killed",
    "postgres_hang": "PostgreSQL on {target} hung",
    "partition": "{target} was cut off from the rest of the cluster",
    "dcs_loss": "The DCS lost its majority",
    "disk_full": "The disk of {target} was full",
    "replica_off": "The replica {target} lost its power",
    "guard_off": "{target} lost its power, with the failover guard off",
    "switchover": "The primary was moved away from {target}, as planned",
}
NAMES = {
    "rto_client_seconds": "RTO, client",
    "rto_fault_seconds": "RTO, from the fault",
    "largest_ack_gap_seconds": "Longest silence",
    "rto_switch_seconds": "RTO, switch to the backup system",
    "rpo_count": "RPO, writes lost",
    "rpo_time_seconds": "RPO, time",
    "full_redundancy_seconds": "Full redundancy after",
    "alert_seconds": "First alert with a receiver after",
    "halt_seconds": "Orders halted after",
    "orders_accepted_while_open": "Orders accepted while open",
    "ghost": "Ghost writes",
    "duplicate": "Duplicate writes",
    "lost": "Lost writes",
    "acked": "Acknowledged writes",
}


def number(value: float) -> str:
    """``14812`` as ``14 812``; at most six decimals."""
    whole = value == int(value)
    text = f"{int(value):,}" if whole else f"{value:,.6f}".rstrip("0").rstrip(".")
    return text.replace(",", THIN).replace("-", MINUS)


def seconds(value: float | None) -> str:
    """``19.83 s``; milliseconds below one second, minutes from two minutes on."""
    if value is None:
        return NOT_MEASURED
    size = abs(value)
    mark = MINUS if value < 0 else ""
    if size == 0:
        return f"0{THIN}s"
    if size < 1:
        return f"{mark}{size * 1000:.3g}{THIN}ms"
    if size >= 120:
        minutes, rest = divmod(round(size), 60)
        return f"{mark}{minutes}{THIN}min {rest}{THIN}s" if rest else f"{mark}{minutes}{THIN}min"
    return f"{mark}{size:.{2 if size >= 10 else 3}f}{THIN}s"


def offset(value: float) -> str:
    """A place on the time axis, always in seconds and milliseconds, so that a column lines up."""
    mark = MINUS if value < 0 else "+"
    return f"{mark}{abs(value):,.3f}{THIN}s".replace(",", THIN)


def short(value: float) -> str:
    """A limit or a resolution: three digits say all there is to say."""
    return f"{value:.3g}{THIN}s" if 1 <= value < 120 else seconds(value)


def figure(value: float | None, unit: str) -> str:
    """A figure in its unit, ``s`` or ``count``."""
    if value is None:
        return NOT_MEASURED
    return seconds(value) if unit == "s" else number(value)


def limit(value: float, unit: str) -> str:
    """A target's limit in its unit, without digits nobody promised."""
    return short(value) if unit == "s" else number(value)


def plus_minus(value: float | None) -> str:
    """The resolution as it stands beside a figure; nothing where the figure has none."""
    return f"±{THIN}{short(value)}" if value else ""


def name(key: str) -> str:
    """What people call the figure ``key``."""
    if (path := re.fullmatch(r"rto_client_(\w+)_seconds", key)) is not None:
        return f"RTO, client, path {path[1]}"
    figure, of_path, path_name = key.partition(", path ")
    if of_path:
        return f"{name(figure)}, path {path_name}"
    return NAMES.get(key, key.removesuffix("_seconds").replace("_", " ").capitalize())


def moment(value: str | None) -> str:
    """``2026-11-21 08:13:24 UTC``."""
    if value is None:
        return NOT_MEASURED
    return parse_utc(value).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def size(count: int | None) -> str:
    """Bytes in binary units."""
    if count is None:
        return NOT_MEASURED
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f}{THIN}{unit}" if unit == "B" else f"{amount:.1f}{THIN}{unit}"
        amount /= 1024
    return f"{amount:.1f}{THIN}TiB"


def plain(value: Any) -> str:
    """Any JSON value as a person reads it."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items()) or "none"
    return str(value)


def self_test(result: dict[str, Any] | None) -> str | None:
    """What the detector's self-test came to, in one sentence."""
    if result is None:
        return None
    runs = [run for path in result.get("paths", {}).values() for run in path.get("runs", [])]
    exact = sum(bool(run["exact"]) for run in runs)
    word = "passed" if result.get("passed") else "FAILED"
    return f"{word}: {exact} of {len(runs)} times exactly what was planted in a scratch copy was reported"


def guard(found: dict[str, Any] | None) -> str | None:
    """By which limits the failover guard worked; None where there is none, or nobody said."""
    if found is None:
        return None
    if found.get("stopped"):
        return "failover guard stopped"
    limits = found.get("limits")
    if found.get("armed") is None or not limits:
        return "failover guard: could not be asked"
    told = f"failover guard {'armed' if found['armed'] else 'alerts only'}"
    if found.get("verdict") != "ok":
        told += f", not well before the drill ({found.get('verdict') or 'unknown'})"
    return (
        f"{told}: fences after {limits['confirm_seconds']:g}{THIN}s of silence or {limits['hang_seconds']:g}{THIN}s of a hang,"
        f" at most {limits['fence_max_per_window']} in {limits['fence_window_seconds']:g}{THIN}s"
    )


def headline(report: dict[str, Any]) -> str:
    """One sentence that says what happened, true for every verdict."""
    target = (report.get("injection") or {}).get("target")
    unknown = f"Fault {report['fault']} was injected on {{target}}"
    place = FAULTS.get(report["fault"], unknown).format(target=target) if target else "No fault was recorded"
    rto, acked, lost = report["rto_client_seconds"], report["acked"], report["lost"]
    if report["verdict"] == "ABORTED":
        return "The drill was cut short. What it measured until then proves nothing."
    stuck = [p for p in report["paths"].values() if p["state"] == "not_recovered"]
    if stuck:
        least = max(p["rto_at_least_seconds"] or 0 for p in stuck)
        gap = f"Clients could not write again while the drill looked, for at least {seconds(least)}"
    elif rto is None:
        gap = "How long clients could not write was not measured"
    elif rto == 0:
        gap = f"No write gap was seen (resolution {seconds(report['resolution_seconds'])})"
    else:
        gap = f"Clients had no acknowledged write for {seconds(rto)}"
    if acked is None or lost is None:
        loss = "what was lost is not known"
    else:
        loss = f"{number(lost)}{NBSP}of{NBSP}{number(acked)} acknowledged writes were lost"
    return f"{place}. {gap}; {loss}."
