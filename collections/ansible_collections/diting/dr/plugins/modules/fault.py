#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inject a fault that reverts by itself, revert it, or look for what faults left behind."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fault
short_description: Inject a drill's fault, revert it, or scan for what faults leave behind
version_added: 0.1.0
author:
  - Diting DR contributors (@diting-dr)
description:
  - Injects one real fault. The fault is written down durably and its own revert is armed before
    anything is broken, so that it goes away by itself when the controller dies.
  - Run it on the host that is to fail, and on the controller for O(name=host_off) and O(name=partition).
  - It never judges recovery, and it uses no path that recovery or fencing uses.
extends_documentation_fragment:
  - diting.dr.attributes
attributes:
  check_mode:
    support: full
    details: In check mode nothing is injected or removed; RV(ignore:changed) says what would be.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - O(state=injected) with an O(fault_id) that is on record already does nothing.
      - O(state=reverted) and O(state=scanned) change nothing the second time.
options:
  name:
    description:
      - The fault. Needed for O(state=injected).
      - V(host_off) is a power loss; O(inject_command) cuts the power and O(limit_command) has
        the host powered on again later.
      - V(postgres_kill) sends SIGKILL to the postmaster of O(data_directory).
      - V(postgres_hang) sends SIGSTOP to that postmaster and every process below it; with O(with_service) to
        everything in the control group of its service, Patroni included.
      - V(partition) runs O(inject_command), which cuts O(target) off from others and says in C(reverts_at) when
        that ends by itself.
      - V(disk_full) fills the file system of O(data_directory), which must be a small one of its own
        (O(disk_maximum_bytes)); after a power-on the filler is gone too.
      - V(unit_stop) stops O(unit), beside another fault; give O(revert_command) the command that starts it.
    type: str
    choices: [disk_full, host_off, partition, postgres_hang, postgres_kill, unit_stop]
  state:
    description:
      - V(injected) breaks it.
      - V(reverted) takes back every fault on record on this host and forgets the records.
      - V(scanned) only looks for residue.
    type: str
    choices: [injected, reverted, scanned]
    required: true
  fault_id:
    description: Name of this injection; lower-case letters, digits and dashes. Needed for O(state=injected).
    type: str
  incident_id:
    description: Incident under which the gate allowed the drill; it is written into the record.
    type: str
    default: ""
  target:
    description: The host that fails, for the record. The scan also reports under this name.
    type: str
    required: true
  limit_seconds:
    description: After so many seconds the fault goes away without the controller. Default is the catalogue's.
    type: int
  data_directory:
    description: PostgreSQL data directory, for O(name=postgres_kill), O(name=postgres_hang) and O(name=disk_full).
    type: path
  with_service:
    description: For O(name=postgres_hang), stop everything in the server's service and not only the server.
    type: bool
    default: false
  disk_maximum_bytes:
    description: A larger file system is never filled.
    type: int
    default: 34359738368
  unit:
    description: systemd unit to stop, for O(name=unit_stop).
    type: str
  revert_command:
    description:
      - Shell command that brings the service back, when the limit passes and for O(state=reverted).
      - Faults that know their own revert (V(postgres_hang), V(disk_full)) do not use it.
    type: str
    default: systemctl start patroni.service
  limit_command:
    description:
      - Argument list that registers the power-on after the limit, for O(name=host_off).
        It must exit 0 before anything is injected.
    type: list
    elements: str
    default: []
  inject_command:
    description:
      - Argument list that cuts the power, for O(name=host_off), or the network, for O(name=partition).
        It prints one JSON object.
    type: list
    elements: str
    default: []
  record_directory:
    description: Where records are kept on this host.
    type: path
    default: /var/lib/diting/faults
"""

EXAMPLES = r"""
- name: Kill the postmaster of the primary
  diting.dr.fault:
    state: injected
    name: postgres_kill
    fault_id: 20261121t090000z-l4-postgres-kill
    target: "{{ inventory_hostname }}"
    data_directory: /var/lib/postgresql/15/main

- name: Look for residue
  diting.dr.fault:
    state: scanned
    target: "{{ inventory_hostname }}"
  register: scan
"""

RETURN = r"""
stamps:
  description: Monotonic times in nanoseconds on the machine that injected, when O(state=injected).
  type: dict
  returned: when something was injected
  sample: {"sent_mono_ns": 1, "gone_mono_ns": 2}
