# SPDX-License-Identifier: GPL-3.0-or-later
"""The few things a guard asks of etcd, through the v3 JSON gateway, with an injected transport and clock.

Endpoints are tried in turn, the one that answered last first. During an election etcd answers 503 or "no leader": the next one is
asked, round and round until the deadline. Every call blocks; an asyncio loop runs them in a thread.
"""

from __future__ import annotations

import base64
import enum
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diting.guards.etcd_transport import Transport, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PAUSE_SECONDS = 0.05
"""Between two rounds over the endpoints."""
TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
OK = 200


class EtcdError(Exception):
    """etcd could not be asked before the deadline, or refused; the message holds each endpoint's last word."""


class WithdrawnError(EtcdError):
    """Whoever asked wants it no more; an attempt that was under way may still be carried out."""


def encode(text: str) -> str:
    """Key or value as the gateway wants it."""
    return base64.b64encode(text.encode()).decode()


def decode(text: str) -> str:
    """Key or value as the gateway gave it."""
    return base64.b64decode(text).decode("utf-8", "replace")


@dataclass(frozen=True)
class KeyValue:
    """One key. ``lease_id`` is 0 for a key without a lease."""

    value: str
    mod_revision: int
    lease_id: int


@dataclass(frozen=True)
class ClusterReading:
    """Patroni's keys, read in one transaction, with a test write if that was asked for. Moments are monotonic seconds."""

    asked_at: float
    answered_at: float
    raft_term: int
    leader: KeyValue | None
    sync_leader: str | None
    sync_members: tuple[str, ...]
    paused: bool | None
    """None when Patroni's configuration is missing or cannot be read."""


@dataclass(frozen=True)
class LeaseReading:
    """One lease. ``ttl_seconds`` is cut to whole seconds by etcd; 0 or less means expired."""

    asked_at: float
    answered_at: float
    raft_term: int
    lease_id: int
    ttl_seconds: int
    granted_seconds: int


@dataclass(frozen=True)
class KeyRevision:
    """A key as it was written once; written anew or deleted it has another revision."""

    key: str
    revision: int


class Release(enum.Enum):
    """How a compare-and-delete ended. CHANGED: the key, or the lock, is not the one named; the key is still there."""

    RELEASED = "released"
    GONE = "gone"
    CHANGED = "changed"


@dataclass(frozen=True)
class Member:
    """One etcd member and the endpoints it serves clients at."""

    id: int
    name: str
    client_urls: tuple[str, ...]


