# SPDX-License-Identifier: GPL-3.0-or-later
"""What the failover guard remembers, and the limits it works by. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields

from .failover_table import Phase
from .failover_view import GateEnd  # noqa: TC001 - read at run time, by plain
from .plain import Plain


class Death(enum.Enum):
    """What the signs say is wrong with the primary."""

    GONE = "gone"
    """No TCP, no REST, no SQL from anywhere."""
    HUNG = "hung"
    """TCP or REST answers, and no local commit comes back."""
    FULL = "full"
    """It answers "no space" or "read-only"."""


@dataclass(frozen=True)
class Lease:
    """One reading of the leader key's lease, the measure for "risen"."""

    asked_at: float
    answered_at: float
    lease_id: int
    ttl_seconds: int
    raft_term: int


@dataclass(frozen=True)
class Received:
    """A replica's WAL position after the read-back, the measure for "advanced"."""

    vantage: str
    lsn: int


@dataclass(frozen=True)
class Lead:
    """Another member's hold on the leader key. The same revision at two readings means no break between them."""

    holder: str
    mod_revision: int | None
    since: float
    """When the first reading of it was answered."""


@dataclass(frozen=True)
class FailoverState(Plain):
    """State of the guard; JSON-able, and written to disk before the actions that it led to.

    Moments are monotonic seconds of boot ``boot``. ``incident`` ties results to the fence they belong to.
    """

    phase: Phase = Phase.STARTING
    since: float = 0.0
    run: str = ""
    boot: str = ""
    target: str | None = None
    mod_revision: int | None = None
    saw_alive: tuple[str, ...] = ()
    """Vantage points that have seen this target alive: only those may accuse it."""
    not_before: float = 0.0
    """Silence before this moment does not count towards a confirmation."""
    death: Death | None = None
    incident: str = ""
    incidents: int = 0
    fenced: bool = False
    """A fence of this incident was ordered."""
    ordered_at: float | None = None
    """When it was."""
    order_open: bool = False
    """Its end is not known: it may still be carried out."""
    witnesses: tuple[str, ...] = ()
    """Vantage points that confirmed, all of which must look once more."""
    late: tuple[str, ...] = ()
    """All others that are configured: they are waited for, a moment."""
    survivors: tuple[str, ...] = ()
    """The replicas among those that have looked."""
    off_asked_at: float | None = None
    off_answered_at: float | None = None
    asked_again_at: float = 0.0
    lease: Lease | None = None
    raft_term: int | None = None
    """etcd's when the signs went missing; another one since then has made every lease whole, and longer than whole."""
    renewed_at: float | None = None
    """The latest moment at which the newest renewal that was seen since the order can have come."""
    received: tuple[Received, ...] = ()
    isolated_until: float | None = None
    lead: Lead | None = None
    """Who has taken over since the fence, and since when: the fenced host waits until that has settled."""
    fences: tuple[float, ...] = ()
    moved_etcd_at: float | None = None
    gate_ends: tuple[GateEnd, ...] = ()
    """For the next life, which must not work them out anew by a clock that was set meanwhile."""
    unable_since: float | None = None
    """Since when something that a fence needs is missing although all is calm."""
    unable_told: bool = False
    reason: str = ""


MAY_BE_ZERO = frozenset({"return_after_seconds"})
"""Limits that may be left out by a 0."""


@dataclass(frozen=True)
class FailoverPolicy(Plain):
    """Limits, in seconds unless the name says otherwise. Raises ``ValueError`` naming every bad one at once."""

    confirm_seconds: float = 3.0
    """Silence before a fence. A live migration is silent too: lower it only where none happens."""
    confirm_probes: int = 3
    """And so many failed probes of each kind from each vantage point, whatever the death."""
    hang_seconds: float = 10.0
    """No local commit for so long; and silence for so long where something was refused just before."""
    no_space_seconds: float = 10.0
    vantage_fresh_seconds: float = 1.0
    probe_seconds: float = 1.0
    """The longest that one probe takes before it is given up."""
    etcd_fresh_seconds: float = 1.0
    gate_fresh_seconds: float = 2.0
    begin_seconds: float = 1.0
    """An action that is not begun so long after its decision is not begun at all: what led to it has aged."""
    suspect_limit_seconds: float = 60.0
    fence_seconds: float = 60.0
    """Deadline of the order. The recovery takes as long as the fence does, and about a second."""
    read_back_seconds: float = 60.0
    read_back_pause_seconds: float = 0.1
    last_look_seconds: float = 2.0
    late_look_seconds: float = 0.3
    """For those who did not confirm. One of them may be missing after that, if the fence takes power away."""
    power_fence: bool = True
    """Whether it does. One that cuts the network off leaves connections open."""
    isolate_seconds: float = 5.0
    """Longer than a witness takes to say that it could not (2 s): its answer is worth more than our own deadline."""
    isolate_hold_seconds: float = 60.0
    """Life of the isolating routes; they go by themselves."""
    release_seconds: float = 0.5
    """Short: what spoke for the release is not asked for again while it is under way."""
    tell_seconds: float = 2.0
    return_seconds: float = 30.0
    """Deadline of one order to switch on."""
    power_on_pause_seconds: float = 5.0
    rejoin_seconds: float = 600.0
    """A fenced host that cannot be switched on for so long is left to people."""
    comeback_seconds: float = 120.0
    """A fenced host is switched on again so long after its fence when nobody else has taken the leader key."""
    return_after_seconds: float = 10.0
    """Or when another member has held it for so long without a break: a host that boots takes CPU, disk and network, and at the
    moment the key is taken the new primary is still being promoted. 0 is at once."""
    power_on_after: bool = True
    fence_max_per_window: int = 1
    fence_window_seconds: float = 900.0
    keep_etcd_leader_away: bool = True
    unable_seconds: float = 30.0
    """What a fence needs may be missing for so long before people are told."""
    move_etcd_seconds: float = 5.0
    move_etcd_pause_seconds: float = 30.0

    def __post_init__(self) -> None:
        problems = []
        for item in fields(self):
            value = getattr(self, item.name)
            if not item.name.endswith("_seconds") or 0 < value < float("inf"):
                continue
            if item.name not in MAY_BE_ZERO:
                problems.append(f"{item.name}: want seconds above 0, found {value!r}")
            elif value != 0:
                problems.append(f"{item.name}: want 0 seconds or more, found {value!r}")
        if self.confirm_probes < 1:
            problems.append(f"confirm_probes: want 1 or more, found {self.confirm_probes}")
        if self.fence_max_per_window < 0:
            problems.append(f"fence_max_per_window: want 0 or more, found {self.fence_max_per_window}")
        if problems:
            raise ValueError("; ".join(problems))
