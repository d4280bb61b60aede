# SPDX-License-Identifier: GPL-3.0-or-later
"""A judge of the failover guard and all the moves of its small world, for the walk over every order of them.

The judge is written from the rules alone and shares no code with the guard.
"""

from __future__ import annotations

from dataclasses import dataclass

from diting.core.failover import decide
from diting.core.failover_state import Death, FailoverPolicy, FailoverState
from diting.core.failover_table import ACTIONS, Phase
from diting.core.failover_view import Answer, Outcome, Power, ReadBack, Result
from support.failover_world import STEP, TARGET, World, replace

POLICY = FailoverPolicy(
    confirm_seconds=0.2,
    confirm_probes=2,
    fence_seconds=0.5,
    read_back_seconds=0.5,
    last_look_seconds=0.35,
    isolate_seconds=0.35,
    release_seconds=0.35,
    tell_seconds=0.2,
    return_seconds=0.2,
    comeback_seconds=1.0,
    suspect_limit_seconds=1.0,
    fence_max_per_window=2,
)
ONCE = ("fence", "isolate", "release", "tell_proxies", "power_on")
"""Actions that are never given twice in one incident, restart or not."""


@dataclass(frozen=True)
class Judge:
    """What has really been shown to the guard, kept by the moves and not by the guard."""

    ordered_at: float | None = None
    revision: int | None = None
    """The leader key's when the fence was ordered."""
    off: tuple[str, float] | None = None
    """Incident and asking moment of the newest "off"."""
    last_heard: float = 0.0
    """Newest answer over TCP, REST or SQL: that speaks against a fence."""
    last_sign: float = 0.0
    """Newest sign of any kind: that speaks against a release."""
    fences: tuple[float, ...] = ()
    given: tuple[tuple[str, str], ...] = ()
    """(action, incident) of what was ordered and must not be again."""


@dataclass(frozen=True)
class Node:
    world: World
    state: FailoverState
    pending: tuple[tuple[str, str, float], ...] = ()
    """(action, incident, moment) of orders nobody has answered yet."""
    judge: Judge = Judge()


def vote(world: World) -> bool:
    """Two live vantage points, one a replica."""
    live = {"ops1", "pg2", "pg3"} - set(world.stale)
    return len(live) >= 2 and bool(live & {"pg2", "pg3"})


def allowed(world: World) -> bool:
    flags = (world.lever, world.maintenance, world.planned, world.paused, world.paused_by_hand)
    return all(flag is False for flag in flags) and world.armed and world.locked


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
    world, judge = node.world, node.judge
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
            assert world.elsewhere is not None, path
            assert len(judge.fences) + world.elsewhere < POLICY.fence_max_per_window, path
            judge = replace(
                judge,
                ordered_at=world.now,
                revision=world.mod_revision,
                off=None,
                fences=(*judge.fences, world.now),
            )
        if action.name == "move_etcd_leader":
            assert allowed(world), path
            assert world.etcd_leader == world.holder, path
            assert not world.leave_etcd_leader, path
        if action.name in ("isolate", "release"):
            assert judge.off is not None, path
            assert judge.off[0] == incident, path
            assert judge.ordered_at is not None, path
            assert judge.off[1] >= judge.ordered_at, path
            assert judge.last_sign <= judge.off[1] + 1e-6, path
            assert allowed(world), path
            assert supported(world, judge.revision), path
        if action.name == "release":
            assert action.args["mod_revision"] == judge.revision, path
            assert ("isolate", incident) in judge.given, path
    return judge


def answer(name: str, outcome: Outcome | Power, *, foreign: bool = False):
    """A move: the pending ``name`` is answered so."""

    def move(node: Node) -> Node | None:
        waiting = [item for item in node.pending if item[0] == name]
        if not waiting:
            return None
        _name, incident, asked = waiting[-1]
        ended = node.world.now + 0.01
        pending = tuple(item for item in node.pending if item[0] != name)
        incident = "another-1-1" if foreign else incident
        judge = node.judge
        if isinstance(outcome, Power):
            read = ReadBack(incident, outcome, asked, ended, outcome.value)
            world = replace(node.world, read_back=read)
            if outcome is Power.OFF and not foreign:
                judge = replace(judge, off=(incident, asked))
        else:
            world = replace(node.world, **{name: Result(incident, outcome, asked, ended, outcome.value)})
            if name == "release" and outcome is Outcome.DONE and not foreign:
                world = replace(world, holder=None)
        return replace(node, world=world, pending=pending, judge=judge)

    return move