injected:
  description: What the injecting command or the signal reported.
  type: dict
  returned: when something was injected
records:
  description: Faults that were on record on this host before this call, with state V(injected) or V(expired).
  type: list
  elements: dict
  returned: always
residue:
  description: What a fault left behind; empty means clean. V(could_not_look) entries count as residue.
  type: list
  elements: dict
  returned: when O(state=scanned)
"""

import dataclasses
import functools
import json
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils import _fault_disk, _fault_hang
from ansible_collections.diting.dr.plugins.module_utils._fault import (
    FaultError,
    FaultStore,
    kill_and_confirm,
    look_around,
    read_postmaster_pid,
    run_command,
    utc_now,
)
from ansible_collections.diting.dr.plugins.module_utils.core.faults import (
    check_fault_id,
    fault_named,
    judge_scan,
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """One injection: what goes on record, what takes it back, and the act itself."""

    fields: dict[str, t.Any]
    revert: str
    act: t.Callable[[], dict[str, t.Any]]


def plan_kill(params: dict[str, t.Any]) -> Plan:
    """SIGKILL to the postmaster."""
    pid = read_postmaster_pid(params["data_directory"])

    def act() -> dict[str, t.Any]:
        return {"stamps": kill_and_confirm(pid), "injected": {"pid": pid, "signal": "SIGKILL"}}

    return Plan({"pid": pid}, params["revert_command"], act)


def plan_hang(params: dict[str, t.Any]) -> Plan:
    """SIGSTOP to the server's processes, or to all of its service."""
    pid = read_postmaster_pid(params["data_directory"])
    find = functools.partial(_fault_hang.tree_of, pid)
    if params["with_service"]:
        find = functools.partial(_fault_hang.members_of, _fault_hang.service_of(pid))

    def act() -> dict[str, t.Any]:
        done = _fault_hang.stop_all(find)
        return {"stamps": done["stamps"], "injected": {"pids": done["pids"], "signal": "SIGSTOP"}}

    return Plan({"pid": pid}, _fault_hang.continue_command(_fault_hang.owner_of(pid)), act)


def plan_full(params: dict[str, t.Any]) -> Plan:
    """No space left where the data directory lies."""
    fault_id = check_fault_id(params["fault_id"])
    mount = _fault_disk.own_file_system(params["data_directory"], params["disk_maximum_bytes"])
    filler, rule = _fault_disk.filler_of(mount, fault_id), _fault_disk.boot_rule_of(fault_id)

    def act() -> dict[str, t.Any]:
        done = _fault_disk.fill(filler, rule)
        return {"stamps": done.pop("stamps"), "injected": done}

    return Plan({"filler": filler}, _fault_disk.free_command(filler, rule), act)


def plan_stop(params: dict[str, t.Any]) -> Plan:
    """A unit that is stopped."""
    unit = params["unit"]

    def act() -> dict[str, t.Any]:
        return {"stamps": stop_unit(unit), "injected": {"unit": unit}}

    return Plan({"unit": unit}, params["revert_command"], act)


PLANS = {
    "disk_full": plan_full,
    "postgres_hang": plan_hang,
    "postgres_kill": plan_kill,
    "unit_stop": plan_stop,
}
NAMES = sorted([*PLANS, "host_off", "partition"])


def inject(params: dict[str, t.Any], store: FaultStore) -> dict[str, t.Any]:
    """Write the record, arm the revert, break it; the record goes again when arming fails."""
    fault = fault_named(params["name"])
    limit = params["limit_seconds"] or fault.limit_seconds
    if fault.name == "host_off":
        return power_loss(params)
    if fault.name == "partition":
        return partition(params)
    plan = PLANS[fault.name](params)
    fault_id = params["fault_id"]
    record = {
        "name": fault.name,
        "target": params["target"],
        "incident_id": params["incident_id"],
        "limit_seconds": limit,
        "planned_at": utc_now(),
        "revert_command": plan.revert,
        **plan.fields,
    }
    store.write(fault_id, record)
    try:
        store.arm_revert(fault_id, limit, plan.revert)
    except FaultError:
        store.forget(fault_id)
        raise
    return plan.act()


