# SPDX-License-Identifier: GPL-3.0-or-later
"""When a host counts as fenced: an order is none, silence is none, only a clear read-back is proof. Pure.

The agents (``hostio/fencing``) speak to a power control, a hypervisor or a cloud; what their answers mean is judged here,
so that module and guard cannot come to differ about it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Outcome(enum.Enum):
    """How an order ended. UNKNOWN: no clear answer came within its deadline, so it may have been carried out."""

    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Power(enum.Enum):
    """What a read-back says. Only OFF is proof, and UNKNOWN is never OFF."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Order:
    """How the order to switch ended. Moments are monotonic seconds of the asking machine."""

    outcome: Outcome
    asked_at: float
    answered_at: float
    words: str = ""


@dataclass(frozen=True)
class Reading:
    """One answer to "is it off?", with what was seen."""

    power: Power
    asked_at: float
    answered_at: float
    words: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """Whether the host is ``wanted`` beyond doubt, and if not, why not."""

    proven: bool
    power: Power
    reasons: tuple[Reason, ...]


def judge(wanted: Power, order: Order | None, readings: Sequence[Reading]) -> Judgement:
    """Weigh an order and the read-backs after it, the newest last. ``order`` None means that only a look was asked for.

    Proven takes a clear end of the order and, asked for after that end, a reading of exactly ``wanted``.
    """
    reasons: list[Reason] = []
    newest = readings[-1] if readings else None
    if order is not None and order.outcome is not Outcome.DONE:
        text = f"the order's end is {order.outcome.value}: {order.words or 'no answer'}"
        reasons.append(Reason(f"order_{order.outcome.value}", text, order.outcome.value, Outcome.DONE.value))
    if newest is None:
        reasons.append(
            Reason("no_read_back", "nothing was read back: an order is no proof", None, wanted.value)
        )
    else:
        if order is not None and newest.asked_at < order.answered_at:
            text = "the read-back was asked before the order had ended"
            reasons.append(Reason("read_back_too_early", text, newest.asked_at, order.answered_at))
        if newest.power is not wanted:
            text = f"the read-back says {newest.power.value}: {newest.words or 'no words'}"
            reasons.append(Reason(f"read_back_{newest.power.value}", text, newest.power.value, wanted.value))
    return Judgement(not reasons, newest.power if newest else Power.UNKNOWN, tuple(reasons))


def judge_look(reading: Reading) -> Judgement:
    """A look without an order: proven when it saw anything clear at all."""
    if reading.power is not Power.UNKNOWN:
        return Judgement(proven=True, power=reading.power, reasons=())
    text = f"the state is unknown: {reading.words or 'no words'}"
    return Judgement(False, Power.UNKNOWN, (Reason("read_back_unknown", text, "unknown", "on or off"),))


Read = tuple[Power, str]
"""What an answer means, and in words why."""


def read_power_control(body: Any, host: str) -> Read:
    """The lab's power control: ``state`` of exactly this host."""
    if not isinstance(body, dict) or body.get("name") != host:
        return Power.UNKNOWN, f"the answer is not about {host}: {str(body)[:200]}"
    state = body.get("state")
    if state in ("on", "off"):
        return Power(state), f"power control sees {host} {state}"
    return Power.UNKNOWN, f"power control sees {state!r}: {body.get('why', 'no reason given')}"


EC2_OFF = frozenset({"stopped", "terminated"})
EC2_ON = frozenset({"pending", "running", "stopping", "shutting-down"})
"""A stopping instance still runs: it is off when EC2 says "stopped", not when it promises to."""


def read_ec2(body: Any, instance_id: str) -> Read:
    """``DescribeInstances`` for one instance."""
    try:
        found = [i for r in body["Reservations"] for i in r["Instances"]]
        (state,) = [i["State"]["Name"] for i in found if i["InstanceId"] == instance_id]
    except (KeyError, TypeError, ValueError):
        return Power.UNKNOWN, f"EC2's answer does not hold {instance_id} exactly once"
    words = f"EC2 says that {instance_id} is {state}"
    if state in EC2_OFF:
        return Power.OFF, words
    return (Power.ON if state in EC2_ON else Power.UNKNOWN), words


ECS_OFF = frozenset({"Stopped"})
ECS_ON = frozenset({"Pending", "Running", "Starting", "Stopping"})


