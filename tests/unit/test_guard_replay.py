# SPDX-License-Identifier: GPL-3.0-or-later
"""A journal replays to the same decisions, and whatever was altered in it is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diting.core import guard_journal, guard_replay, journal
from diting.core.guard_journal import Cycle, Recorder
from diting.core.plain import to_plain
from support import guard_fakes as toy

POLICY = toy.Policy(30.0)


def journal_of(degrees, *, recent=5):
    """The lines that a guard writes along these temperatures, and how many cycles it lived."""
    recorder = Recorder("toy", "run", POLICY.as_dict(), "0", recent)
    state, head, lines = toy.State(), journal.Head(), []
    for number, seen in enumerate(degrees, start=1):
        observation, now = toy.Observation(float(seen)), number * 0.1
        after, actions = toy.decide(state, observation, now, POLICY)
        quiet = toy.MACHINE.is_steady(state) and toy.MACHINE.is_steady(after) and not actions
        cycle = Cycle(
            number=number,
            now=now,
            before=state.as_dict(),
            observation=observation.as_dict(),
            after=after.as_dict(),
            phase=after.phase.value,
            actions=tuple(to_plain(actions)),
            signature=[seen > 25, False],
            quiet=quiet,
            incident_id=None,
            trace_id="t",
        )
        records = list(recorder.take(cycle))
        for event, fields in records:
            record = journal.make_record(
                head, ts=toy.FakeClock().utc(), mono_ns=number, source="guard:toy", event=event, fields=fields
            )
            head = journal.head_of(record)
            lines.append(journal.canonical_json(record))
        recorder.done(cycle, written=bool(records))
        state = after
    return lines


HEATWAVE = [20, 20, 21, 20, 20, 20, 20, 20, 22, 35, 36, 20, 20, 20, 20]


def forge(lines, number, change):
    """``lines`` with one record changed, and the whole chain after it made anew, as a careful forger would."""
    made, head = [], None
    for n, line in enumerate(lines):
        record = json.loads(line)
        if n == number:
            change(record)
        if head is not None:
            record["prev_sha256"] = head
        record.pop("sha256")
        head = record["sha256"] = journal.sha256_of(record)
        made.append(journal.canonical_json(record))
    return made


def test_peace_costs_one_record_and_its_end_shows_what_came_before():
    events = [json.loads(line)["event"] for line in journal_of([20] * 1000)]
    assert events == ["segment", "cycle"]
    lines = [json.loads(line) for line in journal_of(HEATWAVE)]
    # 1 is the start; 2 to 4 were dropped; 5 to 9 were still in memory when 10 brought the heat.
    assert [(r["event"], r["cycle"]) for r in lines[:9]] == [
        ("segment", 1),
        ("cycle", 1),
        ("segment", 5),
        ("cycle", 5),
        ("cycle", 6),
        ("cycle", 7),
        ("cycle", 8),
        ("cycle", 9),
        ("cycle", 10),
    ]
    assert [r["why"] for r in lines if r["event"] == "segment"][:2] == ["start", "gap"]


def test_a_change_in_peace_is_one_record_without_history():
    lines = [json.loads(line) for line in journal_of([20, 20, 20, 28, 28, 28, 20])]
    assert [(r["event"], r["cycle"]) for r in lines] == [
        ("segment", 1),
        ("cycle", 1),
        ("segment", 4),
        ("cycle", 4),
        ("segment", 7),
        ("cycle", 7),
    ]


@settings(max_examples=60)
@given(st.lists(st.integers(15, 40), min_size=1, max_size=60), st.integers(0, 6))
def test_replay_is_exact_whatever_happened(degrees, recent):
    report = guard_replay.replay(journal_of(degrees, recent=recent), toy.MACHINE)
    assert report.ok, str(report.difference)


def test_the_report_counts():
    report = guard_replay.replay(journal_of(HEATWAVE), toy.MACHINE)
    assert (report.cycles, report.segments, report.actions) == (9, 2, 4)
    assert (report.first_seq, report.last_seq) == (1, 11)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r["observation"].update(degrees=20.5), "observation.degrees"),
        (lambda r: r["observation"]["sensors"].__setitem__(1, "c"), "observation.sensors[1]"),
        (lambda r: r["observation"].update(paused=True), "observation.paused"),
        (lambda r: r.update(now=7.0), "now"),
        (lambda r: r["observation"].pop("paused"), "observation.sensors[0]"),
        (lambda r: r["observation"].update(extra=1), "observation.extra"),
    ],
)
@pytest.mark.parametrize("careful", [False, True])
def test_one_altered_observation_is_named(change, field, careful):
    """Even one that changes no decision; with or without the chain made anew after it."""
    lines = journal_of(HEATWAVE)
    if careful:
        lines = forge(lines, 4, change)
    else:
        record = json.loads(lines[4])
        change(record)
        lines[4] = journal.canonical_json(record)
    difference = guard_replay.replay(lines, toy.MACHINE).difference
    assert difference.line == 5
    assert difference.field.startswith(field) or "removed" in difference.field, difference


def remark(record):
    record["marks"] = guard_journal.marks_of(record["event"], record)


@pytest.mark.parametrize(
    "pair", [(True, 1), (1, 1.0), (0.0, -0.0), (False, 0), ([], {}), (None, False)], ids=str
)
def test_values_that_python_takes_for_equal_have_marks_of_their_own(pair):
    first, second = (
        guard_journal.marks_of("cycle", {"now": 1.5, "observation": value}) for value in (*pair,)
    )
    assert first != second
    again = guard_journal.marks_of("cycle", {"now": 1.5, "observation": pair[0]})
    assert again == first


@pytest.mark.parametrize(
    ("number", "change", "field"),
    [
        (8, lambda r: r["observation"].update(degrees=20.0), "state.cooled"),
        (8, lambda r: r["actions"][1]["args"].update(by=1), "actions[1].args.by"),
        (8, lambda r: r["actions"].pop(), "actions[2]"),
        (8, lambda r: r["state_changes"].update(phase="calm"), "state.phase"),
        (2, lambda r: r["policy"].update(limit=10.0), "state.cooled"),
        (3, lambda r: r.update(cycle=6), "cycle"),
        (2, lambda r: r.update(format=2), "format"),
        (2, lambda r: r["state"].update(phase="boiling"), "record"),
    ],
)
def test_a_forger_who_mends_chain_and_marks_is_found_by_the_decision(number, change, field):
    def careful(record):
        change(record)
        remark(record)

    difference = guard_replay.replay(forge(journal_of(HEATWAVE), number, careful), toy.MACHINE).difference
    assert difference.field == field, difference


def test_a_removed_line_is_found():
    lines = journal_of(HEATWAVE)
    del lines[4]
    difference = guard_replay.replay(lines, toy.MACHINE).difference
    assert (difference.line, difference.field) == (5, "seq")


def test_a_changed_decide_is_found():
    """What the replay is for: does the new code decide as the old one did?"""
    import dataclasses

    def lenient(state, seen, now, policy):
        return toy.decide(state, seen, now, toy.Policy(35.5))

    report = guard_replay.replay(journal_of(HEATWAVE), dataclasses.replace(toy.MACHINE, decide=lenient))
    assert report.difference.line == 9
    assert report.difference.problem == "decided otherwise"


def test_nothing_proves_nothing():
    assert not guard_replay.replay([], toy.MACHINE).ok
    assert not guard_replay.replay(journal_of(HEATWAVE)[:1], toy.MACHINE).ok


def test_an_excerpt_may_begin_at_any_segment():
    report = guard_replay.replay(journal_of(HEATWAVE)[2:], toy.MACHINE)
    assert report.ok
    assert report.first_seq == 3
