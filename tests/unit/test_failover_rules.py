# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""What has to be seen before a fence, rule by rule."""

from __future__ import annotations

import dataclasses

import pytest

from diting.core.failover import decide
from diting.core.failover_state import FailoverPolicy
from diting.core.failover_table import Phase
from diting.core.failover_view import Answer, Outcome, Probe
from support.failover_fixtures import guard, world  # noqa: F401 - fixtures are used by their names
from support.failover_world import POLICY, Guard, World, play, replace, settle


def test_silence_shorter_than_confirm_seconds_fences_nobody(guard, world):
    world = play(guard, world.dies(), 0.25)
    assert guard.state.phase is Phase.SUSPECT
    play(guard, replace(world, alive_until=None), 2)
    assert guard.names() == []
    assert guard.state.phase is Phase.WATCHING


def test_the_shipped_default_outlasts_a_live_migration(world):
    guard = Guard(FailoverPolicy())
    world = settle(guard, World())
    world = play(guard, world.dies(), 2.9)
    assert guard.names() == []
    play(guard, world, 0.4)
    assert guard.names()[0] == "fence"


@pytest.mark.parametrize(
    ("stale", "fenced"),
    [((), True), (("ops1",), True), (("pg3",), True), (("pg2", "pg3"), False), (("ops1", "pg2"), False)],
    ids=str,
)
def test_two_vantage_points_one_of_them_a_replica(guard, world, stale, fenced):
    play(guard, world.dies(stale=stale), 1)
    assert ("fence" in guard.names()) is fenced


def test_one_vantage_point_that_hears_something_is_enough(guard, world):
    world = world.dies()
    for _tick in range(20):
        guard.tick(replace(world, heard=(("pg3", "rest", world.now - 0.06),)))
        world = world.after(0.1)
    assert guard.names() == []


def test_what_never_saw_the_primary_alive_may_not_accuse_it():
    """A guard that starts while the primary is silent, or behind a wall, knows of no death."""
    guard = Guard()
    play(guard, replace(World(), alive_until=900.0), 30)
    assert guard.names() == []


def test_a_lone_restart_in_an_outage_still_knows_whom_it_saw(guard, world):
    world = play(guard, world.dies(), 0.2)
    play(guard, replace(world, run="life-2"), 1.5)
    assert "release" in guard.names()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"armed": False}, "not armed"),
        ({"lever": True}, "lever"),
        ({"lever": None}, "could not be read"),
        ({"maintenance": True}, "maintenance"),
        ({"maintenance": None}, "could not be read"),
        ({"planned": True}, "planned work"),
        ({"planned": None}, "could not be read"),
        ({"refusal": "l4.failover on diting needs 1 approval(s)"}, "the gate refuses: l4.failover on diting"),
        ({"refusal": None}, "the gate could not be asked"),
        ({"paused": True}, "Patroni is paused"),
        ({"paused_by_hand": True}, "the guard is paused"),
        ({"elsewhere": 1}, "1 fences within 900 s"),
        ({"elsewhere": None}, "how often others"),
    ],
    ids=str,
)
def test_what_forbids_a_fence_alerts_once_and_leaves_it_to_the_ttl(guard, world, what, words):
    world = play(guard, world.dies(**what), 5)
    assert guard.names() == ["alert"]
    assert words in str(guard.alerts()[0])
    assert guard.state.phase is Phase.ALERT_ONLY
    play(guard, replace(world, holder="pg2", mod_revision=9, etcd_leader="pg3"), 1)
    assert guard.names() == ["alert"]
    assert guard.state.phase is Phase.WATCHING


def test_when_the_lever_is_put_back_silence_counts_anew(guard, world):
    world = play(guard, world.dies(lever=True), 5)
    world = play(guard, replace(world, lever=False), 0.25)
    assert guard.names() == ["alert"]
    play(guard, world, 0.5)
    assert guard.names()[1] == "fence"


@pytest.mark.parametrize(
    "what",
    [
        {"etcd_writes": False},
        {"etcd_reads": False},
        {"locked": False},
        {"up": ()},
        {"sync": ()},
        {"paused": None},
        {"up": ("pg2",), "sync": ("pg3",)},
    ],
    ids=str,
)
def test_what_cannot_be_seen_is_waited_for_and_then_left_to_the_ttl(guard, world, what):
    calm = {name: getattr(world, name) for name in what}
    dead = world.dies(**what)
    play(guard, dead, 5)
    assert guard.names() == []
    assert guard.state.phase is Phase.SUSPECT
    brief = Guard(state=guard.state)
    play(brief, replace(dead.after(5), **calm), 0.3)
    assert brief.names()[0] == "fence"
    play(guard, dead.after(5), 60)
    assert guard.names() == ["alert"]
    assert guard.state.phase is Phase.STANDING_DOWN


@pytest.mark.parametrize(
    "lives",
    [{"tcp": Answer.OK, "rest": Answer.OK}, {"tcp": Answer.OK}, {"rest": Answer.OK}],
    ids=["both", "tcp", "rest"],
)
def test_a_hang_needs_hang_seconds_and_a_timeout(guard, world, lives):
    """Clients that give up fill the queue of a stopped postmaster, and TCP falls silent, too: Patroni still answers."""
    hung = world.dies(**lives, broken=Answer.TIMEOUT)
    hung = play(guard, hung, 1.9)
    assert guard.names() == []
    play(guard, hung, 0.4)
    assert guard.names()[0] == "fence"
    assert guard.order("fence").args["death"] == "hung"


