# SPDX-License-Identifier: GPL-3.0-or-later
"""Which drills are one experiment, so that their figures may stand in one row. Pure, and of the standard library alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

TAKES_ETCD_ALONG = frozenset({"host_off", "guard_off", "partition"})
"""Faults that take the target's etcd member with them. Where that one leads, the others first elect another: two cases."""

Case = tuple[str | None, bool | None, bool | None]


def case_of(report: Mapping[str, Any]) -> Case:
    """Preset; whether the failover guard was stopped (None: there was none); whether etcd's leader was on the target
    (None: it does not matter, or nobody asked).
    """
    guard = (report.get("preset_detail") or {}).get("guard")
    before = (report.get("cluster") or {}).get("before") or {}
    on_target = (before.get("etcd") or {}).get("leader_on_target")
    return (
        report.get("preset"),
        None if guard is None else bool(guard.get("stopped")),
        on_target if report.get("fault") in TAKES_ETCD_ALONG else None,
    )


def words(case: Case) -> str:
    """The case as people read it: ``default, failover guard stopped, with etcd's leader``."""
    preset, stopped, on_target = case
    told = [str(preset)]
    if stopped:
        told.append("failover guard stopped")
    if on_target is not None:
        told.append("with etcd's leader" if on_target else "etcd's leader elsewhere")
    return ", ".join(told)
