# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn what a drill's playbook collected into the sections of its evidence. Pure."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..core.journal import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CHRONY_FIELDS = 14
"""Columns of ``chronyc -c tracking`` (chrony 4.3, client.c)."""
NOT_SYNCHRONISED = "Not synchronised"
"""Last column while chronyd follows nobody; the offset is 0 then and says nothing."""

STEP_SECONDS = 0.5
"""Change of wall clock against time since boot that counts as a step: two programs read them, one after the other."""

MILESTONES = (
    (
        re.compile(r"[Pp]ostgresql is not running|received switchover request"),
        "noticed",
        "detect",
        "detected",
    ),
    (re.compile(r"Got response from (\S+) "), "leader key is gone, asks", "detect", "detected"),
    (
        re.compile(r"promoted self to leader by acquiring session lock"),
        "leader key acquired",
        "act",
        "decided",
    ),
    (re.compile(r"received promote request"), "promotion begins", "act", None),
    (re.compile(r"selected new timeline ID: (\d+)"), "new timeline", "act", None),
    (re.compile(r"database system is ready to accept connections"), "accepts connections", "act", "acted"),
    (re.compile(r"Server \S+/(\S+) is UP"), "proxy: server up", "act", None),
    (re.compile(r"Server \S+/(\S+) is DOWN"), "proxy: server down", "detect", None),
    (re.compile(r"starting crash recovery|was not properly shut down"), "crash recovery", "act", None),
)
"""Log lines of Patroni, PostgreSQL and HAProxy that belong into the timeline: pattern, label, step, split."""

LOG_LINE = re.compile(
    r"^(?P<ts>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+)(?P<zone>[+-]\d\d:?\d\d)\s+\S+\s+(?P<text>.*)$"
)


