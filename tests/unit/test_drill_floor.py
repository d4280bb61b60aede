# SPDX-License-Identifier: GPL-3.0-or-later
"""One drill at a time; a dead controller's drill is closed, a living one's is never pushed aside."""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import asdict, replace

import pytest
import yaml

from ansible_collections.diting.dr.plugins.module_utils._drill import (
    DrillError,
    FloorFile,
    controller_owner,
    is_alive,
    merge_sections,
    process_start,
)
from ansible_collections.diting.dr.plugins.module_utils.core.drill import (
    Floor,
    Holder,
    Owner,
    drill_id,
    judge_floor,
)
from support.tree import ROOT

NOW = datetime.datetime(2026, 11, 21, 9, 0, tzinfo=datetime.UTC)
HERE = Owner("ctl", "boot-1", 100, 5000)
HOLDER = Holder("20261121T085900Z-l4-host_off", HERE, "2026-11-21T09:10:00Z", "/x", "host_off", "pg1")


@pytest.mark.parametrize(
    ("holder", "alive", "floor"),
    [
        (None, None, Floor.FREE),
        (HOLDER, True, Floor.HELD),
        (HOLDER, False, Floor.ABORTED),
        (replace(HOLDER, owner=replace(HERE, boot_id="boot-0")), None, Floor.ABORTED),
        (replace(HOLDER, owner=replace(HERE, hostname="other")), None, Floor.UNCERTAIN),
        (
            replace(HOLDER, owner=replace(HERE, hostname="other"), deadline="2026-11-21T08:59:00Z"),
            None,
            Floor.ABORTED,
        ),
    ],
)
def test_who_has_the_floor(holder, alive, floor):
    assert judge_floor(holder, HERE, alive=alive, now=NOW)[0] is floor


def test_the_name_of_a_drill():
    assert drill_id(NOW, "l4", "host_off") == "20261121T090000Z-l4-host_off"
    with pytest.raises(ValueError, match="do not make"):
        drill_id(NOW, "l9", "host_off")


def test_the_floor_changes_hands_only_from_the_expected_holder(tmp_path):
    floor = FloorFile(str(tmp_path / "drill" / "active.json"))
    assert floor.read() is None
    floor.swap(None, HOLDER)
    assert floor.read() == HOLDER
    with pytest.raises(DrillError, match="another drill came first"):
        floor.swap(None, HOLDER)
    floor.swap(HOLDER.drill_id, None)
    assert floor.read() is None


def test_the_floor_takes_what_the_playbook_writes(tmp_path):
    """Field by field: a word that the floor does not know would end every drill before it began."""
    tasks = yaml.safe_load((ROOT / "roles/drill/tasks/open.yml").read_text())
    task = next(task for task in tasks if task["name"] == "Take the floor")
    written = dict.fromkeys(task["diting.dr.drill"]["holder"], "x")
    floor = FloorFile(str(tmp_path / "active.json"))
    floor.swap(None, Holder.from_dict({**written, "owner": asdict(HERE), "power_switches": True}))
    held = floor.read()
    assert set(written) == set(held.as_dict())
    assert (held.timings, held.power_switches) == ("x", True)


def test_a_floor_taken_before_it_knew_of_timings_is_still_read():
    old = {
        name: value for name, value in HOLDER.as_dict().items() if name not in ("timings", "power_switches")
    }
    assert Holder.from_dict(old) == HOLDER


def test_a_garbled_floor_refuses_and_names_the_file(tmp_path):
    path = tmp_path / "active.json"
    path.write_text("{}")
    with pytest.raises(DrillError, match=r"active\.json"):
        FloorFile(str(path)).read()


def test_a_process_is_known_by_its_start_and_not_its_number_alone():
    me = controller_owner()
    assert is_alive(me)
    assert not is_alive(replace(me, pid_start=me.pid_start + 1))
    assert process_start(os.getpid()) is not None
    assert process_start(2**22 + 1) is None


def test_sections_are_merged_and_lists_grow(tmp_path):
    run = str(tmp_path)
    assert merge_sections(run, "drill.json", {"phase": "open", "reasons": [1], "scope": {"a": 1}})
    assert merge_sections(run, "drill.json", {"phase": "inject", "reasons": [2], "scope": {"b": 2}})
    assert not merge_sections(run, "drill.json", {"phase": "inject"})
    data = json.loads((tmp_path / "drill.json").read_text())
    assert data == {"phase": "inject", "reasons": [1, 2], "scope": {"a": 1, "b": 2}}
