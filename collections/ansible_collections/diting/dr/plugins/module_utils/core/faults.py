# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults that drills inject: what each one is, what it leaves behind, and how a scan is judged.

Pure: the module ``diting.dr.fault`` looks and acts, this file knows and judges.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Any

FAULT_ID = re.compile(r"^[a-z0-9][a-z0-9-]{2,80}$")
"""Fault ids become systemd unit names and file names, so nothing else is accepted."""


class Place(enum.Enum):
    """Where a fault is injected from."""

    TARGET = "target"
    POWER = "power"
    CLUSTER = "cluster"
    NETWORK = "network"


class Kind(enum.Enum):
    """What sort of event a fault is; only an unplanned one is evidence of disaster recovery."""

    CRASH = "crash"
    PLANNED = "planned"


@dataclass(frozen=True)
class Fault:
    """One entry of the catalogue.

    ``limit_seconds`` is the default time after which the fault goes away by itself, and
    ``effect`` says in words what the independent probe has to see.
    """

    name: str
    level: str
    kind: Kind
    place: Place
    limit_seconds: int
    effect: str
    companion: bool = False
    """Injected beside another fault to make it harder; it is no drill of its own."""
    survived: bool = False
    """Nobody may change a role because of it: a failover would be a false one."""


CATALOGUE: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(
            name="host_off",
            level="l4",
            kind=Kind.CRASH,
            place=Place.POWER,
            limit_seconds=180,
            effect="no port of the host answers the prober's host any more",
        ),
        Fault(
            name="postgres_kill",
            level="l4",
            kind=Kind.CRASH,
            place=Place.TARGET,
            limit_seconds=60,
            effect="the host's PostgreSQL port refuses the prober's host",
        ),
        Fault(
            name="postgres_hang",
            level="l4",
            kind=Kind.CRASH,
            place=Place.TARGET,
            limit_seconds=90,
            effect="a session of the prober's host that is kept open gets no answer from the server any more",
        ),
        Fault(
            name="partition",
            level="l4",
            kind=Kind.CRASH,
            place=Place.NETWORK,
            limit_seconds=60,
            effect="no port of the host answers the control host any more, which is cut off from it",
        ),
        Fault(
            name="dcs_loss",
            level="l4",
            kind=Kind.CRASH,
            place=Place.TARGET,
            limit_seconds=120,
            effect="the etcd port of both members refuses the prober's host",
            survived=True,
        ),
        Fault(
            name="disk_full",
            level="l4",
            kind=Kind.CRASH,
            place=Place.TARGET,
            limit_seconds=90,
            effect="a query of the prober's host that needs space gets the answer that there is none",
        ),
        Fault(
            name="replica_off",
            level="l4",
            kind=Kind.CRASH,
            place=Place.POWER,
            limit_seconds=180,
            effect="no port of the replica's host answers the prober's host any more",
            survived=True,
        ),
        Fault(
            name="guard_off",
            level="l4",
            kind=Kind.CRASH,
            place=Place.POWER,
            limit_seconds=180,
            effect="as host_off, with the failover guard stopped before: what Patroni does alone",
        ),
        Fault(
            name="switchover",
            level="l4",
            kind=Kind.PLANNED,
            place=Place.CLUSTER,
            limit_seconds=60,
            effect="the host's Patroni no longer answers as primary",
        ),
        Fault(
            name="unit_stop",
            level="l4",
            kind=Kind.CRASH,
            place=Place.TARGET,
            limit_seconds=300,
            effect="systemd says that the unit is not active",
            companion=True,
        ),
    )
}


def fault_named(name: str, *, companions: bool = True) -> Fault:
    """The catalogue's entry, or ``ValueError`` naming what there is (with or without companions)."""
    known_faults = {key: fault for key, fault in CATALOGUE.items() if companions or not fault.companion}
    try:
        return known_faults[name]
    except KeyError:
        known = ", ".join(sorted(known_faults))
        msg = f"drill_fault is {name!r}; wanted one of: {known}"
        raise ValueError(msg) from None


def check_fault_id(fault_id: str) -> str:
    """``fault_id`` itself, or ``ValueError`` when it could not name a unit and a file safely."""
    if not FAULT_ID.match(fault_id):
        msg = f"fault_id is {fault_id!r}; wanted lower-case letters, digits and dashes (3 to 81)"
        raise ValueError(msg)
    return fault_id


@dataclass(frozen=True)
class Scan:
    """What a residue scan of one host saw, as plain text of the programs that were asked.

    ``None`` for a field means that it could not be looked at, which is residue of its own kind.
    """

    host: str
    records: list[str] | None = field(default_factory=list)
    units: str | None = ""
    stopped: list[str] | None = field(default_factory=list)
    qdiscs: str | None = ""
    routes: str | None = ""
    fillers: list[str] | None = field(default_factory=list)


SHAPING = re.compile(r"^qdisc (netem|tbf|htb|prio|ingress|clsact) .*", re.MULTILINE)
"""Queue disciplines that a host does not have unless somebody shapes or loses its traffic."""


def judge_scan(scan: Scan) -> list[dict[str, Any]]:
    """Residue found by ``scan``: a list of ``{host, kind, detail}``; empty means clean."""
    found: list[dict[str, Any]] = []

    def add(kind: str, detail: str) -> None:
        found.append({"host": scan.host, "kind": kind, "detail": detail})

    for name in ("records", "units", "stopped", "qdiscs", "routes", "fillers"):
        if getattr(scan, name) is None:
            add("could_not_look", f"{name} of {scan.host} could not be read")
    for record in scan.records or []:
        add("fault_record", record)
    for line in (scan.units or "").splitlines():
        if line.strip():
            add("fault_unit", line.split()[0])
    for process in scan.stopped or []:
        add("stopped_process", process)
    for filler in scan.fillers or []:
        add("disk_filler", filler)
    for match in SHAPING.finditer(scan.qdiscs or ""):
        add("traffic_shaping", match.group(0).strip())
    for line in (scan.routes or "").splitlines():
        if line.split() and line.split()[0] in {"blackhole", "unreachable", "prohibit"}:
            add("dead_route", line.strip())
    return found
