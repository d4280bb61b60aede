# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the guard ``failover``."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from ..core.failover_state import MAY_BE_ZERO, FailoverPolicy
from .probe_config import Account, Identity, IpAddress, Pace, Rest
from .runtime.settings import AbsolutePath, HttpUrl, Port, Strict

_LEAST = {"confirm_probes": 1, "fence_max_per_window": 0}
AGENT_PATTERN = "^(power|ec2|ecs|ec2_network|ecs_network)$"


class Member(Strict):
    """One member of the cluster, by Patroni's name of it."""

    address: IpAddress = Field(description="Address of PostgreSQL and Patroni's REST interface")
    witness: HttpUrl | None = Field(
        None, description="Address of its guard 'witness' (https://host:port); without it no vantage point"
    )
    etcd: HttpUrl | None = Field(
        None, description="etcd's client address on this host; asked last while this host is the primary"
    )
    agent: dict[str, str] = Field(
        default_factory=dict, description="Options of its fencing agent beside those of fencing.options"
    )


class EtcdSettings(Strict):
    """Where Patroni keeps its keys."""

    endpoints: list[HttpUrl] = Field(
        default_factory=list, description="Client addresses on hosts of their own; beside members' etcd"
    )
    prefix: str = Field(
        "/service/main/", pattern="^/.*/$", description="Patroni's namespace and scope, with slashes"
    )
    own_prefix: str = Field(
        "/diting/failover/main/",
        pattern="^/.*/$",
        description="Keys of the guards: lock, fences, test write, leave_etcd_leader",
    )
    interval_seconds: float = Field(0.8, ge=0.05, le=0.9, description="From reading to reading in peace")
    attempt_seconds: float = Field(0.3, ge=0.05, le=5, description="One try at one endpoint")
    lock_seconds: int = Field(10, ge=3, le=60, description="Life of the lock among guards")


class Fencing(Strict):
    """How a host is switched off and on. Secrets stand in the agent's credentials_file, never here."""

    agent: str = Field("power", pattern=AGENT_PATTERN, description="Agent of all members")
    options: dict[str, str] = Field(
        default_factory=dict, description="Options of the agent for all members (docs/fencing.md)"
    )
    hold: bool = Field(
        True, description="Agent power: have power control keep a fenced host off until another leads"
    )


