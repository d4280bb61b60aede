# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures as people read them. Pure; a figure that was not measured is never shown as a number."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from ..core.journal import parse_utc

NOT_MEASURED = "not measured"
THIN = "\u202f"
MINUS = "\u2212"
FAULTS = {
    "host_off": "the host lost its power",
    "postgres_kill": "PostgreSQL was killed",
    "switchover": "the primary was switched over as planned",
}
NAMES = {
    "rto_client_seconds": "RTO, client",
    "rto_fault_seconds": "RTO, from the fault",
    "rto_switch_seconds": "RTO, switch to the backup system",
    "rpo_count": "RPO, acknowledged writes lost",
    "rpo_time_seconds": "RPO, time",
    "full_redundancy_seconds": "Full redundancy after",
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


def seconds(value: float | None, *, signed: bool = False) -> str:
    """``19.83 s``; milliseconds below one second, minutes from two minutes on."""
    if value is None:
        return NOT_MEASURED
    size = abs(value)
    mark = MINUS if value < 0 else "+" if signed else ""
    if size == 0:
        return f"{mark}0{THIN}s"
    if size < 1:
        # 10.0 ms is no better known than 10 ms, so trailing zeros go.
        return f"{mark}{size * 1000:.4g}{THIN}ms" if size < 0.1 else f"{mark}{size * 1000:.0f}{THIN}ms"
    if size >= 120:
        minutes, rest = divmod(round(size), 60)
        return f"{mark}{minutes}{THIN}min {rest}{THIN}s" if rest else f"{mark}{minutes}{THIN}min"
    return f"{mark}{size:.{2 if size >= 10 else 3}f}{THIN}s"


def figure(value: float | None, unit: str) -> str:
    """A figure in its unit, ``s`` or ``count``."""
    if value is None:
        return NOT_MEASURED
    return seconds(value) if unit == "s" else number(value)


def plus_minus(value: float | None) -> str:
    """The resolution as it stands beside a figure; nothing where the figure has none."""
    return "" if not value else f"± {seconds(value)}"


def name(key: str) -> str:
    """What people call the figure ``key``."""
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


def headline(report: dict[str, Any]) -> str:
    """One sentence that says what happened, true for every verdict."""
    target = (report.get("injection") or {}).get("target")
    what = FAULTS.get(report["fault"], f"fault {report['fault']} was injected")
    place = f"{target}: {what}" if target else what[0].upper() + what[1:]
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
        loss = f"{number(lost)} of {number(acked)} acknowledged writes were lost"
    return f"{place}. {gap}; {loss}."
