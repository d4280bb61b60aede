# SPDX-License-Identifier: GPL-3.0-or-later
"""What the failover guard's hands begin, what they leave alone, and how an end is told."""

from __future__ import annotations

import asyncio
import queue
import threading
import time

import pytest

from diting.core.failover_view import Outcome, Power
from diting.core.fence import Order
from diting.core.guard import Action
from diting.guards.etcd import KeyRevision
from diting.guards.etcd_transport import TransportError
from diting.guards.failover_config import FailoverConfig, Proxy
from diting.guards.failover_hands import Hands
from diting.guards.fence_agents import FenceAgents
from diting.guards.proxies import ProxyError, commands, tell
from diting.guards.runtime.ports import SystemClock
from diting.guards.witness_client import WitnessError


def config(**changes):
    members = {
        f"pg{n}": {"address": f"10.0.0.{n}", "witness": f"https://pg{n}:7444", "etcd": f"https://pg{n}:2379"}
        for n in (1, 2, 3)
    }
    data = {"owner": "ops1", "members": members, "etcd": {}, "fencing": {"agent": "power"}, **changes}
    return FailoverConfig.model_validate(data)


class Witness:
    def __init__(self, name, answer):
        self.name, self.answer, self.asked = name, answer, []

    async def order(self, name, body, seconds):
        self.asked.append((name, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Lock:
    def __init__(self, proof=None, elected_at=None):
        self.proof, self.elected_at, self.withdrawn = proof, elected_at, 0

    def withdraw(self):
        self.withdrawn += 1


LOCK = KeyRevision("/diting/lock", 31)


def nobody(endpoint, path, body, timeout_seconds):
    raise TransportError(f"{endpoint}: nobody is there")


def carry_out(name, transport=nobody, witnesses=(), settings=None, age=0.0, lock=None, **args):
    """Begin one action, and wait for its end."""

    async def run():
        ended = asyncio.Event()
        clients = {witness.name: witness for witness in witnesses}
        hands = Hands(settings or config(), transport, clients, lock or Lock(LOCK), SystemClock(), ended.set)
        not_after = time.monotonic() + 1 - age
        given = {"incident": "pg1-7-1", "target": "pg1", "not_after": not_after, "deadline_seconds": 0.5}
        try:
            begun = hands.begin(Action(name, {**given, **args}))
            async with asyncio.timeout(5):
                await ended.wait()
        finally:
            hands.close()
        return begun, hands

    return asyncio.run(run())


@pytest.mark.parametrize("name", ["fence", "isolate", "release", "tell_proxies", "power_on"])
def test_what_has_aged_is_not_begun(name):
    def never(*_args):
        raise AssertionError("it was begun")

    witness = Witness("pg2", (200, ""))
    begun, hands = carry_out(name, never, [witness], age=1.01, survivors=["pg2"], hold_seconds=60)
    result = hands.results[name]
    assert (begun, result.outcome, result.incident) == (False, Outcome.UNKNOWN, "pg1-7-1")
    assert "aged" in result.words
    assert not result.begun
    assert witness.asked == []


def test_a_read_back_that_has_aged_is_unknown():
    _begun, hands = carry_out("read_back", age=1.01)
    assert (hands.read_back.power, hands.read_back.incident) == (Power.UNKNOWN, "pg1-7-1")


def test_an_agent_that_cannot_be_made_has_ordered_nothing():
    _begun, hands = carry_out("fence")
    assert hands.results["fence"].outcome is Outcome.FAILED
    assert not hands.results["fence"].begun
    _begun, hands = carry_out("read_back")
    assert hands.read_back.power is Power.UNKNOWN


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        (((200, ""), (200, "")), Outcome.DONE),
        (((200, ""), (403, "no member's address")), Outcome.FAILED),
        (((200, ""), (503, "")), Outcome.UNKNOWN),
        (((200, ""), WitnessError("no answer")), Outcome.UNKNOWN),
        ((WitnessError("no answer"), (403, "")), Outcome.FAILED),
    ],
)
def test_isolated_means_on_every_survivor(answers, outcome):
    witnesses = [Witness(name, answer) for name, answer in zip(("pg2", "pg3"), answers, strict=True)]
    _begun, hands = carry_out("isolate", witnesses=witnesses, survivors=["pg2", "pg3"], hold_seconds=60)
    assert hands.results["isolate"].outcome is outcome
    wanted = ("isolate", {"address": "10.0.0.1", "hold_seconds": 60.0})
    assert [witness.asked for witness in witnesses] == [[wanted], [wanted]]


