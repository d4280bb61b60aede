# SPDX-License-Identifier: GPL-3.0-or-later
"""The etcd client against endpoints that refuse, stall, elect and talk rubbish; no time passes in these tests."""

from __future__ import annotations

import pytest

from diting.guards.etcd import Etcd, EtcdError, KeyRevision, Release, WithdrawnError, encode
from diting.guards.etcd_transport import TransportError

ENDPOINTS = ["https://a:2379", "https://b:2379", "https://c:2379"]


class Wire:
    """A transport with a script per endpoint (the last line repeats) and a clock that only it moves."""

    def __init__(self, **scripts):
        self.scripts = {f"https://{name}:2379": list(lines) for name, lines in scripts.items()}
        self.asked = []
        self.now = 100.0

    def __call__(self, endpoint, path, body, timeout_seconds):
        self.asked.append(endpoint[8])
        script = self.scripts[endpoint]
        line = script.pop(0) if len(script) > 1 else script[0]
        if line == "silent":
            self.now += timeout_seconds
            raise TransportError(f"{endpoint}: timed out")
        if line == "dead":
            raise TransportError(f"{endpoint}: refused")
        self.now += 0.001
        return line

    def client(self):
        return Etcd(ENDPOINTS, self, clock=lambda: self.now, pause=self.wait)

    def wait(self, seconds):
        self.now += seconds


YES = (200, {"header": {"raft_term": "3"}, "ok": True})
ELECTION = (503, {"error": "etcdserver: no leader", "code": 14})


def test_an_election_is_waited_out_round_and_round():
    wire = Wire(a=[ELECTION, ELECTION, YES], b=[ELECTION], c=[ELECTION])
    assert wire.client().call("/x", {}, 2.0)["ok"]
    assert "".join(wire.asked) == "abcabca"


def test_who_answered_is_asked_first_the_next_time():
    wire = Wire(a=["dead"], b=["silent"], c=[YES])
    client = wire.client()
    client.call("/x", {}, 2.0)
    client.call("/x", {}, 2.0)
    assert "".join(wire.asked) == "abcc"


def test_the_deadline_holds_whatever_they_do():
    wire = Wire(a=["silent"], b=[ELECTION], c=["dead"])
    begin = wire.now
    with pytest.raises(EtcdError, match=r"nothing within 2 s.*timed out.*no leader.*refused"):
        wire.client().call("/x", {}, 2.0)
    assert wire.now - begin <= 2.05


def test_a_clear_refusal_is_not_asked_again():
    wire = Wire(a=[(400, {"error": {"message": "bad request"}})], b=[YES], c=[YES])
    with pytest.raises(EtcdError, match="400 bad request"):
        wire.client().call("/x", {}, 2.0)
    assert wire.asked == ["a"]


@pytest.mark.parametrize(
    "body", [{}, {"responses": []}, {"responses": [{}] * 4, "header": {}}, {"header": 3}]
)
def test_an_answer_that_cannot_be_read_is_an_error_and_no_empty_cluster(body):
    wire = Wire(a=[(200, body)], b=["dead"], c=["dead"])
    with pytest.raises(EtcdError, match="cannot be read"):
        wire.client().read_cluster("/s/", test_key="t", test_value="v", deadline_seconds=1)


LOCK = KeyRevision("/diting/lock", 31)


def kept(value, revision):
    found = {"kvs": [{"value": encode(value), "mod_revision": str(revision)}]} if value else {}
    return (200, {"succeeded": False, "responses": [{"response_range": found}]})


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ((200, {"succeeded": True}), Release.RELEASED),
        (kept("pg1", 9), Release.CHANGED),
        (kept("", 0), Release.GONE),
    ],
    ids=str,
)
def test_how_a_release_ends(answer, end):
    wire = Wire(a=["silent", answer], b=[ELECTION], c=["dead"])
    found = wire.client().release("/s/leader", holder="pg1", mod_revision=7, lock=LOCK, deadline_seconds=3)
    assert found is end


def test_what_is_not_wanted_any_more_is_not_asked_again():
    wire = Wire(a=["silent"], b=[YES], c=[YES])
    common = {"holder": "pg1", "mod_revision": 7, "lock": LOCK, "deadline_seconds": 3}
    with pytest.raises(WithdrawnError, match="timed out"):
        wire.client().release("/s/leader", wanted=lambda: not wire.asked, **common)
    assert wire.asked == ["a"]


def test_a_release_that_nobody_answers_is_unknown_and_not_done():
    wire = Wire(a=["silent"], b=["silent"], c=["silent"])
    with pytest.raises(EtcdError):
        wire.client().release("/s/leader", holder="pg1", mod_revision=7, lock=LOCK, deadline_seconds=1)
