# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""How a fenced host comes back, and when it does not."""

from __future__ import annotations

import pytest

from diting.core.failover_table import Phase
from diting.core.failover_view import (
    Outcome,
    Power,
)
from support.failover_fixtures import STEPS, guard, world  # noqa: F401 - fixtures are used by their names
from support.failover_world import POLICY, Guard, World, play, replace, settle, until


def test_the_host_comes_back_when_another_member_leads(guard, world):
    world = play(guard, world.dies(), 1.2)
    play(guard, replace(world, holder="pg2", mod_revision=9), POLICY.return_after_seconds + 0.5)
    assert guard.names()[len(STEPS) : len(STEPS) + 3] == ["unisolate", "power_on", "read_back"]
    assert guard.state.phase is Phase.WATCHING
    assert guard.state.target == "pg2"


def comes_back(guard):
    """When the fenced host is let back, None while it is not."""
    return next((at for at, action in guard.done if action.name == "unisolate"), None)


@pytest.mark.parametrize("stands_down", [False, True])
@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_a_new_primary_has_time_to_settle_before_the_fenced_host_boots_beside_it(seconds, stands_down):
    """At the moment the key is taken the promotion is under way; a boot takes CPU, disk and network from it."""
    guard = Guard(replace(POLICY, return_after_seconds=seconds))
    answers = {"isolate": Outcome.FAILED} if stands_down else {}
    world = play(guard, settle(guard, World()).dies(), 1.2, **answers)
    assert guard.state.phase is (Phase.STANDING_DOWN if stands_down else Phase.COOLING)
    guard.done.clear()
    taken = world.now
    play(guard, replace(world, holder="pg2", mod_revision=9), seconds + 1)
    assert comes_back(guard) == pytest.approx(taken + seconds, abs=0.05)


@pytest.mark.parametrize(
    "other",
    [{"holder": None}, {"holder": "pg3", "mod_revision": 11}, {"mod_revision": 11}],
    ids=["free", "another hand", "taken anew"],
)
def test_a_break_has_the_wait_for_a_settled_leader_begin_anew(other):
    guard = Guard(replace(POLICY, return_after_seconds=5.0))
    world = play(guard, settle(guard, World()).dies(), 1.2)
    world = play(guard, replace(world, holder="pg2", mod_revision=9), 4)
    broken = world.now
    world = play(guard, replace(world, **other), 3)
    if world.holder is None:
        broken = world.now
        world = replace(world, holder="pg2", mod_revision=11)
    play(guard, world, 6)
    assert comes_back(guard) == pytest.approx(broken + 5, abs=0.05)


def test_what_etcd_did_not_say_is_not_counted_as_a_settled_leader():
    guard = Guard(replace(POLICY, return_after_seconds=5.0))
    world = play(guard, settle(guard, World()).dies(), 1.2)
    world = play(guard, replace(world, holder="pg2", mod_revision=9), 2)
    world = play(guard, replace(world, etcd_reads=False), 5)
    assert comes_back(guard) is None
    # The same revision in the first answer after it: nobody else had the key meanwhile.
    play(guard, replace(world, etcd_reads=True), 1)
    assert comes_back(guard) == pytest.approx(world.now, abs=0.05)


def test_a_leader_key_that_goes_from_hand_to_hand_does_not_keep_a_member_away_for_ever():
    guard = Guard(replace(POLICY, return_after_seconds=5.0))
    world = play(guard, settle(guard, World()).dies(), 1.2)
    ordered = next(at for at, action in guard.done if action.name == "fence")
    for number in range(33):
        world = play(guard, replace(world, holder=f"pg{2 + number % 2}", mod_revision=9 + number), 4)
    assert comes_back(guard) == pytest.approx(ordered + POLICY.comeback_seconds + 5, abs=0.2)
    assert not any("nobody has taken over" in words for words in guard.alerts())


