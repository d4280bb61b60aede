# SPDX-License-Identifier: GPL-3.0-or-later
"""All the moves of the failover guard's small world, and the walk over every order of them."""

from __future__ import annotations

from dataclasses import dataclass

from diting.core.failover import decide
from diting.core.failover_state import Death, FailoverState
from diting.core.failover_table import Phase
from diting.core.failover_view import Answer, Outcome, Power, ReadBack, Result
from support.failover_judge import POLICY, Node, check, lives
from support.failover_world import STEP, TARGET, replace


def answer(name: str, outcome: Outcome | Power, *, foreign: bool = False):
    """A move: the pending ``name`` is answered so."""

    def move(node: Node) -> Node | None:
        waiting = [item for item in node.pending if item[0] == name]
        if not waiting:
            return None
        _name, incident, asked = waiting[-1]
        if name == "read_back" and any(item[0] == "power_on" for item in node.pending):
            return None  # one host, one call at a time
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
            if name == "fence":
                judge = replace(
                    judge,
                    carried_out=incident if outcome is Outcome.DONE else judge.carried_out,
                    open_since=judge.open_since if outcome is Outcome.UNKNOWN else None,
                )
            if name == "release" and not foreign:
                judge = replace(judge, in_flight=judge.in_flight and outcome is Outcome.UNKNOWN)
                if outcome is Outcome.DONE:
                    world = replace(world, holder=None)
        return replace(node, world=world, pending=pending, judge=judge)

    return move


def not_begun(node: Node) -> Node | None:
    """The fence was refused for its age: nothing was ordered, and nothing of it counts."""
    waiting = [item for item in node.pending if item[0] == "fence"]
    if not waiting:
        return None
    _name, incident, asked = waiting[-1]
    now = node.world.now + 0.01
    result = Result(incident, Outcome.UNKNOWN, asked, now, "not begun", begun=False)
    judge = replace(node.judge, open_since=None, fences=node.judge.fences[:-1])
    pending = tuple(item for item in node.pending if item[0] != "fence")
    return replace(node, world=replace(node.world, fence=result), pending=pending, judge=judge)


def change(**changes):
    """A move: facts of the world change."""

    def move(node: Node) -> Node | None:
        world = replace(node.world, **changes)
        return None if world == node.world else replace(node, world=world)

    return move


def sign(kind: str):
    """A move: the primary is heard of in this way, just now."""

    def move(node: Node) -> Node | None:
        world, now = node.world, node.world.now + 0.03
        if world.alive_until is None:
            return None
        if kind == "fed":
            if {"pg2", "pg3"} <= set(world.stale):
                return None
            world = replace(world, fed_at=now)
        elif kind == "renewed":
            # etcd's whole seconds, cut off twice, hide a rise of less than two: then nobody can be sure of a renewal. But
            # nobody can be sure of none either, unless an election has made every lease whole since the order.
            hidden = now - world.renewed_at < 2.1
            world = replace(world, renewed_at=now)
            if hidden:
                elected = node.judge.raft_term not in (None, world.raft_term)
                judge = node.judge if elected else replace(node.judge, last_sign=now)
                return replace(node, world=world, judge=judge)
        elif kind == "refused":
            world = replace(world, tcp=Answer.REFUSED)
            now = world.now + 0.05
        else:
            vantage, _, probe = kind.partition(":")
            if vantage in world.stale:
                return None  # nobody hears what a deaf one has heard
            world = replace(world, heard=((vantage, probe, now),))
        heard = node.judge.last_heard if kind in ("refused", "renewed", "fed") else now
        clear = now if kind != "renewed" or world.etcd_reads else node.judge.last_clear
        judge = replace(node.judge, last_sign=now, last_heard=heard, last_clear=clear)
        if kind == "refused":
            judge = replace(judge, last_refused=now)
        return replace(node, world=world, judge=judge)

    return move


def falls_silent(node: Node) -> Node | None:
    """What refused until now says nothing any more."""
    world = node.world
    if world.tcp is not Answer.REFUSED or world.alive_until is None:
        return None
    judge = replace(node.judge, last_refused=world.now)
    return replace(node, world=replace(world, tcp=Answer.TIMEOUT, replied_at=world.now), judge=judge)