class Proxy(Strict):
    """One HAProxy whose runtime interface is told of a failover."""

    name: str = Field(min_length=1, description="Name of the proxy's host, as in its certificate")
    address: IpAddress | None = Field(None, description="Address of its runtime interface, over mutual TLS")
    port: Port = Field(7445, description="Port of it")
    socket: AbsolutePath | None = Field(None, description="Or its Unix socket, when it runs on this host")
    backends: list[str] = Field(
        default_factory=lambda: ["postgresql_write", "postgresql_read"],
        description="Backends in which members are servers by their own names",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Proxy:
        if (self.address is None) == (self.socket is None):
            raise ValueError("address or socket, and not both")
        return self


def _policy_field(name: str, description: str) -> Any:
    """With the policy's default, and bounds like the policy's own, so that all that is wrong is told at once."""
    value = getattr(FailoverPolicy(), name)
    if name in MAY_BE_ZERO:
        return Field(value, ge=0, allow_inf_nan=False, description=description)
    if name.endswith("_seconds"):
        return Field(value, gt=0, allow_inf_nan=False, description=description)
    if name in _LEAST:
        return Field(value, ge=_LEAST[name], description=description)
    return Field(value, description=description)


class Limits(Strict):
    """The limits of :class:`FailoverPolicy` that people set."""

    confirm_seconds: float = _policy_field(
        "confirm_seconds", "Silence before a fence; a live migration is silent too"
    )
    confirm_probes: int = _policy_field("confirm_probes", "Failed probes of each kind that it takes as well")
    hang_seconds: float = _policy_field("hang_seconds", "TCP or REST answers and no local commit for so long")
    no_space_seconds: float = _policy_field("no_space_seconds", "'No space' or 'read-only' for so long")
    suspect_limit_seconds: float = _policy_field(
        "suspect_limit_seconds", "A suspicion that led nowhere for so long is given up"
    )
    fence_seconds: float = _policy_field("fence_seconds", "Deadline of the order")
    read_back_seconds: float = _policy_field("read_back_seconds", "Deadline of a read-back that says off")
    last_look_seconds: float = _policy_field("last_look_seconds", "Deadline of the last look")
    isolate_seconds: float = _policy_field("isolate_seconds", "Deadline of the isolation on the survivors")
    isolate_hold_seconds: float = _policy_field("isolate_hold_seconds", "Life of the isolating routes")
    release_seconds: float = _policy_field("release_seconds", "Deadline of the compare-and-delete")
    tell_seconds: float = _policy_field("tell_seconds", "Deadline for the proxies; they stop nothing")
    return_seconds: float = _policy_field("return_seconds", "Deadline of one order to switch on")
    rejoin_seconds: float = _policy_field(
        "rejoin_seconds", "A fenced host that is not read back on for so long is left to people"
    )
    comeback_seconds: float = _policy_field(
        "comeback_seconds", "So long after its fence a host is switched on when nobody else leads"
    )
    return_after_seconds: float = _policy_field(
        "return_after_seconds", "Or so long after another member has taken the leader key, if it keeps it"
    )
    power_on_after: bool = _policy_field("power_on_after", "Whether a fenced host is switched on again")
    fence_max_per_window: int = _policy_field("fence_max_per_window", "Fences of the cluster in the window")
    fence_window_seconds: float = _policy_field("fence_window_seconds", "The window")
    keep_etcd_leader_away: bool = _policy_field(
        "keep_etcd_leader_away", "Whether etcd's leader is moved off the primary's host in peace"
    )
    move_etcd_pause_seconds: float = _policy_field("move_etcd_pause_seconds", "Between two such moves")

    def policy(self, pace: Pace) -> FailoverPolicy:
        """The decision's own policy. Raises ValueError for limits that are none."""
        # How old the newest completed probe may be beside the age of the answer that it came in.
        probe = max(pace.slow_interval_seconds, pace.slow_timeout_seconds) + pace.slow_timeout_seconds
        return FailoverPolicy(probe_seconds=probe, **self.model_dump())


class FailoverConfig(Strict):
    """What the guard ``failover`` wants to know."""

    armed: bool = Field(False, description="Without it the guard only alerts")
    owner: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        description="Name of this guard among its like; the host's by default",
    )
    members: dict[str, Member] = Field(min_length=2, description="The members by Patroni's name")
    etcd: EtcdSettings = Field(description="Where Patroni keeps its keys")
    identity: Identity = Field(
        default_factory=lambda: Identity.model_validate({}), description="Certificate of this host"
    )
    account: Account = Field(
        default_factory=lambda: Account.model_validate({}), description="PostgreSQL account of the probes"
    )
    rest: Rest = Field(
        default_factory=lambda: Rest.model_validate({}), description="Patroni's REST interface"
    )
    pace: Pace = Field(
        default_factory=lambda: Pace.model_validate({}), description="How often and how long is asked"
    )
    witness_wait_seconds: float = Field(
        0.5, ge=0.02, le=0.5, description="A witness without news answers after so long"
    )
    fencing: Fencing = Field(description="How a host is switched off and on")
    proxies: list[Proxy] = Field(default_factory=list, description="Proxies that are told")
    gate_dir: AbsolutePath = Field(Path("/var/lib/diting/gate"), description="Files of the gate, only read")
    gate_policy_file: AbsolutePath = Field(
        Path("/etc/diting/gate/policy.json"), description="Its policy: a fence is a failover to it"
    )
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}), description="When what is done")

    @property
    def cluster(self) -> str:
        """Patroni's scope, the name that the gate knows the cluster by."""
        return self.etcd.prefix.strip("/").rpartition("/")[2]

    @property
    def endpoints(self) -> list[str]:
        """Every etcd endpoint."""
        return [*self.etcd.endpoints, *(m.etcd for m in self.members.values() if m.etcd)]
