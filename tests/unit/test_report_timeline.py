# SPDX-License-Identifier: GPL-3.0-or-later
"""Where events stand on the time axis, how sure that is, and the parts of the RTO."""

from __future__ import annotations

from typing import Any, cast

import pytest

from diting.report.contract import Clocks, TimelineLine
from diting.report.timeline import Axis, build, clock_bound, spans, split

ZERO = "2026-11-21T08:00:10.000000Z"
CLOCKS = cast(
    "Clocks",
    {
        "prober_host": "client1",
        "hosts": {
            "client1": {"boot_id": "A", "offset_seconds_before": 0.001, "error_bound_seconds": 0.002},
            "pg2": {"boot_id": "A"},
            "pg3": {"boot_id": "B", "offset_seconds_after": -0.004, "error_bound_seconds": 0.002},
            "pg4": {"boot_id": "B"},
        },
    },
)


def line(host: str | None, mono_ns: int | None = 12 * 10**9, **more: Any) -> TimelineLine:
    return cast(
        "TimelineLine",
        {"ts": "2026-11-21T08:00:13.500000Z", "mono_ns": mono_ns, "host": host, "source": "s", "event": "e"}
        | more,
    )


def axis(zero_mono_ns: int | None = 10 * 10**9, clocks: Clocks | None = CLOCKS) -> Axis:
    return Axis(ZERO, zero_mono_ns, clocks)


@pytest.mark.parametrize("host", ["client1", "pg2"])
def test_one_kernel_one_clock_places_exactly_whatever_utc_says(host: str) -> None:
    assert axis().place(line(host)) == (2.0, 0.0)


def test_another_kernel_is_placed_by_utc_with_both_error_bounds() -> None:
    seconds, bound = axis().place(line("pg3"))
    assert seconds == 3.5, "its monotonic clock says nothing here"
    assert bound == pytest.approx(0.001 + 0.002 + 0.004 + 0.002)


@pytest.mark.parametrize("host", ["pg4", "nobody", None])
def test_an_unknown_clock_has_an_unknown_error(host: str | None) -> None:
    assert axis().place(line(host)) == (3.5, None)


def test_without_mono_or_fault_or_clocks_utc_is_all_there_is() -> None:
    assert axis().place(line("pg2", None))[0] == 3.5
    assert axis(zero_mono_ns=None).place(line("pg2"))[0] == 3.5
    assert axis(clocks=None).place(line("pg2")) == (3.5, None)
    assert axis(clocks=None).place(line("pg2", error_bound_seconds=0.2)) == (3.5, 0.2)


def test_a_clock_without_error_bound_is_not_taken_for_exact() -> None:
    assert clock_bound({"offset_seconds_before": 0.0}) is None
    assert clock_bound({"error_bound_seconds": 0.0}) is None
    assert clock_bound(
        {"offset_seconds_before": -0.003, "offset_seconds_after": 0.001, "error_bound_seconds": 0.001}
    ) == pytest.approx(0.004)


def test_the_timeline_is_in_order_and_keeps_details_but_no_chain_keys() -> None:
    entries = build(
        [line("pg2", 14 * 10**9, event="b_last"), line("pg2", 11 * 10**9, role="primary", sha256="x", seq=3)],
        axis(),
    )
    assert [entry["t_seconds"] for entry in entries] == [1.0, 4.0]
    assert entries[0]["detail"] == {"role": "primary"}
    assert entries[1]["label"] == "b last"


def events(*marks: tuple[float, str | None]) -> list[dict[str, Any]]:
    return [{"t_seconds": at, "split": word} for at, word in marks]


def test_parts_add_up_to_the_time_from_fault_to_recovery() -> None:
    parts = split(events((4.0, "detected"), (4.5, "decided"), (9.0, "detected"), (6.0, "acted")), 7.25)
    assert parts == {"detect": 4.0, "decide": 0.5, "act": 1.5, "verify": 1.25}


def test_a_part_without_both_ends_is_not_measured() -> None:
    assert split(events((4.0, "detected"), (6.0, "acted")), 7.0) == {
        "detect": 4.0,
        "decide": None,
        "act": None,
        "verify": 1.0,
    }
    assert split([], 7.0) == split([], None) == dict.fromkeys(("detect", "decide", "act", "verify"))


def test_marks_that_contradict_each_other_or_stand_before_the_fault_give_no_figure() -> None:
    timeline = events((-1.0, "detected"), (5.0, "detected"), (4.0, "decided"), (6.0, "acted"))
    assert split(timeline, 7.0) == {"detect": None, "decide": None, "act": 2.0, "verify": 1.0}
    assert split(timeline, 3.0) == dict.fromkeys(("detect", "decide", "act", "verify")), "after the recovery"


def test_spans_leave_no_hole_between_fault_and_recovery() -> None:
    timeline = events((5.0, "decided"), (6.0, "acted"))
    assert spans(timeline, 7.0) == [
        {"parts": ["detect", "decide"], "start_seconds": 0.0, "end_seconds": 5.0},
        {"parts": ["act"], "start_seconds": 5.0, "end_seconds": 6.0},
        {"parts": ["verify"], "start_seconds": 6.0, "end_seconds": 7.0},
    ]
    assert spans([], 7.0) == [
        {"parts": ["detect", "decide", "act", "verify"], "start_seconds": 0.0, "end_seconds": 7.0}
    ]
    assert spans(timeline, None) == []
