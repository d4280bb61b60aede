# SPDX-License-Identifier: GPL-3.0-or-later
"""A guard that could not fence says so in peace, and not when the primary is dead."""

from __future__ import annotations

import dataclasses

import pytest

from diting.core.failover import decide
from diting.core.failover_alerts import CANNOT_FENCE
from diting.core.failover_health import trouble
from diting.core.failover_state import FailoverState
from diting.core.failover_table import Phase
from diting.core.failover_view import AgentView, Answer, Power, Probe
from support.failover_world import POLICY, Guard, World, play, replace, settle


def alerts(guard):
    """(raised or resolved, moment) of the alert this file is about."""
    found = [(a.name.removesuffix("_alert"), at, a) for at, a in guard.done if "alert" in a.name]
    return [(name, at) for name, at, a in found if a.args["alert"] == CANNOT_FENCE]


@pytest.fixture
def guard():
    return Guard()


@pytest.fixture
def world(guard):
    world = settle(guard, World())
    guard.done.clear()
    return world


def test_in_good_weather_nothing_is_wrong(guard, world):
    assert trouble(guard.state, world.see(), world.now, POLICY) == []
    play(guard, world, 100)
    assert alerts(guard) == []


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"etcd_writes": False}, "a write that etcd accepted"),
        ({"etcd_reads": False}, "a fresh reading of the leader key"),
        ({"stale": ("pg2", "pg3")}, "two live vantage points"),
        ({"up": ()}, "a candidate"),
        ({"sync": ()}, "a candidate"),
        ({"paused": None}, "Patroni's pause"),
        ({"lever": None}, "the stop-all lever"),
        ({"maintenance": None}, "a maintenance window"),
        ({"planned": None}, "planned work"),
        ({"refusal": None}, "the gate could not be asked"),
        ({"elsewhere": None}, "how often others have fenced"),
    ],
    ids=str,
)
def test_what_would_keep_a_fence_from_happening_is_said_after_a_while(guard, world, what, words):
    calm = {name: getattr(world, name) for name in what}
    world = play(guard, replace(world, **what), POLICY.unable_seconds - 0.5)
    assert alerts(guard) == []
    world = play(guard, world, 60)
    assert [name for name, _at in alerts(guard)] == ["raise"], "once, however long it lasts"
    assert words in str(guard.alerts()[-1])
    world = play(guard, replace(world, **calm), 0.5)
    assert [name for name, _at in alerts(guard)] == ["raise", "resolve"]
    play(guard, replace(world, **what), 60)
    assert [name for name, _at in alerts(guard)] == ["raise", "resolve", "raise"]


def test_what_passes_is_not_said(guard, world):
    for _time in range(4):
        world = play(guard, replace(world, up=()), POLICY.unable_seconds - 1)
        world = play(guard, replace(world, up=("pg2",)), 0.2)
    assert alerts(guard) == []


@pytest.mark.parametrize(
    "what",
    [
        {"refusal": "blacklisted"},
        {"locked": False},
        {"armed": False},
        {"lever": True},
        {"maintenance": True},
        {"paused": True},
        {"elsewhere": 9},
    ],
    ids=str,
)
def test_what_people_or_another_guard_have_decided_is_no_trouble(guard, world, what):
    play(guard, replace(world, **what), 100)
    assert alerts(guard) == []


@pytest.mark.parametrize("way", ["tcp", "rest", "sql"])
def test_a_way_that_never_had_a_good_answer_is_named(way):
    seen = World().see()
    never = Probe(Answer.REJECTED, seen.taken_at - 0.05, None, 900.0, 99, seen.taken_at - 0.04)
    vantages = tuple(dataclasses.replace(v, **{way: never}) if v.name == "pg3" else v for v in seen.vantages)
    state = FailoverState(Phase.WATCHING, target="pg1", mod_revision=7, saw_alive=("ops1", "pg2", "pg3"))
    found = trouble(state, dataclasses.replace(seen, vantages=vantages), seen.taken_at, POLICY)
    assert found == [f"pg3 has never had a good answer of pg1 by {way}: rejected"]


def test_a_fencing_agent_that_does_not_know_is_named(guard, world):
    views = (AgentView("pg1", Power.OFF), AgentView("pg2", Power.ON), AgentView("pg3", Power.UNKNOWN, "403"))
    seen = dataclasses.replace(world.see(), agents=views)
    assert trouble(guard.state, seen, world.now, POLICY) == ["the fencing agent of pg3 does not know: 403"]


def test_a_guard_that_never_gets_to_look_says_so_too():
    """No etcd from the first moment: it never watches at all."""
    guard, world = Guard(), World()
    for _tick in range(400):
        seen = dataclasses.replace(world.see(), etcd=type(world.see().etcd)())
        guard.state, actions = decide(guard.state, seen, world.now, POLICY)
        guard.done += [(world.now, action) for action in actions]
        world = world.after(0.1)
    assert guard.state.phase is Phase.STARTING
    assert [name for name, _at in alerts(guard)] == ["raise"]


def test_a_failover_takes_precedence_and_ends_it(guard, world):
    world = play(guard, replace(world, up=()), 60)
    play(guard, replace(world.dies(), up=("pg2",)), 2)
    assert "release" in guard.names()


def test_before_the_first_primary_there_is_one_thing_to_say():
    """At the first converge the guard is there before the database; all that follows from that is no news."""
    world = World(target=None, holder=None, sync=(), up=(), alive_until=0.0)
    seen = world.see()
    silent = tuple(dataclasses.replace(v, tcp=Probe(), rest=Probe(), sql=Probe()) for v in seen.vantages)
    seen = dataclasses.replace(seen, vantages=silent)
    state = FailoverState(Phase.STARTING, run=world.run)
    assert trouble(state, seen, world.now, POLICY) == ["no primary has been seen yet"]
    # What is wrong beside it is said all the same.
    silent_etcd = dataclasses.replace(seen, etcd=dataclasses.replace(seen.etcd, accepted_at=None))
    found = trouble(state, silent_etcd, world.now, POLICY)
    assert found == ["no primary has been seen yet", "not seen: a write that etcd accepted lately"]


def test_a_primary_without_a_name_is_called_the_primary(world):
    """Somebody who is no member holds the key: nobody is probed."""
    seen = world.see()
    silent = tuple(dataclasses.replace(v, tcp=Probe()) for v in seen.vantages)
    seen = dataclasses.replace(seen, target=None, vantages=silent)
    state = FailoverState(Phase.WATCHING, target="pg9", mod_revision=7)
    found = trouble(state, seen, world.now, POLICY)
    assert "ops1 has never had a good answer of the primary by tcp: none" in found
    assert "None" not in "; ".join(found)
