# SPDX-License-Identifier: GPL-3.0-or-later
"""What the failover guard sees: one frozen observation, every moment of it on the guard's monotonic clock. Pure.

All ``*_at`` are seconds on the monotonic clock of the host that the guard runs on. Whoever asks
another host gets ages on a clock of its own and turns them into moments by :func:`latest_moment` and
:func:`earliest_moment`; no wall clock comes in here, so a clock step cannot change a decision. None always means "not known".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from .fence import Outcome, Power
from .plain import Plain

__all__ = [
    "AgentView",
    "Answer",
    "Candidate",
    "EtcdView",
    "GateEnd",
    "GateView",
    "Observation",
    "Outcome",
    "Power",
    "Probe",
    "ReadBack",
    "Result",
    "Vantage",
    "VantageKind",
    "WalReceiver",
    "earliest_moment",
    "latest_moment",
]


def latest_moment(answered_at: float, age_seconds: float) -> float:
    """The latest moment that "``age_seconds`` ago" can mean, said in an answer that came at ``answered_at``.

    The careful end for a sign of life (it may be newer than a read-back) and for the begin of a silence (it may be
    shorter): ``last_ok_at``, ``failing_since``, ``fed_at``. A negative age, of a clock that stepped, means now.
    """
    return answered_at - max(0.0, age_seconds)


def earliest_moment(asked_at: float, age_seconds: float) -> float:
    """The earliest moment that "``age_seconds`` ago" can mean, said in the answer to a request sent at ``asked_at``.

    The careful end for how fresh a look is: ``tried_at``, ``read_at``, ``seen_at``.
    """
    return asked_at - max(0.0, age_seconds)


class Answer(enum.Enum):
    """How the last completed probe ended."""

    NONE = "none"
    """Never tried, or not yet back."""
    OK = "ok"
    """It answered; over SQL: a local commit succeeded."""
    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    NO_SPACE = "no_space"
    NO_TEMP = "no_temp"
    """The local commit is done, and for a temporary file there is no space."""
    READ_ONLY = "read_only"
    WAITING_SYNC = "waiting_sync"
    """The local commit is done and a standby is waited for: that is life, and never a hang."""
    REJECTED = "rejected"
    """A server answered with another error (a password, a limit, starting up): alive, and no proof of a hang."""


class VantageKind(enum.Enum):
    """Where a vantage point stands."""

    CONTROL = "control"
    REPLICA = "replica"


@dataclass(frozen=True)
class Probe:
    """One way of asking the primary, as one vantage point sees it."""

    answer: Answer = Answer.NONE
    tried_at: float | None = None
    """When the newest completed probe was sent."""
    last_ok_at: float | None = None
    """The latest moment at which the primary can have given its newest good answer."""
    failing_since: float | None = None
    """When the first of the newest unbroken run of failures of one kind was sent; None while it answers."""
    failures: int = 0
    """Completed failed probes in that run."""
    last_reply_at: float | None = None
    """The latest moment at which the newest answer that was not good (a refusal, an error) can have come."""


@dataclass(frozen=True)
class WalReceiver:
    """A replica's walreceiver. ``fed_at`` is the latest moment at which its newest message can have come.

    Derive it from a *change* of ``last_msg_receipt_time`` on the replica, never from its difference to a wall clock.
    """

    running: bool
    read_at: float
    fed_at: float | None = None
    lsn: int | None = None


@dataclass(frozen=True)
class Vantage:
    """What one vantage point says. ``answered_at`` is when the newest request that it answered was sent."""

    name: str
    kind: VantageKind
    answered_at: float | None = None
    tcp: Probe = Probe()
    rest: Probe = Probe()
    sql: Probe = Probe()
    walreceiver: WalReceiver | None = None
    """None on the control host, and on a replica whose walreceiver could not be looked at."""


@dataclass(frozen=True)
class EtcdView:
    """The cluster's keys in etcd. All but ``accepted_at`` and the last two are of one reading."""

    accepted_at: float | None = None
    """When the newest own test write that etcd accepted was sent."""
    asked_at: float | None = None
    answered_at: float | None = None
    holder: str | None = None
    """Member that holds the leader key; None, in an answered reading, means that there is no key."""
    mod_revision: int | None = None
    raft_term: int | None = None
    lease_id: int | None = None
    lease_ttl_seconds: int | None = None
    """Whole seconds, cut off by etcd; 0 or less means expired."""
    lease_granted_seconds: int | None = None
    sync_leader: str | None = None
    sync_members: tuple[str, ...] = ()
    """Members that ``/sync`` lists as standbys."""
    paused: bool | None = None
    """Patroni's own pause."""
    etcd_leader: str | None = None
    """Database host whose etcd member leads, when it is one of them."""
    leave_etcd_leader: bool = False
    """Somebody wants etcd's leader left where it is, for a while (a drill that puts it beside the primary)."""


