# SPDX-License-Identifier: GPL-3.0-or-later
"""From the fence to the release and the host's return; time and form of the decision."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pytest

from diting.core.failover import decide
from diting.core.failover_state import FailoverPolicy, FailoverState
from diting.core.failover_table import Phase
from diting.core.failover_view import (
    Answer,
    Observation,
    Outcome,
    Power,
    ReadBack,
    earliest_moment,
    latest_moment,
)
from support.failover_world import POLICY, Guard, Result, World, clear, play, replace, settle

CORE = Path(__file__).parents[2] / "src/diting/core"
STEPS = ["fence", "alert", "read_back", "last_look", "isolate", "release", "tell_proxies"]


@pytest.fixture
def guard():
    return Guard()


@pytest.fixture
def world(guard):
    return settle(guard, World())


def until(guard, world, name, **answers):
    """Play until this action is given."""
    for _tick in range(50):
        if name in guard.names():
            return world
        world = play(guard, world, 0.1, **answers)
    raise AssertionError(guard.names())


def test_a_dead_primary_is_fenced_proven_and_released(guard, world):
    world = play(guard, world.dies(), 1.2)
    assert guard.names() == STEPS
    release = next(action for _at, action in guard.done if action.name == "release")
    assert release.args["target"] == "pg1"
    assert release.args["mod_revision"] == 7
    assert guard.state.phase is Phase.COOLING


def test_the_host_comes_back_when_another_member_leads(guard, world):
    world = play(guard, world.dies(), 1.2)
    play(guard, replace(world, holder="pg2", mod_revision=9), 0.5)
    assert guard.names()[len(STEPS) : len(STEPS) + 3] == ["unisolate", "power_on", "read_back"]
    assert guard.state.phase is Phase.WATCHING
    assert guard.state.target == "pg2"


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


def test_a_proxy_that_cannot_be_told_stops_nothing(guard, world):
    play(guard, world.dies(), 5, tell_proxies=Outcome.FAILED)
    assert guard.names() == [*STEPS, "alert"]
    assert guard.state.phase is Phase.COOLING


def test_results_of_another_incident_are_not_heard(guard, world):
    world = world.dies(fence=Result("pg1-7-9", Outcome.DONE, world.now + 5, world.now + 5))
    play(guard, world, 2, fence="silent")
    assert guard.names() == ["fence", "alert"]


# --- time and form --------------------------------------------------------------------------------


def test_decisions_do_not_depend_on_the_epoch_of_the_clock():
    """No wall clock comes in, and the monotonic one may start anywhere."""
    runs = []
    for start in (10.0, 1000.0, 5_000_000.0):
        guard = Guard()
        world = settle(guard, World(now=start, renewed_at=start - 5))
        play(guard, world.dies(), 2)
        runs.append([(round(at - start, 3), action.name) for at, action in guard.done])
    assert runs[0] == runs[1] == runs[2]


def test_the_decision_reads_no_clock_and_rolls_no_dice():
    for path in sorted(CORE.glob("failover*.py")):
        imported = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            )
        }
        assert not imported & {"time", "datetime", "random", "os", "socket"}, path


def test_an_age_becomes_the_moment_at_its_careful_end():
    """Asked at 99.5, answered at 100: "two seconds ago" lies between 97.5 and 98."""
    assert latest_moment(100.0, 2.0) == 98.0
    assert earliest_moment(99.5, 2.0) == 97.5
    assert latest_moment(100.0, -3600.0) == 100.0  # a clock stepped back


def test_an_action_that_was_overtaken_by_time_is_not_begun(guard, world):
    play(guard, world.dies(), 1.2)
    for at, action in guard.done:
        if action.name not in ("raise_alert", "resolve_alert"):
            assert action.args["not_after"] == at + POLICY.begin_seconds
            assert action.args["deadline_seconds"] > 0


def test_all_three_forms_survive_json(guard, world):
    world = play(guard, world.dies(), 0.9)
    seen = world.see()
    assert Observation.from_dict(json.loads(json.dumps(seen.as_dict()))) == seen
    assert FailoverState.from_dict(json.loads(json.dumps(guard.state.as_dict()))) == guard.state
    assert FailoverPolicy.from_dict(json.loads(json.dumps(POLICY.as_dict()))) == POLICY
    again = decide(
        FailoverState.from_dict(guard.state.as_dict()),
        Observation.from_dict(seen.as_dict()),
        world.now,
        POLICY,
    )
    assert again == decide(guard.state, seen, world.now, POLICY)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"phase": "asleep"}, "phase: found 'asleep', wanted one of"),
        ({"since": "now"}, "since: found 'now', wanted float"),
        ({"fences": 3}, "fences: found 3"),
        ({"lease": {"asked_at": 1.0}}, "lease.answered_at: missing"),
        ({"colour": 1}, "colour: FailoverState has no such field"),
    ],
    ids=str,
)
def test_a_state_that_cannot_be_read_says_where(broken, words):
    with pytest.raises(ValueError, match=words):
        FailoverState.from_dict({**FailoverState().as_dict(), **broken})


def test_a_policy_names_every_bad_limit_at_once():
    with pytest.raises(ValueError, match=r"confirm_seconds.*hang_seconds.*confirm_probes"):
        FailoverPolicy(confirm_seconds=0, hang_seconds=-1, confirm_probes=0)


def test_a_run_that_went_through_json_decides_the_same(guard, world):
    """What replay does: every state, observation and policy from its JSON form, every decision again."""
    states = [guard.state]
    seen = []
    world = world.dies()
    for _tick in range(25):
        seen.append((world.see(), world.now))
        for action in guard.tick(world):
            world = clear(world, action)
            if action.name == "release":
                world = replace(world, holder="pg2", mod_revision=9, etcd_leader="pg3")
        states.append(guard.state)
        world = world.after(0.1)
    assert guard.names()[-3:] == ["unisolate", "power_on", "read_back"]
    for number, (observation, now) in enumerate(seen):
        given = [json.loads(json.dumps(thing.as_dict())) for thing in (states[number], observation, POLICY)]
        state, view, policy = (
            kind.from_dict(data)
            for kind, data in zip((FailoverState, Observation, FailoverPolicy), given, strict=True)
        )
        after, actions = decide(state, view, now, policy)
        assert after == states[number + 1]
        json.dumps([action.as_dict() for action in actions])


def test_the_decision_counts_from_the_end_of_the_look(guard, world):
    """A look that hung until the evidence in it was old; and one that took a while, which is no fault."""
    world = until(guard, world.dies(), "last_look")
    seen = world.see()
    slow = dataclasses.replace(seen, taken_at=world.now + POLICY.last_look_seconds + 0.1)
    state, _actions = decide(guard.state, slow, world.now, POLICY)
    assert state.phase is Phase.STANDING_DOWN
    begun = world.now - 0.5
    state, actions = decide(guard.state, seen, begun, POLICY)
    assert state.phase is Phase.ISOLATING
    assert state.since == seen.taken_at
    assert actions[0].args["not_after"] == seen.taken_at + POLICY.begin_seconds
