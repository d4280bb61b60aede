# SPDX-License-Identifier: GPL-3.0-or-later
"""Set arithmetic of the ledger and the detector's self-test."""

from __future__ import annotations

import pytest

from diting.ledger import classify as module
from diting.ledger.classify import Sets, classify, self_test
from diting.ledger.model import parse_found, parse_ledger, ranges
from support.ledger_builder import Run, found, op

OPS = [op(0, "ok"), op(1, "ok"), op(2, "fail"), op(3, "info"), op(4, "info", reason="not_sent")]


def test_each_class():
    sets = classify(OPS, {0: 1, 2: 1, 3: 2, 4: 1, 9: 1})
    assert sets == Sets(
        acked=frozenset({0, 1}),
        lost=frozenset({1}),
        ghost=frozenset({2}),
        duplicate=frozenset({3}),
        recovered_info=frozenset({3}),
        unexpected=frozenset({4, 9}),
    )


def test_nothing_found_means_everything_acknowledged_is_lost():
    assert classify(OPS, {}).counts()["lost"] == 2


def test_the_self_test_reports_exactly_what_was_planted():
    ledger = Run(duration=5).ledger()
    result = self_test(ledger.ops, found([ledger]), "dsn")
    assert result["passed"]
    assert [(r["kind"], r["planted"], r["reported"]) for r in result["runs"]] == [
        ("lost", 1, 1),
        ("lost", 3, 3),
        ("lost", 17, 17),
        ("duplicate", 1, 1),
        ("unexpected", 1, 1),
    ]


def test_real_losses_do_not_hide_planted_ones():
    ledger = Run(duration=5).ledger()
    assert self_test(ledger.ops, found([ledger], missing={1, 2, 3}), "dsn")["passed"]


def test_the_self_test_does_not_touch_the_original():
    ledger = Run(duration=5).ledger()
    document = found([ledger])
    before = parse_found(document)
    self_test(ledger.ops, document, "dsn")
    assert parse_found(document) == before


def test_a_detector_that_was_never_tried_does_not_pass():
    ledger = Run(duration=1, fate=lambda _due: ("info", 1.0, "deadline")).ledger()
    assert not self_test(ledger.ops, found([ledger]), "dsn")["passed"]


@pytest.mark.parametrize("fault", ["blind", "overeager"])
def test_the_self_test_catches_a_broken_detector(monkeypatch, fault):
    def broken(ops, counts):
        sets = classify(ops, counts)
        lost = set(sets.lost)
        if fault == "blind" and lost:
            lost.pop()
        elif fault == "overeager" and lost:
            lost.add(max(lost) + 1)
        return Sets(**{**vars(sets), "lost": frozenset(lost)})

    ledger = Run(duration=5).ledger()
    monkeypatch.setattr(module, "classify", broken)
    assert not self_test(ledger.ops, found([ledger]), "dsn")["passed"]


def test_ranges():
    assert ranges([5, 1, 2, 3, 7]) == [[1, 3], [5, 5], [7, 7]]
    assert ranges([]) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r.pop(5), "gap-free"),
        (lambda r: r.append(r[5]), "twice"),
        (lambda r: r.append(r[6]), "two outcomes"),
        (lambda r: r.pop(0), "no header"),
        (lambda r: r.insert(1, r[6]), "not scheduled before"),
        (lambda r: r[6].update(outcome="fine"), "unknown outcome"),
    ],
)
def test_a_damaged_ledger_names_its_damage(change, problem):
    records = Run(duration=1).records()
    change(records)
    assert any(problem in text for text in parse_ledger(records).problems)


def test_a_slot_without_an_outcome_is_unknown_and_may_have_been_applied():
    records = [r for r in Run(duration=1).records() if not (r["k"] == "o" and r["seq"] == 99)]
    last = parse_ledger(records).ops[99]
    assert (last.outcome, last.reason, last.attempted) == ("info", "no_outcome", True)