def change(**changes):
    """A move: facts of the world change."""

    def move(node: Node) -> Node | None:
        world = replace(node.world, **changes)
        return None if world == node.world else replace(node, world=world)

    return move


def lives(judge: Judge, moment: float) -> Judge:
    """Heard of, beyond doubt, up to ``moment``."""
    return replace(judge, last_heard=moment, last_sign=moment)


def sign(kind: str):
    """A move: the primary is heard of in this way, just now."""

    def move(node: Node) -> Node | None:
        world, now = node.world, node.world.now + 0.03
        if world.alive_until is None:
            return None
        if kind == "fed":
            world = replace(world, fed_at=now)
        elif kind == "renewed":
            # etcd's whole seconds, cut off twice, hide a rise of less than two; a real renewal comes loop_wait after the one before.
            hidden = now - world.renewed_at < 2.1
            world = replace(world, renewed_at=now)
            if hidden:
                return replace(node, world=world)
        elif kind == "refused":
            world = replace(world, tcp=Answer.REFUSED)
            now = world.now + 0.05
        else:
            vantage, _, probe = kind.partition(":")
            world = replace(world, heard=((vantage, probe, now),))
        heard = node.judge.last_heard if kind in ("refused", "renewed", "fed") else now
        return replace(node, world=world, judge=replace(node.judge, last_sign=now, last_heard=heard))

    return move


def dies(node: Node) -> Node | None:
    if node.world.alive_until is not None:
        return None
    world = node.world
    return replace(node, world=world.dies(), judge=lives(node.judge, world.now))


def rewrites(node: Node) -> Node | None:
    """The holder writes its key anew, which only a living one does."""
    if (node.world.holder, node.world.mod_revision) != (TARGET, 7):
        return None
    world = replace(node.world, mod_revision=8)
    return replace(node, world=world, judge=lives(node.judge, world.now + 0.03))


def another_leads(node: Node) -> Node | None:
    """Another member takes the key; etcd gives no revision twice."""
    if node.world.holder == "pg2":
        return None
    return replace(node, world=replace(node.world, holder="pg2", mod_revision=node.world.mod_revision + 2))


def leads_again(node: Node) -> Node | None:
    """The old target, alive, has won the key back: a new key of a new revision."""
    if node.world.holder == TARGET:
        return None
    world = replace(node.world, holder=TARGET, mod_revision=node.world.mod_revision + 10)
    return replace(node, world=world, judge=lives(node.judge, world.now + 0.03))


def revives(node: Node) -> Node | None:
    if node.world.alive_until is None:
        return None
    world = replace(node.world, alive_until=None, heard=(), tcp=Answer.TIMEOUT)
    return replace(node, world=world, judge=lives(node.judge, world.now + STEP))


def sleeps(node: Node) -> Node:
    """The guard is not scheduled for longer than any deadline of a step; what is under way goes stale."""
    return replace(node, world=node.world.after(0.7))


def restarts(node: Node) -> Node:
    """The process dies and comes again: state from its JSON form, every pending answer lost."""
    world = replace(
        node.world,
        run=node.world.run + "x" if len(node.world.run) < 8 else "life-1",
        **dict.fromkeys(
            ("fence", "read_back", "isolate", "unisolate", "release", "tell_proxies", "power_on")
        ),
    )
    state = FailoverState.from_dict(node.state.as_dict())
    return replace(node, world=world, state=state, pending=(), judge=replace(node.judge, off=None))


