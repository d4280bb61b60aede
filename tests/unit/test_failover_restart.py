# SPDX-License-Identifier: GPL-3.0-or-later
"""Killed in every phase and started again: nothing that may have happened is done a second time."""

from __future__ import annotations

import dataclasses

import pytest

from diting.core.failover import decide
from diting.core.failover_state import FailoverState
from diting.core.failover_table import Phase
from diting.core.failover_view import GateEnd, Outcome
from diting.guards.failover import FailoverGuard
from support.failover_world import POLICY, Guard, Result, World, play, replace, settle

RESULTS = ("fence", "read_back", "isolate", "unisolate", "release", "tell_proxies", "power_on")
CHANGING = ("fence", "isolate", "release", "tell_proxies")


def reach(phase):
    """A guard in ``phase``, killed after its state was written and before anything was heard of its orders."""
    guard = Guard()
    world = settle(guard, World())
    if phase is Phase.WATCHING:
        return guard, world
    if phase is Phase.STARTING:
        return Guard(), World()
    kind = {Phase.ALERT_ONLY: {"lever": True}}.get(phase, {})
    world = world.dies(**kind)
    answers = {"fence": Outcome.FAILED} if phase is Phase.STANDING_DOWN else {}
    for _tick in range(60):
        if guard.state.phase is phase:
            return guard, world
        world = play(guard, world, 0.1, **answers)
        if guard.state.phase is Phase.COOLING and phase in (Phase.RETURNING, Phase.REJOINING):
            world = replace(world, holder="pg2", mod_revision=9)
    raise AssertionError(f"{phase} was not reached")


def killed(guard, world):
    """The guard as its state file has it, in a world where its earlier life's results are not known any more."""
    again = Guard(guard.policy, FailoverState.from_dict(guard.state.as_dict()))
    return again, replace(world, run="life-2", **dict.fromkeys(RESULTS))


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.value)
def test_nothing_is_done_twice(phase):
    guard, world = reach(phase)
    assert guard.state.phase is phase
    before = guard.names()
    again, world = killed(guard, world)
    world = play(again, world, 3)
    both = before + again.names()
    for action in CHANGING:
        assert both.count(action) <= 1, both
    # And it does not stay behind: once another member leads it ends up watching that one.
    world = replace(world, holder="pg2", target="pg2", mod_revision=9, alive_until=None)
    world = play(again, world, 130)
    assert again.state.phase is Phase.WATCHING
    assert again.state.target == "pg2"


def test_an_order_that_may_never_have_gone_out_is_not_taken_for_a_fence():
    """Killed between the state and the order, it reads "off" of a host that lost power by itself, and holds nothing off."""
    guard, world = reach(Phase.FENCING)
    again, world = killed(guard, world)
    world = play(again, world, 2)
    assert again.names() == ["alert"]
    assert again.state.phase is Phase.STANDING_DOWN
    # It may have gone out, too: then the host is switched on when somebody else leads, and no late order can hit it.
    play(again, replace(world, holder="pg2", mod_revision=9, etcd_leader="pg3"), 63)
    assert again.names()[-3:] == ["unisolate", "power_on", "read_back"]


@pytest.mark.parametrize("phase", [Phase.READING_BACK, Phase.LAST_LOOK], ids=lambda p: p.value)
def test_it_goes_on_by_a_fresh_read_back(phase):
    """The order is not repeated; what the hypervisor says now decides."""
    guard, world = reach(phase)
    again, world = killed(guard, world)
    play(again, world, 2)
    assert again.names()[:2] == ["read_back", "last_look"]
    assert "fence" not in again.names()
    assert "release" in again.names()


@pytest.mark.parametrize("reboot", [False, True])
def test_the_wait_for_a_settled_leader_outlives_a_restart_of_the_guard_and_begins_anew_with_the_host(reboot):
    """The key's revision tells that nothing came between; a clock of another boot tells nothing."""
    guard = Guard(replace(POLICY, return_after_seconds=5.0))
    world = play(guard, settle(guard, World()).dies(), 1.2)
    world = play(guard, replace(world, holder="pg2", mod_revision=9), 3)
    again, world = killed(guard, world)
    if reboot:
        world = replace(world, boot="boot-2", now=20.0, renewed_at=15.0)
    taken = world.now if reboot else world.now - 3
    play(again, world, 6)
    (back,) = [at for at, action in again.done if action.name == "unisolate"]
    assert back == pytest.approx(taken + 5, abs=0.15)


@pytest.mark.parametrize("on", [True, False])
def test_after_a_restart_the_fenced_host_is_looked_at_before_it_is_ordered_on_again(on):
    guard, world = reach(Phase.REJOINING)
    again, world = killed(guard, world)
    world = replace(world, power_on=Result("", Outcome.DONE, 0.0, 0.0) if on else None)
    play(again, world, POLICY.power_on_pause_seconds + 1)
    if on:
        assert "power_on" not in again.names()
        assert again.names()[0] == "read_back"
    else:
        assert again.names()[:2] == ["read_back", "power_on"]
    assert again.state.phase is Phase.WATCHING


def test_a_restart_behind_routes_of_its_own_making_stands_down():
    guard, world = reach(Phase.ISOLATING)
    again, world = killed(guard, world)
    play(again, world, 2)
    assert again.names() == ["unisolate", "alert"]
    assert again.state.phase is Phase.STANDING_DOWN


def test_a_release_that_may_have_gone_out_is_only_watched():
    guard, world = reach(Phase.RELEASING)
    for holder, last in ((None, "tell_proxies"), ("pg1", "alert")):
        again, then = killed(guard, world)
        play(again, replace(then, holder=holder), 7)
        assert "release" not in again.names()
        assert again.names()[-1] == last


def test_the_ends_of_the_gates_windows_survive_and_are_saved_when_they_change():
    ends = (GateEnd("pause 2026", 1600.0),)
    guard = Guard()
    world = settle(guard, World())
    seen = world.see()
    before = guard.state
    seen = dataclasses.replace(seen, gate=dataclasses.replace(seen.gate, ends=ends))
    state, _actions = decide(before, seen, world.now, guard.policy)
    assert state.gate_ends == ends
    keeps = FailoverGuard.keeps
    assert keeps(None, before, state)
    assert not keeps(None, state, state)
    again = FailoverState.from_dict(state.as_dict())
    other, _actions = decide(again, dataclasses.replace(seen, run="x", boot="boot-2"), 20.0, guard.policy)
    assert other.gate_ends == ends, "what is seen in the new boot is of the new boot"


def test_a_reboot_of_the_control_host_counts_its_fences_as_new():
    """Monotonic time begins anew with a boot: an old fence must not look older than it is."""
    guard, world = reach(Phase.COOLING)
    again, world = killed(guard, world)
    rebooted = replace(
        world,
        boot="boot-2",
        now=20.0,
        holder="pg2",
        target="pg2",
        mod_revision=9,
        alive_until=None,
        renewed_at=15.0,
    )
    rebooted = play(again, rebooted, 3)
    assert again.state.phase is Phase.WATCHING
    assert all(0 <= moment <= rebooted.now for moment in again.state.fences)
    play(again, rebooted.dies(sync=("pg3",)), 3)
    assert "fence" not in again.names()
