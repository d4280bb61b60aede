# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""From the fence to the release."""

from __future__ import annotations

import pytest

from diting.core.failover_table import Phase
from diting.core.failover_view import (
    Answer,
    Outcome,
    Power,
    ReadBack,
)
from support.failover_fixtures import STEPS, guard, world  # noqa: F401 - fixtures are used by their names
from support.failover_world import POLICY, Guard, Result, World, play, replace, settle, until


def test_a_dead_primary_is_fenced_proven_and_released(guard, world):
    world = play(guard, world.dies(), 1.2)
    assert guard.names() == STEPS
    release = next(action for _at, action in guard.done if action.name == "release")
    assert release.args["target"] == "pg1"
    assert release.args["mod_revision"] == 7
    assert guard.state.phase is Phase.COOLING


def test_the_etcd_leader_is_left_where_somebody_wants_it(guard, world):
    beside = replace(world, etcd_leader="pg1", leave_etcd_leader=True)
    left = play(guard, beside, 10)
    assert guard.names() == []
    play(guard, left.dies(), 1)
    assert guard.names()[:2] == ["fence", "alert"], "that word stops nothing else"
    again = Guard()
    play(again, replace(settle(again, World()), etcd_leader="pg1"), 1)
    assert again.names() == ["move_etcd_leader"], "and it ends with the word"


def test_the_etcd_leader_is_kept_off_the_primarys_host(guard, world):
    world = replace(world, etcd_leader="pg1")
    play(guard, world, 3)
    assert guard.names() == ["move_etcd_leader"]
    play(guard, world.after(31), 1)
    assert guard.names() == ["move_etcd_leader"] * 2
    for hands_off in ({"lever": True}, {"armed": False}, {"locked": False}, {"etcd_leader": "pg3"}):
        calm = Guard()
        play(calm, replace(settle(calm, World()), etcd_leader="pg1").after(0, **hands_off), 3)
        assert calm.names() == [], hands_off


# --- from the fence to the release ----------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNKNOWN, "silent"], ids=str)
def test_an_order_without_a_clear_end_releases_nothing(guard, world, outcome):
    play(guard, world.dies(), 70, fence=outcome)
    assert guard.names() == ["fence", "alert", "alert"]
    assert guard.state.phase is Phase.STANDING_DOWN


def test_a_fence_that_was_not_begun_uses_nothing_up(guard, world):
    """The machine slept between decision and deed: nobody was fenced, nobody has to come back, and the next one is free."""
    world = until(guard, world.dies(), "fence", fence="silent")
    refused = Result(guard.state.incident, Outcome.UNKNOWN, world.now, world.now, "it had aged", begun=False)
    world = play(guard, replace(world, fence=refused), 0.5)
    assert guard.state.phase is Phase.STANDING_DOWN
    assert (guard.state.fences, guard.state.fenced, guard.state.order_open) == ((), False, False)
    assert "not begun" in guard.alerts()[-1]
    world = settle(guard, replace(world, alive_until=None))
    assert guard.state.phase is Phase.WATCHING
    play(guard, world.dies(), 1.5)
    assert guard.names().count("fence") == 2


@pytest.mark.parametrize("power", [Power.UNKNOWN, Power.ON, "silent"], ids=str)
def test_no_answer_but_off_is_off(guard, world, power):
    play(guard, world.dies(), 70, read_back=power)
    assert set(guard.names()) == {"fence", "alert", "read_back"}
    assert guard.state.phase is Phase.STANDING_DOWN


def test_a_slow_fence_is_waited_for(guard, world):
    world = play(guard, world.dies(), 8, fence="silent")
    asked = next(at for at, action in guard.done if action.name == "fence")
    world = replace(world, fence=Result(guard.state.incident, Outcome.DONE, asked, world.now))
    play(guard, world, 1)
    assert "release" in guard.names()


