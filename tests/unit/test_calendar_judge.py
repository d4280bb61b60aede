# SPDX-License-Identifier: GPL-3.0-or-later
"""A job stands well only while its last good run is young enough, whatever has happened since."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diting.core.calendar_judge import Seen, Standing, Wanted, judge

NOW = 1_000_000.0
DAY = 86_400.0
NIGHTLY = Wanted("restore-test", by_itself=True, maximum_age_seconds=1.5 * DAY, reminder_seconds=3_600.0)
BY_HAND = Wanted("drill", by_itself=False, maximum_age_seconds=100 * DAY, reminder_seconds=7 * DAY)


def well(ago: float, **more: float | bool | None) -> Seen:
    kept = {"since": 0.0, "begun": NOW - ago - 60, "ended": NOW - ago, "status": 0, "succeeded": NOW - ago}
    return Seen(**{**kept, "next_run": NOW + 5_000, **more})


@pytest.mark.parametrize(
    ("seen", "standing", "word"),
    [
        (well(3_600), Standing.FINE, "60 min ago"),
        (well(1.5 * DAY + 1), Standing.OVERDUE, "wanted at most 36 h"),
        # What an earlier run proved still holds.
        (well(DAY, begun=NOW - 60, ended=NOW - 30, status=2), Standing.FAILED, "status 2"),
        (well(2 * DAY, begun=NOW - 60, ended=NOW - 30, status=2), Standing.OVERDUE, "2 days ago"),
        (well(DAY, begun=NOW - 60, ended=None, status=None), Standing.FAILED, "cut off"),
        (well(DAY, begun=NOW - 60, ended=None, status=None, running=True), Standing.RUNNING, "under way"),
        (
            well(DAY, begun=NOW - 60, ended=None, status=None, running=True, next_run=None),
            Standing.RUNNING,
            "under way",
        ),
        (
            well(2 * DAY, begun=NOW - 60, ended=None, status=None, running=True),
            Standing.OVERDUE,
            "2 days ago",
        ),
        (well(3_600, next_run=None), Standing.UNSCHEDULED, "timer is not running"),
        (well(2 * DAY, next_run=None), Standing.OVERDUE, "2 days ago"),
        (Seen(since=NOW - 60, next_run=NOW + 60), Standing.DUE, "within 36 h"),
        (Seen(since=NOW - 2 * DAY, next_run=NOW + 60), Standing.OVERDUE, "never ended well in 2 days"),
    ],
)
def test_a_job_stands_as_its_last_good_run_says(seen, standing, word):
    row = judge(NIGHTLY, seen, NOW)
    assert row.standing is standing
    assert word in row.why


def test_who_runs_it_by_hand_is_told_before_it_is_due():
    row = judge(BY_HAND, Seen(since=NOW, succeeded=NOW - 95 * DAY, begun=1.0, ended=2.0, status=0), NOW)
    assert row.standing is Standing.FINE
    assert row.begins == row.due == NOW + 5 * DAY
    assert row.remind == NOW - 2 * DAY


def test_who_has_a_timer_is_told_before_that_runs():
    row = judge(NIGHTLY, well(DAY), NOW)
    assert (row.begins, row.remind) == (NOW + 5_000, NOW + 1_400)
    assert judge(NIGHTLY, well(DAY, next_run=None), NOW).remind is None


def test_no_reminder_is_none():
    assert judge(Wanted("a", by_itself=True, maximum_age_seconds=1.0), well(0), NOW).remind is None


@pytest.mark.parametrize("ahead", [61.0, 400 * DAY])
def test_a_clock_that_was_wrong_once_makes_nothing_fine_for_years(ahead):
    for seen in (well(-ahead), Seen(since=NOW + ahead, next_run=NOW + 60), well(3_600, since=NOW + ahead)):
        row = judge(NIGHTLY, seen, NOW)
        assert (row.standing, row.due) == (Standing.OVERDUE, 0.0)
        assert "of the future" in row.why


def test_a_clock_that_was_set_back_a_little_misleads_nobody():
    assert judge(NIGHTLY, well(-30.0), NOW).standing is Standing.FINE


_moments = st.none() | st.floats(0, 2 * NOW)


@given(
    seen=st.builds(
        Seen,
        since=st.floats(0, 2 * NOW),
        begun=_moments,
        ended=_moments,
        status=st.none() | st.integers(0, 255),
        succeeded=_moments,
        next_run=_moments,
        running=st.booleans(),
    ),
    by_itself=st.booleans(),
    age=st.floats(1, NOW),
)
def test_fine_means_proven_and_not_older_than_wanted(seen, by_itself, age):
    row = judge(Wanted("a", by_itself=by_itself, maximum_age_seconds=age), seen, NOW)
    if row.standing is Standing.FINE:
        assert seen.succeeded is not None
        assert -60 <= NOW - seen.succeeded <= age
        assert seen.status in (None, 0)
        assert not by_itself or seen.next_run is not None
    assert (row.standing is Standing.OVERDUE) == (row.due < NOW)
