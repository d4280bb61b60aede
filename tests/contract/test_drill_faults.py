# SPDX-License-Identifier: GPL-3.0-or-later
"""A fault of the catalogue is one that can be drilled: the role knows it everywhere, and knows no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from diting.core.faults import CATALOGUE
from diting.report.text import FAULTS
from diting.report.verdict import POWER_LOSSES
from support.tree import ROOT, read

ROLE = Path("roles/drill")
DRILLED = {name for name, fault in CATALOGUE.items() if not fault.companion}


def load(name: str) -> Any:
    return yaml.safe_load(read(ROLE / name))


VARS = load("vars/main.yml")
SPEC = load("meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def test_the_role_takes_the_faults_of_the_catalogue():
    assert set(SPEC["drill_fault"]["choices"]) == DRILLED
    assert set(VARS["__drill_faults"]) == DRILLED


@pytest.mark.parametrize("name", ["__drill_reverts_by", "__drill_effect_targets", "__drill_effect_states"])
def test_each_fault_has_its(name):
    assert set(VARS[name]) == DRILLED


def test_each_fault_has_a_limit_for_each_preset():
    limits = load("defaults/main.yml")["drill_rto_limit_seconds"]
    presets = set(load("defaults/main.yml")["drill_presets"])
    assert {fault: set(limit) for fault, limit in limits.items()} == dict.fromkeys(DRILLED, presets)


def test_the_labs_limits_with_the_guard_are_of_faults_presets_and_paths_that_exist():
    limits = yaml.safe_load(read("inventories/lab/group_vars/all/estate.yml"))[
        "drill_rto_guarded_limit_seconds"
    ]
    unguarded = load("defaults/main.yml")["drill_rto_limit_seconds"]
    assert limits["host_off"] == {"default": {"haproxy": 3.0, "dsn": 4.0}}
    for fault, presets in limits.items():
        for preset, paths in presets.items():
            assert set(paths) == set(VARS["__drill_paths"]), fault
            assert max(paths.values()) < unguarded[fault][preset], fault


def test_each_fault_has_its_injection_and_its_words():
    assert {
        path.stem.removeprefix("inject_") for path in (ROOT / ROLE / "tasks").glob("inject_*.yml")
    } == DRILLED
    assert set(FAULTS) >= DRILLED


def test_the_role_and_the_catalogue_agree_on_time_and_kind():
    for name, seconds in VARS["__drill_fault_limits"].items():
        assert seconds == CATALOGUE[name].limit_seconds, name
    assert set(VARS["__drill_survived_faults"]) == {name for name in DRILLED if CATALOGUE[name].survived}
    assert set(VARS["__drill_power_faults"]) == {
        name for name in DRILLED if CATALOGUE[name].place.value == "power"
    }
    assert set(VARS["__drill_power_faults"]) == POWER_LOSSES
    planned = [name for name in VARS["__drill_faults"] if CATALOGUE[name].kind.value == "planned"]
    assert planned == [VARS["__drill_faults"][2]], "__drill_kinds counts on this place"
