# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader: what a member's answer, refusal or silence becomes before the judge sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.diting.dr.plugins.module_utils._patroni import (
    HttpsRest,
    PatroniError,
    ask_member,
    ask_members,
    get_json,
    look,
)
from ansible_collections.diting.dr.plugins.modules.patroni_config import first_config
from diting.core.patroni_state import Expectation, MemberAnswer, judge


class Canned:
    """A :class:`Rest` that answers from a table; what is not in the table cannot be reached."""

    def __init__(self, answers: dict[str, tuple[int, str]]):
        self.answers = answers
        self.asked: list[tuple[str, str, Any]] = []

    def __call__(self, method: str, url: str, body: Any = None) -> tuple[int, str]:
        self.asked.append((method, url, body))
        if url not in self.answers:
            raise PatroniError(f"{url}: connection refused")
        return self.answers[url]


def test_a_member_says_who_it_is():
    rest = Canned({"u/patroni": (200, '{"role": "primary"}'), "u/cluster": (200, '{"members": []}')})
    answer = ask_member(rest, "pg1", "u")
    assert answer.reachable
    assert answer.status == {"role": "primary"}
    assert answer.view == {"members": []}


def test_503_is_an_answer():
    rest = Canned({"u/patroni": (503, '{"role": "replica"}'), "u/cluster": (200, '{"members": []}')})
    assert ask_member(rest, "pg2", "u").status == {"role": "replica"}


@pytest.mark.parametrize("body", [(200, "not json"), (200, "[]"), (500, "{}"), (401, "no")])
def test_anything_else_is_silence_with_a_reason(body):
    answer = ask_member(Canned({"u/patroni": body}), "pg1", "u")
    assert not answer.reachable
    assert "u/patroni" in str(answer.error)


def test_a_member_without_a_view_still_counts_as_reached():
    answer = ask_member(Canned({"u/patroni": (200, "{}")}), "pg1", "u")
    assert answer.reachable
    assert answer.view is None


def test_all_members_are_asked_and_keep_their_names():
    rest = Canned({"b/patroni": (200, "{}"), "b/cluster": (200, "{}")})
    answers = ask_members(rest, {"pg1": "a", "pg2": "b"})
    assert [(answer.name, answer.reachable) for answer in answers] == [("pg1", False), ("pg2", True)]


def test_an_unreadable_ca_names_the_member():
    with pytest.raises(PatroniError, match=r"127[.]0[.]0[.]1:1/patroni"):
        get_json(HttpsRest(ca_file="/nonexistent"), "https://127.0.0.1:1/patroni")


def test_configuration_comes_from_the_first_member_that_answers():
    rest = Canned({"b/config": (200, json.dumps({"ttl": 20}))})
    assert first_config(rest, {"pg1": "a", "pg2": "b"}) == ("b", {"ttl": 20})


def test_no_configuration_names_every_member():
    with pytest.raises(PatroniError, match=r"pg1: .*pg2: "):
        first_config(Canned({}), {"pg1": "a", "pg2": "b"})


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def looks(clock: Clock, healthy_from: float, wait_seconds: float):
    view = {"members": [{"name": "pg1", "role": "leader", "state": "running"}]}

    def ask():
        up = MemberAnswer("pg1", status={"role": "primary", "state": "running"}, view=view)
        answer = up if clock.now >= healthy_from else MemberAnswer("pg1", error="refused")
        return judge([answer], Expectation(["pg1"]))

    return look(ask, ["HEALTHY"], wait_seconds, clock.monotonic, clock.sleep)


def test_without_a_deadline_it_looks_once():
    clock = Clock()
    judgement, waited = looks(clock, healthy_from=5, wait_seconds=0)
    assert (judgement.health.value, waited, clock.now) == ("UNKNOWN", 0, 0)


def test_it_waits_until_the_verdict_comes():
    judgement, waited = looks(Clock(), healthy_from=5, wait_seconds=60)
    assert judgement.health.value == "HEALTHY"
    assert waited == 5


def test_the_deadline_ends_the_wait():
    judgement, waited = looks(Clock(), healthy_from=1000, wait_seconds=10)
    assert judgement.health.value == "UNKNOWN"
    assert 9 < waited <= 10
