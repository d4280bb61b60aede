# SPDX-License-Identifier: GPL-3.0-or-later
"""A judge of the failover guard, for the walk over every order of moves.

It is written from the rules alone and shares no code with the guard.
"""

from __future__ import annotations

from dataclasses import dataclass

from diting.core.failover_state import FailoverPolicy, FailoverState
from diting.core.failover_table import ACTIONS, Phase
from support.failover_world import TARGET, World, replace

POLICY = FailoverPolicy(
    confirm_seconds=0.2,
    confirm_probes=2,
    fence_seconds=0.5,
    read_back_seconds=0.5,
    late_look_seconds=0.2,
    last_look_seconds=0.35,
    isolate_seconds=0.35,
    release_seconds=0.35,
    tell_seconds=0.2,
    return_seconds=0.2,
    power_on_pause_seconds=0.1,
    rejoin_seconds=0.8,
    comeback_seconds=1.0,
    return_after_seconds=0.2,
    suspect_limit_seconds=1.0,
    unable_seconds=1.0,
    fence_max_per_window=2,
)
EVERYBODY = ("ops1", "pg2", "pg3")
ONCE = ("fence", "isolate", "release", "tell_proxies")
"""Actions that are never given twice in one incident, restart or not."""


@dataclass(frozen=True)
class Judge:
    """What has really been shown to the guard, kept by the moves and not by the guard."""

    ordered_at: float | None = None
    revision: int | None = None
    """The leader key's when the fence was ordered."""
    raft_term: int | None = None
    """etcd's when the primary was last heard of, or later: the guard knows of no election before its suspicion."""
    confirmed: tuple[str, ...] = ()
    """Vantage points that spoke for the fence."""
    open_since: float | None = None
    """When an order to switch off was given whose end nobody knows: it may still be carried out."""
    carried_out: str | None = None
    """Incident whose order is known to have been carried out. A guard that dies may have sent it, or not yet."""
    off: tuple[str, float] | None = None
    """Incident and asking moment of the newest "off"."""
    last_heard: float = 0.0
    """Newest answer over TCP, REST or SQL: that speaks against a fence."""
    last_refused: float = 0.0
    """Newest refusal: whatever refuses has a kernel that lives."""
    last_sign: float = 0.0
    """Newest sign of any kind: that speaks against a release."""
    last_clear: float = 0.0
    """Newest sign that is beyond doubt and was shown: that speaks against one that is under way, too."""
    fences: tuple[float, ...] = ()
    given: tuple[tuple[str, str], ...] = ()
    """(action, incident) of what was ordered and must not be again."""
    led: tuple[str, int, float] | None = None
    """Another member that holds the key, the key's revision, and when that was first shown; begun anew with every break."""
    in_flight: bool = False
    """A release has gone out, its end is not known, and it was not withdrawn: it may land at any moment."""


@dataclass(frozen=True)
class Node:
    world: World
    state: FailoverState
    pending: tuple[tuple[str, str, float], ...] = ()
    """(action, incident, moment) of orders nobody has answered yet."""
    judge: Judge = Judge()


def vote(world: World) -> bool:
    """Two live vantage points, one a replica."""
    live = set(EVERYBODY) - set(world.stale)
    return len(live) >= 2 and bool(live & {"pg2", "pg3"})


def permitted(world: World) -> bool:
    flags = (world.lever, world.maintenance, world.planned, world.paused, world.paused_by_hand)
    return all(flag is False for flag in flags) and world.armed and world.refusal == ""


def allowed(world: World) -> bool:
    return permitted(world) and world.locked


def supported(world: World, revision: int | None = None) -> bool:
    key = world.holder == world.target == TARGET and revision in (None, world.mod_revision)
    return (
        vote(world)
        and key
        and world.etcd_writes
        and world.etcd_reads
        and bool(set(world.sync) & set(world.up))
    )


