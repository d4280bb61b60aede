# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge whether a database has recovered: the cluster's word, and a write that was really committed.

Pure. A green health endpoint proves nothing about writes, so a cluster whose write was refused is
UNHEALTHY and one where no write was tried is UNKNOWN, whatever its members say of themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .verdict import Health, Judgement, Reason, worst

if TYPE_CHECKING:
    from .patroni_state import Judgement as Cluster

SYNC_WAIT_CANCELLED = "canceling wait for synchronous replication"
"""PostgreSQL's warning (01000) on a commit that is *not* known to be on a standby."""


@dataclass(frozen=True)
class WriteSeen:
    """A committed write through a client's path.

    ``ok`` is None when it was not tried; ``seconds`` includes connecting; ``said`` is what the
    client printed on its standard error.
    """

    ok: bool | None
    seconds: float | None = None
    said: str = ""


def judge_write(write: WriteSeen, max_seconds: float) -> tuple[Health, Reason] | None:
    """What the write says, None when it is good. ``max_seconds`` is the slowest good commit."""
    if write.ok is None:
        return Health.UNKNOWN, Reason(
            "write_not_tried", f"no write was tried: {write.said}", None, "a commit"
        )
    if not write.ok:
        return Health.UNHEALTHY, Reason(
            "write_refused", f"a write failed: {write.said}", "failed", "a commit"
        )
    if SYNC_WAIT_CANCELLED in write.said:
        return Health.UNHEALTHY, Reason(
            "write_not_replicated", "a commit was acknowledged without its standby", write.said, "no warning"
        )
    if write.seconds is None or write.seconds > max_seconds:
        return Health.DEGRADED, Reason("write_slow", "a commit took too long", write.seconds, max_seconds)
    return None


def judge(cluster: Cluster, write: WriteSeen, max_write_seconds: float) -> Judgement:
    """Recovered means: the cluster is healthy, it is not paused, and a write was committed in time."""
    findings = [(cluster.health, reason) for reason in cluster.reasons]
    if (found := judge_write(write, max_write_seconds)) is not None:
        findings.append(found)
    if cluster.paused:
        findings.append(
            (Health.DEGRADED, Reason("paused", "Patroni is paused: no automatic failover", True, False))
        )
    return Judgement(
        health=worst(cluster.health, *(health for health, _reason in findings)),
        reasons=tuple(reason for _health, reason in findings),
        evidence={
            "primary": cluster.leader,
            "timeline": cluster.timeline,
            "system_identifier": cluster.system_identifier,
            "paused": cluster.paused,
            "sync_standbys": list(cluster.sync_standbys),
            "members": {name: dict(member) for name, member in cluster.members.items()},
            "write_seconds": write.seconds,
        },
    )
