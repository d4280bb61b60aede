# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that boots yields, and is an ordinary one again afterwards."""

from __future__ import annotations

from diting.lab.booting import yield_for_a_while


def test_the_weight_is_low_for_a_while_and_ordinary_again(tmp_path):
    shares = tmp_path / "libpod-abc" / "cpu.shares"
    shares.parent.mkdir()
    shares.write_text("1024\n")
    weights = ((str(tmp_path / "absent-{}"), 100), (str(tmp_path / "libpod-{}" / "cpu.shares"), 1024))

    timer = yield_for_a_while("abc", 0.05, weights)

    assert timer is not None
    assert shares.read_text().split()[0] == "102"
    timer.join(10)
    assert shares.read_text().split()[0] == "1024"


def test_a_machine_without_such_a_cgroup_is_left_as_it_is(tmp_path):
    assert yield_for_a_while("abc", 0.05, ((str(tmp_path / "{}" / "cpu.weight"), 100),)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_is_gone_again_ends_it_quietly(tmp_path):
    weight = tmp_path / "abc"
    weight.write_text("100\n")
    timer = yield_for_a_while("abc", 0.05, ((str(tmp_path / "{}"), 100),))
    assert timer is not None
    weight.unlink()
    timer.join(10)
    assert not weight.exists()
