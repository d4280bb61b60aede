# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""What ``diting guard status`` says to somebody who has just been woken."""

from __future__ import annotations

import dataclasses
import json

import pytest

from diting.cli.guard import status_lines
from diting.core import clock_guard, failover_machine, failover_words, guard_words, witness_guard
from diting.core.failover_state import FailoverState
from diting.core.failover_view import Answer, Probe
from diting.guards.runtime.status import hindrances
from support.failover_fixtures import guard, world  # noqa: F401 - fixtures are used by their names
from support.failover_world import POLICY, Guard, World, play, replace, settle

WIDTH = 100


def words(guard, world, **changes):
    """The lines, by their labels; those that go on are joined."""
    seen = dataclasses.replace(world.see(), **changes)
    found, last = {}, ""
    for label, text in failover_words.describe(guard.state, seen, POLICY):
        assert len(text) <= WIDTH - 14
        last = label or last
        found.setdefault(last, []).append(text)
    return {label: " | ".join(texts) for label, texts in found.items()}


def status(guard, seen, *, kind="failover", policy=POLICY, state=None):
    """A status as it is read from its file."""
    found = {
        "guard": kind,
        "kind": kind,
        "verdict": "ok",
        "why": "",
        "phase": "watching",
        "cycle": 7,
        "updated_at": "2026-11-21T09:00:00.000000Z",
        "pid": 99,
        "pause": None,
        "incident_id": None,
        "policy": policy.as_dict(),
        "state": (state or guard.state).as_dict(),
        "observation": seen.as_dict(),
        "last_actions": [],
        "alerts_firing": [],
        "alerts_waiting": 0,
        "journal": "/var/lib/diting/guards/failover/journal.jsonl",
    }
    return json.loads(json.dumps(found))


def test_in_good_weather_all_that_decides_is_there_on_one_page(guard, world):
    found = words(guard, world)
    assert found["phase"].startswith("watching for 0.40 s: all read once")
    assert found["armed"] == "yes"
    assert found["primary"] == "pg1"
    assert found["leader key"] == "pg1 holds it, revision 7; read 0.05 s ago"
    assert found["candidates"] == "pg2 up, pg3 up"
    assert "pg3: tcp ok 0.05 s ago, rest ok 0.05 s ago, sql ok 0.05 s ago" in found["vantage"]
    assert found["etcd"] == "accepted a write 0.05 s ago; lock among guards ours"
    assert found["fences"] == "0 of 1 within 15 min 0 s"
    assert found["a fence"] == "possible now"
    lines = status_lines(status(guard, world.see()))
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) <= 20
    assert lines[-2:] == [
        "  alerts      firing: none",
        "  journal     /var/lib/diting/guards/failover/journal.jsonl",
    ]


@pytest.mark.parametrize(
    ("change", "label", "wanted"),
    [
        ({"armed": False}, "armed", "no: people are told"),
        ({"armed": False}, "a fence", "not possible now: | - the guard is not armed"),
        ({"lever": True}, "a fence", "- the stop-all lever is pulled"),
        ({"etcd_writes": False}, "a fence", "- not seen: a write that etcd accepted lately"),
        ({"etcd_writes": False}, "etcd", "accepted a write 9.0 s ago"),
        ({"locked": False}, "etcd", "not ours: this guard only watches"),
        ({"up": ("pg3",)}, "candidates", "pg2 not up, pg3 up"),
        ({"space": ("pg3",)}, "candidates", "pg2 up without space"),
        ({"sync": ()}, "candidates", "/sync lists none"),
        ({"stale": ("pg2",)}, "vantage", "pg2: no answer from it, last 5.0 s ago"),
        ({"holder": None}, "leader key", "nobody holds it; read"),
        ({"paused": True}, "leader key", "Patroni is paused"),
        ({"elsewhere": None}, "fences", "those of others not known"),
        ({"recorded": 1}, "a fence", "1 fences within 900 s, and 1 are allowed"),
    ],
    ids=str,
)
def test_what_is_not_as_it_should_be_is_said_where_it_is_looked_for(guard, world, change, label, wanted):
    assert wanted in words(guard, replace(world, **change))[label]