def stop_unit(unit: str) -> dict[str, int]:
    """Stop a unit and ask systemd whether it is really down; monotonic stamps in ns."""
    sent = time.monotonic_ns()
    run_command(["systemctl", "stop", unit])
    _code, out, _err = run_command(["systemctl", "show", "--property=ActiveState", "--value", unit])
    if out.strip() not in {"inactive", "failed"}:
        msg = f"{unit} is {out.strip() or 'unknown'} after systemctl stop; wanted inactive"
        raise FaultError(msg)
    return {"sent_mono_ns": sent, "gone_mono_ns": time.monotonic_ns()}


def by_command(params: dict[str, t.Any], what: str) -> dict[str, t.Any]:
    """Have the injecting command do it, and read the JSON object it prints."""
    sent = time.monotonic_ns()
    code, out, err = run_command(params["inject_command"])
    gone = time.monotonic_ns()
    if code != 0:
        msg = f"{what} of {params['target']} could not be cut (exit {code}): {(err or out).strip()}"
        raise FaultError(msg)
    try:
        told = json.loads(out)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        msg = f"the injecting command printed no JSON object but: {out.strip()[:200]!r}"
        raise FaultError(msg)
    return {"stamps": {"sent_mono_ns": sent, "gone_mono_ns": gone}, "injected": told}


def power_loss(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Register the power-on with whoever holds the power, then cut it."""
    code, out, err = run_command(params["limit_command"])
    if code != 0:
        msg = f"the power-on after the limit was not registered, so nothing was cut: {(err or out).strip()}"
        raise FaultError(msg)
    return by_command(params, "the power")


def partition(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Cut the network; whoever cuts it must say when it ends by itself."""
    done = by_command(params, "the network")
    if not done["injected"].get("reverts_at"):
        msg = "the network was cut, and the command does not say when that ends (reverts_at); heal it by hand"
        raise FaultError(msg)
    return done


def revert(store: FaultStore, records: list[dict[str, t.Any]], command: str) -> None:
    """Bring back what is still broken, disarm the timers, forget the records."""
    for record in records:
        if record["state"] == "injected":
            mine = record.get("revert_command", command)
            code, _out, err = run_command(["/bin/sh", "-c", mine])
            if code != 0:
                msg = f"{mine!r} failed while reverting {record['fault_id']}: {err.strip()}"
                raise FaultError(msg)
        store.disarm(record["fault_id"])
        store.forget(record["fault_id"])


def argument_spec() -> dict[str, t.Any]:
    """What DOCUMENTATION promises."""
    return {
        "name": {"type": "str", "choices": NAMES},
        "state": {"type": "str", "choices": ["injected", "reverted", "scanned"], "required": True},
        "fault_id": {"type": "str"},
        "incident_id": {"type": "str", "default": ""},
        "target": {"type": "str", "required": True},
        "limit_seconds": {"type": "int"},
        "data_directory": {"type": "path"},
        "with_service": {"type": "bool", "default": False},
        "disk_maximum_bytes": {"type": "int", "default": 34359738368},
        "unit": {"type": "str"},
        "revert_command": {"type": "str", "default": "systemctl start patroni.service"},
        "limit_command": {"type": "list", "elements": "str", "default": []},
        "inject_command": {"type": "list", "elements": "str", "default": []},
        "record_directory": {"type": "path", "default": "/var/lib/diting/faults"},
    }


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[
            ("state", "injected", ["name", "fault_id"]),
            ("name", "disk_full", ["data_directory"]),
            ("name", "postgres_hang", ["data_directory"]),
            ("name", "postgres_kill", ["data_directory"]),
            ("name", "unit_stop", ["unit"]),
            ("name", "host_off", ["limit_command", "inject_command"]),
            ("name", "partition", ["inject_command"]),
        ],
        supports_check_mode=True,
    )
    params = module.params
    store = FaultStore(params["record_directory"])
    try:
        records = store.records()
        result: dict[str, t.Any] = {"changed": False, "records": records}
        if params["state"] == "scanned":
            result["residue"] = judge_scan(look_around(params["target"], store, _fault_disk.fillers))
        elif params["state"] == "reverted":
            result["changed"] = bool(records)
            if records and not module.check_mode:
                revert(store, records, params["revert_command"])
        else:
            result["changed"] = not store.exists(params["fault_id"])
            if result["changed"] and not module.check_mode:
                result.update(inject(params, store))
    except (FaultError, ValueError, OSError) as problem:
        module.fail_json(msg=f"{params['target']}: {problem}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