@pytest.mark.parametrize(
    "sign",
    [
        {"heard": (("ops1", "tcp"),)},
        {"heard": (("pg3", "sql"),)},
        {"tcp": Answer.REFUSED},
        {"fed": True},
        {"renewed": True},
    ],
    ids=str,
)
def test_a_fence_that_lies_is_found_out_by_one_sign(guard, world, sign):
    world = until(guard, world.dies(), "last_look")
    now = world.now - 0.055
    changes = {
        "heard": tuple((*who, now) for who in sign.get("heard", ())),
        "tcp": sign.get("tcp", world.tcp),
        "fed_at": now if "fed" in sign else None,
        "renewed_at": now if "renewed" in sign else world.renewed_at,
    }
    play(guard, replace(world, **changes), 5)
    assert "isolate" not in guard.names()
    assert "release" not in guard.names()
    assert guard.names()[-1] == "alert"
    assert guard.state.phase is Phase.STANDING_DOWN


@pytest.mark.parametrize("since_the_one_before", [0.05, 0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("step", ["last_look", "isolate"])
def test_a_renewal_that_etcds_whole_seconds_hide_releases_nothing(guard, world, step, since_the_one_before):
    """Only etcd still hears the host, once a second, as with ttl 20 and loop_wait 1."""
    world = until(guard, world.dies(renewed_at=world.now - since_the_one_before), step)
    for _loop in range(6):
        world = play(guard, replace(world, renewed_at=world.now - 0.06), 1.0)
    assert "release" not in guard.names()
    assert guard.state.phase is Phase.STANDING_DOWN


def test_a_renewal_just_before_the_end_costs_no_second(guard, world):
    """The proof comes once a whole second has passed since the last renewal."""
    world = play(guard, world.dies(renewed_at=world.now - 0.03), 1.9)
    assert "release" in guard.names()


def test_signs_older_than_the_read_back_do_not_count(guard, world):
    """The primary was alive, cut off from everybody but etcd and a replica's stream, until it was switched off."""
    world = world.dies(renewed_at=world.now + 0.3, fed_at=world.now + 0.35)
    play(guard, world, 2.2)
    assert "release" in guard.names()


def test_a_new_etcd_leader_refreshes_leases_and_that_is_no_sign(guard, world):
    world = until(guard, world.dies(), "read_back")
    play(guard, replace(world, raft_term=4, renewed_at=world.now + 0.02), 1)
    assert "release" in guard.names()


def test_an_election_between_the_silence_and_the_fence_does_not_stop_it(guard, world):
    """etcd's leader died with the primary: the next one has made the lease longer than whole, and no reading proves its age."""
    world = play(guard, world.dies(), 0.2)
    assert guard.state.phase is Phase.SUSPECT
    # The election timeout is added to every lease.
    play(guard, replace(world, raft_term=4, renewed_at=world.now + 1.0), 4.0)
    assert "release" in guard.names()


@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["at once", "later"])
def test_a_renewal_during_the_read_back_is_not_forgotten_over_an_election_of_etcd(guard, world, pause):
    """The new etcd leader makes every lease whole, so from then on the renewal itself cannot be seen any more."""
    world = play(guard, world.dies(), 1, read_back="silent")
    assert guard.state.phase is Phase.READING_BACK
    guard.tick(replace(world, renewed_at=world.now - 0.02))
    world = play(guard, world.after(0.1, renewed_at=world.now + 0.1, raft_term=4), pause, read_back="silent")
    read = ReadBack(guard.state.incident, Power.OFF, guard.state.asked_again_at, world.now, "off")
    play(guard, world.after(0.1, read_back=read), 3)
    assert "isolate" not in guard.names()
    assert "the lease of the leader key was renewed" in guard.alerts()[-1]


def test_a_last_look_that_lacks_a_witness_releases_nothing(guard, world):
    world = until(guard, world.dies(), "last_look")
    play(guard, replace(world, stale=("pg3",)), 5)
    assert "isolate" not in guard.names()
    assert guard.state.phase is Phase.STANDING_DOWN
    assert "pg3 has not looked" in str(guard.alerts()[-1])


def test_a_vantage_point_that_did_not_confirm_is_given_a_moment_to_look(guard, world):
    """A witness that was being restarted, or lost a packet: what it sees since counts as much as anybody's."""
    world = until(guard, world.dies(stale=("pg3",)), "last_look")
    play(guard, world, 1)
    given = {action.name: (at, action.args) for at, action in guard.done}
    assert given["isolate"][0] - given["last_look"][0] >= POLICY.late_look_seconds - 1e-6
    assert given["isolate"][1]["survivors"] == ["pg2"]
    assert "release" in given


def test_one_that_comes_back_in_time_is_heard_and_cut_off_too(guard, world):
    world = until(guard, world.dies(stale=("pg3",)), "last_look")
    heard = Guard(state=guard.state)
    play(heard, replace(world, stale=(), heard=(("pg3", "sql", world.now - 0.06),)), 3)
    assert "isolate" not in heard.names()
    assert heard.state.phase is Phase.STANDING_DOWN
    play(guard, replace(world, stale=()), 1)
    assert guard.order("isolate").args["survivors"] == ["pg2", "pg3"]


def test_a_fence_that_only_cuts_the_network_off_takes_everybodys_look():
    """Connections that are open may last behind it; who has not looked may still be fed."""
    guard = Guard(replace(POLICY, power_fence=False))
    world = settle(guard, World())
    play(guard, world.dies(stale=("pg3",)), 5)
    assert "isolate" not in guard.names()
    assert guard.state.phase is Phase.STANDING_DOWN
    assert "pg3 has not looked" in str(guard.alerts()[-1])


def test_more_than_one_must_not_be_missing(guard, world):
    world = until(guard, world.dies(), "last_look")
    state = replace(guard.state, late=("pg4", "pg5"))
    for late, clean in ((("pg4",), True), (("pg4", "pg5"), False)):
        wide = Guard(state=replace(state, late=late))
        play(wide, world, 3)
        assert ("isolate" in wide.names()) is clean


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNKNOWN, "silent"], ids=str)
def test_an_isolation_that_is_uncertain_is_undone_and_releases_nothing(guard, world, outcome):
    play(guard, world.dies(), 10, isolate=outcome)
    assert "release" not in guard.names()
    assert guard.names()[-2:] == ["unisolate", "alert"]


