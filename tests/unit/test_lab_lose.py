# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the lab are lost all at once; a name that is none of its hosts loses nothing."""

from __future__ import annotations

import pytest

from diting.lab import lose as module
from diting.lab.lose import LoseError, lose
from diting.lab.podman import PodmanError


class FakePodman:
    """Containers by name; what is off cannot be killed."""

    def __init__(self, *there: str, off: tuple[str, ...] = (), stuck: bool = False) -> None:
        self.there, self.off, self.stuck = list(there), off, stuck
        self.calls: list[tuple[str, ...]] = []

    def identity(self, name: str) -> str | None:
        return name if name in self.there else None

    def run(self, *args: str) -> str:
        self.calls.append(args)
        if args[0] == "kill" and args[-1] in self.off:
            raise PodmanError("not running")
        if args[0] == "rm" and self.stuck:
            raise PodmanError("podman rm failed (125): device busy")
        return ""


class Lab:
    hosts = ("pg1", "pg2", "store1")
    podman_home = None

    def container(self, host: str) -> str:
        return f"x-{host}"


@pytest.fixture
def podman(monkeypatch):
    def use(fake: FakePodman) -> FakePodman:
        monkeypatch.setattr(module, "Podman", lambda _home: fake)
        return fake

    return use


def test_all_end_before_the_first_is_taken_away(podman):
    fake = podman(FakePodman("x-pg1", "x-pg2", "x-store1", off=("x-pg1",)))
    assert lose(Lab(), ["pg1", "pg2"]) == ["pg1", "pg2"]
    assert [call[0] for call in fake.calls] == ["kill", "kill", "rm"]
    assert fake.calls[-1] == ("rm", "--force", "--time", "0", "x-pg1", "x-pg2")


def test_who_is_not_there_is_not_named(podman):
    fake = podman(FakePodman("x-pg2"))
    assert lose(Lab(), ["pg1", "pg2"]) == ["pg2"]
    assert lose(Lab(), ["pg1"]) == []
    assert fake.calls[-1][-1] == "x-pg2"


def test_a_name_that_is_no_host_loses_nothing(podman):
    fake = podman(FakePodman("x-pg1"))
    with pytest.raises(LoseError, match="found pg9, wanted hosts of this lab: pg1, pg2, store1"):
        lose(Lab(), ["pg1", "pg9"])
    assert fake.calls == []


def test_a_host_that_stays_is_said(podman):
    podman(FakePodman("x-pg1", stuck=True))
    with pytest.raises(LoseError, match="device busy"):
        lose(Lab(), ["pg1"])