@dataclass(frozen=True)
class Candidate:
    """A member that might take over. ``has_space`` is about the file systems of data and WAL."""

    name: str
    up: bool | None = None
    has_space: bool | None = None
    seen_at: float | None = None


@dataclass(frozen=True)
class GateEnd:
    """When something that forbids is over, by the moment it was first seen: the gate's own times are of the wall clock."""

    key: str
    until: float


@dataclass(frozen=True)
class GateView(Plain):
    """The gate's word. None means that it could not be read, and forbids."""

    read_at: float | None = None
    lever: bool | None = None
    maintenance: bool | None = None
    planned_work: bool | None = None
    fences_elsewhere: int | None = None
    """Fences of this cluster within the window that this guard's own state does not count (another guard's)."""
    refusal: str | None = None
    """Why it would not let a failover through, by policy, blacklist or breaker; empty when it would. Lever and window
    stand above: they are judged without the wall clock."""
    ends: tuple[GateEnd, ...] = ()
    """Of windows and planned work that are on file now, over or not."""


@dataclass(frozen=True)
class Result:
    """How the action of this name ended for ``incident``."""

    incident: str
    outcome: Outcome
    asked_at: float
    answered_at: float
    words: str = ""
    begun: bool = True
    """False when it certainly was not: then nothing has happened, and nothing will."""


@dataclass(frozen=True)
class ReadBack:
    """One read-back, asked of the hypervisor, the cloud or the network and never of the host."""

    incident: str
    power: Power
    asked_at: float
    answered_at: float
    words: str = ""


@dataclass(frozen=True)
class AgentView:
    """What a member's fencing agent said when it was last asked in peace; UNKNOWN when it could not even be made."""

    name: str
    power: Power
    words: str = ""


@dataclass(frozen=True)
class Observation(Plain):
    """Everything a decision may look at. ``run`` names the life of this process, ``boot`` the machine's boot.

    ``taken_at`` is when it was complete: a look takes time, and the decision counts from its end.
    """

    run: str
    boot: str
    taken_at: float
    paused: bool = False
    """A person has paused the guard."""
    target: str | None = None
    """Member that the vantage points probe."""
    vantages: tuple[Vantage, ...] = ()
    etcd: EtcdView = EtcdView()
    candidates: tuple[Candidate, ...] = ()
    gate: GateView = GateView()
    agents: tuple[AgentView, ...] = ()
    armed: bool = False
    lock_until: float | None = None
    """Until when the etcd lock among guards is certainly ours; None when it is not."""
    fence: Result | None = None
    read_back: ReadBack | None = None
    isolate: Result | None = None
    unisolate: Result | None = None
    release: Result | None = None
    tell_proxies: Result | None = None
    power_on: Result | None = None
    fences_recorded: int | None = None
    """This guard's own fences within the window, by the keys in etcd: they outlive its state."""
    notes: dict[str, str] = field(default_factory=dict)
    """Words for people; nothing here decides anything."""
