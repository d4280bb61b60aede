# SPDX-License-Identifier: GPL-3.0-or-later
"""Which release a rollback takes, when it refuses, and what the gate hears."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.stand_in import Hosts

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="links are given to root, which only root can do"),
]
INSTALLED = {"0.3.0-c": 3000, "0.1.0-a": 1000, "0.2.0-b": 2000}
"""Releases and the time of their installation."""


class Estate(Hosts):
    """Two hosts, each with releases and a link to the one in use."""

    def __init__(self, root: Path, use: dict[str, str]) -> None:
        super().__init__(root)
        for name, group in (("ops1", "control"), ("client1", "client")):
            place = root / "opt" / name
            for release, installed in INSTALLED.items():
                (place / "releases" / release).mkdir(parents=True)
                (place / "releases" / release / ".complete").touch()
                os.utime(place / "releases" / release / ".complete", (installed, installed))
            (place / "releases" / "9.9.9-broken-off").mkdir()
            (place / "current").symlink_to(f"releases/{use[name]}")
            self.add(name, group=group, guard_runtime_root=str(place))

    def rollback(self, *options: str) -> str:
        return self.operate("rollback_package", *options)

    @property
    def in_use(self) -> list[str]:
        return [(self.root / "opt" / name / "current").readlink().name for name in self.hosts]


def test_each_rollback_goes_further_back_and_the_last_one_says_that_there_is_no_more(tmp_path):
    estate = Estate(tmp_path, {"ops1": "0.3.0-c", "client1": "0.3.0-c"})
    for expected in ("0.2.0-b", "0.1.0-a"):
        printed = estate.rollback()
        assert estate.status == 0, printed
        assert estate.in_use == [expected] * 2
    printed = estate.rollback()
    assert estate.status != 0, printed
    assert "no release that was installed before the one in use" in printed
    assert estate.in_use == ["0.1.0-a"] * 2
    assert estate.outcomes == ["success", "success", "failed"]


def test_one_host_that_cannot_go_back_keeps_all_and_is_reported_once(tmp_path):
    estate = Estate(tmp_path, {"ops1": "0.2.0-b", "client1": "0.1.0-a"})
    printed = estate.rollback()
    assert estate.status != 0, printed
    assert estate.in_use == ["0.2.0-b", "0.1.0-a"]
    assert estate.outcomes == ["failed"]


def test_a_release_can_be_named(tmp_path):
    estate = Estate(tmp_path, {"ops1": "0.1.0-a", "client1": "0.2.0-b"})
    printed = estate.rollback("-e", "guard_runtime_rollback_release=0.3.0-c")
    assert estate.status == 0, printed
    assert estate.in_use == ["0.3.0-c"] * 2
