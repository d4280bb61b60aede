# SPDX-License-Identifier: GPL-3.0-or-later
"""Every order of signs, answers, deadlines, vetoes and restarts, to a stated depth: what the guard never does.

A breadth-first walk over all sequences of moves of a small world. Sequences that lead to the same world, guard and memory of
the judge are walked on once and counted as many: ``decide`` is pure, so what follows is the same. The judge, in
``support/failover_judge.py``, is written from the rules alone.
"""

from __future__ import annotations

import random

import pytest

from diting.core.failover import decide
from diting.core.failover_state import FailoverState
from diting.core.failover_table import Phase
from support.failover_judge import POLICY, Node, check, lives
from support.failover_moves import MOVES, tick, walk
from support.failover_world import STEP, TARGET, World, replace


def settled() -> Node:
    node = Node(World(), FailoverState())
    for _tick in range(4):
        node = tick(node, ())
    return replace(node, judge=lives(node.judge, node.world.now, node.world.raft_term))


def follow(node: Node, *names: str) -> Node:
    for name in names:
        moved = MOVES[name](node)
        assert moved is not None, name
        node = tick(moved, (name,))
    return node


NOMINAL = (
    "dies",
    "nothing",
    "nothing",
    "fence=done",
    "read_back=off",
    "nothing",
    "isolate=done",
    "release=done",
)
EXPECTED = (
    Phase.WATCHING,
    Phase.SUSPECT,
    Phase.FENCING,
    Phase.READING_BACK,
    Phase.LAST_LOOK,
    Phase.ISOLATING,
    Phase.RELEASING,
    Phase.TELLING,
)

FEW = (
    "nothing",
    "restarts",
    "pg2:rest",
    "fed",
    "lever",
    "fence=done",
    "read_back=off",
    "read_back=unknown",
    "isolate=done",
    "release=done",
    "release=unknown",
    "release lands",
)


def test_the_nominal_order_releases_once():
    node = settled()
    for name, phase in zip(NOMINAL, (Phase.SUSPECT, *EXPECTED[1:]), strict=True):
        node = follow(node, name)
        assert node.state.phase is phase, name
    assert [name for name, _incident in node.judge.given] == ["fence", "isolate", "release", "tell_proxies"]


@pytest.mark.parametrize("steps", range(len(NOMINAL) + 1))
def test_any_two_moves_at_any_step(steps):
    """All of the moves, two deep, from calm and from every step of a failover."""
    found = walk(follow(settled(), *NOMINAL[:steps]), depth=2)
    print(f"{found.orders} orders, {found.ticks} decisions")
    assert found.orders > 650


def test_any_three_moves_after_the_read_back():
    """All of the moves, three deep, from the moment that "off" was read back."""
    found = walk(follow(settled(), *NOMINAL[:5]), depth=3)
    print(f"{found.orders} orders, {found.ticks} decisions, {found.released} of them released")
    assert found.orders > 30_000
    assert found.released > 0, "a walk in which nothing is ever released has tried nothing"


@pytest.mark.parametrize("settles", range(4))
def test_any_two_moves_while_another_member_settles(settles):
    """All of the moves, two deep, between the new leader and the return of the fenced host."""
    start = follow(settled(), *NOMINAL, "tell_proxies=done", "another leads", *["nothing"] * settles)
    found = walk(start, depth=2)
    print(f"{found.orders} orders, {found.ticks} decisions")
    assert found.orders > 650
    assert Phase.RETURNING in found.phases


def test_six_moves_after_the_death():
    """The moves that matter most, six deep, from the first silence: deep enough to release on the way."""
    found = walk(follow(settled(), "dies"), depth=6, moves={name: MOVES[name] for name in FEW})
    print(f"{found.orders} orders, {found.ticks} decisions, {found.released} of them released")
    assert found.orders > 16_000
    assert found.released > 0
    assert {Phase.STANDING_DOWN, Phase.ALERT_ONLY, Phase.RELEASING} <= found.phases