def read_ecs(body: Any, instance_id: str) -> Read:
    """``DescribeInstances`` of Alibaba Cloud ECS for one instance."""
    try:
        found = body["Instances"]["Instance"]
        (state,) = [i["Status"] for i in found if i["InstanceId"] == instance_id]
    except (KeyError, TypeError, ValueError):
        return Power.UNKNOWN, f"the answer of ECS does not hold {instance_id} exactly once"
    words = f"ECS says that {instance_id} is {state}"
    if state in ECS_OFF:
        return Power.OFF, words
    return (Power.ON if state in ECS_ON else Power.UNKNOWN), words


@dataclass(frozen=True)
class Interface:
    """One network interface and the security groups it carries."""

    id: str
    groups: tuple[str, ...]
    primary: bool = False


def read_isolation(interfaces: Sequence[Interface], isolation_group: str, open_rules: Sequence[str]) -> Read:
    """Whether every interface carries only the isolation group, and that group lets nothing through.

    No interface at all is UNKNOWN: a list that came back empty is not a host that was cut off.
    """
    if not interfaces:
        return Power.UNKNOWN, "no network interface was found"
    others = [
        f"{item.id} carries {', '.join(item.groups) or 'no group'}"
        for item in interfaces
        if item.groups != (isolation_group,)
    ]
    if others:
        return Power.ON, "; ".join(others)
    if open_rules:
        return Power.ON, f"{isolation_group} lets traffic through: {'; '.join(open_rules)}"
    # Said each time, because it is easily forgotten: security groups judge connections when they are made.
    words = f"each of {len(interfaces)} interfaces carries only {isolation_group}; connections open before may last"
    return Power.OFF, words


def read_restored(interfaces: Sequence[Interface], recorded: Mapping[str, Sequence[str]]) -> Read:
    """Whether every recorded interface carries the groups it had before: then the host is on the network."""
    now = {item.id: sorted(item.groups) for item in interfaces}
    wrong = [
        f"{key} carries {now.get(key)}" for key in sorted(recorded) if now.get(key) != sorted(recorded[key])
    ]
    if not recorded or wrong:
        return Power.UNKNOWN, "; ".join(wrong) or "nothing is on record"
    return Power.ON, f"{len(recorded)} interfaces carry the groups they had"


def ec2_open_rules(body: Any, group: str) -> list[str]:
    """Rules of an EC2 security group, each as words. A group that cannot be read counts as open."""
    try:
        (found,) = [g for g in body["SecurityGroups"] if g["GroupId"] == group]
        rules = [
            *(("in", r) for r in found["IpPermissions"]),
            *(("out", r) for r in found["IpPermissionsEgress"]),
        ]
    except (KeyError, TypeError, ValueError):
        return [f"{group} could not be read"]
    return [f"{way} {rule.get('IpProtocol', '?')}" for way, rule in rules]


def ecs_open_rules(body: Any, group: str, group_type: str | None) -> list[str]:
    """What an ECS security group lets through, as words. A group that cannot be read counts as open.

    A basic group lets its members talk to each other and everything out unless told not to; an
    enterprise group lets nothing through by itself.
    """
    try:
        if body["SecurityGroupId"] != group:
            return [f"{group} could not be read"]
        rules = body["Permissions"]["Permission"]
        accepted = [
            f"{r['Direction']} {r['IpProtocol']}" for r in rules if str(r["Policy"]).lower() == "accept"
        ]
        dropped = {
            address
            for r in rules
            if str(r["Policy"]).lower() == "drop"
            and r["Direction"] == "egress"
            and str(r["IpProtocol"]).upper() == "ALL"
            for address in (r.get("DestCidrIp"), r.get("Ipv6DestCidrIp"))
        }
        inner = body["InnerAccessPolicy"]
    except (KeyError, TypeError):
        return [f"{group} could not be read"]
    if group_type == "enterprise":
        return accepted
    if group_type != "normal":
        return [f"{group} is of type {group_type!r}"]
    if str(inner).lower() != "drop":
        accepted.append("members of the group may talk to each other (InnerAccessPolicy)")
    accepted += [
        f"a basic group lets everything out to {address} without a rule that drops egress ALL"
        for address in ("0.0.0.0/0", "::/0")
        if address not in dropped
    ]
    return accepted