def test_who_takes_over_late_has_its_time_too_and_is_not_called_nobody():
    guard = Guard(replace(POLICY, return_after_seconds=5.0))
    world = play(guard, settle(guard, World()).dies(), 118)
    taken = world.now
    play(guard, replace(world, holder="pg2", mod_revision=9), 6)
    assert comes_back(guard) == pytest.approx(taken + 5, abs=0.05)
    assert not any("nobody has taken over" in words for words in guard.alerts())


def test_the_host_comes_back_after_a_while_when_nobody_leads(guard, world):
    world = play(guard, world.dies(), 1.2)
    play(guard, world, 118)
    assert "power_on" not in guard.names()
    play(guard, world.after(118), 3)
    assert guard.names()[len(STEPS) :] == ["unisolate", "alert", "power_on", "read_back"]


def test_the_wait_for_the_host_counts_from_its_fence(guard, world):
    """A fence that took a minute, and a read-back that took another, are part of it."""
    world = until(guard, world.dies(), "read_back", read_back=Power.UNKNOWN)
    ordered = next(at for at, action in guard.done if action.name == "fence")
    world = play(guard, world, 61, read_back=Power.UNKNOWN)
    assert guard.state.phase is Phase.STANDING_DOWN
    play(guard, world, 65)
    on = next(at for at, action in guard.done if action.name == "power_on")
    assert on - ordered <= POLICY.comeback_seconds + 1


@pytest.mark.parametrize(
    "bad",
    [
        {"power_on": Outcome.FAILED},
        {"power_on": Outcome.UNKNOWN},
        {"read_back": Power.UNKNOWN},
        {"read_back": Power.OFF},
    ],
    ids=str,
)
def test_a_host_that_does_not_come_back_is_ordered_on_again_and_again(guard, world, bad):
    """A cloud that answers "too many requests" once would leave the cluster without its third member for ever."""
    world = until(guard, world.dies(), "tell_proxies")
    world = replace(world, holder="pg2", mod_revision=9, etcd_leader="pg3")
    world = play(guard, world, 16, **bad)
    assert guard.state.phase is Phase.REJOINING
    assert 3 <= guard.names().count("power_on") <= 5
    assert "not read back on" in guard.alerts()[-1]
    world = play(guard, world, 6)
    assert guard.state.phase is Phase.WATCHING
    assert [a.args["alert"] for _at, a in guard.done if a.name == "resolve_alert"][-1:]


def test_people_at_work_on_a_fenced_host_are_left_alone(guard, world):
    world = until(guard, world.dies(), "tell_proxies")
    world = replace(world, holder="pg2", mod_revision=9, etcd_leader="pg3")
    world = until(guard, world, "power_on", power_on=Outcome.FAILED)
    play(guard, replace(world, lever=True), 60, power_on=Outcome.FAILED)
    assert guard.names().count("power_on") == 1


def test_a_host_that_never_comes_back_is_left_to_people(guard, world):
    world = until(guard, world.dies(), "tell_proxies")
    world = replace(world, holder="pg2", mod_revision=9, etcd_leader="pg3")
    play(guard, world, POLICY.rejoin_seconds + 5, power_on=Outcome.FAILED)
    assert guard.state.phase is Phase.WATCHING
    assert guard.done[-1][1].args["alert"] == "DitingFailoverHostNotBack"


@pytest.mark.parametrize(("end", "waits"), [("silent", True), (Outcome.UNKNOWN, True), (Outcome.DONE, False)])
def test_the_host_is_not_switched_on_while_the_order_to_switch_it_off_may_still_come(
    guard, world, end, waits
):
    """A slow cloud, and a TTL that was quicker: the late "off" would hit a standby that has just joined."""
    world = until(guard, world.dies(), "fence", fence=end)
    ordered = next(at for at, action in guard.done if action.name == "fence")
    world = replace(world, holder="pg2", mod_revision=9, etcd_leader="pg3")
    world = play(guard, world, POLICY.fence_seconds - 1, fence=end)
    assert ("power_on" in guard.names()) is not waits
    play(guard, world, 3)
    on = next(at for at, action in guard.done if action.name == "power_on")
    assert (on - ordered > POLICY.fence_seconds) is waits