SIGNS = {kind: sign(kind) for kind in ("ops1:tcp", "pg2:rest", "pg3:sql", "fed", "renewed", "refused")}
ANSWERS = {
    f"{name}={outcome.value}": answer(name, outcome)
    for name in ("fence", "isolate", "release")
    for outcome in Outcome
} | {f"read_back={power.value}": answer("read_back", power) for power in Power}
MOVES = {
    "nothing": lambda node: node,
    "dies": dies,
    "revives": revives,
    "sleeps": sleeps,
    "restarts": restarts,
    **SIGNS,
    **ANSWERS,
    "read_back=foreign off": answer("read_back", Power.OFF, foreign=True),
    "tell_proxies=done": answer("tell_proxies", Outcome.DONE),
    "new etcd leader": lambda node: replace(
        node, world=replace(node.world, raft_term=node.world.raft_term + 1, renewed_at=node.world.now)
    ),
    "lever": change(lever=True),
    "gate unreadable": change(maintenance=None),
    "planned work": change(planned=True),
    "patroni paused": change(paused=True),
    "guard paused": change(paused_by_hand=True),
    "disarmed": change(armed=False),
    "lock lost": change(locked=False),
    "others fenced": change(elsewhere=2),
    "others unknown": change(elsewhere=None),
    "etcd leads beside": change(etcd_leader=TARGET),
    "leave it there": change(leave_etcd_leader=True),
    "control deaf": change(stale=("ops1",)),
    "replicas deaf": change(stale=("pg2", "pg3")),
    "two deaf": change(stale=("ops1", "pg2")),
    "etcd refuses writes": change(etcd_writes=False),
    "etcd silent": change(etcd_reads=False),
    "no candidate": change(up=()),
    "all clear": change(
        lever=False,
        maintenance=False,
        planned=False,
        paused=False,
        paused_by_hand=False,
        armed=True,
        locked=True,
        elsewhere=0,
        etcd_leader="pg2",
        leave_etcd_leader=False,
        stale=(),
        etcd_writes=True,
        etcd_reads=True,
        up=("pg2", "pg3"),
    ),
    "leads again": leads_again,
    "another leads": another_leads,
    "key gone": change(holder=None),
    "key rewritten": rewrites,
}


PLAIN = frozenset({str, int, bool, Answer, Outcome, Power, Phase, Death})


def tick(node: Node, path: tuple[str, ...]) -> Node:
    node = replace(node, world=node.world.after(STEP))
    state, actions = decide(node.state, node.world.see(), node.world.now, POLICY)
    judge = check(replace(node, state=state), actions, path)
    names = {action.name for action in actions}
    pending = [item for item in node.pending if item[0] not in names]
    pending += [
        (a.name, str(a.args.get("incident")), node.world.now)
        for a in actions
        if "alert" not in a.name and a.name != "move_etcd_leader"
    ]
    return Node(node.world, state, tuple(pending), judge)


def key(node: Node) -> tuple:
    """The node with every moment as an age, so that the same situation later is the same node."""
    now = node.world.now

    def age(value):
        kind = type(value)
        if kind is float:
            return max(-4.0, round(value - now, 2)) if value > 100 else value
        if kind is tuple:
            return tuple([age(item) for item in value]) if value else value
        if value is None or kind in PLAIN:
            return value
        return tuple([age(item) for item in vars(value).values()])

    world = [age(value) for name, value in vars(node.world).items() if name != "now"]
    state = [age(value) for name, value in vars(node.state).items() if name != "reason"]
    return (tuple(world), tuple(state), age(node.pending), age(node.judge))


@dataclass
class Walk:
    orders: int = 0
    nodes: int = 0
    ticks: int = 0
    released: int = 0
    phases: frozenset[Phase] = frozenset()


def walk(start: Node, depth: int, moves=MOVES) -> Walk:
    """Walk every sequence of moves up to ``depth``. Raises as soon as one breaks a law."""
    found = Walk()
    level = {key(start): (start, 1, ())}
    seen_phases = set()
    for _depth in range(depth):
        following: dict[tuple, tuple[Node, int, tuple[str, ...]]] = {}
        for node, ways, path in level.values():
            for name, move in moves.items():
                moved = move(node)
                if moved is None:
                    continue
                after = tick(moved, (*path, name))
                found.ticks += 1
                found.orders += ways
                seen_phases.add(after.state.phase)
                found.released += sum(1 for item in after.judge.given if item[0] == "release") and ways
                mark = key(after)
                known = following.get(mark)
                following[mark] = (after, ways + (known[1] if known else 0), (*path, name))
        found.nodes += len(following)
        level = following
    found.phases = frozenset(seen_phases)
    return found
