# SPDX-License-Identifier: GPL-3.0-or-later
"""A guard that cools what is hot, a clock that only moves when it is told to, and a cycle around both."""

from __future__ import annotations

import asyncio
import enum
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from diting.core.guard import Action, Alert, Machine, Measure, Transition, raise_alert, resolve_alert
from diting.core.guard_journal import Recorder
from diting.core.plain import Plain
from diting.guards.runtime.decisions import DecisionJournal
from diting.guards.runtime.guard import Guard
from diting.guards.runtime.log import make_logger
from diting.guards.runtime.loop import Runner
from diting.guards.runtime.metrics import Metrics
from diting.guards.runtime.notify import Notifier
from diting.guards.runtime.parts import Parts
from diting.guards.runtime.pauses import PauseWatch
from diting.guards.runtime.ports import Ports
from diting.guards.runtime.settings import Document, Strict
from diting.guards.runtime.store import Store


class FakeClock:
    """Both clocks stand still; ``wait`` lets the monotonic one, and the wall, run on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = datetime(2026, 1, 1, tzinfo=UTC)
        self.boot = "boot-1"

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> datetime:
        return self.wall

    def boot_id(self) -> str:
        return self.boot

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.wall += timedelta(seconds=seconds)

    async def wait(self, *events: asyncio.Event, seconds: float) -> None:
        await asyncio.sleep(0)
        if not any(event.is_set() for event in events):
            self.advance(max(seconds, 0.0))


class Phase(enum.Enum):
    CALM = "calm"
    HOT = "hot"


class Event(enum.Enum):
    COLD = "cold"
    WARM = "warm"


@dataclass(frozen=True)
class State(Plain):
    phase: Phase = Phase.CALM
    since: float | None = None
    cooled: int = 0


@dataclass(frozen=True)
class Observation(Plain):
    degrees: float
    sensors: tuple[str, ...] = ("a", "b")
    paused: bool = False


@dataclass(frozen=True)
class Policy(Plain):
    limit: float


TABLE = {
    (Phase.CALM, Event.COLD): Transition(Phase.CALM, (), "All is well."),
    (Phase.CALM, Event.WARM): Transition(
        Phase.HOT, ("raise_alert", "cool", "fan"), "Too hot: cool, then fan."
    ),
    (Phase.HOT, Event.COLD): Transition(Phase.CALM, ("resolve_alert",), "Cool again."),
    (Phase.HOT, Event.WARM): Transition(Phase.HOT, (), "Still hot, cooling is under way."),
}


def decide(state: State, seen: Observation, now: float, policy: Policy) -> tuple[State, list[Action]]:
    event = Event.WARM if seen.degrees > policy.limit and not seen.paused else Event.COLD
    line = TABLE[state.phase, event]
    made = {
        "raise_alert": raise_alert("TooHot", degrees=str(seen.degrees)),
        "resolve_alert": resolve_alert("TooHot"),
        "cool": Action("cool", {"by": seen.degrees - policy.limit}),
        "fan": Action("fan"),
    }
    moved = line.to is not state.phase
    since = now if moved else state.since
    return State(line.to, since, state.cooled + ("cool" in line.actions)), [
        made[name] for name in line.actions
    ]


MACHINE: Machine[State, Observation, Policy] = Machine(
    name="toy",
    summary="Cools what is hot.",
    states=Phase,
    events=Event,
    table=TABLE,
    steady=frozenset({Phase.CALM}),
    initial=State(),
    decide=decide,
    state_type=State,
    observation_type=Observation,
    policy_type=Policy,
    alerts=(Alert("TooHot", "warning", "It is hot", "docs/runbooks/guards.md"),),
    measures=(Measure("degrees_celsius", "How hot it is."),),
)


class ToyConfig(Strict):
    limit: float = 30.0


class ToyGuard(Guard[ToyConfig, State, Observation, Policy]):
    """Sees what ``degrees`` says next, and writes down in ``did`` what it did."""

    machine = MACHINE
    config_model = ToyConfig

    def __init__(self, config: ToyConfig, ports: Ports) -> None:
        super().__init__(config, ports)
        self.degrees: list[Any] = []
        self.did: list[Any] = []
        self.on_act: Any = None

    def policy(self, config: ToyConfig) -> Policy:
        return Policy(config.limit)

    async def observe(self, now: float) -> Observation:
        seen = self.degrees.pop(0) if self.degrees else 20.0
        if isinstance(seen, Exception):
            raise seen
        if seen == "hang":
            await asyncio.Event().wait()
        return Observation(seen)

    async def act(self, action: Action, now: float) -> dict[str, Any]:
        if self.on_act:
            self.on_act(action)
        self.did.append(action.name)
        return {"done": action.name}

    def signature(self, observation: Observation) -> Any:
        return [observation.degrees > 25, observation.paused]

    def measures(self, observation: Observation, state: State) -> dict[str, float | None]:
        return {"degrees_celsius": observation.degrees}


class World:
    """One toy guard in a directory, with everything around it real but the clock."""

    def __init__(self, directory: Path, clock: FakeClock | None = None, **runtime: Any) -> None:
        self.clock = clock or FakeClock()
        self.told: list[str] = []
        self.log = io.StringIO()
        ports = Ports(clock=self.clock)
        values = {
            "guard": "toy",
            "runtime": {"state_dir": str(directory / "state"), **runtime},
            "settings": {},
        }
        values["runtime"]["run_dir"] = str(directory / "run")
        document = Document[ToyConfig].model_validate_json(json.dumps(values))
        self.guard = ToyGuard(document.settings, ports)
        run_id = f"run-{id(self):x}"
        log = make_logger("debug", self.clock, self.log, guard="toy", run_id=run_id)
        store = Store(document.state_dir, document.run_dir, "toy")
        store.open()
        policy = self.guard.policy(document.settings)
        recorder = Recorder("toy", run_id, policy.as_dict(), "0", document.runtime.recent_observations)
        metrics = Metrics("toy", MACHINE)
        self.parts = Parts(
            guard=self.guard,
            document=document,
            policy=policy,
            ports=ports,
            store=store,
            journal=DecisionJournal(document.state_dir, "toy", recorder, self.clock, document.runtime),
            notifier=Notifier(
                document.state_dir / "spool", document.runtime.alertmanager, self.clock, log, metrics.notified
            ),
            pauses=PauseWatch(store, self.clock, log),
            metrics=metrics,
            log=log,
            run_id=run_id,
            version="0",
            labels={"guard": "toy"},
        )
        self.parts.notifier.open()
        self.runner = Runner(self.parts, lambda word: self.told.append(word) or True)

    def cycles(self, *degrees: Any, begin: bool = True) -> None:
        """Live through these observations, then be killed (nothing is saved at the end)."""
        self.guard.degrees = list(degrees)

        async def live() -> None:
            if begin:
                self.runner.begin(self.parts.store.load())
            stop = asyncio.Event()
            original = self.guard.observe
            left = len(degrees)

            async def observe(now: float) -> Observation:
                nonlocal left
                left -= 1
                if left < 0:
                    stop.set()
                    await asyncio.sleep(5)
                return await original(now)

            self.guard.observe = observe
            await self.runner.run(stop)
            self.guard.observe = original

        asyncio.run(live())
        self.parts.store.close()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

    def lines(self) -> list[str]:
        path = self.parts.journal.path
        return path.read_text().splitlines() if path.exists() else []
