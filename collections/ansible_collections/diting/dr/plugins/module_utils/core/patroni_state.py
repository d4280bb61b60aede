# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Patroni cluster looks like, and whether that is good: pure, no I/O.

The loader (``module_utils/_patroni.py``) fills :class:`MemberAnswer`; :func:`judge` weighs the answers against an
:class:`Expectation`. Field names follow Patroni 4's REST interface (``GET /patroni``, ``GET /cluster``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .verdict import Health, Reason, worst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEADER_ROLES = frozenset({"primary", "master", "leader", "standby_leader"})
SYNC_ROLES = frozenset({"sync_standby", "quorum_standby"})


@dataclass(frozen=True)
class MemberAnswer:
    """One member's own word. ``error`` is set, and everything else empty, when it could not be asked."""

    name: str
    error: str | None = None
    status: Mapping[str, Any] = field(default_factory=dict)
    """Body of ``GET /patroni``."""
    view: Mapping[str, Any] | None = None
    """Body of ``GET /cluster`` as this member sees it; None when it could not be had."""

    @property
    def reachable(self) -> bool:
        """Whether the member answered at all."""
        return self.error is None

    @property
    def is_leader(self) -> bool:
        """Whether the member says of itself that it runs as primary or standby leader."""
        return self.status.get("role") in LEADER_ROLES and self.status.get("state") == "running"


@dataclass(frozen=True)
class Expectation:
    """What the inventory wants. Lag in bytes; ``synchronous_mode`` is off, on or quorum."""

    members: Sequence[str]
    synchronous_mode: str = "quorum"
    synchronous_node_count: int = 1
    maximum_lag_bytes: int = 1048576