def test_a_survivor_without_a_witness_is_not_isolated():
    _begun, hands = carry_out(
        "isolate", witnesses=[Witness("pg2", (200, ""))], survivors=["pg2", "pg3"], hold_seconds=60
    )
    assert hands.results["isolate"].outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ({"succeeded": True}, Outcome.DONE),
        ({"responses": [{"response_range": {}}]}, Outcome.DONE),
        (
            {"responses": [{"response_range": {"kvs": [{"value": "cGcy", "mod_revision": "9"}]}}]},
            Outcome.FAILED,
        ),
    ],
)
def test_how_a_release_ends(answer, outcome):
    asked = []

    def etcd(endpoint, path, body, timeout_seconds):
        asked.append((endpoint, body))
        return 200, answer

    _begun, hands = carry_out("release", etcd, mod_revision=7)
    assert hands.results["release"].outcome is outcome
    assert asked[0][0] != "https://pg1:2379", "the endpoint beside the dead primary is asked last"
    assert asked[0][1]["compare"][1]["modRevision"] == "7"
    assert asked[0][1]["compare"][2]["modRevision"] == "31"


MEMBERS = [{"ID": str(n), "name": f"pg{n}", "clientURLs": [f"https://pg{n}:2379"]} for n in (1, 2, 3)]


@pytest.mark.parametrize(("refuse", "outcome"), [((), "pg2"), (("2",), "pg3"), (("2", "3"), None)], ids=str)
def test_when_one_member_cannot_lead_etcd_another_is_asked(refuse, outcome):
    """The first one in the list may be a learner, be down, or lag behind."""
    asked = []

    def etcd(endpoint, path, body, timeout_seconds):
        if path.endswith("member/list"):
            return 200, {"members": MEMBERS}
        if path.endswith("maintenance/status"):
            return 200, {"leader": "1"}
        asked.append(body["targetID"])
        if body["targetID"] in refuse:
            return 400, {"error": {"message": "etcdserver: bad leader transferee"}}
        return 200, {}

    args = {"from": "pg1", "deadline_seconds": 3}
    _begun, hands = carry_out("move_etcd_leader", etcd, **args)
    result = hands.results["move_etcd_leader"]
    assert result.outcome is (Outcome.DONE if outcome else Outcome.FAILED)
    assert asked == [str(n) for n in range(2, 2 + len(asked))]
    assert (outcome or "bad leader transferee") in result.words


def test_a_release_does_not_wait_for_an_errand():
    """Moving etcd's leader may take seconds of a bad moment; the release has a thread of its own."""
    moving, go_on = threading.Event(), threading.Event()

    def etcd(endpoint, path, body, timeout_seconds):
        if path.endswith("member/list"):
            moving.set()
            go_on.wait(5)
        return 200, {"succeeded": True, "members": []}

    async def run():
        ended = asyncio.Event()
        hands = Hands(config(), etcd, {}, Lock(LOCK), SystemClock(), ended.set)
        args = {"incident": "i", "target": "pg1", "from": "pg1", "not_after": time.monotonic() + 5}
        hands.begin(Action("move_etcd_leader", {**args, "deadline_seconds": 5}))
        await asyncio.to_thread(moving.wait, 5)
        hands.begin(Action("release", {**args, "mod_revision": 7, "deadline_seconds": 2}))
        await ended.wait()
        go_on.set()
        hands.close()
        return hands.results

    assert asyncio.run(asyncio.wait_for(run(), 10))["release"].outcome is Outcome.DONE


def test_a_release_without_an_answer_is_unknown():
    _begun, hands = carry_out("release", mod_revision=7)
    assert hands.results["release"].outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("works", [True, False])
def test_a_fence_is_on_record_in_etcd_before_its_end_is_told(monkeypatch, works):
    """The record outlives the state file; a guard that believes it is there must not be wrong."""
    put = []

    def etcd(endpoint, path, body, timeout_seconds):
        time.sleep(0.1)
        if not works:
            raise TransportError("no answer")
        put.append(path)
        return 200, {"ID": "5"}

    monkeypatch.setattr(FenceAgents, "agent", lambda _self, _member, _incident=None: Quick())
    _begun, hands = carry_out("fence", etcd, deadline_seconds=5)
    result = hands.results["fence"]
    assert result.outcome is Outcome.DONE
    assert put == (["/v3/lease/grant", "/v3/kv/put"] if works else [])
    assert ("not on record" in result.words) is not works


def test_without_an_agent_nothing_is_put_on_record(monkeypatch):
    def never(*_args):
        raise AssertionError("it was asked")

    _begun, hands = carry_out("fence", never)
    assert not hands.results["fence"].begun


class Quick:
    def off(self, seconds):
        return Order(Outcome.DONE, 0.0, 0.0, "off")