@pytest.mark.parametrize("answer", [Answer.WAITING_SYNC, Answer.REJECTED, Answer.REFUSED], ids=str)
def test_a_server_that_says_anything_else_is_no_hang(guard, world, answer):
    """A wait for a standby, a wrong password, a postmaster that restarts: Patroni's business."""
    play(guard, world.dies(tcp=Answer.OK, rest=Answer.OK, broken=answer), 30)
    assert guard.names() == []


@pytest.mark.parametrize(
    "answer", [Answer.REFUSED, Answer.REJECTED, Answer.NO_SPACE, Answer.READ_ONLY], ids=str
)
@pytest.mark.parametrize("way", ["tcp", "rest", "broken"])
def test_whatever_answers_is_not_gone(guard, world, way, answer):
    """A killed postmaster refuses, a wrong password is rejected: the host lives, and restarts it by itself."""
    world = play(guard, world.dies(**{way: answer}, space=()), 30)
    assert guard.names() == []
    # Once it is silent, too, it is given the time of a hang: it was in trouble, and not without power.
    world = replace(world, **{way: Answer.TIMEOUT}, replied_at=world.now)
    world = play(guard, world, 1.9)
    assert guard.names() == []
    play(guard, world, 0.4)
    assert guard.names()[0] == "fence"


@pytest.mark.parametrize("way", ["tcp", "rest"])
def test_a_way_that_never_had_a_good_answer_accuses_nobody(way):
    """A certificate that is wrong from the first day makes no outage of every lost packet."""
    guard = Guard()
    world = World()

    def see(world):
        seen = world.see()
        answer = Answer.REJECTED if world.alive_until is None else Answer.TIMEOUT
        never = {way: Probe(answer, world.now - 0.05, None, 900.0, 99)}
        vantages = tuple(dataclasses.replace(v, **never) for v in seen.vantages)
        return dataclasses.replace(seen, vantages=vantages)

    for _tick in range(50):
        guard.state, actions = decide(guard.state, see(world), world.now, guard.policy)
        assert actions == [resolved for resolved in actions if resolved.name == "resolve_alert"]
        world = world.after(0.1) if world.now < 1001 or world.alive_until else world.dies()
    assert guard.state.phase is Phase.WATCHING


@pytest.mark.parametrize("answer", [Answer.NO_SPACE, Answer.READ_ONLY], ids=str)
def test_no_space_fences_only_towards_a_candidate_that_has_some(guard, world, answer):
    full = world.dies(tcp=Answer.OK, rest=Answer.OK, broken=answer, space=())
    full = play(guard, full, 5)
    assert guard.names() == []
    full = play(guard, replace(full, space=("pg2",), up=("pg3",)), 5)
    assert guard.names() == []
    play(guard, replace(full, up=("pg2",)), 1)
    assert guard.names()[0] == "fence"
    assert guard.order("fence").args["death"] == "full"


def test_own_fences_are_counted_by_whoever_remembers_more(guard, world):
    """A state file that was lost, or came back from a backup, has forgotten the fence of five minutes ago; etcd has not."""
    play(guard, world.dies(recorded=1), 3)
    assert guard.names() == ["alert"]
    assert "1 fences within 900 s" in str(guard.alerts()[0])
    roomy = Guard(replace(POLICY, fence_max_per_window=2))
    world = settle(roomy, World(recorded=1))
    roomy.state = replace(roomy.state, fences=(world.now - 100,))
    play(roomy, world.dies(), 3)
    assert roomy.names()[0] == "fence", "the same fence is not counted twice"


def test_a_temporary_file_that_cannot_be_written_alone_takes_longer(guard, world):
    """Commits work: that may be the first sign of a full disk, or a full disk that matters little."""
    full = world.dies(tcp=Answer.OK, rest=Answer.OK, broken=Answer.NO_TEMP)
    full = play(guard, full, POLICY.no_space_seconds * 3 - 0.2)
    assert guard.names() == []
    failing = Guard(state=guard.state)
    play(failing, replace(full, broken=Answer.NO_SPACE), 0.1)
    assert failing.names()[0] == "fence", "a commit that fails as well is no longer a beginning"
    play(guard, full, 1)
    assert guard.order("fence").args["death"] == "full"


def test_the_window_of_fences_is_kept_and_then_forgotten(guard, world):
    world = play(guard, world.dies(), 1.2)
    world = replace(world, holder="pg2", target="pg2", mod_revision=9, alive_until=None, etcd_leader="pg3")
    world = play(guard, world, 3)
    second = play(guard, world.dies(sync=("pg3",)), 3)
    assert guard.names().count("fence") == 1
    assert "1 fences within 900 s" in str(guard.alerts()[-1])
    guard.tick(second.after(0.1, alive_until=None))
    later = settle(guard, second.after(900, alive_until=None))
    play(guard, later.dies(), 1)
    assert guard.names().count("fence") == 2


def test_a_host_that_boots_after_a_fence_is_not_fenced_again(world):
    guard = Guard(replace(POLICY, fence_max_per_window=30, comeback_seconds=5))
    world = settle(guard, World())
    play(guard, world.dies(), 60, release=Outcome.UNKNOWN)
    assert guard.names().count("fence") == 1