@dataclass(frozen=True)
class Judgement:
    """The judged cluster. ``members`` maps names to plain dictionaries fit for a module result."""

    health: Health
    reasons: tuple[Reason, ...]
    leader: str | None
    timeline: int | None
    system_identifier: str | None
    paused: bool | None
    sync_standbys: tuple[str, ...]
    members: Mapping[str, Mapping[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionary for module results and JSON evidence."""
        return {
            "verdict": self.health.value,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "leader": self.leader,
            "timeline": self.timeline,
            "system_identifier": self.system_identifier,
            "paused": self.paused,
            "sync_standbys": list(self.sync_standbys),
            "members": {name: dict(member) for name, member in self.members.items()},
        }


_Finding = tuple[Health, Reason]


def judge(answers: Sequence[MemberAnswer], expected: Expectation) -> Judgement:
    """Weigh the members' answers.

    UNKNOWN when nobody answered, or when the one that should lead could not be asked; UNHEALTHY without exactly one
    leader or with two clusters mixed up; DEGRADED when writes work but redundancy or its proof is short.
    """
    seen = [answer for answer in answers if answer.reachable]
    view = _freshest_view(seen)
    listed = {str(m.get("name")): m for m in view.get("members", [])}
    leaders = [answer for answer in seen if answer.is_leader]
    leader = leaders[0] if len(leaders) == 1 else None
    identifiers = sorted({identifier for identifier in map(_identifier, seen) if identifier is not None})
    sync = tuple(
        sorted(n for n, m in listed.items() if m.get("role") in SYNC_ROLES and m.get("state") == "streaming")
    )
    findings: list[_Finding] = []
    if not seen:
        tried = ", ".join(answer.name for answer in answers) or "nobody"
        findings.append(
            (Health.UNKNOWN, Reason("no_answer", f"No member could be asked (tried {tried})", 0, 1))
        )
    else:
        findings += _judge_leadership(answers, leaders, listed)
        findings += _judge_identity(identifiers)
        findings += _judge_members(answers, expected, listed)
        findings += _judge_replication(seen, leader, listed, expected)
        findings += _judge_redundancy(view, leader, sync, expected)
    return Judgement(
        health=worst(Health.HEALTHY, *(health for health, _reason in findings)),
        reasons=tuple(reason for _health, reason in findings),
        leader=leader.name if leader else None,
        timeline=_integer(leader.status.get("timeline")) if leader else None,
        system_identifier=identifiers[0] if len(identifiers) == 1 else None,
        paused=_paused(seen, view) if seen else None,
        sync_standbys=sync,
        members={answer.name: _summary(answer, listed.get(answer.name)) for answer in answers},
    )


def _identifier(answer: MemberAnswer) -> str | None:
    value = answer.status.get("database_system_identifier")
    return str(value) if value else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _freshest_view(seen: Sequence[MemberAnswer]) -> Mapping[str, Any]:
    """The leader's view of the cluster, else the view of whoever heard from the store last."""

    def rank(answer: MemberAnswer) -> tuple[bool, int]:
        return answer.is_leader, _integer(answer.status.get("dcs_last_seen")) or 0

    with_view = [answer for answer in seen if answer.view is not None]
    best = max(with_view, key=rank, default=None)
    return best.view if best is not None and best.view is not None else {}


def _paused(seen: Sequence[MemberAnswer], view: Mapping[str, Any]) -> bool:
    return bool(view.get("pause")) or any(bool(answer.status.get("pause")) for answer in seen)


def _judge_leadership(
    answers: Sequence[MemberAnswer], leaders: Sequence[MemberAnswer], listed: Mapping[str, Mapping[str, Any]]
) -> list[_Finding]:
    if len(leaders) == 1:
        return []
    if leaders:
        names = ", ".join(answer.name for answer in leaders)
        return [
            (
                Health.UNHEALTHY,
                Reason("several_leaders", f"More than one member runs as primary: {names}", len(leaders), 1),
            )
        ]
    named = [name for name, member in listed.items() if member.get("role") in LEADER_ROLES]
    silent = {answer.name for answer in answers if not answer.reachable}
    if named and named[0] in silent:
        text = f"The store names {named[0]} as leader, but {named[0]} could not be asked"
        return [(Health.UNKNOWN, Reason("leader_not_asked", text, named[0], "an answer"))]
    return [(Health.UNHEALTHY, Reason("no_leader", "No member runs as primary", 0, 1))]


def _judge_identity(identifiers: Sequence[str]) -> list[_Finding]:
    if len(identifiers) <= 1:
        return []
    text = "Members belong to different database clusters (system identifiers differ)"
    return [(Health.UNHEALTHY, Reason("system_identifiers", text, list(identifiers), 1))]


def _judge_members(
    answers: Sequence[MemberAnswer], expected: Expectation, listed: Mapping[str, Mapping[str, Any]]
) -> list[_Finding]:
    findings: list[_Finding] = []
    for answer in answers:
        if answer.reachable:
            continue
        state = str(listed.get(answer.name, {}).get("state", "absent"))
        # The store believes in it, we could not look: that is not the same as knowing it is down.
        alive = state in {"running", "streaming", "in archive recovery"}
        text = f"{answer.name} could not be asked ({answer.error}); the store says {state}"
        findings.append(
            (Health.UNKNOWN if alive else Health.DEGRADED, Reason("member_silent", text, state, "an answer"))
        )
    findings += [
        (Health.DEGRADED, Reason("member_missing", f"{name} is not registered in the store", None, name))
        for name in sorted(set(expected.members) - set(listed))
    ]
    for name in sorted(set(listed) - set(expected.members)):
        text = f"{name} is registered in the store but not in the inventory"
        findings.append((Health.DEGRADED, Reason("member_unexpected", text, name, None)))
    return findings


def _judge_replication(
    seen: Sequence[MemberAnswer],
    leader: MemberAnswer | None,
    listed: Mapping[str, Mapping[str, Any]],
    expected: Expectation,
) -> list[_Finding]:
    findings: list[_Finding] = []
    for answer in seen:
        name, status = answer.name, answer.status
        if status.get("pending_restart"):
            # Told, but no fault: restarts wait for their operator, and the member serves as before.
            text = f"{name} runs with parameters that need a restart"
            findings.append(
                (
                    Health.HEALTHY,
                    Reason("pending_restart", text, status.get("pending_restart_reason", True), False),
                )
            )
        if answer.is_leader:
            continue
        if status.get("state") != "running":
            text = f"PostgreSQL on {name} is {status.get('state', 'in an unknown state')}"
            findings.append(
                (Health.DEGRADED, Reason("member_not_running", text, status.get("state"), "running"))
            )
            continue
        if status.get("replication_state") != "streaming":
            text = f"{name} does not stream from the leader"
            findings.append(
                (Health.DEGRADED, Reason("not_streaming", text, status.get("replication_state"), "streaming"))
            )
        findings += _judge_lag(name, status, leader, listed.get(name, {}), expected)
    return findings


def _judge_lag(
    name: str,
    status: Mapping[str, Any],
    leader: MemberAnswer | None,
    entry: Mapping[str, Any],
    expected: Expectation,
) -> list[_Finding]:
    findings: list[_Finding] = []
    wanted = leader.status.get("timeline") if leader else None
    if wanted is not None and status.get("timeline") != wanted:
        text = f"{name} is on timeline {status.get('timeline')}, the leader on {wanted}"
        findings.append((Health.DEGRADED, Reason("timeline", text, status.get("timeline"), wanted)))
    lag = entry.get("lag")
    if not isinstance(lag, int):
        findings.append(
            (
                Health.UNKNOWN,
                Reason("lag_unknown", f"The lag of {name} is not known", lag, expected.maximum_lag_bytes),
            )
        )
    elif lag > expected.maximum_lag_bytes:
        text = f"{name} is {lag} bytes behind the leader"
        findings.append((Health.DEGRADED, Reason("lag", text, lag, expected.maximum_lag_bytes)))
    return findings


def _judge_redundancy(
    view: Mapping[str, Any], leader: MemberAnswer | None, sync: Sequence[str], expected: Expectation
) -> list[_Finding]:
    findings: list[_Finding] = []
    if view.get("pause"):
        text = "The cluster is paused: nothing fails over"
        findings.append((Health.DEGRADED, Reason("paused", text, True, False)))
    needed = min(expected.synchronous_node_count, len(expected.members) - 1)
    if leader is not None and expected.synchronous_mode != "off" and len(sync) < needed:
        text = f"{len(sync)} synchronous standbys stream: an acknowledged write may exist once only"
        findings.append((Health.DEGRADED, Reason("sync_standbys", text, len(sync), needed)))
    return findings


def _summary(answer: MemberAnswer, entry: Mapping[str, Any] | None) -> dict[str, Any]:
    status = answer.status
    entry = entry or {}
    return {
        "reachable": answer.reachable,
        "error": answer.error,
        "role": entry.get("role") or status.get("role"),
        "state": status.get("state"),
        "replication_state": status.get("replication_state"),
        "timeline": status.get("timeline"),
        "lag_bytes": _integer(entry.get("lag")),
        "xlog": status.get("xlog"),
        "pending_restart": bool(status.get("pending_restart")) if answer.reachable else None,
        "dcs_last_seen": status.get("dcs_last_seen"),
        "server_version": status.get("server_version"),
        "patroni_version": (status.get("patroni") or {}).get("version"),
    }
