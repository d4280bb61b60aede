# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's share of the processor: raised once, never lowered, never in the way."""

from __future__ import annotations

from diting.lab.ready import give_weight


def test_a_low_weight_is_raised_and_a_high_one_left(tmp_path):
    low, high = tmp_path / "low", tmp_path / "high"
    low.write_text("1024\n")
    high.write_text("20000\n")
    assert give_weight(((low, 16384), (high, 16384), (tmp_path / "absent", 1))) == [low]
    assert low.read_text() == "16384\n"
    assert high.read_text() == "20000\n"
    assert give_weight(((low, 16384),)) == []