def test_a_silence_is_shown_with_its_length(guard, world):
    world = play(guard, world.dies(), 0.2)
    assert "ops1: tcp timeout for 0.18 s" in words(guard, world)["vantage"]
    assert words(guard, world)["phase"].startswith("suspect for 0.2")
    world = play(guard, world, 1.0)
    assert "incident pg1-7-1" in words(guard, world)["primary"]


def test_before_anything_was_seen_nothing_is_invented():
    guard, world = Guard(state=FailoverState()), World(target=None)
    found = words(guard, world, etcd=type(world.see().etcd)(), vantages=(), notes={"etcd": "refused " * 40})
    assert (found["primary"], found["leader key"]) == ("none has been seen yet", "never read")
    assert found["etcd"].startswith("accepted a write never")
    assert found["notes"].endswith("...")


def test_a_primary_that_looks_at_itself_is_no_witness(guard, world):
    assert "pg2: the primary itself" in words(guard, world, target="pg2")["vantage"]
    silent = tuple(dataclasses.replace(v, sql=Probe(Answer.NONE)) for v in world.see().vantages)
    assert "sql not tried" in words(guard, world, vantages=silent)["vantage"]


def test_a_status_of_another_release_is_shown_as_it_is_and_cut():
    guard = Guard()
    world = settle(guard, World())
    found = status(guard, world.see())
    found["observation"]["colour"] = "blue"
    lines = status_lines(found)
    assert max(map(len, lines)) <= WIDTH
    assert "              colour: blue" in lines
    del found["state"]
    assert "              colour: blue" in status_lines(found)


def test_programs_are_told_what_keeps_the_guard_from_a_fence():
    guard = Guard()
    world = settle(guard, World())
    found = status(guard, world.see())
    assert hindrances(found) == []
    limit = found["policy"]["fence_max_per_window"]
    found["observation"]["fences_recorded"] = limit
    assert hindrances(found) == [f"{limit} fences within 900 s, and {limit} are allowed"]
    found["observation"]["colour"] = "blue"
    assert hindrances(found) is None, "what another release says is not understood, and no all-clear"
    assert hindrances(None) is None


@pytest.mark.parametrize(
    ("kind", "seen", "policy", "state", "wanted"),
    [
        (
            "witness",
            witness_guard.Observation("life-1", None, ("10.0.0.1",), "pg1: tcp=ok"),
            witness_guard.Policy(("10.0.0.1",)),
            witness_guard.State(),
            [
                '  sees        routes: ["10.0.0.1"]',
                "              sees: pg1: tcp=ok",
            ],
        ),
        (
            "clock",
            clock_guard.Observation(clock_guard.Answer.SYNCHRONISED, 0.004, "chrony " * 30),
            clock_guard.Policy(0.1, 10.0, 60.0),
            clock_guard.State(),
            ["  sees        answer: synchronised", "              offset_seconds: 0.004"],
        ),
    ],
    ids=["witness", "clock"],
)
def test_a_guard_without_words_of_its_own_has_a_line_for_each_value(kind, seen, policy, state, wanted):
    lines = status_lines(status(None, seen, kind=kind, policy=policy, state=state))
    assert [line for line in lines if line in wanted] == wanted
    assert max(map(len, lines)) <= WIDTH


def test_spans_are_in_the_unit_that_people_would_choose():
    found = [guard_words.span(seconds) for seconds in (0.04, 59.94, 61, 3600, 90_061)]
    assert found == ["0.04 s", "59.9 s", "1 min 1 s", "1 h 0 min", "25 h 1 min"]


@pytest.mark.parametrize(
    ("change", "possible"), [({}, 1.0), ({"lever": True}, 0.0), ({"up": ()}, 0.0), ({"armed": False}, 0.0)]
)
def test_the_gauges_say_whether_a_fence_would_be_possible_and_how_old_etcds_word_is(
    guard, world, change, possible
):
    seen = replace(world, **change).see()
    found = failover_machine.measures(guard.state, seen, POLICY)
    assert found["fence_possible"] == possible
    assert found["etcd_write_age_seconds"] == pytest.approx(0.05)
    never = dataclasses.replace(seen, etcd=dataclasses.replace(seen.etcd, accepted_at=None))
    assert failover_machine.measures(guard.state, never, POLICY)["etcd_write_age_seconds"] is None