def clock(text: str) -> dict[str, Any]:
    """One host's clock from ``chronyc -c tracking``, the kernel's boot id, ``/proc/uptime`` and ``date +%s.%N``.

    The error bound is chrony's: offset + half the root delay + root dispersion, in seconds. ``booted`` is the wall
    clock's idea of when the kernel booted; it only changes when the clock is set.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    row = next((line.split(",") for line in lines if line.count(",") == CHRONY_FIELDS - 1), None)
    boot = next((line.strip() for line in lines if re.fullmatch(r"[0-9a-f-]{36}", line.strip())), None)
    uptime = next(
        (float(m[1]) for line in lines if (m := re.fullmatch(r"(\d+\.\d+) \d+\.\d+", line.strip()))), None
    )
    wall = next((float(line) for line in lines if re.fullmatch(r"\d+\.\d{9}", line.strip())), None)
    booted = None if uptime is None or wall is None else wall - uptime
    if row is None or row[-1].strip() == NOT_SYNCHRONISED:
        return {"boot_id": boot, "offset": None, "bound": None, "booted": booted}
    offset, delay, dispersion = float(row[4]), float(row[10]), float(row[11])
    return {
        "boot_id": boot,
        "offset": offset,
        "bound": abs(offset) + delay / 2 + dispersion,
        "booted": booted,
    }


def _stepped(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool | None:
    """Whether the wall clock was set in between; None when nobody can tell."""
    moments = first["booted"], second["booted"]
    if None in moments or first["boot_id"] is None or first["boot_id"] != second["boot_id"]:
        return None
    return bool(abs(moments[1] - moments[0]) > STEP_SECONDS)


def clocks(
    before: Mapping[str, str],
    after: Mapping[str, str],
    prober_host: str,
    budget_seconds: float,
    controller_boot_id: str | None = None,
) -> dict[str, Any]:
    """The section ``clocks``. A host that was not asked twice has null where it was not."""
    hosts = {}
    for name in sorted({*before, *after}):
        first, second = clock(before.get(name, "")), clock(after.get(name, ""))
        bounds = [bound for bound in (first["bound"], second["bound"]) if bound is not None]
        hosts[name] = {
            "boot_id": second["boot_id"] or first["boot_id"],
            "offset_seconds_before": first["offset"],
            "offset_seconds_after": second["offset"],
            "error_bound_seconds": max(bounds) if bounds else None,
            "stepped": _stepped(first, second),
        }
    # The drill's own journal is written on the controller; its boot id tells whether that is the prober's clock too.
    hosts["controller"] = {"boot_id": controller_boot_id}
    return {"prober_host": prober_host, "budget_seconds": budget_seconds, "hosts": hosts}


def cluster(
    seen: Mapping[str, Any], observed_at: str, etcd: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """``cluster_before.json`` or ``cluster_after.json`` from a result of ``recovery_check``.

    ``etcd`` says who led etcd, when somebody asked: ``leader``, ``leader_on_target``, ``placement``.
    """
    evidence = seen.get("evidence") or {}
    members = []
    for name, member in sorted((evidence.get("members") or {}).items()):
        members.append({**member, "name": name})
    return {
        "observed_at": observed_at,
        "health": seen.get("verdict", "UNKNOWN"),
        "leader": evidence.get("primary"),
        "timeline": evidence.get("timeline"),
        "system_identifier": evidence.get("system_identifier"),
        "sync_standbys": list(evidence.get("sync_standbys") or []),
        "members": members,
        "etcd": dict(etcd) if etcd else None,
    }


def steady(seen: Mapping[str, Any], observed_at: str) -> dict[str, Any]:
    """One state of ``steady_state``: the health and each finding as a check."""
    checks = [
        {
            "name": reason["code"],
            "health": "UNKNOWN" if reason["code"].endswith(("unknown", "not_tried")) else "DEGRADED",
            "observed": reason.get("observed"),
            "wanted": reason.get("limit"),
        }
        for reason in seen.get("reasons", [])
    ]
    evidence = seen.get("evidence") or {}
    if not checks:
        checks = [
            {"name": "write committed", "health": "HEALTHY", "observed": evidence.get("write_seconds")},
            {"name": "synchronous standbys", "health": "HEALTHY", "observed": evidence.get("sync_standbys")},
        ]
    return {"observed_at": observed_at, "health": seen.get("verdict", "UNKNOWN"), "checks": checks}


def residue(
    scans: Iterable[Mapping[str, Any]],
    reverted: Iterable[Mapping[str, Any]],
    after: Mapping[str, Any],
    now: str,
) -> dict[str, Any]:
    """``residue.json``: a host that could not be scanned is there with ``looked: false``."""
    hosts: dict[str, Any] = {}
    items: list[dict[str, Any]] = []
    for scan in scans:
        name = str(scan.get("__drill_scan_host"))
        found = scan.get("residue")
        if found is None:
            hosts[name] = {"looked": False, "error": str(scan.get("msg", "not scanned"))[:300]}
            continue
        blind = [item for item in found if item["kind"] == "could_not_look"]
        hosts[name] = {"looked": not blind, "error": blind[0]["detail"] if blind else None}
        items += [item for item in found if item["kind"] != "could_not_look"]
    rollbacks = [
        {
            "what": f"{record['fault_id']} on {result.get('__drill_revert_host')}",
            "by": "drill",
            "result": "reverted",
        }
        for result in reverted
        for record in result.get("records") or []
    ]
    return {
        "schema_version": 1,
        "scanned_at": now,
        "hosts": hosts,
        "items": items,
        "checks": [
            "fault records and revert timers",
            "stopped processes",
            "traffic shaping",
            "dead routes",
            "disk fillers",
            *(["keys of drills in etcd"] if "etcd" in hosts else []),
        ],
        "rollbacks": rollbacks,
        "redundancy": {"health": after.get("verdict", "UNKNOWN"), "detail": None},
    }


def watch_timeline(records: Iterable[Mapping[str, Any]], host: str) -> list[dict[str, Any]]:
    """The watcher's transitions as timeline lines, on the monotonic clock of the prober's host."""
    return [
        {
            "ts": record["utc"],
            "mono_ns": record["confirmed_ns"],
            "host": host,
            "source": "watcher",
            "event": "transition",
            "label": f"{record['target']} {record['to']}",
            "step": "detect" if record["to"] == "down" else "act",
        }
        for record in records
        if record.get("k") == "transition" and record.get("from") is not None
    ]


def log_timeline(text: str, host: str, source: str) -> list[dict[str, Any]]:
    """Milestones out of a journal printed with ``--output=short-iso-precise``."""
    lines = []
    for raw in text.splitlines():
        match = LOG_LINE.match(raw)
        if not match:
            continue
        for pattern, label, step, split in MILESTONES:
            found = pattern.search(match["text"])
            if not found:
                continue
            zone = match["zone"] if ":" in match["zone"] else f"{match['zone'][:3]}:{match['zone'][3:]}"
            detail = f" {found[1]}" if found.groups() else ""
            lines.append(
                {
                    "ts": _utc(match["ts"] + zone),
                    "mono_ns": None,
                    "host": host,
                    "source": source,
                    "event": "log",
                    "label": f"{host if source != 'haproxy' else ''} {label}{detail}".strip(),
                    "step": step,
                    "actor": "automated",
                    "split": split,
                }
            )
            break
    return lines


def role_timeline(records: Iterable[Mapping[str, Any]], host: str, since: str) -> list[dict[str, Any]]:
    """What Patroni's callbacks wrote down on one member, from the UTC time ``since`` on, as timeline lines."""
    return [
        {
            "ts": str(record["ts"]),
            "mono_ns": record.get("mono_ns"),
            "host": host,
            "source": "patroni",
            "event": str(record["event"]),
            "label": f"{host} {record['event']} as {record.get('role', 'unknown')}",
            "actor": "automated",
        }
        for record in records
        if "event" in record and str(record.get("ts", "")) >= since
    ]


