#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the gate, report back to it, and move its levers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gate
short_description: Ask the gate before a live system is changed, and report back
version_added: 0.1.0
author:
  - Diting DR contributors (@diting-dr)
description:
  - Everything that changes a live system passes one gate, on the control host. It looks at the stop-all lever,
    the policy with its blacklist, the maintenance window, the breaker of the scenario and target, and the approvals.
  - The gate is files on one host. It needs neither the database nor the network.
  - Reverting a drill's fault and cleaning up after a drill always pass.
  - Playbooks use C(playbooks/tasks/gate_request.yml) and C(playbooks/tasks/gate_complete.yml) around this module.
extends_documentation_fragment:
  - diting.dr.attributes
attributes:
  check_mode:
    support: full
    details: The decision is predicted and nothing is recorded; a refusal fails in check mode too.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details: >-
      O(action=stop), O(action=resume) and O(action=unpause) change nothing the second time. O(action=request) and
      O(action=complete) are recorded each time; O(action=pause) begins its window anew.
options:
  action:
    description:
      - V(request) asks whether something may be done. V(complete) reports how it ended.
      - V(stop) pulls the stop-all lever, V(resume) puts it back.
      - V(pause) opens a maintenance window that ends by itself, V(unpause) closes it before its time.
      - V(status) only looks.
    type: str
    choices: [request, complete, status, stop, resume, pause, unpause]
    required: true
  scenario:
    description: What is to be done, for example V(l4.failover). A scenario that the policy does not know is refused.
    type: str
  kind:
    description:
      - V(operate) goes with scenarios C(operate.*); V(drill), V(revert) and V(cleanup) with C(drill.*);
        V(recover) with all others.
    type: str
    choices: [recover, operate, drill, revert, cleanup]
  target:
    description: What it is to be done to, a host or a cluster.
    type: str
  trigger:
    description:
      - Who set it off. Only runs of V(automated) count for the breaker; V(drill) counts for nothing.
      - V(person) may override an open breaker with O(override_reason).
    type: str
    choices: [automated, person, drill]
  actor:
    description: The person or program that asks. Needed by all actions but V(status).
    type: str
  incident_id:
    description: Ties decisions and outcomes together. O(action=request) makes one up if there is none.
    type: str
  plan:
    description:
      - The resolved plan. It is journalled in full, so it must not hold secrets.
      - Approvals are bound to the hash of exactly this.
    type: dict
    default: {}
  approvals:
    description:
      - Approvals of O(plan), each with C(plan_sha256), C(issued_by), C(issued_at) and C(expires_at).
      - The plan itself must name O(scenario) and O(target), as keys C(scenario) and C(target) or in a list C(covers).
    type: list
    elements: dict
    default: []
  override_reason:
    description: Why a person goes ahead although the breaker is open.
    type: str
  environment_name:
    description: The environment that the caller believes to be in. Refused if the policy names another one.
    type: str
  outcome:
    description: How the run ended. V(inconclusive) is for everything that could not be seen to have worked.
    type: str
    choices: [success, failed, inconclusive]
  detail:
    description: One sentence on the outcome.
    type: str
    default: ""
  reason:
    description: Why the lever or the window is moved.
    type: str
    default: ""
  minutes:
    description: Length of the maintenance window.
    type: float
  fail_on_refusal:
    description: Whether a refusal fails the task. If not, look at RV(decision.allowed).
    type: bool
    default: true
  gate_dir:
    description: Directory of the gate's lever, journal and state.
    type: path
    default: /var/lib/diting/gate
  policy_file:
    description: The gate's policy.
    type: path
    default: /etc/diting/gate/policy.json
"""

EXAMPLES = r"""
- name: Ask before failing over
  diting.dr.gate:
    action: request
    scenario: l4.failover
    kind: recover
    target: diting
    trigger: automated
    actor: recover-playbook
    plan: {scenario: l4.failover, target: diting, candidate: pg2}
  delegate_to: ops1
  run_once: true
  register: gate

- name: Report that it worked
  diting.dr.gate:
    action: complete
    scenario: l4.failover
    target: diting
    actor: recover-playbook
    incident_id: "{{ gate.incident_id }}"
    outcome: success
    detail: pg2 is primary and two replicas stream
  delegate_to: ops1
  run_once: true

- name: Stop everything that this project does by itself
  diting.dr.gate:
    action: stop
    actor: alice
    reason: exchange reports a fault, hands off
  delegate_to: ops1
  run_once: true
"""

RETURN = r"""
decision:
  description: The gate's answer.
  returned: when O(action=request)
  type: dict
  contains:
    allowed:
      description: Whether it may be done.
      returned: always
      type: bool
      sample: false
    code:
      description: The first objection's code, or why it is allowed.
      returned: always
      type: str
      sample: stopped
    message:
      description: The decision as a sentence.
      returned: always
      type: str
      sample: "Refused: the stop-all lever is pulled since 2026-01-31T23:59:59.000000Z by alice (hands off)."
    reasons:
      description: All objections.
      returned: always
      type: list
      elements: dict
      sample: [{code: stopped, message: the stop-all lever is pulled, observed: hands off, limit: null}]
    requires:
      description: What would let the request through.
      returned: always
      type: list
      elements: str
      sample: [resume]
    notes:
      description: What did not decide anything and is worth knowing.
      returned: always
      type: list
      elements: str
      sample: []
    plan_sha256:
      description: Hash of the plan, to which an approval must be bound; null if the request could not be read.
      returned: always
      type: str
      sample: 44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
    policy_sha256:
      description: Hash of the policy that decided; null if it could not be read.
      returned: always
      type: str
      sample: 0a30ad3d10078d483e74b3d787d93c2b44370111f019b4ea5ed68cf9d79af3c5
