# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock in etcd that ends by itself: one of several guards acts, the others watch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from diting.guards.etcd import Etcd, EtcdError, KeyRevision, encode

if TYPE_CHECKING:
    from collections.abc import Callable


class Lock:
    """Key ``key`` under a lease of ``ttl_seconds``, held by ``owner``, which names the host and not the process.

    A guard that was killed takes its own lock back at once. So two processes of one host have to be kept apart by a
    lock of that host (the runtime's).

    ``until`` is the monotonic moment up to which the lock is certainly ours: counted from before the request that took or
    renewed it was sent, since the lease cannot have begun earlier. What is not renewed in time is lost, and that is known here
    without asking anybody.
    """

    def __init__(
        self,
        etcd: Etcd,
        key: str,
        owner: str,
        *,
        ttl_seconds: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._etcd = etcd
        self._key = key
        self._owner = owner
        self._ttl = ttl_seconds
        self._clock = clock
        self._lease: int | None = None
        self._until: float | None = None
        self._revision: int | None = None
        self.since: float | None = None
        """When the lock was known to be ours; it has been held without a gap from then on for as long as ``until`` stands."""

    @property
    def until(self) -> float | None:
        """Moment until when the lock is ours for certain; None when it is not ours."""
        return self._until if self._until is not None and self._until > self._clock() else None

    @property
    def proof(self) -> KeyRevision | None:
        """The lock as this life has taken it, for a transaction that must not outlive it; None when it is not ours."""
        until, revision = self.until, self._revision
        return None if until is None or revision is None else KeyRevision(self._key, revision)

    def hold(self, deadline_seconds: float) -> bool:
        """Take the lock or renew it; True when it is ours. Raises :class:`EtcdError` when nobody answered."""
        if self.until is not None and self._lease is not None and self._renew(self._lease, deadline_seconds):
            return True
        self._until = None
        return self._take(deadline_seconds)

    def _renew(self, lease: int, deadline_seconds: float) -> bool:
        asked = self._clock()
        answer = self._etcd.call("/v3/lease/keepalive", {"ID": str(lease)}, deadline_seconds)
        ttl = int(answer.get("result", answer).get("TTL", 0))
        if ttl <= 0:
            return False
        self._until = asked + ttl
        return True

    def _take(self, deadline_seconds: float) -> bool:
        end = self._clock() + deadline_seconds
        asked = self._clock()
        answer = self._etcd.call("/v3/lease/grant", {"TTL": str(self._ttl)}, deadline_seconds)
        try:
            lease, ttl = int(answer["ID"]), int(answer["TTL"])
        except (KeyError, TypeError, ValueError) as error:
            raise EtcdError(f"etcd: the answer to a lease cannot be read: {error!r}") from error
        put = [{"requestPut": {"key": encode(self._key), "value": encode(self._owner), "lease": str(lease)}}]
        free = [{"key": encode(self._key), "target": "CREATE", "result": "EQUAL", "createRevision": "0"}]
        mine = [
            {"key": encode(self._key), "target": "VALUE", "result": "EQUAL", "value": encode(self._owner)}
        ]
        taken_back = {"requestTxn": {"compare": mine, "success": put}}
        body = {"compare": free, "success": put, "failure": [taken_back]}
        try:
            answer = self._etcd.call("/v3/kv/txn", body, max(0.05, end - self._clock()))
            inner = answer.get("responses", [{}])[0].get("response_txn", {})
            got = bool(answer.get("succeeded") or inner.get("succeeded"))
            revision = int(answer["header"]["revision"])
        except (KeyError, TypeError, ValueError) as error:
            self._give_up(lease)
            raise EtcdError(f"etcd: the answer to a lock cannot be read: {error!r}") from error
        except EtcdError:
            # It may be ours without our knowing; the lease ends it. Nothing is done under a lock like that.
            self._give_up(lease)
            raise
        if not got:
            self._give_up(lease)
            return False
        # Renewing leaves the revision alone; only taking the lock anew, or giving it back, makes another one.
        self._lease, self._revision, self.since = lease, revision, self._clock()
        self._until = asked + ttl
        return True

    def _give_up(self, lease: int) -> None:
        try:
            self._etcd.call("/v3/lease/revoke", {"ID": str(lease)}, 0.5)
        except EtcdError:
            return  # it runs out by itself

    def release(self, deadline_seconds: float) -> None:
        """Give the lock back. Raises :class:`EtcdError` when nobody answered; then it runs out by itself."""
        lease, self._lease, self._until = self._lease, None, None
        if lease is not None:
            self._etcd.call("/v3/lease/revoke", {"ID": str(lease)}, deadline_seconds)
