#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open, record and close a drill: its run directory and the floor of the estate."""

from __future__ import annotations

DOCUMENTATION = r"""
module: drill
short_description: Open, record and close a drill
version_added: 0.1.0
author:
  - Diting DR contributors (@diting-dr)
description:
  - A drill has two places. Its run directory on the controller holds the evidence; the floor, one file
    on the control host, makes sure that only one drill runs in an estate at a time.
  - O(action=identify) and O(action=open) run on the controller; O(action=holder), O(action=take) and
    O(action=release) on the control host; O(action=record) and O(action=update) on the controller.
extends_documentation_fragment:
  - diting.dr.attributes
attributes:
  check_mode:
    support: full
    details: In check mode no file is written.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details: O(action=record) appends each time; the others change nothing the second time.
options:
  action:
    description:
      - V(identify) returns who runs this playbook, as RV(owner).
      - V(holder) returns who has the floor, as RV(holder).
      - V(judge) says whether the drill of O(holder) still runs, as RV(floor), and changes nothing.
      - V(open) judges O(holder), refuses when the floor is held, and names drill and run directory.
      - V(take) and V(release) change the floor, only if O(expected) still has it.
      - V(record) appends O(event) with O(data) to the drill's journal, durably.
      - V(update) merges O(data) into the file O(file) of the run directory, durably.
    type: str
    choices: [identify, holder, judge, open, take, release, record, update]
    required: true
  evidence_root:
    description: Directory of all evidence, for O(action=open).
    type: path
  run_dir:
    description: The drill's run directory, for O(action=record) and O(action=update).
    type: path
  level:
    description: Fault level, V(l1) to V(l5).
    type: str
  fault:
    description: Name of the fault.
    type: str
  plan:
    description: Everything that was decided before the drill; its hash is what an approval is bound to.
    type: dict
  holder:
    description:
      - The floor's holder. For O(action=open) the one found, for O(action=take) the one to set.
    type: dict
  expected:
    description: Drill id that has the floor now, empty for nobody; for O(action=take) and O(action=release).
    type: str
    default: ""
  floor_file:
    description: The floor's file on the control host.
    type: path
    default: /var/lib/diting/drill/active.json
  event:
    description: Name of the event, for O(action=record).
    type: str
  data:
    description: Fields of the event, or sections to merge.
    type: dict
    default: {}
  file:
    description: File of the run directory that O(action=update) merges into.
    type: str
    default: drill.json
"""

EXAMPLES = r"""
- name: See who has the floor
  diting.dr.drill:
    action: holder
  delegate_to: "{{ drill_control_host }}"
  register: floor

- name: Write down what is about to happen
  diting.dr.drill:
    action: record
    run_dir: "{{ drill_run_dir }}"
    event: fault_planned
    data:
      fault: host_off
      target: pg1
  delegate_to: localhost
"""

RETURN = r"""
owner:
  description: The controller's process, for O(action=identify) and O(action=open).
  type: dict
  returned: when O(action=identify) or O(action=open)
holder:
  description: Who has the floor; empty when it is free.
  type: dict
  returned: when O(action=holder)
floor:
  description: V(free), V(aborted), V(held) or V(uncertain); for O(action=open) a floor that may be held fails the task.
  type: str
  returned: when O(action=open) or O(action=judge)
message:
  description: What was found about an earlier drill, for people.
  type: str
  returned: when O(action=open) or O(action=judge)
drill_id:
  description: Name of the new drill.
  type: str
  returned: when O(action=open)
run_dir:
  description: Its directory.
  type: str
  returned: when O(action=open)
plan_sha256:
  description: Hash of the plan in canonical JSON.
  type: str
  returned: when O(action=open)
record:
  description: The journal line that was written.
  type: dict
  returned: when O(action=record)
"""

import datetime
import pathlib
import typing as t
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils._drill import (
    DrillError,
    FloorFile,
    controller_owner,
    is_alive,
    merge_sections,
)
from ansible_collections.diting.dr.plugins.module_utils.core.drill import (
    Floor,
    Holder,
    Owner,
    drill_id,
    judge_floor,
)
from ansible_collections.diting.dr.plugins.module_utils.core.journal import JournalError, sha256_of, utc_text
from ansible_collections.diting.dr.plugins.module_utils.hostio.journal import JournalFile


def do_identify(_params: dict[str, t.Any], _check: bool) -> dict[str, t.Any]:
    """Who runs this playbook."""
    return {"owner": asdict(controller_owner())}


