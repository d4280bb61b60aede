#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Switch a host off or on from outside, and prove by a read-back that it is so."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fence
short_description: Switch a host off or on from outside it, proven by a read-back
version_added: 0.2.0
author:
  - Diting DR contributors (@diting-dr)
description:
  - Orders a host off or on with whoever holds its power or its network, and reads back what is so. An order that
    was taken is no proof, and no answer is none either; only a clear read-back, asked after the order had ended, is.
  - Uses the same agents and the same judge as the failover guard; C(docs/fencing.md) says what each agent proves.
  - Run it where the power control or the cloud's API can be reached, never on the host that is fenced.
  - It asks no gate by itself. Playbooks put C(playbooks/tasks/gate_request.yml) before it.
extends_documentation_fragment:
  - diting.dr.attributes
attributes:
  check_mode:
    support: full
    details: >-
      In check mode the state is read and nothing is ordered. RV(ignore:changed) says whether an order would have something to
      change; a state that is unknown counts as such.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: The order is given again, because a host may be about to come on; it changes nothing then.
options:
  action:
    description:
      - V(off) cuts the host off, V(on) brings it back, V(state) only looks.
    type: str
    choices: ["off", "on", state]
    required: true
  agent:
    description:
      - V(power) speaks to a power control with the lab's protocol.
      - V(ec2) and V(ecs) stop the instance by force. Needs C(boto3) or C(aliyun-python-sdk-core).
      - V(ec2_network) and V(ecs_network) give every interface of the instance one security group without rules.
    type: str
    choices: [power, ec2, ecs, ec2_network, ecs_network]
    required: true
  target:
    description: The host, for the record and for messages; with O(agent=power) also its name there.
    type: str
    required: true
  url:
    description: Address of the power control. Needed for O(agent=power).
    type: str
  ca_file:
    description: CA or certificate that the power control, or an own O(endpoint_url), is signed by.
    type: path
  instance_id:
    description: The instance. Needed for all agents but V(power).
    type: str
  region:
    description: Region of the instance. Needed for all agents but V(power).
    type: str
  endpoint_url:
    description: Address of the cloud's API, where it is not the region's own.
    type: str
  isolation_group:
    description:
      - Id of a security group that lets nothing through. Needed for the network agents.
      - It is looked at before each swap and in each read-back; a group with a rule is refused.
    type: str
  credentials_file:
    description:
      - File of C(NAME=value) lines, mode 0600 or 0640, with C(DITING_POWER_TOKEN), or C(AWS_ACCESS_KEY_ID) and
        C(AWS_SECRET_ACCESS_KEY), or C(ALIBABA_CLOUD_ACCESS_KEY_ID) and C(ALIBABA_CLOUD_ACCESS_KEY_SECRET).
      - Without it the environment is used, or the role of the instance that the module runs on. There is no option
        for a secret itself, so that none gets into a log or an argument.
    type: path
  reason:
    description: Why, for the power control's own journal.
    type: str
    default: fenced
  incident_id:
    description: Incident under which the gate allowed it, for the power control's own journal.
    type: str
  hold:
    description:
      - With O(agent=power), have power control itself keep the host off until it is told who leads now, or until its own
        time for that is over. Meanwhile it refuses every other power-on.
    type: bool
    default: false
  leader:
    description:
      - Member that holds the leader key now. Read for O(action=on) with O(hold=true).
      - Without it nothing is released, and the order is refused for as long as the power control holds the host off.
    type: str
  order_seconds:
    description: Deadline of the order. After it the order's end is unknown, and nothing is proven.
    type: float
    default: 30.0
  read_back_seconds:
    description: How long the read-back is repeated until it says what is wanted. Clouds take a minute and more to stop an instance.
    type: float
    default: 90.0
  fail_on_unproven:
    description: Whether the task fails when the state wanted is not proven. If not, look at RV(proven).
    type: bool
    default: true
  record_directory:
    description: Where the network agents write down, before a swap, which groups to go back to.
    type: path
    default: /var/lib/diting/fencing
