# SPDX-License-Identifier: GPL-3.0-or-later
"""Guard ``failover``, on the control host: proves that a silent primary is dead, and then does not wait.

What it decides stands in :mod:`diting.core.failover`; this file sees for it and acts for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..core import failover_machine, failover_rules, failover_words
from ..core.failover_state import FailoverPolicy, FailoverState
from ..core.failover_view import Candidate, Observation, Vantage, VantageKind
from ..hostio.fencing import option_problems
from .etcd_transport import HttpsTransport
from .failover_config import FailoverConfig
from .failover_etcd import EtcdWatch
from .failover_hands import Hands
from .failover_inputs import GateReader, ViewError, vantage_of
from .fence_agents import options_of
from .primary_probes import HURRY_SECONDS, PrimaryProbes
from .probe_book import Target, trouble_since
from .probe_config import ways_to
from .runtime.guard import Guard
from .witness_client import WitnessClient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..core.guard import Action
    from ..core.guard_words import Line
    from .runtime.ports import Ports


_CALM_SECONDS = 10.0


class FailoverGuard(Guard[FailoverConfig, FailoverState, Observation, FailoverPolicy]):
    """Eyes and hands for :data:`diting.core.failover_machine.MACHINE`."""

    machine = failover_machine.MACHINE
    config_model = FailoverConfig
    default_interval_seconds: ClassVar[float] = 1.0

    def __init__(self, config: FailoverConfig, ports: Ports) -> None:
        super().__init__(config, ports)
        self._run = secrets.token_hex(8)
        self._boot = ports.clock.boot_id()
        self._gate = GateReader(
            config.gate_dir, config.gate_policy_file, config.cluster, ports.clock.monotonic
        )
        self._probes = PrimaryProbes(
            lambda target: ways_to(target, config.identity, config.account, config.rest),
            config.pace,
            ports.clock,
            self._heard,
        )
        self._clients = {
            name: WitnessClient(
                name,
                member.witness,
                config.identity.context,
                config.witness_wait_seconds,
                ports.clock,
                self._heard,
            )
            for name, member in config.members.items()
            if member.witness
        }
        self._etcd: EtcdWatch | None = None
        self._hands: Hands | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def policy(self, config: FailoverConfig) -> FailoverPolicy:
        """See :class:`Guard`."""
        problems = []
        if config.owner in config.members:
            problems.append(f"owner {config.owner} is a member: the control host is none")
        addresses = [member.address for member in config.members.values()]
        if len(set(addresses)) < len(addresses):
            problems.append("members: two have one address")
        if not config.endpoints:
            problems.append("etcd.endpoints and members' etcd: want at least one endpoint")
        for member in config.members:
            wrong = option_problems(config.fencing.agent, options_of(config, member))
            if wrong:
                problems.append(f"fencing agent {config.fencing.agent} of {member}: {', '.join(wrong)}")
        if sum(1 for member in config.members.values() if member.witness) < 2:
            problems.append("members: want a witness on two at least, for one of them may be the primary")
        try:
            power = not config.fencing.agent.endswith("_network")
            policy = replace(config.limits.policy(config.pace), power_fence=power)
        except ValueError as error:
            problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))
        return policy

    async def start(self) -> None:
        """Begin to look. Raises OSError for certificates that cannot be read."""
        identity, clock = self.config.identity, self.ports.clock
        files = (str(identity.ca), str(identity.certificate), str(identity.key))
        loop = asyncio.get_running_loop()
        transport = HttpsTransport(*files)

        def news() -> None:
            loop.call_soon_threadsafe(self._etcd_says)

        self._etcd = EtcdWatch(self.config, transport, clock, news)
        self._hands = Hands(self.config, transport, self._clients, self._etcd, clock, self.wake_at_once)
        self._etcd.start()
        looks = [client.run() for client in self._clients.values()]
        self._tasks = [asyncio.create_task(look) for look in (*looks, self._hands.agents.look_after())]

    async def close(self) -> None:
        """Stop looking; what was ordered goes on elsewhere."""
        for task in self._tasks:
            task.cancel()
        if self._etcd is not None:
            self._etcd.close()
        if self._hands is not None:
            self._hands.close()
        for client in self._clients.values():
            client.close()
        with contextlib.suppress(asyncio.CancelledError):
            await self._probes.close()

    def _etcd_says(self) -> None:
        """Probe whoever holds the leader key; every book begins anew with another holder."""
        holder = self._etcd.view.holder if self._etcd is not None else None
        if holder in self.config.members:
            self._probes.aim(Target(str(holder), self.config.members[str(holder)].address))
            for client in self._clients.values():
                client.target = holder
        self.wake.set()

    def _heard(self) -> None:
        """Something is new; while the primary is silent, or its disk full, everybody looks at it quickly.

        Until the leader key is released: from then on only Patroni is waited for, and it may share the processors.
        """
        now = self.ports.clock.monotonic()
        released = self._hands.results.get("release") if self._hands is not None else None
        if released is not None and now - released.answered_at < _CALM_SECONDS:
            self.wake.set()
            return
        tcp, sql = (trouble_since(self._probes.probe(way)) for way in ("tcp", "sql"))
        troubles = [since for since in (tcp, sql) if since is not None]
        if troubles and now - min(troubles) < max(HURRY_SECONDS, self.config.limits.hang_seconds + 5):
            for client in self._clients.values():
                # Quick probes of a server that hangs would only fill its queue.
                client.hurry(0.5, probes=tcp is not None)
                client.prepare()
            if self._etcd is not None:
                self._etcd.hurry(0.5)
        self.wake.set()

    async def observe(self, now: float) -> Observation:  # noqa: ARG002 - the look ends later than it began
        """Everything that is known, on this host's monotonic clock. Nothing here waits for anybody."""
        etcd, hands = self._etcd, self._hands
        if etcd is None or hands is None:
            raise RuntimeError("not started")
        target = self._probes.target
        notes = {"etcd": etcd.trouble} if etcd.trouble else {}
        if self._probes.trouble:
            notes["probes"] = self._probes.trouble
        vantages, candidates = self._witnesses(target.name if target else None, notes)
        clock = self.ports.clock
        own = Vantage(
            self.config.owner,
            VantageKind.CONTROL,
            clock.monotonic(),
            tcp=self._probes.probe("tcp"),
            rest=self._probes.probe("rest"),
            sql=self._probes.probe("sql"),
        )
        results = hands.results
        return Observation(
            run=self._run,
            boot=self._boot,
            target=target.name if target else None,
            vantages=(own, *vantages),
            etcd=etcd.view,
            candidates=tuple(candidates),
            gate=self._gate.read(etcd.fences_elsewhere, etcd.fences_read_at),
            agents=hands.agents.views,
            armed=self.config.armed,
            lock_until=etcd.lock_until,
            fence=results.get("fence"),
            read_back=hands.read_back,
            isolate=results.get("isolate"),
            unisolate=results.get("unisolate"),
            release=results.get("release"),
            tell_proxies=results.get("tell_proxies"),
            power_on=results.get("power_on"),
            fences_recorded=etcd.fences_recorded,
            notes=notes,
            # Last: the decision counts from the end of the look, and nothing in it is newer.
            taken_at=clock.monotonic(),
        )

    def _witnesses(self, target: str | None, notes: dict[str, str]) -> tuple[list[Vantage], list[Candidate]]:
        vantages, candidates = [], []
        for name, client in self._clients.items():
            vantage = Vantage(name, VantageKind.REPLICA)
            if client.trouble:
                notes[name] = client.trouble
            if client.view is not None and client.asked_at is not None and client.answered_at is not None:
                try:
                    heard_at = client.answered_at if client.heard_at is None else client.heard_at
                    vantage, candidate = vantage_of(name, client.view, client.asked_at, heard_at, target)
                    candidates.append(candidate)
                except ViewError as error:
                    notes[name] = str(error)
            vantages.append(vantage)
        return vantages, candidates

    async def act(self, action: Action, now: float) -> dict[str, Any]:  # noqa: ARG002 - the action has its own times
        """Begin what was decided; its end comes with a later observation."""
        etcd, hands = self._etcd, self._hands
        if etcd is None or hands is None:
            raise RuntimeError("not started")
        if action.name == "last_look":
            seconds = min(2.0, float(action.args["deadline_seconds"]))
            for client in self._clients.values():
                client.look_anew(seconds)
            etcd.hurry(seconds, at_once=True)
            self._probes.hurry(seconds)
            await self._probes.look_anew()
            return {"begun": True}
        begun = hands.begin(action)
        if action.name == "move_etcd_leader":
            etcd.look_for_leader()
        else:
            etcd.hurry(1.0, at_once=True)
        return {"begun": begun}

    def signature(self, observation: Observation) -> Any:
        """See :class:`Guard`."""
        return failover_machine.signature(observation)

    @classmethod
    def describe(
        cls, state: FailoverState, observation: Observation, policy: FailoverPolicy
    ) -> Sequence[Line]:
        """See :class:`Guard`."""
        return failover_words.describe(state, observation, policy)

    @classmethod
    def hindrances(
        cls, state: FailoverState, observation: Observation, policy: FailoverPolicy
    ) -> Sequence[str]:
        """What people and the policy forbid. Not what was not seen just now: in peace nobody looks as often as a fence needs."""
        return failover_rules.forbidden(state, observation, observation.taken_at, policy, before_fence=True)

    def measures(self, observation: Observation, state: FailoverState) -> Mapping[str, float | None]:
        """The gauges of the page."""
        return failover_machine.measures(state, observation, self.policy(self.config))

    def revive(
        self,
        saved: FailoverState,
        unfinished: Sequence[Action],  # noqa: ARG002 - the decision takes every action as perhaps begun
        *,
        same_boot: bool,
        now: float,  # noqa: ARG002
    ) -> FailoverState:
        """What an earlier life knew, also over a reboot: :func:`diting.core.failover.decide` knows what it is worth."""
        if same_boot:
            self._gate.remember(saved.gate_ends)
        return saved

    def keeps(self, before: FailoverState | None, after: FailoverState) -> bool:
        """See :class:`Guard`."""
        return after.gate_ends != (() if before is None else before.gate_ends)


GUARD = FailoverGuard