def _utc(text: str) -> str:
    return utc_text(datetime.fromisoformat(text).astimezone(UTC))


def farewells(
    records: Iterable[Mapping[str, Any]], cut_ns: int | None, powered_on_ns: Iterable[int] = ()
) -> int | None:
    """FIN and RST packets that the failing host still sent after its link was cut; None if nobody watched to the end.

    ``cut_ns`` is CLOCK_MONOTONIC of the machine that cut and watched. Without it every packet counts. From the
    next power-on of the host (``powered_on_ns``, same clock) they are those of a host that boots.
    """
    later = [moment for moment in powered_on_ns if cut_ns is not None and moment > cut_ns]
    boots = min(later, default=None)
    seen, ended = 0, False
    for record in records:
        kind = record.get("event")
        if kind == "ended":
            ended = not record.get("dropped")  # a packet that was dropped unseen may have been one
        elif kind in {"fin", "rst"}:
            at = int(record["mono_ns"])
            seen += (cut_ns is None or at >= cut_ns) and (boots is None or at < boots)
    return seen if ended else None


VERSIONS = (
    ("PostgreSQL", re.compile(r"^postgres \(PostgreSQL\) (\S+)", re.MULTILINE)),
    ("Patroni", re.compile(r"^patroni (\S+)", re.MULTILINE)),
    ("etcd", re.compile(r"^etcd Version: (\S+)", re.MULTILINE)),
    ("HAProxy", re.compile(r"^HAProxy version (\S+)", re.MULTILINE)),
    ("chrony", re.compile(r"^chronyd \(chrony\) version (\S+)", re.MULTILINE)),
)


def components(answers: Iterable[str]) -> dict[str, str]:
    """Versions out of what the programs printed; WAL-G's from the record its installation left."""
    text = "\n".join(answers)
    found = {name: match[1] for name, pattern in VERSIONS if (match := pattern.search(text))}
    if record := re.search(r"\{[^{}]*\"version\"[^{}]*\}", text):
        data = json.loads(record[0])
        found["WAL-G"] = f"{data['version']} ({data.get('method', 'method not recorded')})"
    return found


def full_redundancy_ns(records: Iterable[Mapping[str, Any]], hosts: list[str], start_ns: int) -> int | None:
    """When, after ``start_ns``, one primary and streaming replicas on all other hosts came back to stay.

    None when that was never seen, or when it never went away and so was not measured.
    """
    states: dict[str, str] = {}
    whole_since: int | None = None
    broken = False
    for record in records:
        if record.get("k") != "transition":
            continue
        states[str(record["target"])] = str(record["to"])
        moment = int(record["confirmed_ns"])
        primaries = [host for host in hosts if states.get(f"{host}:primary") == "up"]
        replicas = [host for host in hosts if states.get(f"{host}:replica") == "up"]
        whole = len(primaries) == 1 and {*primaries, *replicas} == set(hosts)
        if moment < start_ns:
            continue
        if not whole:
            broken, whole_since = True, None
        elif whole_since is None:
            whole_since = moment
    return whole_since if broken else None


def role_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Reasons against a drill whose fault had to be lived through: nobody may have changed a role.

    ``before`` and ``after`` are results of ``recovery_check``. A timeline only grows with a promotion.
    """
    first, second = before.get("evidence") or {}, after.get("evidence") or {}
    found = []
    for key, what in (("primary", "the primary"), ("timeline", "the timeline")):
        if first.get(key) is None or second.get(key) is None:
            text = f"{what} was not seen before and after, so nobody knows whether a role changed"
            found.append({"verdict": "INVALID", "code": "role_unknown", "message": text})
        elif first[key] != second[key]:
            text = f"{what} was {first[key]} before and {second[key]} after a fault that changes no role"
            found.append(
                {
                    "verdict": "FAIL",
                    "code": "role_changed",
                    "message": text,
                    "observed": second[key],
                    "limit": first[key],
                }
            )
    return found