requirements:
  - boto3 for the agents V(ec2) and V(ec2_network)
  - aliyun-python-sdk-core for the agents V(ecs) and V(ecs_network)
"""

EXAMPLES = r"""
- name: Fence the old primary before the other region is promoted
  diting.dr.fence:
    action: "off"
    agent: power
    target: pg1
    url: https://10.89.77.1:7443
    ca_file: /etc/diting/fencing/power.pem
    credentials_file: /etc/diting/fencing/power.env
    incident_id: "{{ gate.incident_id }}"
  delegate_to: ops1

- name: Cut an instance off the network, faster than a stop
  diting.dr.fence:
    action: "off"
    agent: ec2_network
    target: pg1
    instance_id: i-0123456789abcdef0
    region: eu-central-1
    isolation_group: sg-0123456789abcdef0
    read_back_seconds: 10
  delegate_to: ops1

- name: Look only
  diting.dr.fence:
    action: state
    agent: ecs
    target: pg1
    instance_id: i-bp67acfmxazb4p
    region: cn-shanghai
  delegate_to: ops1
  register: power
"""

RETURN = r"""
proven:
  description: Whether the state wanted was read back, clearly and after the order. For O(action=state) whether the state is known.
  returned: always
  type: bool
  sample: true
state:
  description: What the newest read-back said. For a network agent V(off) means cut off from the network.
  returned: always
  type: str
  choices: ["on", "off", unknown]
  sample: "off"
reasons:
  description: Why it is not proven; empty when it is.
  returned: always
  type: list
  elements: dict
  sample: [{code: read_back_unknown, message: "the read-back says unknown: no answer within 5 s", observed: unknown, limit: "off"}]
order:
  description: How the order ended, with the seconds it took.
  returned: when something was ordered
  type: dict
  sample: {outcome: done, words: power control took the order off for pg1, seconds: 0.021}
read_back:
  description: The newest read-back, and how many there were.
  returned: always
  type: dict
  sample: {words: power control sees pg1 off, evidence: {name: pg1, state: "off"}, count: 1, seconds: 0.004}
msg:
  description: The result as a sentence.
  returned: always
  type: str
  sample: "pg1: off, proven by power"
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils.core.fence import (
    Judgement,
    Order,
    Power,
    Reading,
    judge,
    judge_look,
)
from ansible_collections.diting.dr.plugins.module_utils.hostio.fencing import Agent, FencingError, make_agent
from ansible_collections.diting.dr.plugins.module_utils.hostio.fencing.base import read_until

ARGUMENT_SPEC: dict[str, t.Any] = {
    "action": {"type": "str", "choices": ["off", "on", "state"], "required": True},
    "agent": {
        "type": "str",
        "choices": ["power", "ec2", "ecs", "ec2_network", "ecs_network"],
        "required": True,
    },
    "target": {"type": "str", "required": True},
    "url": {"type": "str"},
    "ca_file": {"type": "path"},
    "instance_id": {"type": "str"},
    "region": {"type": "str"},
    "endpoint_url": {"type": "str"},
    "isolation_group": {"type": "str"},
    "credentials_file": {"type": "path", "no_log": False},
    "reason": {"type": "str", "default": "fenced"},
    "incident_id": {"type": "str"},
    "hold": {"type": "bool", "default": False},
    "leader": {"type": "str"},
    "order_seconds": {"type": "float", "default": 30.0},
    "read_back_seconds": {"type": "float", "default": 90.0},
    "fail_on_unproven": {"type": "bool", "default": True},
    "record_directory": {"type": "path", "default": "/var/lib/diting/fencing"},
}
CLOUD = ["instance_id", "region"]
REQUIRED_IF = [
    ("agent", "power", ["url", "ca_file"]),
    ("agent", "ec2", CLOUD),
    ("agent", "ecs", CLOUD),
    ("agent", "ec2_network", [*CLOUD, "isolation_group"]),
    ("agent", "ecs_network", [*CLOUD, "isolation_group"]),
]
OPTIONS = {
    "power": ("url", "ca_file", "credentials_file", "reason", "incident_id", "hold"),
    "ec2": (*CLOUD, "endpoint_url", "credentials_file"),
    "ecs": (*CLOUD, "endpoint_url", "credentials_file", "ca_file"),
    "ec2_network": (*CLOUD, "endpoint_url", "credentials_file", "isolation_group", "record_directory"),
    "ecs_network": (
        *CLOUD,
        "endpoint_url",
        "credentials_file",
        "ca_file",
        "isolation_group",
        "record_directory",
    ),
}
LOOK_SECONDS = 10.0
"""Deadline of one look; a read-back is many looks."""


