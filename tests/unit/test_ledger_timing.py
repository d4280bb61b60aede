# SPDX-License-Identifier: GPL-3.0-or-later
"""When writes stopped and came back: the traps of measuring an outage."""

from __future__ import annotations

import pytest

from diting.ledger.timing import Recovery, Timing, analyse
from support.ledger_builder import Fate, Run, black_hole, fine, ns


def timing(run: Run, stability: float = 30.0, noise: float = 0.02) -> Timing:
    return analyse(
        run.ledger(),
        ns(run.inject),
        stability_ns=ns(stability),
        stable_gap_ns=ns(0.5),
        noise_ns=ns(noise),
    )


@pytest.mark.parametrize("deadline", [0.2, 1.0, 5.0, 10.0, 15.0])
def test_the_clients_timeout_does_not_shorten_a_black_hole(deadline):
    # The figure "first error to first success" would be 12 s minus the deadline.
    run = Run(deadline=deadline, duration=80, fate=black_hole(10.0, 22.0, deadline))
    result = timing(run)
    assert result.state is Recovery.RECOVERED
    assert 12.0 <= result.duration_ns / 1e9 <= 12.0 + 0.03


def test_an_outage_shorter_than_the_deadline_is_seen_although_nothing_failed():
    run = Run(fate=black_hole(10.0, 10.8, 1.0))
    assert all(op.ok for op in run.ledger().ops)
    result = timing(run)
    assert result.state is Recovery.RECOVERED
    assert 0.8 <= result.duration_ns / 1e9 <= 0.83


def test_a_short_dip_that_no_operation_failed_in_is_an_outage_too():
    result = timing(Run(fate=black_hole(10.0, 10.2, 1.0)))
    assert 0.2 <= result.duration_ns / 1e9 <= 0.23


def test_no_outage_is_zero_with_the_noise_of_the_control_window_as_resolution():
    result = timing(Run(), noise=0.04)
    assert (result.state, result.duration_ns, result.resolution_ns) == (Recovery.NO_OUTAGE, 0, ns(0.04))


def test_without_noise_the_resolution_is_still_an_interval_on_each_end():
    assert timing(Run(), noise=0.0).resolution_ns == ns(0.02)


def test_resolution_of_an_outage_adds_the_spacing_of_connection_attempts():
    assert timing(Run(fate=black_hole(10, 15, 1))).resolution_ns == ns(0.12)


def test_a_first_success_in_a_flapping_service_is_not_recovery():
    def fate(due: float) -> Fate:
        down = 10 <= due < 14 or 15 <= due < 18 or 19 <= due < 20
        return ("fail", 0.002, "server_error") if down else fine(due)

    result = timing(Run(fate=fate))
    assert 10.0 <= result.duration_ns / 1e9 <= 10.03
    assert result.later == ()


def test_a_failure_just_inside_the_stable_window_starts_it_again():
    def fate(due: float) -> Fate:
        down = 10 <= due < 12 or 41.5 <= due < 41.6
        return ("info", 1.0, "deadline") if down else fine(due)

    assert timing(Run(fate=fate, duration=90)).duration_ns / 1e9 == pytest.approx(31.6, abs=0.05)


def test_a_failure_after_a_whole_stable_window_is_listed_apart():
    def fate(due: float) -> Fate:
        down = 10 <= due < 12 or 45 <= due < 46
        return ("info", 1.0, "deadline") if down else fine(due)

    result = timing(Run(fate=fate, duration=90))
    assert result.duration_ns / 1e9 == pytest.approx(2.0, abs=0.03)
    assert [round((o.end_ns - o.start_ns) / 1e9, 1) for o in result.later] == [1.0]


def test_an_outage_long_after_the_fault_is_not_the_faults():
    def fate(due: float) -> Fate:
        return ("info", 1.0, "deadline") if 50 <= due < 52 else fine(due)

    result = timing(Run(fate=fate, duration=90))
    assert (result.state, result.duration_ns) == (Recovery.NO_OUTAGE, 0)
    assert len(result.later) == 1


def test_writes_that_never_return_are_not_recovered_and_have_a_lower_bound():
    result = timing(Run(fate=black_hole(10, 1e9, 1)))
    assert (result.state, result.duration_ns) == (Recovery.NOT_RECOVERED, None)
    assert result.at_least_ns >= ns(49.9)


def test_a_record_that_ends_inside_the_stable_window_proves_no_recovery():
    result = timing(Run(fate=black_hole(10, 20, 1), duration=40))
    assert (result.state, result.duration_ns) == (Recovery.WINDOW_INCOMPLETE, None)


def test_a_record_that_ends_early_proves_no_absence_of_an_outage_either():
    result = timing(Run(duration=30))
    assert (result.state, result.duration_ns) == (Recovery.WINDOW_INCOMPLETE, None)


def test_an_operation_in_flight_at_the_injection_belongs_to_the_fault():
    def fate(due: float) -> Fate:
        return ("info", 1.0, "deadline") if due >= 9.99 and due < 12 else fine(due)

    result = timing(Run(fate=fate))
    assert result.last_ok_ns < ns(10)
    assert result.duration_ns / 1e9 == pytest.approx(2.02, abs=0.03)


def test_a_failure_that_ended_before_the_injection_is_not_the_faults():
    def fate(due: float) -> Fate:
        return ("fail", 0.002, "server_error") if 5 <= due < 5.1 else fine(due)

    assert timing(Run(fate=fate)).state is Recovery.NO_OUTAGE


def test_a_stuck_operation_among_good_ones_costs_its_slot_and_no_more():
    def fate(due: float) -> Fate:
        return ("info", 1.0, "deadline") if abs(due - 10.5) < 0.001 else fine(due)

    assert timing(Run(fate=fate)).duration_ns / 1e9 == pytest.approx(0.02, abs=0.005)


def test_a_queue_of_late_acknowledgements_does_not_move_the_start_of_the_outage():
    # Everything due in the last 0.9 s of the outage is answered when it ends, oldest first.
    result = timing(Run(fate=black_hole(10, 15, 1.0)))
    assert result.last_ok_ns == pytest.approx(ns(9.993), abs=ns(0.011))
    assert result.recovered_ns == pytest.approx(ns(15.003), abs=ns(0.011))
