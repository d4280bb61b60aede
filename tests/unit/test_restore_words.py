# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore test in words, and in metrics."""

from __future__ import annotations

import pytest

from diting.core.restore_words import duration, lines, metrics, size
from support.restore_records import record


def test_lines_say_what_an_operator_wants_to_know():
    found = record(
        10**9,
        10.0,
        expected={"seconds": 12.0},
        forecast={"size_bytes": 2**40, "wal_bytes": 2**30, "seconds": 7260.0, "proofs": 4},
    )
    found["evidence"].update(
        backup="b", target_type="lsn", target="0/1", point="p", tables=2, rows=7, fetch_bytes_per_second=10**8
    )
    text = "\n".join(lines(found, []))
    assert "Restore test r: HEALTHY" in text
    assert "fetch            10.0 s   953.7 MiB at 95.4 MiB/s" in text
    assert "tables as they were recorded: 2, with 7 rows" in text
    assert (
        "1.00 TiB and 1.00 GiB of WAL would be back in 2 h 1 min (by 4 of the last proofs); past forecasts were off by +25%"
        in text
    )
    bad = {
        "id": "r",
        "verdict": "UNHEALTHY",
        "reasons": [{"code": "fetch_failed", "message": "gone"}],
        "evidence": {},
    }
    assert lines(bad, []) == ["Restore test r: UNHEALTHY", "  fetch_failed: gone"]


def test_metrics_keep_the_moment_of_the_last_proof():
    good, bad = record(10**9, 10.0), {**record(10**9, 10.0, "UNHEALTHY"), "ended": 1.9e9}
    text = metrics('a "b"', bad, [good])
    assert 'diting_backup_proven_restore_timestamp_seconds{cluster="a \\"b\\""} 1800000000.000\n' in text
    assert 'diting_restore_test_timestamp_seconds{cluster="a \\"b\\""} 1900000000.000\n' in text
    assert 'diting_restore_test_proven{cluster="a \\"b\\""} 0\n' in text
    assert 'diting_restore_test_phase_seconds{cluster="a \\"b\\"",phase="fetch"} 10\n' in text
    assert text.count("# TYPE diting_restore_test_phase_seconds gauge\n") == 1
    assert "proven_restore" not in metrics("c", bad, [])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "unknown"), (0.25, "0.2 s"), (59.6, "1 min 0 s"), (3600, "1 h 0 s"), (90061, "1 d 1 h")],
)
def test_durations_are_for_people(seconds, words):
    assert duration(seconds) == words


def test_sizes_are_for_people():
    assert [size(None), size(2**20), size(2**31)] == ["unknown", "1.0 MiB", "2.00 GiB"]
