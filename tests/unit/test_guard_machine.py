# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of a guard: total, reachable, explained; and every guard of the tree is so."""

from __future__ import annotations

import dataclasses
import enum

import pytest

from diting.core import guard
from diting.core.guard import Alert, Transition
from diting.guards.runtime import registry
from support import guard_fakes as toy
from support.tree import ROOT


def with_table(**changes):
    return dataclasses.replace(toy.MACHINE, **changes)


def without(*keys):
    return {key: line for key, line in toy.TABLE.items() if key not in keys}


class Stranger(enum.Enum):
    ODD = "odd"


@pytest.mark.parametrize(
    ("machine", "problem"),
    [
        (with_table(table=without((toy.Phase.HOT, toy.Event.COLD))), "no line for (HOT, COLD)"),
        (
            with_table(
                table={**toy.TABLE, (toy.Phase.CALM, toy.Event.WARM): Transition(toy.Phase.CALM, (), "x")}
            ),
            "HOT cannot be reached",
        ),
        (
            with_table(
                table={**toy.TABLE, (toy.Phase.HOT, toy.Event.COLD): Transition(toy.Phase.CALM, (), " ")}
            ),
            "(HOT, COLD) has no comment",
        ),
        (
            with_table(
                table={**toy.TABLE, (toy.Phase.HOT, toy.Event.COLD): Transition(Stranger.ODD, (), "x")}
            ),
            "(HOT, COLD) leads to Stranger.ODD, which is no state of this machine",
        ),
        (
            with_table(
                table={**toy.TABLE, (Stranger.ODD, toy.Event.COLD): Transition(toy.Phase.CALM, (), "x")}
            ),
            "(ODD, COLD) is not of this machine",
        ),
        (with_table(alerts=(Alert("A", "loud", "s", "r"),)), "alert A: severity 'loud'"),
        (with_table(alerts=(Alert("A", "info", "", "r"),)), "alert A: no summary or runbook"),
        (with_table(observation_type=toy.Policy), "Policy has no field 'paused'"),
    ],
)
def test_each_fault_of_a_machine_is_named(machine, problem):
    assert guard.problems(machine) == [problem]


def test_a_sound_machine_has_no_problems():
    assert guard.problems(toy.MACHINE) == []


def test_diagram_joins_arrows_and_leaves_out_standing_still():
    assert guard.mermaid(toy.MACHINE) == [
        "stateDiagram-v2",
        "    [*] --> calm",
        "    calm --> hot: warm / raise_alert, cool, fan",
        "    hot --> calm: cold / resolve_alert",
    ]


@pytest.mark.parametrize("name", registry.names())
def test_every_guard_of_the_tree_is_sound(name):
    found = registry.load(name)
    machine = found.machine
    assert guard.problems(machine) == []
    assert machine.name == name, "the module, the machine and the page have one name"
    for alert in machine.alerts:
        path, _, heading = alert.runbook.partition("#")
        headings = (ROOT / path).read_text().lower().replace(" ", "-")
        assert f"#-{heading}\n" in headings, f"{alert.runbook} does not exist"
    for measure in machine.measures:
        assert measure.help.endswith("."), measure


def test_names_are_the_modules_beside_the_runtime():
    assert "clock" in registry.names()
    assert "runtime" not in registry.names()
    with pytest.raises(KeyError):
        registry.load("runtime")
