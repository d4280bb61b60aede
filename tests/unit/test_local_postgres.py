# SPDX-License-Identifier: GPL-3.0-or-later
"""When the walreceiver was fed: by the message's own age, within what the looks themselves make certain."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from diting.guards.local_postgres import LocalPostgres


def fed_at(*looks):
    """The moment after these looks, each (asked, answered, stamp, age in seconds)."""
    now = 0.0
    local = LocalPostgres("pg2", b"", [], 0, SimpleNamespace(monotonic=lambda: now), lambda: None)
    for asked, answered, stamp, age in looks:
        now = answered
        local._take(("t", "100", "t", stamp, age), asked)
    return local.walreceiver.fed_at


@pytest.mark.parametrize(
    ("age", "wanted"),
    [
        ("0.3", 109.71),  # between the looks: that is when it came
        ("5.0", 109.5),  # the clock went forward: not before the last look that did not show it
        ("-5.0", 110.01),  # the clock went back: not after this answer
        (None, 110.01),
    ],
)
def test_a_message_came_when_its_age_says_and_between_two_looks(age, wanted):
    assert fed_at((109.5, 109.51, "a", "0.1"), (110.0, 110.01, "b", age)) == pytest.approx(wanted)


def test_an_old_message_does_not_become_newer():
    assert fed_at((109.5, 109.51, "a", "0.1"), (110.0, 110.01, "a", "0.6")) == pytest.approx(109.41)


def test_of_the_first_look_only_the_age_is_known():
    assert fed_at((110.0, 110.01, "a", "3.0")) == pytest.approx(107.01)
