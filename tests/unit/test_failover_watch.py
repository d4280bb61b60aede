# SPDX-License-Identifier: GPL-3.0-or-later
"""The failover guard's lock among guards counts once it is known what others did before it was taken."""

from __future__ import annotations

import pytest

from diting.guards.etcd import EtcdError, encode
from diting.guards.failover_config import FailoverConfig
from diting.guards.failover_etcd import EtcdWatch, fence_prefix
from support.guard_fakes import FakeClock

CONFIG = FailoverConfig.model_validate(
    {
        "owner": "ops1",
        "members": {f"pg{n}": {"address": f"10.0.0.{n}", "etcd": f"https://pg{n}:2379"} for n in (1, 2, 3)},
        "etcd": {},
        "fencing": {"agent": "power"},
    }
)


class Wire:
    """An etcd that gives every lock, and counts fences when it is told to."""

    def __init__(self):
        self.fences, self.counts, self.renews = ["ops2/pg1-7-1"], True, True

    def __call__(self, endpoint, path, body, timeout_seconds):
        if path == "/v3/lease/grant":
            return 200, {"ID": "7", "TTL": body["TTL"]}
        if path == "/v3/lease/keepalive":
            return 200, {"result": {"TTL": "10" if self.renews else "0"}}
        if path == "/v3/kv/txn":
            return 200, {"succeeded": True, "header": {"revision": "31"}}
        if path == "/v3/kv/range":
            keys = [{"key": encode(fence_prefix(CONFIG) + name)} for name in self.fences]
            return (200, {"kvs": keys}) if self.counts else (400, {"error": "not now"})
        return 200, {}


def test_own_fences_are_told_from_those_of_others(watch, clock, wire):
    wire.fences = ["ops2/pg1-7-1", "ops1/pg1-7-1", "ops1/pg2-9-2", "ops11/pg1-7-1"]
    look(watch, clock)
    assert (watch.fences_elsewhere, watch.fences_recorded) == (2, 2)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def watch(clock, wire):
    made = EtcdWatch(CONFIG, wire, clock, lambda: None)
    yield made
    made.close()


def look(watch, clock):
    watch._now_and_then(clock.monotonic(), quick=True)


def test_a_count_from_before_the_lock_may_lack_the_fence_of_whoever_held_it(watch, wire, clock):
    wire.counts = False
    with pytest.raises(EtcdError):
        look(watch, clock)
    assert watch._lock.until is not None
    assert watch.lock_until is None
    wire.counts = True
    look(watch, clock)
    assert (watch.fences_elsewhere, watch.lock_until) == (1, watch._lock.until)


def test_a_lock_that_was_lost_in_between_is_a_new_one(watch, wire, clock):
    look(watch, clock)
    clock.advance(4)
    wire.counts = False
    with pytest.raises(EtcdError):
        look(watch, clock)
    assert watch.lock_until is not None, "renewed: nobody else can have fenced"
    clock.advance(11)
    assert watch.lock_until is None
    with pytest.raises(EtcdError):
        look(watch, clock)
    assert watch._lock.until is not None
    assert watch.lock_until is None, "taken anew: somebody else may have had it"
    wire.counts = True
    look(watch, clock)
    assert watch.lock_until is not None
