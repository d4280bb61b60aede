# SPDX-License-Identifier: GPL-3.0-or-later
"""Dates that follow from the day of a drill: when evidence expires, what is filed by when. Pure."""

from __future__ import annotations

from datetime import date, timedelta

VALIDITY_DAYS = 30
"""After this many days a drill no longer shows that recovery works today."""

FILING_WORKING_DAYS = 15
"""CSRC Decree 218, Art. 38: the report of an emergency drill is due within 15 working days."""

RETENTION_YEARS = 5
"""CSRC Decree 218 and SSE member guideline 1 (2025): records are kept for at least 5 years."""

SATURDAY = 5


def add_working_days(start: date, days: int) -> date:
    """The day ``days`` working days after ``start``. Weekends are skipped, public holidays are not
    known here: the official calendar decides, and the report says so.
    """
    day = start
    while days > 0:
        day += timedelta(days=1)
        days -= day.weekday() < SATURDAY
    return day


def add_years(start: date, years: int) -> date:
    """The same day ``years`` later; 29 February becomes 1 March, so nothing is dropped a day early."""
    try:
        return start.replace(year=start.year + years)
    except ValueError:
        return date(start.year + years, 3, 1)


def validity(drilled_on: date, validity_days: int | None) -> dict[str, str]:
    """The dates of section 12 of a report, ISO 8601."""
    expires = drilled_on + timedelta(days=validity_days or VALIDITY_DAYS)
    return {
        "drilled_on": drilled_on.isoformat(),
        "expires_on": expires.isoformat(),
        "next_due_on": expires.isoformat(),
        "filing_deadline_on": add_working_days(drilled_on, FILING_WORKING_DAYS).isoformat(),
        "filing_deadline_basis": "15 working days; weekends skipped, public holidays not counted",
        "retain_until": add_years(drilled_on, RETENTION_YEARS).isoformat(),
    }
