# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealing corrects what two observers saw differently, and only in the cautious direction."""

from __future__ import annotations

import json

import pytest

from diting.drill.seal import not_before_recovery


@pytest.mark.parametrize(
    ("whole", "high", "told"), [(1.5, 2.6, 2.6), (33.4, 25.2, 33.4), (None, 2.6, None), (1.5, None, 1.5)]
)
def test_full_redundancy_is_never_before_the_recovery(tmp_path, whole, high, told):
    (tmp_path / "drill.json").write_text(json.dumps({"figures": {"full_redundancy_seconds": whole}}))
    not_before_recovery(tmp_path, {"headline": {"rto_fault_seconds": {"value": 1, "low": 1, "high": high}}})
    found = json.loads((tmp_path / "drill.json").read_text())
    assert found["figures"]["full_redundancy_seconds"] == told