def do_holder(params: dict[str, t.Any], _check: bool) -> dict[str, t.Any]:
    """Who has the floor."""
    holder = FloorFile(params["floor_file"]).read()
    return {"holder": holder.as_dict() if holder else {}}


def floor_now(params: dict[str, t.Any], now: datetime.datetime) -> tuple[Owner, Floor, str]:
    """Who runs this playbook, who has the floor, and the sentence about it."""
    here = controller_owner()
    holder = Holder.from_dict(params["holder"]) if params["holder"] else None
    alive = is_alive(holder.owner) if holder else None
    floor, message = judge_floor(holder, here, alive=alive, now=now)
    return here, floor, message


def do_judge(params: dict[str, t.Any], _check: bool) -> dict[str, t.Any]:
    """Whether the drill that has the floor still runs."""
    _here, floor, message = floor_now(params, datetime.datetime.now(tz=datetime.UTC))
    return {"floor": floor.value, "message": message}


def do_open(params: dict[str, t.Any], _check: bool) -> dict[str, t.Any]:
    """Refuse a held floor; otherwise name the drill and its directory, which the first write makes."""
    now = datetime.datetime.now(tz=datetime.UTC)
    here, floor, message = floor_now(params, now)
    if floor in {Floor.HELD, Floor.UNCERTAIN}:
        raise DrillError(f"refused: {message}")
    name = drill_id(now, params["level"], params["fault"])
    run_dir = pathlib.Path(params["evidence_root"]).resolve() / name
    return {
        "changed": True,
        "owner": asdict(here),
        "floor": floor.value,
        "message": message,
        "drill_id": name,
        "run_dir": str(run_dir),
        "started_at": utc_text(now),
        "plan_sha256": sha256_of(params["plan"]),
    }


def do_take(params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Set the floor's holder."""
    holder = Holder.from_dict(params["holder"])
    floor = FloorFile(params["floor_file"])
    changed = floor.read() != holder
    if changed and not check:
        floor.swap(params["expected"] or None, holder)
    return {"changed": changed}


def do_release(params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Free the floor; a floor that is free already stays so."""
    floor = FloorFile(params["floor_file"])
    changed = floor.read() is not None
    if changed and not check:
        floor.swap(params["expected"] or None, None)
    return {"changed": changed}


def run_directory(params: dict[str, t.Any]) -> pathlib.Path:
    """The run directory with its parts; a drill that the gate refused leaves none."""
    run_dir = pathlib.Path(params["run_dir"])
    for part in ("timeline", "ledger", "logs"):
        (run_dir / part).mkdir(mode=0o750, parents=True, exist_ok=True)
    return run_dir


def do_record(params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Append one line to the drill's journal."""
    if check:
        return {"changed": True, "record": {}}
    journal = JournalFile(run_directory(params) / "journal.jsonl", "drill")
    return {"changed": True, "record": journal.append(params["event"], params["data"])}


def do_update(params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Merge sections into one of the drill's files."""
    if check:
        return {"changed": True}
    return {"changed": merge_sections(str(run_directory(params)), params["file"], params["data"])}


ACTIONS = {
    "identify": do_identify,
    "holder": do_holder,
    "judge": do_judge,
    "open": do_open,
    "take": do_take,
    "release": do_release,
    "record": do_record,
    "update": do_update,
}


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "choices": list(ACTIONS), "required": True},
            "evidence_root": {"type": "path"},
            "run_dir": {"type": "path"},
            "level": {"type": "str"},
            "fault": {"type": "str"},
            "plan": {"type": "dict"},
            "holder": {"type": "dict"},
            "expected": {"type": "str", "default": ""},
            "floor_file": {"type": "path", "default": "/var/lib/diting/drill/active.json"},
            "event": {"type": "str"},
            "data": {"type": "dict", "default": {}},
            "file": {"type": "str", "default": "drill.json"},
        },
        required_if=[
            ("action", "open", ["evidence_root", "level", "fault", "plan"]),
            ("action", "take", ["holder"]),
            ("action", "record", ["run_dir", "event"]),
            ("action", "update", ["run_dir"]),
        ],
        supports_check_mode=True,
    )
    try:
        result = ACTIONS[module.params["action"]](module.params, module.check_mode)
    except (DrillError, JournalError, ValueError, OSError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(**{"changed": False, **result})


if __name__ == "__main__":
    main()
