# SPDX-License-Identifier: GPL-3.0-or-later
"""The failover guard's hands: each action begins a task, and how that ended is a result in a later observation."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from ..core.failover_view import Outcome, Power, ReadBack, Result
from ..hostio.fencing import FencingError
from .etcd import Etcd, EtcdError, Release, encode
from .failover_etcd import fence_prefix, fence_record
from .fence_agents import FenceAgents
from .proxies import ProxyError, tell
from .witness_client import WitnessClient, WitnessError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypeVar

    from ..core.guard import Action
    from .etcd import KeyRevision
    from .etcd_transport import Transport
    from .failover_config import FailoverConfig
    from .runtime.ports import Clock

    T = TypeVar("T")

Ended = tuple[Outcome, str]
_ELECTION_SECONDS = 10.0
_RECORD_SECONDS = 0.2
"""Beside the order: only an etcd that hardly answers makes the fence wait for its record."""


class LockHolder(Protocol):
    """Whoever keeps the lock among guards."""

    @property
    def proof(self) -> KeyRevision | None:
        """The lock as it is held now; None when it is not certainly ours."""

    @property
    def elected_at(self) -> float | None:
        """When etcd was last seen to have elected; None while it never has."""

    def withdraw(self) -> None:
        """Make every transaction fail that names the lock as it is now, also one that is under way."""


class Hands:
    """Carries out actions beside the cycle. ``changed`` is called when one has ended."""

    def __init__(
        self,
        config: FailoverConfig,
        transport: Transport,
        clients: Mapping[str, WitnessClient],
        lock: LockHolder,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self.results: dict[str, Result] = {}
        self.read_back: ReadBack | None = None
        self._config = config
        self._clients = clients
        self._lock = lock
        self._withdrawn = threading.Event()
        self._agents = FenceAgents(config, clock, changed)
        self._clock = clock
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()
        # A thread of its own with a connection of its own: the release never waits for a reading that hangs.
        self._etcd_thread = ThreadPoolExecutor(1, thread_name_prefix="release")
        attempt = config.etcd.attempt_seconds
        self._etcd = Etcd(config.endpoints, transport, attempt_seconds=attempt, clock=clock.monotonic)
        self._errands = Etcd(config.endpoints, transport, attempt_seconds=attempt, clock=clock.monotonic)

    def begin(self, action: Action) -> bool:
        """Begin ``action``; False when it has aged beyond its ``not_after``: then it is not begun at all."""
        if action.name == "withdraw":
            # Never too late, and never behind anything else: the thread that releases may hang in an attempt.
            self._withdrawn.set()
            self._lock.withdraw()
            return True
        now, args = self._clock.monotonic(), action.args
        if now > float(args["not_after"]):
            self._end(action, Outcome.UNKNOWN, "not begun: it had aged", now, begun=False)
            return False
        ways: dict[str, Callable[[Mapping[str, Any]], Awaitable[Ended]]] = {
            "fence": self._fence,
            "read_back": self._read_back,
            "isolate": self._isolate,
            "unisolate": self._unisolate,
            "release": self._release,
            "tell_proxies": self._tell_proxies,
            "power_on": self._power_on,
            "move_etcd_leader": self._move_etcd_leader,
        }
        task = asyncio.create_task(self._run(action, ways[action.name], now), name=action.name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _run(
        self, action: Action, way: Callable[[Mapping[str, Any]], Awaitable[Ended]], asked_at: float
    ) -> None:
        begun = True
        try:
            async with asyncio.timeout(float(action.args.get("deadline_seconds", 10))):
                outcome, words = await way(action.args)
        except FencingError as error:
            # There is no agent: nothing was ordered of anybody.
            begun, outcome, words = False, Outcome.FAILED, str(error)
        except TimeoutError:
            outcome, words = Outcome.UNKNOWN, "no end before the deadline"
        except Exception as error:  # noqa: BLE001 - whatever it is, the end is not known
            outcome, words = Outcome.UNKNOWN, f"{type(error).__name__}: {error}"
        self._end(action, outcome, words, asked_at, begun=begun)

    def _end(
        self, action: Action, outcome: Outcome, words: str, asked_at: float, *, begun: bool = True
    ) -> None:
        incident, now = str(action.args.get("incident", "")), self._clock.monotonic()
        if action.name == "read_back":
            # Its own answer is set where it came; this is for one that never did.
            if self.read_back is None or self.read_back.asked_at < asked_at:
                self.read_back = ReadBack(incident, Power.UNKNOWN, asked_at, now, words)
        else:
            self.results[action.name] = Result(incident, outcome, asked_at, now, words, begun)
        self._changed()

    @property
    def agents(self) -> FenceAgents:
        """The fencing agents, to be looked after in peace."""
        return self._agents

    async def _fence(self, args: Mapping[str, Any]) -> Ended:
        target, incident = str(args["target"]), str(args["incident"])
        # Without an agent nothing is ordered, and nothing must be on record.
        self._agents.agent(target, incident)
        record = self._in_etcd(lambda: self._record_fence(target, incident))
        seconds = float(args["deadline_seconds"])
        order = await self._agents.order(target, incident, lambda agent: agent.off(seconds))
        return order.outcome, order.words if await record else f"{order.words}; not on record in etcd"

    async def _read_back(self, args: Mapping[str, Any]) -> Ended:
        incident, seconds = str(args["incident"]), float(args["deadline_seconds"])
        reading = await self._agents.order(args["target"], incident, lambda agent: agent.state(seconds))
        self.read_back = ReadBack(
            incident, reading.power, reading.asked_at, reading.answered_at, reading.words
        )
        return Outcome.DONE, reading.words

    async def _power_on(self, args: Mapping[str, Any]) -> Ended:
        seconds, leader = float(args["deadline_seconds"]), args["leader"]
        order = await self._agents.order(
            args["target"], args["incident"], lambda agent: agent.on(seconds, leader=leader)
        )
        return order.outcome, order.words

    async def _isolate(self, args: Mapping[str, Any]) -> Ended:
        address = self._config.members[args["target"]].address
        hold = {"address": address, "hold_seconds": float(args["hold_seconds"])}
        return await self._order("isolate", hold, args)

    async def _unisolate(self, args: Mapping[str, Any]) -> Ended:
        address = self._config.members[args["target"]].address
        return await self._order("unisolate", {"address": address}, args)

    async def _order(self, name: str, body: Mapping[str, Any], args: Mapping[str, Any]) -> Ended:
        seconds = float(args["deadline_seconds"])
        clients = [self._clients[survivor] for survivor in args["survivors"] if survivor in self._clients]
        if len(clients) < len(args["survivors"]):
            return Outcome.FAILED, "a survivor has no witness any more"
        answers = await asyncio.gather(
            *(client.order(name, body, seconds) for client in clients), return_exceptions=True
        )
        words, outcome = [], Outcome.DONE
        for client, answer in zip(clients, answers, strict=True):
            if isinstance(answer, WitnessError):
                outcome = Outcome.UNKNOWN if outcome is Outcome.DONE else outcome
                words.append(f"{client.name}: {answer}")
            elif isinstance(answer, BaseException):
                raise answer
            elif answer[0] != 200:
                outcome = Outcome.FAILED if answer[0] == 403 else Outcome.UNKNOWN
                words.append(f"{client.name}: {answer[0]} {answer[1]}")
        return outcome, "; ".join(words)

    def _in_etcd(self, call: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._etcd_thread, call)

    async def _release(self, args: Mapping[str, Any]) -> Ended:
        key = f"{self._config.etcd.prefix}leader"
        holder, revision = str(args["target"]), int(args["mod_revision"])
        seconds = float(args["deadline_seconds"])
        end = min(float(args["not_after"]), self._clock.monotonic() + seconds)
        lock = self._lock.proof
        if lock is None:
            return Outcome.FAILED, "nothing was asked: the lock among guards is not ours"
        # A thread in a system call cannot be called back, so it asks before each attempt; what is under way by then,
        # and may be carried out at any later time, fails with the lock.
        withdrawn = self._withdrawn = threading.Event()

        def release() -> Release:
            self._avoid(holder)
            return self._etcd.release(
                key,
                holder=holder,
                mod_revision=revision,
                lock=lock,
                deadline_seconds=seconds,
                wanted=lambda: not withdrawn.is_set() and self._clock.monotonic() < end,
            )

        try:
            found = await self._in_etcd(release)
        except EtcdError as error:
            return Outcome.UNKNOWN, str(error)
        finally:
            withdrawn.set()
        if found is Release.CHANGED:
            return Outcome.FAILED, "the key, or the lock among guards, is not the one that was named"
        return Outcome.DONE, "" if found is Release.RELEASED else "it was gone already"

    def _avoid(self, member: str) -> None:
        beside = self._config.members[member].etcd
        if beside:
            self._etcd.endpoints.sort(key=beside.__eq__)

    def _record_fence(self, target: str, incident: str) -> bool:
        """Leave a word for other guards, which count it against their own window, and for this one's next life."""
        self._avoid(target)
        seconds = max(1, round(self._config.limits.fence_window_seconds))
        try:
            lease = str(self._etcd.call("/v3/lease/grant", {"TTL": str(seconds)}, _RECORD_SECONDS)["ID"])
            key = f"{fence_prefix(self._config)}{self._config.owner}/{incident}"
            body = {"key": encode(key), "value": encode(fence_record(self._clock)), "lease": lease}
            self._etcd.call("/v3/kv/put", body, _RECORD_SECONDS)
        except (EtcdError, KeyError):
            return False  # the lock keeps others from fencing at the same time; this is beside it
        return True

    async def _ask_anew(self, target: str, seconds: float) -> None:
        """Have the members ask etcd anew after an election: etcd 3.4 never answers what was under way then."""
        elected, now = self._lock.elected_at, self._clock.monotonic()
        if elected is None or now - elected > _ELECTION_SECONDS:
            return
        # Not of the fenced host, whose silence would hold up the word that the proxies are told.
        others = [client for name, client in self._clients.items() if name != target]
        orders = (client.order("ask_anew", {}, seconds / 2) for client in others)
        # Whoever does not take part in it waits a third of Patroni's retry_timeout, and that is all.
        await asyncio.gather(*orders, return_exceptions=True)

    async def _tell_proxies(self, args: Mapping[str, Any]) -> Ended:
        seconds = float(args["deadline_seconds"])
        anew = asyncio.create_task(self._ask_anew(str(args["target"]), seconds))
        try:
            return await self._tell(args, seconds)
        finally:
            await anew

    async def _tell(self, args: Mapping[str, Any], seconds: float) -> Ended:
        told = [
            tell(proxy, str(args["target"]), self._config.identity.context, seconds * 0.9)
            for proxy in self._config.proxies
        ]
        answers = await asyncio.gather(*told, return_exceptions=True)
        failed = [str(answer) for answer in answers if isinstance(answer, ProxyError)]
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, ProxyError):
                raise answer
        return (Outcome.FAILED, "; ".join(failed)) if failed else (Outcome.DONE, "")

    async def _move_etcd_leader(self, args: Mapping[str, Any]) -> Ended:
        def move() -> str:
            seconds = float(args["deadline_seconds"])
            others = [m for m in self._errands.members(seconds) if m.name != args["from"] and m.client_urls]
            said = []
            for member in others:
                # One of them may be down, lag behind, or have no vote.
                try:
                    return self._errands.move_leader(member, seconds / len(others))
                except EtcdError as error:
                    said.append(f"{member.name}: {error}")
            raise EtcdError("; ".join(said) or "etcd has no other member")

        try:
            return Outcome.DONE, await asyncio.to_thread(move)
        except EtcdError as error:
            return Outcome.FAILED, str(error)

    def close(self) -> None:
        """Wait for nothing: an order that is out is out."""
        self._withdrawn.set()
        for task in self._tasks:
            task.cancel()
        self._agents.close()
        self._etcd_thread.shutdown(wait=False, cancel_futures=True)