class Etcd:
    """A cluster by its endpoints (``https://host:port``). ``attempt_seconds`` bounds one try at one endpoint."""

    def __init__(
        self,
        endpoints: Sequence[str],
        transport: Transport,
        *,
        attempt_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not endpoints:
            raise ValueError("endpoints: want at least one https://host:port")
        self.endpoints = list(endpoints)
        self._transport = transport
        self._attempt_seconds = attempt_seconds
        self._clock = clock
        self._pause = pause

    def call(
        self,
        path: str,
        body: Mapping[str, Any],
        deadline_seconds: float,
        wanted: Callable[[], bool] = lambda: True,
    ) -> dict[str, Any]:
        """Answer of whichever endpoint gives one first. Raises :class:`EtcdError` at the deadline or on a refusal.

        ``wanted`` is asked before every attempt; raises :class:`WithdrawnError` when it says no.
        """
        end = self._clock() + deadline_seconds
        said: dict[str, str] = {}
        while True:
            for endpoint in list(self.endpoints):
                left = end - self._clock()
                if left <= 0:
                    words = "; ".join(said.values()) or "nobody answered"
                    raise EtcdError(f"etcd {path}: nothing within {deadline_seconds:g} s: {words}")
                if not wanted():
                    raise WithdrawnError(f"etcd {path}: not wanted any more: {'; '.join(said.values())}")
                try:
                    status, answer = self._transport(endpoint, path, body, min(left, self._attempt_seconds))
                except TransportError as error:
                    said[endpoint] = str(error)
                    continue
                if status == OK and "error" not in answer:
                    self._prefer(endpoint)
                    return answer
                said[endpoint] = f"{endpoint}: {status} {_words(answer)}"
                if status not in TRY_AGAIN:
                    raise EtcdError(f"etcd {path}: {said[endpoint]}")
            self._pause(max(0.0, min(PAUSE_SECONDS, end - self._clock())))

    def _prefer(self, endpoint: str) -> None:
        if self.endpoints[0] != endpoint:
            self.endpoints.remove(endpoint)
            self.endpoints.insert(0, endpoint)

    def read_cluster(
        self, prefix: str, *, test_key: str, test_value: str | None, deadline_seconds: float
    ) -> ClusterReading:
        """Patroni's keys under ``prefix`` (``/service/<scope>/``) and a test write, in one transaction.

        One round trip answers both questions: what stands there, and whether etcd accepts a write; without a value the
        second is not asked. Nothing is read of a cluster without quorum: reads here are linearizable.
        """
        keys = [f"{prefix}leader", f"{prefix}sync", f"{prefix}config"]
        success: list[dict[str, Any]] = [{"requestRange": {"key": encode(key)}} for key in keys]
        if test_value is not None:
            success.append({"requestPut": {"key": encode(test_key), "value": encode(test_value)}})
        asked = self._clock()
        answer = self.call("/v3/kv/txn", {"compare": [], "success": success}, deadline_seconds)
        try:
            found = [_key_value(item["response_range"]) for item in answer["responses"][:3]]
            term = int(answer["header"]["raft_term"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise EtcdError(f"etcd: the answer to a transaction cannot be read: {error!r}") from error
        leader, sync, config = found
        sync_data = _object(sync)
        listed = sync_data.get("sync_standby")
        members = tuple(name for name in str(listed or "").split(",") if name)
        known = _object(config)
        paused = bool(known.get("pause", False)) if known else None
        return ClusterReading(
            asked, self._clock(), term, leader, sync_data.get("leader") or None, members, paused
        )

    def read_lease(self, lease_id: int, deadline_seconds: float) -> LeaseReading:
        """Remaining life of a lease, as the etcd leader sees it."""
        asked = self._clock()
        answer = self.call("/v3/lease/timetolive", {"ID": str(lease_id)}, deadline_seconds)
        try:
            return LeaseReading(
                asked,
                self._clock(),
                int(answer["header"]["raft_term"]),
                lease_id,
                # A lease that has expired answers -1; one with less than a second left answers no TTL at all.
                int(answer.get("TTL", 0)),
                int(answer.get("grantedTTL", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EtcdError(f"etcd: the answer about a lease cannot be read: {error!r}") from error

    def release(
        self,
        key: str,
        *,
        holder: str,
        mod_revision: int,
        lock: KeyRevision,
        deadline_seconds: float,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Release:
        """Delete ``key`` if, and only if, it still holds ``holder`` at ``mod_revision`` and ``lock`` is as it was.

        Asking again after a lost answer does no harm: a key written since has another revision. Raises
        :class:`EtcdError` when no answer came; then the key may or may not be gone, and an attempt that was given up
        here may be carried out later, unless ``lock`` has been given back or taken anew by then.
        """
        compare = [
            {"key": encode(key), "target": "VALUE", "result": "EQUAL", "value": encode(holder)},
            {"key": encode(key), "target": "MOD", "result": "EQUAL", "modRevision": str(mod_revision)},
            {"key": encode(lock.key), "target": "MOD", "result": "EQUAL", "modRevision": str(lock.revision)},
        ]
        answer = self.call(
            "/v3/kv/txn",
            {
                "compare": compare,
                "success": [{"requestDeleteRange": {"key": encode(key)}}],
                "failure": [{"requestRange": {"key": encode(key)}}],
            },
            deadline_seconds,
            wanted,
        )
        if answer.get("succeeded"):
            return Release.RELEASED
        try:
            left = _key_value(answer["responses"][0]["response_range"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise EtcdError(f"etcd: the answer to a release cannot be read: {error!r}") from error
        return Release.GONE if left is None else Release.CHANGED

    def members(self, deadline_seconds: float) -> tuple[Member, ...]:
        """All members."""
        answer = self.call("/v3/cluster/member/list", {}, deadline_seconds)
        return tuple(
            Member(int(item["ID"]), str(item.get("name", "")), tuple(item.get("clientURLs", ())))
            for item in answer.get("members", ())
        )

    def leader_id(self, deadline_seconds: float) -> int | None:
        """Id of the member that leads; None while there is none."""
        answer = self.call("/v3/maintenance/status", {}, deadline_seconds)
        return int(answer.get("leader", 0)) or None

    def move_leader(self, to: Member, deadline_seconds: float) -> str:
        """Hand etcd's leadership to ``to``; words for people. Only the member that leads can be asked for that.

        Raises :class:`EtcdError` when there is no leader, or it refuses.
        """
        end = self._clock() + deadline_seconds
        members = {member.id: member for member in self.members(deadline_seconds)}
        now = self.leader_id(max(0.05, end - self._clock()))
        if now == to.id:
            return f"{to.name} leads etcd already"
        if now is None or now not in members:
            raise EtcdError("etcd has no leader that could hand over")
        leading = Etcd(
            members[now].client_urls,
            self._transport,
            attempt_seconds=max(self._attempt_seconds, 2.0),
            clock=self._clock,
            pause=self._pause,
        )
        leading.call(
            "/v3/maintenance/transfer-leadership", {"targetID": str(to.id)}, max(0.05, end - self._clock())
        )
        return f"etcd's leadership went from {members[now].name} to {to.name}"


def _words(answer: Mapping[str, Any]) -> str:
    error = answer.get("error", answer.get("message", answer))
    return str(error.get("message", error) if isinstance(error, dict) else error)[:200]


def _key_value(found: Mapping[str, Any]) -> KeyValue | None:
    listed = found.get("kvs") or []
    if not listed:
        return None
    item = listed[0]
    return KeyValue(decode(item.get("value", "")), int(item["mod_revision"]), int(item.get("lease", 0)))


def _object(found: KeyValue | None) -> dict[str, Any]:
    """JSON object under a key; empty when there is none or it is something else."""
    if found is None:
        return {}
    try:
        data = json.loads(found.value)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
