# SPDX-License-Identifier: GPL-3.0-or-later
"""A thread that reads Patroni's keys, keeps the lock among guards, and knows where etcd's leader is."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from ..core.failover_view import EtcdView
from .etcd import Etcd, EtcdError, KeyRevision, decode, encode
from .etcd_lock import Lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from .etcd_transport import Transport
    from .failover_config import FailoverConfig
    from .runtime.ports import Clock

_DEADLINE_SECONDS = 1.0
_LEADER_SECONDS = 5.0
_FENCES_SECONDS = 4.0
_NAMES_SECONDS = 60.0
_LEASE_EVERY = 4
_QUICK_SECONDS = 0.05
_TESTED_SECONDS = 0.2


class LocalLock:
    """Held by one guard of one name on this host, beside the lock in etcd, which names the host and not the process.

    An abstract socket: the kernel gives it back when its holder dies, and no file is in anybody's way.
    """

    def __init__(self, name: str) -> None:
        self._name = f"\0diting-failover/{name}"
        self._socket: socket.socket | None = None

    def hold(self) -> bool:
        """Take it, if it is free; whether it is ours."""
        if self._socket is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.bind(self._name)
            except OSError:
                sock.close()
                return False
            self._socket = sock
        return True

    def close(self) -> None:
        """Give it back."""
        if self._socket is not None:
            self._socket.close()


def fence_prefix(config: FailoverConfig) -> str:
    """Where each guard leaves a key per fence, under a lease of the window's length."""
    return f"{config.etcd.own_prefix}fences/"


def fence_record(clock: Clock) -> str:
    """What such a key says: when the fence was, in the time of the boot that its guard lived in."""
    return json.dumps({"boot_id": clock.boot_id(), "monotonic": clock.monotonic()})


def _is_past(record: str, clock: Clock, window_seconds: float) -> bool:
    """Whether a guard's own fence of this boot is older than the window; what is not known is not past.

    The lease alone would not tell: each election of etcd gives it its whole length again.
    """
    try:
        found = json.loads(record)
        return bool(
            found["boot_id"] == clock.boot_id()
            and clock.monotonic() - float(found["monotonic"]) > window_seconds
        )
    except (ValueError, KeyError, TypeError):
        return False


def leave_key(config: FailoverConfig) -> str:
    """While this key is there, under a lease of whoever wrote it, etcd's leader is not moved."""
    return f"{config.etcd.own_prefix}leave_etcd_leader"


