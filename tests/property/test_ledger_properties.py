# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold for any run, not only for the ones somebody thought of."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from diting.ledger.classify import classify, self_test
from diting.ledger.model import parse_found, ranges
from diting.ledger.timing import Recovery, analyse
from support.ledger_builder import Fate, Run, fine, found, ns, op

OUTCOMES = st.sampled_from(["ok", "fail", "info", "not_sent"])
FOUND = st.dictionaries(st.integers(0, 60), st.integers(1, 3), max_size=50)


def make_ops(outcomes):
    return [
        op(seq, "info", reason="not_sent") if outcome == "not_sent" else op(seq, outcome)
        for seq, outcome in enumerate(outcomes)
    ]


@given(st.lists(OUTCOMES, max_size=50), FOUND)
def test_every_found_row_and_every_acknowledgement_is_in_exactly_one_class(outcomes, present):
    ops = make_ops(outcomes)
    sets = classify(ops, present)
    kept = sets.acked - sets.lost
    classes = [kept, sets.ghost, sets.recovered_info, sets.unexpected]
    assert sum(map(len, classes)) == len(present)
    assert frozenset().union(*classes) == set(present)
    assert not sets.lost & set(present)
    assert sets.acked == {o.seq for o in ops if o.ok}


@given(st.lists(OUTCOMES, min_size=1, max_size=50), FOUND, st.data())
def test_removing_k_acknowledged_rows_adds_exactly_k_losses(outcomes, present, data):
    ops = make_ops(outcomes)
    before = classify(ops, present)
    held = sorted(before.acked - before.lost)
    planted = data.draw(st.sets(st.sampled_from(held)) if held else st.just(set()))
    after = classify(ops, {seq: n for seq, n in present.items() if seq not in planted})
    assert after.lost - before.lost == planted
    assert after.lost >= before.lost


@given(st.sets(st.integers(0, 500)))
def test_ranges_lose_nothing(seqs):
    document = {
        "host": "h",
        "run_id": "r",
        "in_recovery": False,
        "found": {"dsn": {"ranges": ranges(seqs), "duplicates": {}}},
    }
    assert set(parse_found(document).counts["dsn"]) == seqs


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 199), max_size=150), st.integers(0, 2**32))
def test_the_self_test_passes_whatever_was_really_lost(missing, seed):
    ledger = Run(duration=2).ledger()
    assert self_test(ledger.ops, found([ledger], missing=missing), "dsn", seed=seed)["passed"]


@settings(max_examples=40, deadline=None)
@given(
    length=st.floats(0.05, 20),
    deadline=st.floats(0.05, 15),
    interval=st.sampled_from([0.02, 0.05, 0.1]),
    offset=st.floats(0, 0.1),
    noise=st.floats(0, 1),
)
def test_a_black_hole_is_never_under_reported(length, deadline, interval, offset, noise):
    """The true outage lies between the figure minus its resolution and the figure.

    ``noise`` decides who of the waiting operations is answered: a queue may be served in any order.
    """
    start, end = 10 + offset, 10 + offset + length

    def fate(due: float) -> Fate:
        if not start <= due + 0.003 < end:
            return fine(due)
        if end - due + 0.003 <= deadline * noise:
            return "ok", end - due + 0.003, None
        return "info", deadline, "deadline"

    run = Run(interval=interval, deadline=deadline, duration=65, inject=10.0, fate=fate)
    result = analyse(
        run.ledger(), ns(10.0), stability_ns=ns(30), stable_gap_ns=ns(0.5), noise_ns=ns(interval)
    )
    if result.state is Recovery.NO_OUTAGE:
        assert length <= result.resolution_ns / 1e9
    else:
        assert result.state is Recovery.RECOVERED
        assert result.duration_ns / 1e9 >= length - 1e-6
        assert (result.duration_ns - result.resolution_ns) / 1e9 <= length


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=40))
def test_flapping_ends_with_its_last_failure(pattern):
    """Half-second phases after the fault, up or down as drawn: recovery follows the last one down."""

    def fate(due: float) -> Fate:
        index = int((due - 10) / 0.5 + 1e-9)
        down = due >= 10 and index < len(pattern) and not pattern[index]
        return ("fail", 0.002, "server_error") if down else fine(due)

    run = Run(interval=0.05, duration=65, fate=fate)
    result = analyse(run.ledger(), ns(10.0), stability_ns=ns(30), stable_gap_ns=ns(2), noise_ns=ns(0.05))
    if all(pattern):
        assert result.state is Recovery.NO_OUTAGE
        return
    first = pattern.index(False)
    last = len(pattern) - pattern[::-1].index(False)
    assert abs(result.duration_ns / 1e9 - (last - first) * 0.5) <= 0.1 + 1e-6
