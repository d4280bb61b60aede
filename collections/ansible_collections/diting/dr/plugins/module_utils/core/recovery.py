# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge whether a database cluster has recovered: pure, from what was observed.

Nothing here is healthy by default. A member that did not answer, a write that was not tried and a
figure that is missing are findings, never silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .verdict import Health, Reason, worst


@dataclass(frozen=True)
class MemberSeen:
    """One member as seen on its own REST interface.

    ``reachable`` is None when nobody could ask. ``lag_bytes`` is the replication lag against the
    leader, None where it is not known; ``timeline`` likewise.
    """

    name: str
    reachable: bool | None
    role: str | None = None
    state: str | None = None
    timeline: int | None = None
    lag_bytes: int | None = None
    sync: bool = False


@dataclass(frozen=True)
class WriteSeen:
    """A real committed write through a client's path: ``ok`` is None when it was not tried."""

    ok: bool | None
    seconds: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Wanted:
    """What the inventory says the cluster should look like."""

    members: tuple[str, ...]
    sync_standbys: int = 1
    max_lag_bytes: int = 16 * 1024 * 1024
    max_write_seconds: float = 1.0


@dataclass(frozen=True)
class Judgement:
    """Health, the reasons for anything below HEALTHY, and the numbers behind it."""

    health: Health
    reasons: tuple[Reason, ...]
    evidence: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a module result: ``verdict``, ``reasons``, ``evidence``."""
        return {
            "verdict": self.health.value,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "evidence": self.evidence,
        }


def judge(
    seen: list[MemberSeen], write: WriteSeen, wanted: Wanted, *, paused: bool | None = False
) -> Judgement:
    """Judge the cluster.

    UNHEALTHY: no primary, two primaries, or writes are refused. DEGRADED: serving, but a member is
    missing, late or on another timeline, or fewer synchronous standbys than wanted. UNKNOWN: it
    could not be looked at. HEALTHY only when every single check was made and was good.
    """
    findings: list[tuple[Health, Reason]] = []

    def find(health: Health, code: str, message: str, observed: Any, limit: Any) -> None:
        findings.append((health, Reason(code, message, observed, limit)))

    by_name = {member.name: member for member in seen}
    primaries = [m.name for m in seen if m.reachable and m.role == "primary"]
    _judge_primaries(primaries, seen, find)
    leader = by_name[primaries[0]] if len(primaries) == 1 else None
    for name in wanted.members:
        _judge_member(by_name.get(name), name, leader, wanted, find)
    for name in sorted(set(by_name) - set(wanted.members)):
        find(Health.DEGRADED, "member_unexpected", f"{name} is not in the inventory", name, None)
    sync = sum(1 for m in seen if m.reachable and m.sync)
    if sync < wanted.sync_standbys:
        find(
            Health.DEGRADED,
            "sync_standbys_missing",
            "fewer synchronous standbys than wanted: a second loss could lose acknowledged writes",
            sync,
            wanted.sync_standbys,
        )
    _judge_write(write, wanted, find)
    if paused is None:
        find(Health.UNKNOWN, "pause_unknown", "whether Patroni is paused is not known", None, False)
    elif paused:
        find(Health.DEGRADED, "paused", "Patroni is paused: no automatic failover", True, False)
    health = worst(*(h for h, _ in findings)) if findings else Health.HEALTHY
    return Judgement(
        health=health,
        reasons=tuple(reason for _, reason in findings),
        evidence={
            "primary": leader.name if leader else None,
            "timeline": leader.timeline if leader else None,
            "members": {m.name: {"role": m.role, "state": m.state} for m in seen},
            "sync_standbys": sync,
            "write_seconds": write.seconds,
        },
    )


def _judge_primaries(primaries: list[str], seen: list[MemberSeen], find: Any) -> None:
    if len(primaries) > 1:
        find(
            Health.UNHEALTHY,
            "two_primaries",
            f"{' and '.join(sorted(primaries))} both say they are the primary: stop writes, fence one",
            len(primaries),
            1,
        )
    elif not primaries:
        blind = [m.name for m in seen if m.reachable is None] or not seen
        find(
            Health.UNKNOWN if blind else Health.UNHEALTHY,
            "primary_unknown" if blind else "no_primary",
            "no member that could be asked says it is the primary",
            0,
            1,
        )


def _judge_member(
    member: MemberSeen | None, name: str, leader: MemberSeen | None, wanted: Wanted, find: Any
) -> None:
    if member is None or member.reachable is None:
        find(Health.UNKNOWN, "member_not_asked", f"{name} could not be asked", None, "running")
        return
    if not member.reachable:
        find(Health.DEGRADED, "member_down", f"{name} does not answer", "no answer", "running")
        return
    if member.state not in {"running", "streaming"}:
        find(
            Health.DEGRADED,
            "member_not_running",
            f"{name} is {member.state!r}",
            member.state,
            "running or streaming",
        )
        return
    if leader is None or member.name == leader.name or member.role == "primary":
        return
    if member.state != "streaming":
        find(
            Health.DEGRADED,
            "member_not_streaming",
            f"{name} runs but does not stream from the primary",
            member.state,
            "streaming",
        )
    if member.timeline is None or member.timeline != leader.timeline:
        find(
            Health.DEGRADED,
            "timeline_differs",
            f"{name} is not on the primary's timeline",
            member.timeline,
            leader.timeline,
        )
    if member.lag_bytes is None:
        find(Health.UNKNOWN, "lag_unknown", f"the lag of {name} is not known", None, wanted.max_lag_bytes)
    elif member.lag_bytes > wanted.max_lag_bytes:
        find(
            Health.DEGRADED,
            "lag_too_large",
            f"{name} is {member.lag_bytes} bytes behind",
            member.lag_bytes,
            wanted.max_lag_bytes,
        )


def _judge_write(write: WriteSeen, wanted: Wanted, find: Any) -> None:
    if write.ok is None:
        find(Health.UNKNOWN, "write_not_tried", f"no write was tried: {write.detail}", None, "a commit")
    elif not write.ok:
        find(Health.UNHEALTHY, "write_refused", f"a write failed: {write.detail}", "failed", "a commit")
    elif write.seconds is None or write.seconds > wanted.max_write_seconds:
        find(
            Health.DEGRADED,
            "write_slow",
            "a commit took longer than the limit",
            write.seconds,
            wanted.max_write_seconds,
        )
