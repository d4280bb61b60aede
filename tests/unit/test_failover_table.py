# SPDX-License-Identifier: GPL-3.0-or-later
"""The failover guard's table, pair by pair, and what may stand in it."""

from __future__ import annotations

import itertools

import pytest

from diting.core.failover_events import _READERS
from diting.core.failover_machine import MACHINE, measures, signature
from diting.core.failover_state import FailoverPolicy, FailoverState
from diting.core.failover_table import ACTIONS, MEANINGFUL, TABLE, Event, Phase
from diting.core.failover_view import Outcome, Power, ReadBack, Result
from diting.core.guard import mermaid, problems
from support.failover_world import World, replace

PAIRS = list(itertools.product(Phase, Event))


@pytest.mark.parametrize(("phase", "event"), PAIRS, ids=lambda value: value.value)
def test_every_pair_has_a_transition(phase, event):
    transition = TABLE[phase, event]
    assert isinstance(transition.to, Phase)
    assert set(transition.actions) <= ACTIONS
    assert transition.comment
    if (phase, event) not in MEANINGFUL:
        assert (transition.to, transition.actions) == (phase, ())


def test_the_table_holds_nothing_else():
    assert set(TABLE) == set(PAIRS)
    assert set(_READERS) == set(Phase)


def test_the_gauges_say_how_ready_it_is_and_nothing_where_nobody_knows():
    calm = World()
    seen = calm.see()
    assert measures(FailoverState(fences=(calm.now - 800, calm.now - 950)), seen, FailoverPolicy()) == {
        "armed": 1.0,
        "fresh_vantages_count": 3.0,
        "etcd_age_seconds": pytest.approx(0.05),
        "etcd_write_age_seconds": pytest.approx(0.05),
        # A fence 800 s ago is within the window.
        "fence_possible": 0.0,
        "lock_held": 1.0,
        "fences_count": 1.0,
        "last_fence_seconds": None,
    }
    assert {measure.name for measure in MACHINE.measures} == set(
        measures(FailoverState(), seen, FailoverPolicy())
    )
    order = Result("pg1-7-1", Outcome.DONE, calm.now - 3, calm.now - 2)
    read = ReadBack("pg1-7-1", Power.OFF, calm.now - 2, calm.now - 1.5)
    dark = replace(
        calm, elsewhere=None, locked=False, armed=False, stale=("pg2",), fence=order, read_back=read
    )
    found = measures(FailoverState(), dark.see(), FailoverPolicy())
    assert (found["armed"], found["lock_held"], found["fences_count"], found["fresh_vantages_count"]) == (
        0,
        0,
        None,
        2,
    )
    assert found["last_fence_seconds"] == pytest.approx(1.5)
    another = replace(dark, read_back=ReadBack("pg1-7-2", Power.OFF, calm.now - 2, calm.now - 1.5))
    assert measures(FailoverState(), another.see(), FailoverPolicy())["last_fence_seconds"] is None
    still_on = replace(dark, read_back=ReadBack("pg1-7-1", Power.ON, calm.now - 2, calm.now - 1.5))
    assert measures(FailoverState(), still_on.see(), FailoverPolicy())["last_fence_seconds"] is None


def test_every_phase_can_be_reached_and_left_towards_watching():
    reached, todo = {Phase.STARTING}, [Phase.STARTING]
    while todo:
        here = todo.pop()
        new = {t.to for (phase, _event), t in MEANINGFUL.items() if phase is here} - reached
        reached |= new
        todo += new
    assert reached == set(Phase)
    back = {Phase.WATCHING}
    while more := {phase for (phase, _event), t in MEANINGFUL.items() if t.to in back} - back:
        back |= more
    assert back == set(Phase)


def test_an_action_has_one_place_where_it_can_begin():
    """The steps cannot be taken out of order, because each has one transition that orders it."""
    begins = {
        action: {(phase, event) for (phase, event), t in MEANINGFUL.items() if action in t.actions}
        for action in ACTIONS
    }
    assert begins["fence"] == {(Phase.SUSPECT, Event.CONFIRMED)}
    assert begins["last_look"] == {(Phase.READING_BACK, Event.READ_BACK_OFF)}
    assert begins["isolate"] == {(Phase.LAST_LOOK, Event.LOOK_CLEAN)}
    assert begins["release"] == {(Phase.ISOLATING, Event.ISOLATED)}
    assert begins["power_on"] == {
        (Phase.RETURNING, Event.UNISOLATED),
        (Phase.REJOINING, Event.POWER_ON_AGAIN),
    }
    assert {phase for phase, _event in begins["tell_proxies"]} == {Phase.RELEASING}


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.value)
def test_a_restart_repeats_nothing_that_changes_anything(phase):
    actions = set(TABLE[phase, Event.RESTARTED].actions)
    assert actions <= {"read_back", "withdraw", "unisolate", "raise_alert", "resolve_alert"}
    assert not actions & {"fence", "isolate", "release", "power_on", "tell_proxies"}


def test_every_event_means_something_somewhere():
    assert {event for _phase, event in MEANINGFUL} == set(Event) - {Event.NOTHING}


def test_the_machine_has_no_problem_and_can_be_drawn():
    assert problems(MACHINE) == []
    drawn = "\n".join(mermaid(MACHINE))
    assert "last_look --> isolating" in drawn
    assert "isolating --> releasing" in drawn


def test_passing_time_is_no_change_worth_a_line():
    world = World()
    assert signature(world.see()) == signature(world.after(5).see())
    for change in ({"lever": True}, {"holder": "pg2"}, {"up": ()}, {"paused": True}, {"raft_term": 4}):
        assert signature(world.after(0, **change).see()) != signature(world.see()), change
    assert signature(world.dies().after(1).see()) != signature(world.see())