@pytest.mark.parametrize(
    "veto", [{"lever": True}, {"paused": True}, {"armed": False}, {"mod_revision": 8}], ids=str
)
@pytest.mark.parametrize("step", ["fence", "read_back", "last_look", "isolate"])
def test_a_veto_at_any_step_stops_it(guard, world, step, veto):
    world = until(guard, world.dies(), step)
    play(guard, replace(world, **veto), 5)
    assert "release" not in guard.names()
    assert guard.state.phase is Phase.STANDING_DOWN


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, "silent"], ids=str)
def test_a_release_of_unknown_end_is_settled_by_looking(guard, world, outcome):
    world = until(guard, world.dies(), "release", release=outcome)
    assert guard.state.phase is Phase.RELEASING
    play(guard, replace(world, holder=None), 0.5)
    assert guard.names().count("release") == 1
    assert guard.names()[-1] == "tell_proxies"


def test_a_refused_release_is_the_end_of_it(guard, world):
    play(guard, world.dies(), 10, release=Outcome.FAILED)
    assert guard.names()[-2:] == ["unisolate", "alert"]


@pytest.mark.parametrize(
    "what", [{"heard": True}, {"lever": True}, {"armed": False}, {"paused": True}], ids=str
)
def test_a_release_under_way_is_withdrawn_when_something_speaks_against_it(guard, world, what):
    """Its first answer was lost, so it is being tried again, or hangs in etcd and lands later."""
    world = until(guard, world.dies(), "release", release="silent")
    if "heard" in what:
        what = {"heard": (("pg3", "tcp", world.now - 0.02),)}
    play(guard, replace(world, **what), 0.1)
    assert guard.names()[-3:] == ["withdraw", "unisolate", "alert"]
    assert guard.state.phase is Phase.STANDING_DOWN


def test_a_release_without_an_end_is_withdrawn_soon(guard, world):
    play(guard, world.dies(), 3, release="silent")
    asked = next(at for at, action in guard.done if action.name == "release")
    withdrawn = next(at for at, action in guard.done if action.name == "withdraw")
    assert withdrawn - asked <= POLICY.release_seconds + 0.2


def test_a_proxy_that_cannot_be_told_stops_nothing(guard, world):
    play(guard, world.dies(), 5, tell_proxies=Outcome.FAILED)
    assert guard.names() == [*STEPS, "alert"]
    assert guard.state.phase is Phase.COOLING


def test_results_of_another_incident_are_not_heard(guard, world):
    world = world.dies(fence=Result("pg1-7-9", Outcome.DONE, world.now + 5, world.now + 5))
    play(guard, world, 2, fence="silent")
    assert guard.names() == ["fence", "alert"]