def agent_for(params: dict[str, t.Any]) -> Agent:
    """The agent with those of the module's options that it knows."""
    options = {key: params[key] for key in OPTIONS[params["agent"]]}
    if params["agent"] == "power":
        options["host"] = params["target"]
    return make_agent(params["agent"], options)


def run(agent: Agent, params: dict[str, t.Any], *, check_mode: bool) -> dict[str, t.Any]:
    """Look, order, read back, judge."""
    before = agent.state(min(LOOK_SECONDS, params["read_back_seconds"]))
    if params["action"] == "state":
        return result(judge_look(before), None, [before], changed=False)
    wanted = Power(params["action"])
    if check_mode:
        judged = judge(wanted, None, [before])
        # What an order would do cannot be known before it is given, so in check mode nothing is called proven.
        return {**result(judged, None, [before], changed=before.power is not wanted), "predicted": True}
    seconds = params["order_seconds"]
    order = agent.off(seconds) if wanted is Power.OFF else agent.on(seconds, leader=params["leader"])
    readings = read_until(agent, wanted, params["read_back_seconds"], LOOK_SECONDS)
    judged = judge(wanted, order, readings)
    return result(judged, order, readings, changed=before.power is not judged.power)


def result(
    judged: Judgement, order: Order | None, readings: list[Reading], *, changed: bool
) -> dict[str, t.Any]:
    """The module's result."""
    newest = readings[-1]
    told: dict[str, t.Any] = {
        "changed": changed,
        "proven": judged.proven,
        "state": judged.power.value,
        "reasons": [reason.as_dict() for reason in judged.reasons],
        "read_back": {
            "words": newest.words,
            "evidence": dict(newest.evidence),
            "count": len(readings),
            "seconds": round(newest.answered_at - newest.asked_at, 4),
        },
    }
    if order is not None:
        seconds = round(order.answered_at - order.asked_at, 4)
        told["order"] = {"outcome": order.outcome.value, "words": order.words, "seconds": seconds}
    return told


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF, supports_check_mode=True)
    params = module.params
    for name in ("order_seconds", "read_back_seconds"):
        if not 0 < params[name] < float("inf"):
            module.fail_json(msg=f"{name}: want seconds above 0, found {params[name]}")
    try:
        told = run(agent_for(params), params, check_mode=module.check_mode)
    except FencingError as problem:
        module.fail_json(msg=f"{params['target']}: {problem}")
    predicted = told.pop("predicted", False)
    if told["proven"] or predicted:
        words = "would be ordered" if predicted and told["changed"] else f"proven by {params['agent']}"
        module.exit_json(msg=f"{params['target']}: {told['state']}, {words}", **told)
    why = "; ".join(reason["message"] for reason in told["reasons"])
    message = f"{params['target']}: {params['action']} is not proven by {params['agent']}: {why}"
    if params["fail_on_unproven"]:
        module.fail_json(msg=message, **told)
    module.exit_json(msg=message, **told)


if __name__ == "__main__":
    main()