def dies(node: Node) -> Node | None:
    if node.world.alive_until is not None:
        return None
    world = node.world
    return replace(node, world=world.dies(), judge=lives(node.judge, world.now, world.raft_term))


def rewrites(node: Node) -> Node | None:
    """The holder writes its key anew, which only a living one does."""
    if (node.world.holder, node.world.mod_revision) != (TARGET, 7):
        return None
    world = replace(node.world, mod_revision=8)
    return replace(node, world=world, judge=lives(node.judge, world.now + 0.03, world.raft_term))


def lands(node: Node) -> Node | None:
    """The release is carried out, and its answer is late or lost."""
    if not node.judge.in_flight:
        return None
    return replace(node, world=replace(node.world, holder=None), judge=replace(node.judge, in_flight=False))


def leads_again(node: Node) -> Node | None:
    """The old target, alive, has won the key back: a new key of a new revision."""
    if node.world.holder == TARGET:
        return None
    world = replace(node.world, holder=TARGET, mod_revision=node.world.mod_revision + 10)
    return replace(node, world=world, judge=lives(node.judge, world.now + 0.03, world.raft_term))


def another_leads(node: Node) -> Node | None:
    """Revisions only grow: a key that was written again never looks like an earlier one."""
    if node.world.holder == "pg2":
        return None
    return replace(node, world=replace(node.world, holder="pg2", mod_revision=node.world.mod_revision + 2))


def revives(node: Node) -> Node | None:
    if node.world.alive_until is None:
        return None
    refused = node.world.tcp is Answer.REFUSED
    replied_at = node.world.now if refused else node.world.replied_at
    world = replace(node.world, alive_until=None, heard=(), tcp=Answer.TIMEOUT, replied_at=replied_at)
    judge = replace(node.judge, last_refused=world.now) if refused else node.judge
    return replace(node, world=world, judge=lives(judge, world.now + STEP, world.raft_term))


def sleeps(node: Node) -> Node:
    """The guard is not scheduled for longer than any deadline of a step; what is under way goes stale."""
    return replace(node, world=node.world.after(0.7))


def restarts(node: Node) -> Node:
    """The process dies and comes again: state from its JSON form, every pending answer lost.

    A release under way is void: it names the revision of the lock, and the new life has taken that anew.
    """
    world = replace(
        node.world,
        run=node.world.run + "x" if len(node.world.run) < 8 else "life-1",
        **dict.fromkeys(
            ("fence", "read_back", "isolate", "unisolate", "release", "tell_proxies", "power_on")
        ),
    )
    state = FailoverState.from_dict(node.state.as_dict())
    return replace(
        node, world=world, state=state, pending=(), judge=replace(node.judge, off=None, in_flight=False)
    )


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
    "falls silent": falls_silent,
    "sleeps": sleeps,
    "restarts": restarts,
    **SIGNS,
    **ANSWERS,
    "read_back=foreign off": answer("read_back", Power.OFF, foreign=True),
    "fence=not begun": not_begun,
    "release lands": lands,
    "power_on=done": answer("power_on", Outcome.DONE),
    "power_on=failed": answer("power_on", Outcome.FAILED),
    "tell_proxies=done": answer("tell_proxies", Outcome.DONE),
    "new etcd leader": lambda node: replace(
        node, world=replace(node.world, raft_term=node.world.raft_term + 1, renewed_at=node.world.now)
    ),
    "lever": change(lever=True),
    "gate unreadable": change(maintenance=None),
    "planned work": change(planned=True),
    "gate refuses": change(refusal="its breaker is open"),
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
    "one deaf": change(stale=("pg3",)),
    "nobody deaf": change(stale=()),
    "two deaf": change(stale=("ops1", "pg2")),
    "etcd refuses writes": change(etcd_writes=False),
    "etcd silent": change(etcd_reads=False),
    "no candidate": change(up=()),
    "all clear": change(
        lever=False,
        maintenance=False,
        planned=False,
        refusal="",
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
