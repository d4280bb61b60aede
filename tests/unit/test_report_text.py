# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures and dates as people read them."""

from __future__ import annotations

from datetime import date

import pytest

from diting.report import calendar, text

LIMITS = {
    "confirm_seconds": 3.0,
    "hang_seconds": 10.0,
    "fence_max_per_window": 1,
    "fence_window_seconds": 900.0,
}


def test_the_figure_of_one_path_has_a_name():
    assert text.name("rto_client_dsn_seconds") == "RTO, client, path dsn"
    assert text.name("rto_client_seconds") == "RTO, client"
    assert text.name("largest_ack_gap_seconds, path dsn") == "Longest silence, path dsn"


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (None, None),
        ({"stopped": True, "armed": True, "limits": LIMITS}, "failover guard stopped"),
        (
            {"stopped": False, "verdict": "unknown", "armed": None, "limits": None},
            "failover guard: could not be asked",
        ),
        (
            {"stopped": False, "verdict": "ok", "armed": False, "limits": LIMITS},
            "failover guard alerts only: fences after 3 s of silence or 10 s of a hang, at most 1 in 900 s",
        ),
        (
            {"stopped": False, "verdict": "trouble", "armed": True, "limits": LIMITS},
            "failover guard armed, not well before the drill (trouble): fences after 3 s of silence or 10 s of a hang, at most 1 in 900 s",
        ),
    ],
)
def test_the_guard_in_words(found, shown):
    told = text.guard(found)
    assert (told and told.replace(text.THIN, " ")) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not measured"),
        (0, "0 s"),
        (0.0074, "7.4 ms"),
        (0.25, "250 ms"),
        (1.1424, "1.142 s"),
        (21.8569, "21.86 s"),
        (119.9, "119.90 s"),
        (120, "2 min"),
        (754.4, "12 min 34 s"),
        (-0.3, f"{text.MINUS}300 ms"),
    ],
)
def test_seconds(value: float | None, shown: str) -> None:
    assert text.seconds(value).replace(text.THIN, " ") == shown


def test_limits_and_resolutions_carry_no_digits_nobody_promised() -> None:
    assert text.limit(60, "s").replace(text.THIN, " ") == "60 s"
    assert text.limit(600, "s").replace(text.THIN, " ") == "10 min"
    assert text.limit(0, "count") == "0"
    assert text.plus_minus(0.12).replace(text.THIN, " ") == "± 120 ms"
    assert text.plus_minus(None) == text.plus_minus(0) == ""


def test_offsets_line_up() -> None:
    assert [text.offset(v).replace(text.THIN, " ") for v in (-0.0074, 0, 1234.5)] == [
        f"{text.MINUS}0.007 s",
        "+0.000 s",
        "+1 234.500 s",
    ]


def test_what_is_unknown_is_never_a_number() -> None:
    for shown in (text.figure(None, "count"), text.figure(None, "s"), text.plain(None), text.size(None)):
        assert shown == "not measured"
    assert text.plain(value=False) == "no"
    assert text.plain([]) == "none"


@pytest.mark.parametrize(
    ("day", "due"),
    [
        (date(2026, 11, 20), date(2026, 12, 11)),  # a Friday: three whole weeks
        (date(2026, 11, 21), date(2026, 12, 11)),  # a Saturday: Monday is the first day
        (date(2026, 11, 23), date(2026, 12, 14)),
    ],
)
def test_filing_deadline_counts_working_days(day: date, due: date) -> None:
    assert calendar.validity(day, None)["filing_deadline_on"] == due.isoformat()


def test_validity_and_retention() -> None:
    dates = calendar.validity(date(2024, 2, 29), None)
    assert dates["expires_on"] == "2024-03-30"
    assert dates["retain_until"] == "2029-03-01"
    assert calendar.validity(date(2026, 1, 1), 7)["expires_on"] == "2026-01-08"
