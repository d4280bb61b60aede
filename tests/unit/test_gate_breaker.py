# SPDX-License-Identifier: GPL-3.0-or-later
"""The breaker and the memory around it, as a fold over journal records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from diting.core import gate_state, journal
from diting.core.breaker import Breaker, Outcome, after_automated_run, after_persons_run, parse_breaker
from diting.core.gate_state import Memory, Trigger

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WINDOW = 3600
S, F, I = Outcome.SUCCESS, Outcome.FAILED, Outcome.INCONCLUSIVE  # noqa: E741 - one letter per outcome reads as a table


def run(breaker: Breaker, *outcomes: Outcome, step_seconds: float = 1.0) -> Breaker:
    for index, outcome in enumerate(outcomes):
        at = NOW + timedelta(seconds=index * step_seconds)
        breaker = after_automated_run(
            breaker, outcome, at=at, incident_id=f"i{index}", limit=3, window_seconds=WINDOW
        )
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "is_open"),
    [
        ((F, F), False),
        ((F, F, F), True),
        ((I, I, I), True),
        ((F, I, F), True),
        ((F, F, S, F), False),
        ((F, F, S, F, F), False),
        ((F, F, S, F, F, F), True),
        ((F, F, F, S), True),  # a run from before it opened proves nothing about the others
    ],
)
def test_three_runs_that_did_not_help_open_it(outcomes, is_open):
    assert run(Breaker(), *outcomes).is_open is is_open


def test_only_failures_within_the_window_count():
    assert run(Breaker(), F, F, F, step_seconds=WINDOW / 2).is_open
    assert not run(Breaker(), F, F, F, step_seconds=WINDOW / 2 + 1).is_open


def test_setting_the_clock_back_forgets_no_failure():
    assert run(Breaker(), F, F, F, step_seconds=-WINDOW * 2).is_open


def test_a_persons_success_closes_it_and_nothing_else_of_theirs_moves_it():
    opened = run(Breaker(), F, F, F)
    assert after_persons_run(opened, S) == Breaker()
    assert after_persons_run(opened, F) == opened
    assert after_persons_run(run(Breaker(), F), I) == run(Breaker(), F)


def test_a_breaker_survives_its_json():
    opened = run(Breaker(), F, I, F)
    assert parse_breaker(opened.as_dict()) == opened


# --- the memory ---------------------------------------------------------------------------------


class Story:
    """Writes journal records one after the other, as the gate would."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def record(self, event: str, **fields: Any) -> None:
        head = journal.head_of(self.records[-1]) if self.records else journal.Head()
        at = NOW + timedelta(seconds=len(self.records))
        self.records.append(
            journal.make_record(head, ts=at, mono_ns=0, source="gate", event=event, fields=fields)
        )

    def begin(self, incident: str, trigger: Trigger = Trigger.AUTOMATED, target: str = "diting") -> None:
        begun = gate_state.run_for(
            incident_id=incident,
            scenario="l4.failover",
            target=target,
            trigger=trigger,
            actor="tester",
            now=NOW,
            run_seconds=60,
        )
        self.record("decision", incident_id=incident, run=begun.as_dict())

    def end(self, incident: str, outcome: Outcome, target: str = "diting") -> None:
        fields = gate_state.outcome_fields(
            incident_id=incident,
            scenario="l4.failover",
            target=target,
            outcome=outcome,
            detail="",
            failures=3,
            window_seconds=WINDOW,
        )
        self.record("outcome", **fields)

    def fail(self, times: int, trigger: Trigger = Trigger.AUTOMATED) -> None:
        for _ in range(times):
            incident = f"i{len(self.records)}"
            self.begin(incident, trigger)
            self.end(incident, Outcome.FAILED)

    @property
    def memory(self) -> Memory:
        return gate_state.rebuild(self.records)

    @property
    def is_open(self) -> bool:
        return self.memory.breaker("l4.failover", "diting").is_open


def test_a_run_is_open_until_its_outcome():
    story = Story()
    story.begin("i1")
    assert [r.incident_id for r in story.memory.runs] == ["i1"]
    story.end("i1", Outcome.SUCCESS)
    assert story.memory.runs == ()
    assert story.memory.breakers == {}


def test_three_failed_automated_runs_open_the_breaker_of_this_target_only():
    story = Story()
    story.fail(3)
    assert story.is_open
    assert not story.memory.breaker("l4.failover", "other").is_open


@pytest.mark.parametrize("trigger", [Trigger.PERSON, Trigger.DRILL])
def test_runs_of_people_and_drills_never_open_it(trigger):
    story = Story()
    story.fail(5, trigger)
    assert story.memory.breakers == {}


def test_an_outcome_is_counted_once_and_only_for_a_run_that_was_let_through():
    story = Story()
    story.begin("i1")
    for _ in range(3):
        story.end("i1", Outcome.FAILED)
        story.end("never-asked", Outcome.FAILED)
    assert len(story.memory.breaker("l4.failover", "diting").failures) == 1


def test_a_reset_forgets_the_failures_too():
    story = Story()
    story.fail(3)
    story.record("breaker_reset", scenario="l4.failover", target="diting")
    assert not story.is_open
    story.fail(2)
    assert not story.is_open
    story.fail(1)
    assert story.is_open


def test_a_new_journal_takes_over_what_the_broken_one_had_taught():
    story, anew = Story(), Story()
    story.fail(3)
    story.begin("late")
    anew.record("journal_started_anew", memory=story.memory.as_dict())
    assert anew.is_open
    assert [r.incident_id for r in anew.memory.runs] == ["late"]
    assert anew.memory.head.seq == 1


def test_records_without_a_meaning_for_the_memory_only_move_its_head():
    story = Story()
    story.record("stop", by="alice")
    story.record("decision", incident_id="x", run=None)
    assert story.memory == Memory(head=journal.head_of(story.records[-1]))


def test_the_memory_survives_its_json():
    story = Story()
    story.fail(2)
    story.begin("open", Trigger.PERSON)
    assert gate_state.parse_memory(story.memory.as_dict()) == story.memory


def test_applying_record_by_record_equals_rebuilding():
    story = Story()
    story.fail(3)
    for before, after in pairwise(range(len(story.records) + 1)):
        half = gate_state.rebuild(story.records[:before])
        assert gate_state.apply(half, story.records[before]) == gate_state.rebuild(story.records[:after])


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("runs"),
        lambda d: d.pop("journal"),
        lambda d: d.update(schema_version=2),
        lambda d: d.update(runs=[{"incident_id": "x"}]),
        lambda d: d.update(breakers=[{"scenario": "a", "target": "b", "opened_at": None, "failures": [1]}]),
        lambda d: d.update(breakers=7),
    ],
)
def test_a_damaged_memory_is_never_read_as_an_empty_one(damage):
    data = Story().memory.as_dict()
    damage(data)
    with pytest.raises(ValueError, match=r".+"):
        gate_state.parse_memory(data)


def test_overdue_and_superseded_runs():
    story = Story()
    story.begin("auto")
    story.begin("mine", Trigger.PERSON)
    story.begin("else", target="other")
    memory = story.memory
    assert [r.incident_id for r in memory.overdue(NOW + timedelta(seconds=59))] == []
    assert len(memory.overdue(NOW + timedelta(seconds=60))) == 3
    # A person at work is not pushed aside by a daemon, only by asking again themselves.
    assert [r.incident_id for r in memory.superseded_by("new", "l4.failover", "diting")] == ["auto"]
    assert [r.incident_id for r in memory.superseded_by("mine", "l4.failover", "diting")] == ["auto", "mine"]
