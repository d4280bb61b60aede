# SPDX-License-Identifier: GPL-3.0-or-later
"""Guard ``witness``, on every database host: sees the primary with this host's eyes, for the failover guard.

It tells the control host what it sees, and makes a fenced address unreachable from here for a while when that orders it.
What it decides stands in :mod:`diting.core.witness_guard`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ..core import witness_guard
from ..core.witness_guard import Observation, Policy, State, Wish
from .connections import end_connections
from .local_postgres import LocalPostgres
from .primary_probes import PrimaryProbes
from .probe_book import WAYS, Target, as_ages
from .probe_config import Account, Identity, IpAddress, Pace, Rest, ways_to
from .probe_ways import conninfo
from .routes import MAIN_TABLE, NetlinkRoutes, Routes
from .runtime.guard import Guard
from .runtime.http import server_context
from .runtime.settings import AbsolutePath, Port, Strict
from .witness_server import WitnessServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..core.failover_view import Candidate, WalReceiver
    from ..core.guard import Action
    from .runtime.ports import Ports

_LONGEST_WAIT_SECONDS = 1.0
_ORDER_SECONDS = 2.0


class Listen(Strict):
    """Where the control host asks."""

    address: IpAddress = Field(description="Address of this host to listen on")
    port: Port = Field(7444, description="Port to listen on")


class WitnessConfig(Strict):
    """What the guard ``witness`` wants to know."""

    member: str = Field(min_length=1, description="Patroni's name of this host")
    members: dict[str, IpAddress] = Field(
        min_length=1,
        description="Every member's name and address; nothing else can be probed or cut off",
    )
    listen: Listen = Field(description="Where the control host asks")
    clients: list[str] = Field(
        min_length=1, description="Names in the certificates of those who may ask: the control hosts"
    )
    identity: Identity = Field(
        default_factory=lambda: Identity.model_validate({}), description="Certificate of this host"
    )
    account: Account = Field(
        default_factory=lambda: Account.model_validate({}), description="PostgreSQL account of the probes"
    )
    rest: Rest = Field(
        default_factory=lambda: Rest.model_validate({}), description="Patroni's REST interface"
    )
    pace: Pace = Field(
        default_factory=lambda: Pace.model_validate({}), description="How often and how long is asked"
    )
    local_host: str = Field(
        "/var/run/postgresql", min_length=1, description="Socket directory of this host's own PostgreSQL"
    )
    local_interval_seconds: float = Field(0.5, ge=0.05, le=1, description="From look to look at it")
    space_paths: list[AbsolutePath] = Field(
        default_factory=lambda: [Path("/var/lib/postgresql")],
        description="A directory on each file system of data and WAL",
    )
    min_free_bytes: int = Field(
        256 * 2**20, ge=0, description="A member with less free space cannot take over from a full one"
    )
    etcd_port: Port = Field(2379, description="Port of etcd for clients, which this host's Patroni asks")
    max_hold_seconds: float = Field(300.0, gt=0, le=3600, description="Longest isolation that is taken")
    route_table: int = Field(MAIN_TABLE, ge=1, le=2**31, description="Routing table of the isolating routes")


class WitnessGuard(Guard[WitnessConfig, State, Observation, Policy]):
    """Eyes and hands for :data:`diting.core.witness_guard.MACHINE`."""

    machine = witness_guard.MACHINE
    config_model = WitnessConfig
    default_interval_seconds: ClassVar[float] = 1.0

    def __init__(
        self,
        config: WitnessConfig,
        ports: Ports,
        routes: Routes | None = None,
        end: Callable[..., Awaitable[str]] = end_connections,
    ) -> None:
        super().__init__(config, ports)
        self._end = end
        self._ending: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._go_on = ""
        self._run = secrets.token_hex(8)
        self._routes = routes or NetlinkRoutes(config.route_table)
        self._wish: Wish | None = None
        self._done: dict[int, asyncio.Future[tuple[int, str]]] = {}
        self._one_order = asyncio.Lock()
        self._serial = 0
        self._anew = ""
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._removal: asyncio.TimerHandle | None = None
        self._calm: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._server = WitnessServer(self, config.clients)
        self._probes = PrimaryProbes(
            lambda target: ways_to(target, config.identity, config.account, config.rest),
            config.pace,
            ports.clock,
            self._changed,
        )
        # The host's own socket needs no certificate, and libpq refuses some of the words there.
        local = {**config.account.values(config.identity), "host": config.local_host, "sslmode": "disable"}
        self._local = LocalPostgres(
            config.member,
            conninfo(local),
            config.space_paths,
            config.min_free_bytes,
            ports.clock,
            self._changed,
        )

    def policy(self, config: WitnessConfig) -> Policy:
        """See :class:`Guard`."""
        if config.member not in config.members:
            raise ValueError(f"member {config.member} is not one of members")
        if len(set(config.members.values())) != len(config.members):
            raise ValueError("members: two have one address")
        others = {name: address for name, address in config.members.items() if name != config.member}
        return Policy(tuple(sorted(others.values())), config.max_hold_seconds)

    async def start(self) -> None:
        """Take away what an earlier life may have cut off, look, listen."""
        with contextlib.suppress(OSError):
            self._sweep()
        context = server_context(
            str(self.config.identity.certificate),
            str(self.config.identity.key),
            str(self.config.identity.ca),
        )
        listen = self.config.listen
        await self._server.start(listen.address, listen.port, context)
        look = self._local.run(
            self.config.local_interval_seconds, self.config.pace.slow_timeout_seconds, self._hurry
        )
        self._tasks = [asyncio.create_task(look, name="local look")]

    async def close(self) -> None:
        """End it all, and leave no address cut off."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await self._probes.close()
        self._local.close()
        for timer in (self._removal, self._calm):
            if timer is not None:
                timer.cancel()
        with contextlib.suppress(OSError):
            self._sweep()

    async def observe(self, now: float) -> Observation:  # noqa: ARG002 - the routes have no age
        """The newest order, and what is cut off."""
        try:
            routes: tuple[str, ...] | None = self._routes.listed()
        except OSError:
            routes = None
        target = self._probes.target
        answers = ", ".join(f"{way} {self._probes.probe(way).answer.value}" for way in WAYS)
        sees = "no primary to look at" if target is None else f"{target.name}: {answers}"
        if self._go_on:
            sees += f"; connections to what was cut off go on: {self._go_on}"
        return Observation(self._run, self._wish, routes, sees)

    async def act(self, action: Action, now: float) -> dict[str, Any]:  # noqa: ARG002
        """Set or take away a route, and tell whoever ordered it."""
        ended = (200, "")
        try:
            if action.name == "refuse":
                ended = (403, str(action.args["words"]))
            elif action.name == "isolate":
                self._isolate(str(action.args["address"]), float(action.args["until"]))
            elif action.name == "unisolate":
                self._sweep()
        except OSError as error:
            ended = (503, str(error))
            raise
        finally:
            waiting = self._done.pop(int(action.args["wish"]), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(ended)
        return {"routes": list(self._routes.listed())}

    def signature(self, observation: Observation) -> list[object]:
        """See :class:`Guard`."""
        return witness_guard.signature(observation)

    def measures(self, observation: Observation, state: State) -> Mapping[str, float | None]:  # noqa: ARG002
        """The gauges of the page."""
        routes = observation.routes
        return {
            "isolated_addresses": None if routes is None else float(len(routes)),
            "requests_count": float(self._server.requests),
        }

    def _isolate(self, address: str, until: float) -> None:
        self._routes.add(address)
        # Beside the order, whose end is the route: it makes the others quicker, and nothing safer.
        self._ending = asyncio.create_task(self._end_connections(address))
        if self._removal is not None:
            self._removal.cancel()
        left = until - self.ports.clock.monotonic()
        # Beside the cycle, which may be waiting for a full disk when the time is over.
        self._removal = asyncio.get_running_loop().call_later(max(0.0, left), self._time_is_over)

    async def _end_connections(self, address: str) -> None:
        self._go_on = await self._end(address)

    async def _end_asking(self) -> None:
        self._go_on = await self._end(None, self.config.etcd_port)

    def _time_is_over(self) -> None:
        # What does not work here, the cycle tries again and says.
        with contextlib.suppress(OSError):
            self._sweep()
        self.wake.set()

    def _sweep(self) -> None:
        for address in self._routes.listed():
            self._routes.remove(address)

    def _changed(self) -> None:
        self._serial += 1
        self._news.set()

    async def view(self, query: Mapping[str, str]) -> dict[str, Any]:
        """What is seen now; see :mod:`.witness_server`."""
        # A control host that does not know yet leaves the probes as they are.
        if "target" in query:
            self._aim(query["target"])
        if "hurry" in query:
            self._hasten(min(5.0, float(query["hurry"])))
        if query.get("anew", self._anew) != self._anew:
            self._anew = query["anew"]
            await self._probes.look_anew()
            self._local.look_soon()
        wait = min(_LONGEST_WAIT_SECONDS, float(query.get("wait", "0")))
        if wait > 0 and query.get("seen") == str(self._serial):
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()
        return self._view()

    def _aim(self, name: str) -> None:
        address = self.config.members.get(name)
        if address is None:
            raise ValueError(f"{name!r} is no member")
        # This host is no witness of itself; that it answers at all is what it can say.
        own = name == self.config.member
        self._probes.aim(None if own else Target(name, address))

    def _hasten(self, seconds: float) -> None:
        self._probes.hurry(seconds)
        if not self._hurry.is_set():
            self._hurry.set()
            self._local.look_soon()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        if self._calm is None or self._calm.when() < end:
            if self._calm is not None:
                self._calm.cancel()
            self._calm = loop.call_at(end, self._hurry.clear)

    def _view(self) -> dict[str, Any]:
        now = self.ports.clock.monotonic()
        target = self._probes.target
        wal, candidate = self._local.walreceiver, self._local.candidate
        return {
            "witness": self.config.member,
            "run": self._run,
            "serial": self._serial,
            "now": now,
            "target": None if target is None else target.name,
            "probes": {way: as_ages(self._probes.probe(way), now) for way in WAYS},
            "walreceiver": None if wal is None else _wal_view(wal, now),
            "candidate": _candidate_view(candidate, now),
        }

    async def order(self, name: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Have the cycle carry an order out, and wait until it is."""
        if name == "ask_anew":
            self._asking = asyncio.create_task(self._end_asking())
            return 200, {}
        async with self._one_order:
            now = self.ports.clock.monotonic()
            hold = None if name == "unisolate" else float(body.get("hold_seconds", 0))
            # Unique over restarts within a boot: a number that an earlier life has seen means "done".
            wish = Wish(int(now * 1e6), str(body.get("address", "")), hold, now + _ORDER_SECONDS)
            words = witness_guard.refusal(wish, self.policy(self.config), now, paused=False)
            if words:
                return 403, {"error": words}
            done = self._done[wish.number] = asyncio.get_running_loop().create_future()
            self._wish = wish
            self.wake_at_once()
            try:
                async with asyncio.timeout(_ORDER_SECONDS):
                    status, words = await done
            except TimeoutError:
                status, words = 503, "not carried out in time"
            finally:
                self._done.pop(wish.number, None)
            return status, {"routes": list(self._routes.listed())} if status == 200 else {"error": words}


def _wal_view(wal: WalReceiver, now: float) -> dict[str, Any]:
    fed = None if wal.fed_at is None else max(0.0, now - wal.fed_at)
    return {"running": wal.running, "read_age": max(0.0, now - wal.read_at), "fed_age": fed, "lsn": wal.lsn}


def _candidate_view(candidate: Candidate, now: float) -> dict[str, Any]:
    seen = None if candidate.seen_at is None else max(0.0, now - candidate.seen_at)
    return {"up": candidate.up, "has_space": candidate.has_space, "seen_age": seen}


GUARD = WitnessGuard
