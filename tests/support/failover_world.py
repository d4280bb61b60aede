# SPDX-License-Identifier: GPL-3.0-or-later
"""A small world to show to the failover guard: three members, a control host, and everything that can be said of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from diting.core.failover import decide
from diting.core.failover_state import FailoverPolicy, FailoverState
from diting.core.failover_view import (
    Answer,
    Candidate,
    EtcdView,
    GateView,
    Observation,
    Outcome,
    Power,
    Probe,
    ReadBack,
    Result,
    Vantage,
    VantageKind,
    WalReceiver,
)
from diting.core.guard import Action

REPLIES = (Answer.REFUSED, Answer.REJECTED, Answer.NO_SPACE, Answer.NO_TEMP, Answer.READ_ONLY)
POLICY = FailoverPolicy(
    confirm_seconds=0.3,
    hang_seconds=2.0,
    no_space_seconds=2.0,
    fence_max_per_window=1,
    return_after_seconds=0.2,
)
TARGET = "pg1"
STEP = 0.1


def replace(thing, **changes):
    """What dataclasses.replace does, several times as fast: the walk over all orders makes little else."""
    made = object.__new__(type(thing))
    vars(made).update(vars(thing))
    vars(made).update(changes)
    return made


@dataclass(frozen=True)
class World:
    """Facts, from which :meth:`see` makes the observation at a moment. All defaults are calm weather."""

    now: float = 1000.0
    run: str = "life-1"
    boot: str = "boot-1"
    target: str | None = TARGET
    holder: str | None = TARGET
    mod_revision: int = 7
    alive_until: float | None = None
    """When the primary fell silent; None while it answers."""
    broken: Answer = Answer.TIMEOUT
    """What SQL says since then."""
    tcp: Answer = Answer.TIMEOUT
    rest: Answer = Answer.TIMEOUT
    replied_at: float | None = None
    """When a probe was last answered by something that was no good answer, before the answers there are now."""
    stale: tuple[str, ...] = ()
    """Vantage points that no longer answer."""
    heard: tuple[tuple[str, str, float], ...] = ()
    """Extra good answers: vantage point, probe, moment."""
    fed_at: float | None = None
    lsn: int = 500
    renewed_at: float = 995.0
    raft_term: int = 3
    etcd_writes: bool = True
    etcd_reads: bool = True
    etcd_leader: str | None = "pg2"
    leave_etcd_leader: bool = False
    sync: tuple[str, ...] = ("pg2", "pg3")
    up: tuple[str, ...] = ("pg2", "pg3")
    space: tuple[str, ...] = ("pg2", "pg3")
    paused: bool | None = False
    paused_by_hand: bool = False
    lever: bool | None = False
    maintenance: bool | None = False
    planned: bool | None = False
    elsewhere: int | None = 0
    refusal: str | None = ""
    recorded: int | None = 0
    """Own fences that are on record in etcd."""
    armed: bool = True
    locked: bool = True
    fence: Result | None = None
    read_back: ReadBack | None = None
    isolate: Result | None = None
    unisolate: Result | None = None
    release: Result | None = None
    tell_proxies: Result | None = None
    power_on: Result | None = None

    def probe(self, vantage: str, name: str) -> Probe:
        answer = {"tcp": self.tcp, "rest": self.rest, "sql": self.broken}[name]
        extra = [moment for who, what, moment in self.heard if (who, what) == (vantage, name)]
        quiet = self.alive_until is not None and answer is not Answer.OK
        last_ok = self.alive_until if quiet else self.now - 0.02
        if extra:
            last_ok = max([*extra, last_ok or 0.0])
        if not quiet:
            return Probe(Answer.OK, self.now - 0.05, last_ok, None, 0, self.replied_at)
        since = max((self.alive_until or 0.0) + 0.02, self.replied_at or 0.0)
        newest = self.now - 0.05
        replied = newest + 0.01 if answer in REPLIES else self.replied_at
        if extra and max(extra) > newest - STEP:
            return Probe(Answer.OK, newest, last_ok, None, 0, self.replied_at)
        return Probe(
            answer,
            newest,
            last_ok,
            max([since, *extra]),
            max(0, round((self.now - since) / STEP) + 1),
            replied,
        )

    def vantage(self, name: str) -> Vantage:
        kind = VantageKind.CONTROL if name == "ops1" else VantageKind.REPLICA
        seen = Vantage(
            name,
            kind,
            self.now - (5.0 if name in self.stale else 0.05),
            *(self.probe(name, what) for what in ("tcp", "rest", "sql")),
        )
        if kind is VantageKind.CONTROL:
            return seen
        fed = self.fed_at if self.fed_at is not None else (self.alive_until or self.now - 0.02)
        return replace(seen, walreceiver=WalReceiver(True, self.now - 0.05, fed, self.lsn))

    def etcd(self) -> EtcdView:
        remaining = 30 - (self.now - 0.04 - self.renewed_at)
        if not self.etcd_reads:
            return EtcdView(
                self.now - 9, self.now - 9, self.now - 9, self.holder, self.mod_revision, paused=False
            )
        return EtcdView(
            self.now - (0.05 if self.etcd_writes else 9),
            self.now - 0.05,
            self.now - 0.04,
            self.holder,
            None if self.holder is None else self.mod_revision,
            self.raft_term,
            None if self.holder is None else 99,
            None if self.holder is None else int(remaining),
            30,
            self.holder,
            tuple(m for m in self.sync if m != self.holder),
            self.paused,
            self.etcd_leader,
            self.leave_etcd_leader,
        )

    def see(self) -> Observation:
        names = ("ops1", "pg2", "pg3")
        return Observation(
            self.run,
            self.boot,
            self.now,
            self.paused_by_hand,
            self.target,
            tuple(self.vantage(name) for name in names),
            self.etcd(),
            tuple(Candidate(n, n in self.up, n in self.space, self.now - 0.05) for n in ("pg2", "pg3")),
            GateView(
                self.now - 0.01,
                self.lever,
                self.maintenance,
                self.planned,
                self.elsewhere,
                refusal=self.refusal,
            ),
            (),
            self.armed,
            self.now + 5 if self.locked else None,
            self.fence,
            self.read_back,
            self.isolate,
            self.unisolate,
            self.release,
            self.tell_proxies,
            self.power_on,
            fences_recorded=self.recorded,
        )

    def after(self, seconds: float, **changes) -> World:
        """This world a while later."""
        return replace(self, now=round(self.now + seconds, 6), **changes)

    def dies(self, **changes) -> World:
        return replace(self, alive_until=self.now, **changes)


def clear(world: World, action: Action, outcome: Outcome = Outcome.DONE, power: Power | None = None) -> World:
    """The world in which ``action`` was begun at once and ended within 10 ms, so or so."""
    incident = str(action.args.get("incident"))
    if power is None:
        on = world.power_on
        power = Power.ON if on is not None and on.outcome is Outcome.DONE else Power.OFF
    result = Result(incident, outcome, world.now, world.now + 0.01, outcome.value)
    if action.name == "read_back":
        return replace(world, read_back=ReadBack(incident, power, world.now, world.now + 0.01, power.value))
    fields = {field.name for field in dataclasses.fields(World)}
    return replace(world, **{action.name: result}) if action.name in fields else world


class Guard:
    """Runs the guard against a world; remembers every action with the moment of its decision."""

    def __init__(self, policy: FailoverPolicy = POLICY, state: FailoverState | None = None) -> None:
        self.policy = policy
        self.state = state or FailoverState()
        self.done: list[tuple[float, Action]] = []

    def tick(self, world: World) -> list[Action]:
        self.state, actions = decide(self.state, world.see(), world.now, self.policy)
        self.done += [(world.now, action) for action in actions]
        return actions

    def alerts(self) -> list[str]:
        """Texts of the alerts that were raised."""
        return [str(a.args["annotations"]["description"]) for _at, a in self.done if a.name == "raise_alert"]

    def order(self, name: str) -> Action:
        """The first action of this name."""
        return next(action for _at, action in self.done if action.name == name)

    def names(self) -> list[str]:
        """Names of what was ordered, alerts as "alert", without those that were resolved."""
        told = [action.name for _now, action in self.done]
        return ["alert" if name == "raise_alert" else name for name in told if name != "resolve_alert"]


def settle(guard: Guard, world: World) -> World:
    """Let the guard watch a healthy cluster for a while."""
    for _tick in range(4):
        guard.tick(world)
        world = world.after(STEP)
    return world


def play(guard: Guard, world: World, seconds: float, **answers) -> World:
    """Tick until ``seconds`` have passed; every action succeeds but those whose outcome is in ``answers``."""
    end = world.now + seconds
    while world.now < end - 1e-9:
        for action in guard.tick(world):
            given = answers.get(action.name)
            if given == "silent":
                continue
            world = clear(
                world,
                action,
                given if isinstance(given, Outcome) else Outcome.DONE,
                given if isinstance(given, Power) else None,
            )
            released = action.name == "release" and given in (None, Outcome.DONE)
            if released:
                world = replace(world, holder=None)
        world = world.after(STEP)
    return world


def until(guard, world, name, **answers):
    """Play until this action is given."""
    for _tick in range(50):
        if name in guard.names():
            return world
        world = play(guard, world, 0.1, **answers)
    raise AssertionError(guard.names())