def check(node: Node, actions, path) -> Judge:
    """Raises for anything that must never happen; returns what is remembered of it."""
    world, judge = node.world, follow_leader(node.world, node.judge)
    for action in actions:
        assert action.name in ACTIONS, path
        incident = str(action.args.get("incident"))
        if action.name in ONCE:
            assert (action.name, incident) not in judge.given, (action, path)
            judge = replace(judge, given=(*judge.given, (action.name, incident)))
        if action.name == "fence":
            assert allowed(world), path
            assert supported(world), path
            assert world.alive_until is not None, path
            assert world.now - judge.last_heard >= POLICY.confirm_seconds - 1e-6, path
            assert world.now - judge.last_refused >= POLICY.hang_seconds - 1e-6, path
            assert world.elsewhere is not None, path
            assert len(judge.fences) + world.elsewhere < POLICY.fence_max_per_window, path
            judge = replace(
                judge,
                ordered_at=world.now,
                open_since=world.now,
                revision=world.mod_revision,
                confirmed=tuple(name for name in EVERYBODY if name not in world.stale),
                off=None,
                fences=(*judge.fences, world.now),
            )
        if action.name == "move_etcd_leader":
            assert allowed(world), path
            assert world.etcd_leader == world.holder, path
            assert not world.leave_etcd_leader, path
        if action.name in ("isolate", "release"):
            assert judge.carried_out == incident, path
            assert judge.off is not None, path
            assert judge.off[0] == incident, path
            assert judge.ordered_at is not None, path
            assert judge.off[1] >= judge.ordered_at, path
            assert judge.last_sign <= judge.off[1] + 1e-6, path
            assert allowed(world), path
            assert supported(world, judge.revision), path
        if action.name == "isolate":
            # Everybody has looked again; but for one who did not confirm, was waited for, and would only have seen a lie.
            assert not set(world.stale) & set(judge.confirmed), path
            assert len(world.stale) <= 1, path
            assert not world.stale or POLICY.power_fence, path
            assert not world.stale or world.now - judge.off[1] >= POLICY.late_look_seconds - 1e-6, path
            assert set(action.args["survivors"]) == {"pg2", "pg3"} - set(world.stale), path
        if action.name == "release":
            assert action.args["mod_revision"] == judge.revision, path
            assert ("isolate", incident) in judge.given, path
            judge = replace(judge, in_flight=True)
        if action.name == "power_on":
            assert judge.open_since is None or world.now - judge.open_since > POLICY.fence_seconds, path
            # Tried again only while that is allowed: people at work on a host must not be surprised.
            assert permitted(world) or ("power_on", incident) not in judge.given, path
            judge = replace(judge, given=(*judge.given, ("power_on", incident)))
        if action.name == "unisolate" and node.state.phase is Phase.RETURNING:
            assert settled(world, judge), path
        if action.name == "withdraw":
            judge = replace(judge, in_flight=False)
    return still_right(node, judge, path)


def follow_leader(world: World, judge: Judge) -> Judge:
    """Who leads beside the target. What etcd does not say cannot be known: a change in its silence is shown after it."""
    if not world.etcd_reads:
        return judge
    if world.holder in (None, TARGET):
        return replace(judge, led=None)
    same = judge.led is not None and judge.led[:2] == (world.holder, world.mod_revision)
    return judge if same else replace(judge, led=(world.holder, world.mod_revision, world.now))


def settled(world: World, judge: Judge) -> bool:
    """Whether a fenced host may come back: another member leads and has done so for a while, or time is up."""
    if judge.ordered_at is not None and world.now - judge.ordered_at > POLICY.comeback_seconds:
        return True
    return judge.led is not None and world.now - judge.led[2] >= POLICY.return_after_seconds - 1e-6


def still_right(node: Node, judge: Judge, path) -> Judge:
    """What is under way in etcd may land at any moment: so at every moment it has to be right."""
    world = node.world
    if not judge.in_flight:
        return judge
    if world.holder != TARGET or world.mod_revision != judge.revision:
        return replace(judge, in_flight=False)  # it has landed, or its comparison fails for ever
    assert node.state.phase is Phase.RELEASING, path
    assert judge.off is not None, path
    assert judge.last_clear <= judge.off[1] + 1e-6, path
    # Patroni's pause is read from etcd; while that is silent, nobody can know of it.
    assert permitted(world if world.etcd_reads else replace(world, paused=False)), path
    return judge


def lives(judge: Judge, moment: float, raft_term: int) -> Judge:
    """Heard of, beyond doubt, up to ``moment``."""
    return replace(judge, last_heard=moment, last_sign=moment, last_clear=moment, raft_term=raft_term)