def test_orders_for_one_host_never_overlap(monkeypatch):
    """An "on" waits for the end of the "off" before it, and another host's for neither."""
    calls, free = queue.Queue(), threading.Event()

    class Slow:
        def __init__(self, member):
            self.member = member

        def off(self, seconds):
            calls.put(("off", self.member))
            free.wait(5)
            calls.put(("was off", self.member))
            return Order(Outcome.DONE, 0.0, 0.0)

        def on(self, seconds, *, leader=None):
            calls.put(("on", self.member))
            return Order(Outcome.DONE, 0.0, 0.0)

    monkeypatch.setattr(FenceAgents, "agent", lambda _self, member, _incident=None: Slow(member))

    async def run():
        hands = Hands(config(), nobody, {}, Lock(LOCK), SystemClock(), lambda: None)
        args = {"incident": "i", "not_after": time.monotonic() + 5, "deadline_seconds": 5, "leader": "pg2"}
        hands.begin(Action("fence", {**args, "target": "pg1"}))
        seen = [await asyncio.to_thread(calls.get, timeout=5)]
        hands.begin(Action("power_on", {**args, "target": "pg1"}))
        hands.begin(Action("power_on", {**args, "target": "pg3"}))
        seen.append(await asyncio.to_thread(calls.get, timeout=5))
        free.set()
        seen += [await asyncio.to_thread(calls.get, timeout=5) for _ in range(2)]
        hands.close()
        return seen

    assert asyncio.run(run()) == [("off", "pg1"), ("on", "pg3"), ("was off", "pg1"), ("on", "pg1")]


def test_without_the_lock_nothing_is_released():
    def never(*_args):
        raise AssertionError("it was asked")

    _begun, hands = carry_out("release", never, lock=Lock(None), mod_revision=7)
    assert hands.results["release"].outcome is Outcome.FAILED


@pytest.mark.parametrize("late", [False, True])
def test_a_release_that_is_withdrawn_is_not_tried_again(late):
    """The sign came while the first attempt waited for its answer; nothing asks a second time."""
    attempts, attempt, answer = [], threading.Event(), threading.Event()

    def etcd(endpoint, path, body, timeout_seconds):
        attempts.append(endpoint)
        attempt.set()
        answer.wait(5)
        raise TransportError("no answer")

    async def run():
        lock = Lock(LOCK)
        ended = asyncio.Event()
        hands = Hands(config(), etcd, {}, lock, SystemClock(), ended.set)
        now = time.monotonic()
        args = {"incident": "pg1-7-1", "target": "pg1", "not_after": now + 1, "mod_revision": 7}
        hands.begin(Action("release", {**args, "deadline_seconds": 5}))
        await asyncio.to_thread(attempt.wait, 5)
        # However old the decision to withdraw is: it is never too late for that.
        assert hands.begin(Action("withdraw", {**args, "not_after": now - (60 if late else -1)}))
        assert lock.withdrawn == 1
        answer.set()
        await ended.wait()
        hands.close()
        return hands.results["release"]

    assert asyncio.run(run()).outcome is Outcome.UNKNOWN
    assert len(attempts) == 1


def test_a_release_is_not_tried_beyond_its_last_moment():
    attempts = []

    def etcd(endpoint, path, body, timeout_seconds):
        attempts.append(endpoint)
        time.sleep(1.0)
        raise TransportError("no answer")

    carry_out("release", etcd, age=0.2, deadline_seconds=5, mod_revision=7)
    assert len(attempts) == 1


def test_a_proxy_that_closes_without_a_word_was_not_told(tmp_path):
    async def run(answer):
        async def serve(reader, writer):
            await reader.readline()
            writer.write(answer)
            writer.close()

        path = tmp_path / f"{len(answer)}.sock"
        async with await asyncio.start_unix_server(serve, str(path)):
            proxy = Proxy(name="client1", socket=path)
            await tell(proxy, "pg1", lambda: None, 2.0)

    asyncio.run(run(b"\n\n\n\n"))
    for answer in (b"", b"\nNo such server.\n"):
        with pytest.raises(ProxyError, match="client1"):
            asyncio.run(run(answer))
    assert commands(["w"], "pg1") == b"set server w/pg1 health down; shutdown sessions server w/pg1\n"


@pytest.mark.parametrize(("ago", "asked"), [(None, []), (0.5, [("ask_anew", {})]), (60.0, [])])
def test_after_an_election_of_etcd_the_members_ask_it_anew(ago, asked):
    """What was asked of etcd while it had no leader is never answered; Patroni would wait for seconds."""
    witness, fenced = Witness("pg2", (200, "")), Witness("pg1", (200, ""))
    elected = None if ago is None else time.monotonic() - ago
    carry_out("tell_proxies", witnesses=[witness, fenced], lock=Lock(LOCK, elected))
    assert witness.asked == asked
    assert fenced.asked == [], "it is off, and its silence would be waited for"