class EtcdWatch:
    """The newest :class:`EtcdView`. Attributes are replaced whole by the thread and read by the loop.

    ``changed`` is called in the thread: after each reading with news, and in a hurry after every one.
    """

    def __init__(
        self, config: FailoverConfig, transport: Transport, clock: Clock, changed: Callable[[], None]
    ) -> None:
        self.view = EtcdView()
        self.fences_elsewhere: int | None = None
        self.fences_recorded: int | None = None
        self.fences_read_at: float | None = None
        self.trouble = ""
        self.elected_at: float | None = None
        """When etcd was first seen to have another leader than before; None while it never had."""
        self._config = config
        self._clock = clock
        self._changed = changed
        attempt = config.etcd.attempt_seconds
        self._etcd = Etcd(config.endpoints, transport, attempt_seconds=attempt, clock=clock.monotonic)
        self._lock = Lock(
            self._etcd,
            f"{config.etcd.own_prefix}lock",
            config.owner,
            ttl_seconds=config.etcd.lock_seconds,
            clock=clock.monotonic,
        )
        self._local = LocalLock(f"{config.owner}{config.etcd.own_prefix}")
        self._withdraw = threading.Event()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._quick_until = 0.0
        self._lock_due = self._leader_due = self._fences_due = self._names_due = 0.0
        self._names: dict[int, str] = {}
        self._number = 0
        self._thread = threading.Thread(target=self._run, name="etcd", daemon=True)

    @property
    def lock_until(self) -> float | None:
        """Until when both locks are certainly ours, and what others fenced before is known.

        A count that was read before the lock was taken may lack the fence of the guard that held it.
        """
        until, since, read = self._lock.until, self._lock.since, self.fences_read_at
        known = since is not None and read is not None and read >= since
        return until if known and self._local.hold() and not self._withdraw.is_set() else None

    @property
    def proof(self) -> KeyRevision | None:
        """The lock in etcd as it is held now; None when it is not certainly ours."""
        return self._lock.proof if self.lock_until is not None else None

    def withdraw(self) -> None:
        """Make every transaction fail that names the lock as it is now, also one that is under way; then take it anew."""
        self._withdraw.set()
        self._wake.set()

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Read no more; the lock runs out, or is taken back by this guard's next life."""
        self._stop.set()
        self._wake.set()
        self._local.close()

    def hurry(self, seconds: float, *, at_once: bool = False) -> None:
        """Read quickly for ``seconds``, beginning now; ``at_once`` does not wait for the turn of a hurry that is on either."""
        now = self._clock.monotonic()
        begins = now >= self._quick_until
        self._quick_until = max(self._quick_until, now + seconds)
        # What is heard of a silence comes many times a second, and each is no reason to ask etcd again.
        if begins or at_once:
            self._wake.set()

    def look_for_leader(self) -> None:
        """Ask soon who leads etcd."""
        self._leader_due = 0.0

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = self._clock.monotonic()
            quick = begun < self._quick_until
            before = (self.view, self.trouble)
            try:
                self._take_anew()
                self._read(with_lease=quick or self._number % _LEASE_EVERY == 0)
                self._now_and_then(begun, quick=quick)
                self.trouble = ""
            except EtcdError as error:
                self.trouble = str(error)[:300]
            except Exception as error:  # noqa: BLE001 - a thread that died would never look again
                self.trouble = f"{type(error).__name__}: {error}"[:300]
            if quick or _facts(before[0]) != _facts(self.view) or before[1] != self.trouble:
                with contextlib.suppress(RuntimeError):  # the loop has gone
                    self._changed()
            self._number += 1
            wait = _QUICK_SECONDS if quick else self._config.etcd.interval_seconds
            self._wake.wait(max(0.0, begun + wait - self._clock.monotonic()))
            self._wake.clear()

    def _take_anew(self) -> None:
        if self._withdraw.is_set():
            # Nobody renews it until this has worked: unasked, it ends with its lease.
            self._lock.release(_DEADLINE_SECONDS)
            self._lock.hold(_DEADLINE_SECONDS)
            self._fences_due = 0.0
            self._withdraw.clear()

    def _read(self, *, with_lease: bool) -> None:
        # The endpoint beside the primary is asked last: it dies with it, and would cost a timeout first.
        holder = self._config.members.get(self.view.holder or "")
        if holder is not None and holder.etcd:
            self._etcd.endpoints.sort(key=holder.etcd.__eq__)
        prefix, own = self._config.etcd.prefix, self._config.etcd.own_prefix
        accepted_at = self.view.accepted_at
        # etcd writes to its disk for each test; in a hurry the last one holds for a while.
        tests = accepted_at is None or self._clock.monotonic() - accepted_at >= _TESTED_SECONDS
        seen = self._etcd.read_cluster(
            prefix,
            test_key=f"{own}alive/{self._config.owner}",
            test_value=str(self._number) if tests else None,
            deadline_seconds=_DEADLINE_SECONDS,
        )
        if self.view.raft_term is not None and seen.raft_term != self.view.raft_term:
            self.elected_at = seen.answered_at
        view = EtcdView(
            accepted_at=seen.asked_at if tests else accepted_at,
            asked_at=seen.asked_at,
            answered_at=seen.answered_at,
            raft_term=seen.raft_term,
            sync_leader=seen.sync_leader,
            sync_members=seen.sync_members,
            paused=seen.paused,
            etcd_leader=self.view.etcd_leader,
            leave_etcd_leader=self.view.leave_etcd_leader,
        )
        if seen.leader is not None:
            key = seen.leader
            view = replace(view, holder=key.value, mod_revision=key.mod_revision)
            if with_lease and key.lease_id:
                lease = self._etcd.read_lease(key.lease_id, _DEADLINE_SECONDS)
                # Of another term it is no part of this reading.
                if lease.raft_term == seen.raft_term:
                    view = replace(
                        view,
                        answered_at=lease.answered_at,
                        lease_id=key.lease_id,
                        lease_ttl_seconds=lease.ttl_seconds,
                        lease_granted_seconds=lease.granted_seconds,
                    )
        self.view = view

    def _now_and_then(self, now: float, *, quick: bool) -> None:
        """What need not be asked each time; and what can wait does wait while every millisecond counts."""
        if now >= self._lock_due:
            since = self._lock.since
            self._lock.hold(_DEADLINE_SECONDS)
            self._lock_due = now + self._config.etcd.lock_seconds / 3
            if self._lock.since != since:
                self._fences_due = now
        if now >= self._fences_due:
            asked = self._clock.monotonic()
            self.fences_recorded, self.fences_elsewhere = self._fences(forget=not quick)
            self.fences_read_at = asked
            self._fences_due = now + _FENCES_SECONDS
        if now >= self._leader_due and not quick:
            self._leader_due = now + _LEADER_SECONDS
            # The word after the leader: a leader that was put there is never seen without the word that went before it.
            leader, leave = self._etcd_leader(), self._is_to_be_left()
            self.view = replace(self.view, etcd_leader=leader, leave_etcd_leader=leave)

    def _fences(self, *, forget: bool) -> tuple[int, int]:
        """Own fences, and those of other guards. An own one that is past is taken back, so that others do not count it either."""
        prefix = fence_prefix(self._config)
        body = {"key": encode(prefix), "range_end": encode(prefix[:-1] + "0")}
        found = self._etcd.call("/v3/kv/range", body, _DEADLINE_SECONDS).get("kvs") or []
        own = f"{prefix}{self._config.owner}/"
        mine = [item for item in found if decode(item["key"]).startswith(own)]
        window = self._config.limits.fence_window_seconds
        past = [item for item in mine if _is_past(decode(item.get("value", "")), self._clock, window)]
        with contextlib.suppress(EtcdError):  # the next count tries again
            for item in past if forget else ():
                self._etcd.call("/v3/kv/deleterange", {"key": item["key"]}, _DEADLINE_SECONDS)
        return len(mine) - len(past), len(found) - len(mine)

    def _etcd_leader(self) -> str | None:
        leader = self._etcd.leader_id(_DEADLINE_SECONDS)
        now = self._clock.monotonic()
        # The members of etcd are looked up now and then only, and when somebody unknown leads.
        if leader is not None and (leader not in self._names or now >= self._names_due):
            self._names = {member.id: member.name for member in self._etcd.members(_DEADLINE_SECONDS)}
            self._names_due = now + _NAMES_SECONDS
        name = self._names.get(leader or 0)
        return name if name in self._config.members else None

    def _is_to_be_left(self) -> bool:
        body = {"key": encode(leave_key(self._config)), "keys_only": True}
        return bool(self._etcd.call("/v3/kv/range", body, _DEADLINE_SECONDS).get("kvs"))


def _facts(view: EtcdView) -> tuple[object, ...]:
    keys = (view.holder, view.mod_revision, view.raft_term, view.sync_members, view.paused)
    return (*keys, view.etcd_leader, view.leave_etcd_leader)
