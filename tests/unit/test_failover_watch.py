# SPDX-License-Identifier: GPL-3.0-or-later
"""The failover guard's lock among guards counts once it is known what others did before it was taken."""

from __future__ import annotations

import pytest

from diting.guards.etcd import EtcdError, decode, encode
from diting.guards.failover_config import FailoverConfig
from diting.guards.failover_etcd import EtcdWatch, fence_prefix, fence_record
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
        self.records, self.deleted = {}, []
        self.reads = []

    def __call__(self, endpoint, path, body, timeout_seconds):
        if path == "/v3/lease/grant":
            return 200, {"ID": "7", "TTL": body["TTL"]}
        if path == "/v3/lease/keepalive":
            return 200, {"result": {"TTL": "10" if self.renews else "0"}}
        if path == "/v3/kv/txn" and not body["compare"]:
            self.reads.append([kind for item in body["success"] for kind in item])
            return 200, {"header": {"raft_term": "3"}, "responses": [{"response_range": {}}] * 3}
        if path == "/v3/kv/txn":
            return 200, {"succeeded": True, "header": {"revision": "31"}}
        if path == "/v3/kv/range":
            said = {
                name: {"value": encode(self.records[name])} for name in self.fences if name in self.records
            }
            keys = [
                {"key": encode(fence_prefix(CONFIG) + name), **said.get(name, {})} for name in self.fences
            ]
            return (200, {"kvs": keys}) if self.counts else (400, {"error": "not now"})
        if path == "/v3/kv/deleterange":
            self.deleted.append(decode(body["key"]).removeprefix(fence_prefix(CONFIG)))
        return 200, {}


def test_a_lease_that_elections_made_longer_counts_no_fence_that_is_past(watch, clock, wire):
    wire.fences = ["ops2/old", "ops1/old", "ops1/new", "ops1/of-another-boot", "ops1/of-another-release"]
    old = fence_record(clock)
    clock.advance(CONFIG.limits.fence_window_seconds + 1)
    wire.records = {
        "ops2/old": old,
        "ops1/old": old,
        "ops1/new": fence_record(clock),
        "ops1/of-another-boot": old.replace(clock.boot_id(), "another"),
        "ops1/of-another-release": "fence",
    }
    look(watch, clock)
    assert (watch.fences_elsewhere, watch.fences_recorded) == (1, 3)
    assert wire.deleted == [], "not while every millisecond counts"
    clock.advance(5)
    watch._now_and_then(clock.monotonic(), quick=False)
    assert wire.deleted == ["ops1/old"]


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


def test_a_hurry_that_is_on_is_no_reason_to_ask_again(watch, clock):
    """In a silence something is heard fifty times a second; what was ordered is waited for, and asked about at once."""

    def asks_at_once():
        woken = watch._wake.is_set()
        watch._wake.clear()
        return woken

    watch.hurry(0.5)
    assert asks_at_once(), "it begins now"
    clock.advance(0.4)
    watch.hurry(0.5)
    assert not asks_at_once(), "and goes on at its own pace"
    watch.hurry(0.5, at_once=True)
    assert asks_at_once()
    clock.advance(0.6)
    watch.hurry(0.5)
    assert asks_at_once(), "the one before was over"


def test_etcd_is_not_made_to_write_for_every_reading_of_a_hurry(watch, clock, wire):
    for _ in range(9):
        asked = clock.monotonic()
        watch._read(with_lease=False)
        assert watch.view.asked_at == asked
        assert asked - watch.view.accepted_at < 0.2, "the last write that was accepted, and no later reading"
        clock.advance(0.07)
    assert ["requestPut" in kinds for kinds in wire.reads] == [True, False, False] * 3
    assert all(kinds[:3] == ["requestRange"] * 3 for kinds in wire.reads)
