# SPDX-License-Identifier: GPL-3.0-or-later
"""Two labs of one root: the last one takes podman's store along, and must not take it from one that just comes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from diting.lab import network, power_service, prepare, teardown
from diting.lab.instance import parse, shared


def description(name, podman_home):
    return {
        "name": name,
        "subnet": "10.89.99.0/24",
        "gateway": "10.89.99.1",
        "bridge": "dtest",
        "hosts": {"pg1": "10.89.99.11"},
        "podman_home": str(podman_home),
    }


class Labs:
    """What makes and removes labs below a root, with nothing of them that is on the machine."""

    def __init__(self, root):
        self.root, self.podman_home = root / "labs", root / "labs" / "podman"
        self.run_dir = root / "run"
        self.pool = ThreadPoolExecutor()

    def instance(self, name):
        return parse(description(name, self.podman_home), self.root / name)

    def comes(self, name):
        told = description(name, self.podman_home)
        return self.pool.submit(prepare.prepare, self.instance(name), told, self.run_dir)

    def goes(self, name):
        return self.pool.submit(teardown.teardown, self.instance(name), self.run_dir)


@pytest.fixture
def labs(tmp_path, monkeypatch):
    monkeypatch.setattr(power_service, "stop", lambda _instance: False)
    monkeypatch.setattr(network, "remove", lambda _instance: [])
    monkeypatch.setattr(teardown, "_ssh_connections", lambda _instance: [])
    found = Labs(tmp_path)
    yield found
    found.pool.shutdown()


def test_the_last_lab_takes_the_store_along_and_no_other(labs):
    for name in ("one", "two"):
        labs.comes(name).result()
    labs.goes("one").result()
    assert labs.podman_home.is_dir()
    labs.goes("two").result()
    assert not labs.podman_home.exists()
    assert not labs.run_dir.exists()
    assert list(labs.root.iterdir()) == []


def test_one_that_comes_while_the_last_one_goes_finds_a_store_of_its_own(labs, monkeypatch):
    labs.comes("one").result()
    halfway, go_on = threading.Event(), threading.Event()

    def remove(_instance):
        halfway.set()
        assert go_on.wait(30)
        return []

    monkeypatch.setattr(network, "remove", remove)
    going = labs.goes("one")
    assert halfway.wait(30)
    coming = labs.comes("two")
    with pytest.raises(TimeoutError):
        coming.result(0.5)
    assert not (labs.root / "two").exists()
    go_on.set()
    going.result(30)
    coming.result(30)
    assert (labs.podman_home / "networks").is_dir()
    assert labs.run_dir.is_dir()


def test_one_that_goes_waits_for_one_that_comes(labs):
    labs.comes("one").result()
    with shared(labs.instance("one")):
        going = labs.goes("one")
        with pytest.raises(TimeoutError):
            going.result(0.5)
        assert labs.podman_home.is_dir()
    going.result(30)
    assert not labs.podman_home.exists()


def test_where_there_never_was_a_lab_none_is_waited_for_or_made(labs):
    assert labs.goes("one").result(30) == []
    assert not labs.root.exists()