incident_id:
  description: The incident that the request belongs to.
  returned: when O(action=request) or O(action=complete)
  type: str
  sample: inc-20260131T235959Z-0f1e2d3c
recorded:
  description: Whether the decision or outcome is on disk. Always false in check mode.
  returned: when O(action=request) or O(action=complete)
  type: bool
  sample: true
known:
  description: Whether the gate was waiting for this outcome. It never waits for those of drills, reverts and clean-ups.
  returned: when O(action=complete), outside check mode
  type: bool
  sample: true
breaker_open:
  description: Whether the breaker of this scenario and target is open now; null if that cannot be told.
  returned: when O(action=complete), outside check mode
  type: bool
  sample: false
status:
  description: Lever, window, open breakers and runs, and all that cannot be read.
  returned: when O(action=status)
  type: dict
  sample: {stopped: false, paused: false, open_breakers: [], open_runs: [], problems: []}
until:
  description: End of the maintenance window, UTC.
  returned: when O(action=pause)
  type: str
  sample: "2026-01-31T23:59:59.000000Z"
notes:
  description: What else is worth knowing.
  returned: when O(action) is neither V(request) nor V(status)
  type: list
  elements: str
  sample: [the breaker of l4.failover on diting has opened]
"""

import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils.core.breaker import Outcome
from ansible_collections.diting.dr.plugins.module_utils.hostio.gate_controls import Controls
from ansible_collections.diting.dr.plugins.module_utils.hostio.gate_store import Gate, GateError, GateFiles

ARGUMENT_SPEC: dict[str, t.Any] = {
    "action": {
        "type": "str",
        "choices": ["request", "complete", "status", "stop", "resume", "pause", "unpause"],
        "required": True,
    },
    "scenario": {"type": "str"},
    "kind": {"type": "str", "choices": ["recover", "operate", "drill", "revert", "cleanup"]},
    "target": {"type": "str"},
    "trigger": {"type": "str", "choices": ["automated", "person", "drill"]},
    "actor": {"type": "str"},
    "incident_id": {"type": "str"},
    "plan": {"type": "dict", "default": {}},
    "approvals": {"type": "list", "elements": "dict", "default": []},
    "override_reason": {"type": "str"},
    "environment_name": {"type": "str"},
    "outcome": {"type": "str", "choices": ["success", "failed", "inconclusive"]},
    "detail": {"type": "str", "default": ""},
    "reason": {"type": "str", "default": ""},
    "minutes": {"type": "float"},
    "fail_on_refusal": {"type": "bool", "default": True},
    "gate_dir": {"type": "path", "default": "/var/lib/diting/gate"},
    "policy_file": {"type": "path", "default": "/etc/diting/gate/policy.json"},
}

REQUIRED_IF = [
    ("action", "request", ["scenario", "kind", "target", "trigger", "actor"]),
    ("action", "complete", ["scenario", "target", "actor", "incident_id", "outcome"]),
    ("action", "stop", ["actor"]),
    ("action", "resume", ["actor", "reason"]),
    ("action", "pause", ["actor", "reason", "minutes"]),
    ("action", "unpause", ["actor", "reason"]),
]


def request(gate: Gate, params: dict[str, t.Any], *, check_mode: bool) -> dict[str, t.Any]:
    """Ask, and return the decision with its incident."""
    raw = {
        key: params[key] for key in ("scenario", "kind", "target", "trigger", "actor", "plan", "approvals")
    }
    raw |= {key: params[key] or None for key in ("incident_id", "override_reason")}
    raw["environment"] = params["environment_name"] or None
    answer = gate.request(raw, predict=check_mode)
    result = {
        "decision": answer.decision.as_dict(),
        "incident_id": answer.incident_id,
        "recorded": answer.recorded,
    }
    # A decision on record is a change of the journal, and nothing that a second run should count.
    return {**result, "changed": False, "failed": not answer.decision.allowed and params["fail_on_refusal"]}


def complete(gate: Gate, params: dict[str, t.Any], *, check_mode: bool) -> dict[str, t.Any]:
    """Report an outcome."""
    result: dict[str, t.Any] = {
        "incident_id": params["incident_id"],
        "recorded": not check_mode,
        "changed": False,
    }
    if check_mode:
        return {**result, "notes": []}
    keys = ("incident_id", "scenario", "target", "detail", "actor")
    return {
        **result,
        **gate.complete(outcome=Outcome(params["outcome"]), **{key: params[key] for key in keys}),
    }


def control(controls: Controls, params: dict[str, t.Any], *, check_mode: bool) -> dict[str, t.Any]:
    """Move the lever or the window."""
    who = {"by": params["actor"], "reason": params["reason"], "predict": check_mode}
    if params["action"] == "pause":
        return controls.pause(minutes=params["minutes"], **who)
    return {"stop": controls.stop, "resume": controls.resume, "unpause": controls.unpause}[params["action"]](
        **who
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF, supports_check_mode=True)
    params = module.params
    gate_files = GateFiles(Path(params["gate_dir"]), Path(params["policy_file"]))
    try:
        if params["action"] == "request":
            result = request(Gate(gate_files), params, check_mode=module.check_mode)
        elif params["action"] == "complete":
            result = complete(Gate(gate_files), params, check_mode=module.check_mode)
        elif params["action"] == "status":
            result = {"changed": False, "status": Controls(gate_files).status()}
        else:
            result = control(Controls(gate_files), params, check_mode=module.check_mode)
    except GateError as error:
        module.fail_json(msg=f"Gate: {error}")
    for note in result.get("notes", []):
        module.warn(f"Gate: {note}")
    if result.pop("failed", False):
        module.fail_json(msg=result["decision"]["message"], **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