def test_renewals_and_elections_while_the_read_back_is_under_way():
    """A renewal is a fact of the moment: an election right after it, or a slow read-back, must not make it unseen."""
    names = ("nothing", "renewed", "new etcd leader", "read_back=off", "read_back=on", "isolate=done")
    found = walk(follow(settled(), *NOMINAL[:4]), depth=6, moves={name: MOVES[name] for name in names})
    print(f"{found.orders} orders, {found.ticks} decisions, {found.released} of them released")
    assert found.orders > 8_000
    assert found.released > 0
    assert Phase.STANDING_DOWN in found.phases


def test_the_judge_can_fail():
    """Each law is broken once: a guard without it is caught."""
    node = follow(settled(), *NOMINAL[:6])
    state, (release,) = decide(*_ready(node))
    assert release.name == "release"
    node = replace(node, state=state)
    sinful = {
        "no off": replace(node.judge, off=None),
        "foreign off": replace(node.judge, off=("another-1-1", node.world.now)),
        "off before the order": replace(node.judge, off=(str(release.args["incident"]), 0.0)),
        "sign after off": replace(node.judge, last_sign=node.world.now),
        "twice": replace(node.judge, given=(*node.judge.given, ("release", str(release.args["incident"])))),
    }
    check(node, [release], ())
    for what, judge in sinful.items():
        with pytest.raises(AssertionError):
            check(replace(node, judge=judge), [release], (what,))
    under_way = follow(settled(), *NOMINAL[:7])
    assert under_way.judge.in_flight
    check(under_way, [], ())
    for judge, world, phase in (
        (replace(under_way.judge, last_clear=under_way.world.now), under_way.world, Phase.RELEASING),
        (under_way.judge, replace(under_way.world, lever=True), Phase.RELEASING),
        (under_way.judge, under_way.world, Phase.STANDING_DOWN),
    ):
        state = replace(under_way.state, phase=phase)
        with pytest.raises(AssertionError):
            check(replace(under_way, judge=judge, world=world, state=state), [], ())
    for change_ in ({"lever": True}, {"armed": False}, {"stale": ("ops1", "pg2")}, {"etcd_writes": False}):
        with pytest.raises(AssertionError):
            check(replace(node, world=replace(node.world, **change_)), [release], ())


def _ready(node: Node):
    """Arguments of the decision that releases."""
    moved = MOVES["isolate=done"](node)
    world = moved.world.after(STEP)
    return node.state, world.see(), world.now, POLICY


GOOD = {
    "fence": "fence=done",
    "read_back": "read_back=off",
    "isolate": "isolate=done",
    "release": "release=done",
    "tell_proxies": "tell_proxies=done",
    "power_on": "power_on=done",
}


def helpful(node: Node, dice: random.Random) -> str:
    """The move that brings a failover on; left to chance alone, hardly any order would see one."""
    waiting = [GOOD[action] for action, _incident, _at in node.pending if action in GOOD]
    if node.state.phase is Phase.REJOINING and waiting == ["read_back=off"]:
        return "read_back=on"
    if waiting:
        return waiting[0]
    if node.world.holder != TARGET:
        return dice.choice(["another leads", "leads again", "revives"])
    return dice.choice(["dies", "nothing", "nothing", "all clear"])


@pytest.mark.parametrize("seed", range(3))
def test_long_orders_drawn_at_random(seed):
    """Two hundred orders of up to 120 moves: second incidents, returns of the host, restarts in the midst of them."""
    dice = random.Random(seed)
    decisions = released = most = 0
    for _order in range(200):
        node, path = settled(), ()
        for _move in range(120):
            name = helpful(node, dice) if dice.random() < 0.75 else dice.choice(list(MOVES))
            moved = MOVES[name](node)
            if moved is not None:
                path = (*path, name)
                node = tick(moved, path)
                decisions += 1
        given = [action for action, _incident in node.judge.given]
        released += given.count("release")
        most = max(most, given.count("fence"))
    print(f"{decisions} decisions, {released} releases")
    assert decisions > 10_000
    assert released > 50
    assert most == POLICY.fence_max_per_window
