# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""What the guards wrote down becomes lines of a drill's timeline, each where the step before it ended."""

from __future__ import annotations

import json

from diting.core.failover_table import MEANINGFUL, Phase
from diting.core.failover_view import Outcome
from diting.core.guard_journal import Cycle
from diting.drill import guard_facts
from diting.report.timeline import SPLITS
from support.failover_fixtures import guard, world  # noqa: F401 - fixtures are used by their names
from support.failover_world import STEP, clear, replace

SINCE = "2026-11-21T09:00:00.000000Z"
EARLIER, LATER = "2026-11-21T08:59:59.900000Z", "2026-11-21T09:00:00.100000Z"


def journal(guard, world, ticks, *, ts=LATER, **answers):
    """Records of ``ticks`` cycles in which every action is answered, and the world after them."""
    records = []
    for number in range(ticks):
        before, now = guard.state, world.now
        actions = guard.tick(world)
        cycle = Cycle(
            number, now - 0.03, before, world.see(), guard.state, guard.state.phase.value, tuple(actions),
            None, quiet=False, incident_id="inc-1", trace_id="t",
        )  # fmt: skip
        records.append({"event": "cycle", "ts": ts, **json.loads(json.dumps(cycle.fields("r")))})
        for action in actions:
            outcome = answers.get(action.name, Outcome.DONE)
            world = clear(world, action, outcome)
            if action.name == "release":
                world = replace(world, holder=None)
        world = world.after(STEP)
    return records, world


def lines_of(records):
    start = {"event": "segment", "ts": EARLIER, "state": {"phase": "watching"}}
    return guard_facts.guard_timeline([start, *records], "ops1", "failover", SINCE)


def test_a_failover_is_told_step_by_step_on_the_guards_own_clock(guard, world):
    dead = world.dies()
    records, after = journal(guard, dead, 12)
    more, _world = journal(guard, replace(after, holder="pg2", mod_revision=9), 6)
    lines = lines_of([*records, *more])
    assert [line["label"].removeprefix("guard: ") for line in lines] == [
        "no sign of life from the primary",
        "silence confirmed: fence ordered",
        "the order has ended: reads back",
        "read back off: looks once more",
        "last look clean: has the address cut off on the survivors",
        "cut off: releases the leader key",
        "leader key released: tells the proxies",
        "proxies told",
        "takes the routes back",
        "has the fenced host powered on",
        "watches again",
    ]
    places = [line["mono_ns"] / 1e9 for line in lines]
    # Each at the moment of the decision, which is the world's now and not the begin of the look.
    assert [round(place - dead.now, 3) for place in places[:4]] == [0.0, 0.4, 0.5, 0.6]
    assert places == sorted(places)
    assert {line["host"] for line in lines} == {"ops1"}
    assert {line["source"] for line in lines} == {"guard failover"}
    marks = [(line["event"], line["split"]) for line in lines if line["split"]]
    assert marks == [("fencing", "detected"), ("telling", "decided")]
    assert {line["split"] for line in lines if line["split"]} < set(SPLITS)
    assert lines[1]["actions"] == ["fence", "raise_alert"]
    assert lines[1]["reason"] == "gone"


def test_a_guard_that_leaves_it_to_the_ttl_decides_nothing(guard, world):
    records, _world = journal(guard, world.dies(), 12, fence=Outcome.FAILED)
    lines = lines_of(records)
    assert lines[-1]["label"] == "guard: not certain: leaves it to the TTL"
    assert "decided" not in [line["split"] for line in lines]


def test_what_was_before_the_drill_is_left_out(guard, world):
    records, world = journal(guard, world.dies(), 3, ts=EARLIER)
    more, _world = journal(guard, world, 3)
    assert next(line["event"] for line in lines_of([*records, *more])) == "fencing"


def test_a_witness_is_told_by_its_phases():
    records = [
        {"event": "segment", "state": {"phase": "watching"}},
        {"event": "cycle", "ts": LATER, "now": 12.5, "phase": "watching"},
        {"event": "cycle", "ts": LATER, "now": 13.5, "phase": "isolating", "actions": [{"name": "isolate"}]},
        {"event": "acted", "ts": LATER},
    ]
    (line,) = guard_facts.guard_timeline(records, "pg2", "witness", SINCE)
    assert (line["label"], line["mono_ns"], line["split"]) == (
        "guard: witness isolating",
        13_500_000_000,
        None,
    )


def test_every_change_of_phase_has_words():
    told = {phase for _before, phase in guard_facts.STEPS}
    assert told == {phase.value for phase in Phase}
    known = {(here.value, line.to.value) for (here, _event), line in MEANINGFUL.items()}
    assert {pair for pair in guard_facts.STEPS if pair[0]} <= known
