# SPDX-License-Identifier: GPL-3.0-or-later
"""Power of a lab host by the kernel's word alone: quickly where that is enough, by podman where it is not."""

from __future__ import annotations

import json
import subprocess

import pytest

from diting.lab import hosts, podman
from diting.lab.instance import parse
from diting.lab.podman import Power

LAB = {
    "name": "test",
    "subnet": "10.89.99.0/24",
    "gateway": "10.89.99.1",
    "bridge": "dtest",
    "hosts": {"pg1": "10.89.99.11"},
    "podman_home": "/nowhere",
}
ID = "c0ffee" * 10


class Machine:
    """Stands in for podman and the kernel under one host; remembers what was done, in order."""

    def __init__(self, monkeypatch, identity=None):
        self.running = True
        self.done = []
        self.asked = 0
        self.known = identity
        for module in (podman, hosts):
            monkeypatch.setattr(module, "processes_of", lambda _identity: [10, 11] if self.running else [])
        monkeypatch.setattr(hosts, "link_of", lambda pid: f"veth{pid}")
        monkeypatch.setattr(hosts, "set_link", lambda link, *, up: self.done.append((link, up)))

    def identity(self, _name):
        return self.known

    def inspect(self, name):
        self.asked += 1
        return podman.Container(
            "id", name, "running" if self.running else "exited", 10 if self.running else 0
        )

    def run(self, *words):
        self.done.append(words[0])
        self.running = False


def test_power_goes_without_a_farewell_on_the_wire(monkeypatch, tmp_path):
    machine = Machine(monkeypatch)
    backend = hosts.PodmanHosts(parse(LAB, tmp_path), machine)
    assert backend.off("pg1") is True
    assert machine.done == [("veth10", False), "kill"]
    assert backend.off("pg1") is False
    assert machine.done == [("veth10", False), "kill"]


def test_off_is_seen_without_asking_podman_and_everything_else_by_asking(monkeypatch, tmp_path):
    """ "No process of this container" is the kernel's word and decides; what runs may contradict podman's."""
    machine = Machine(monkeypatch, ID)
    backend = hosts.PodmanHosts(parse(LAB, tmp_path), machine)
    assert backend.state("pg1")[0] is Power.ON
    assert machine.asked == 1
    machine.running = False
    assert backend.state("pg1") == (Power.OFF, "")
    assert machine.asked == 1
    machine.known = None
    assert backend.state("pg1") == (Power.OFF, "")
    assert machine.asked == 2


class Victim:
    """A process that dies like a container's init."""

    def __init__(self, monkeypatch, machine):
        self.process = subprocess.Popen(["sleep", "60"])
        alive = [self.process.pid]
        for module in (podman, hosts):
            monkeypatch.setattr(
                module, "processes_of", lambda _identity: alive if self.process.poll() is None else []
            )
        monkeypatch.setattr(hosts, "init_of", lambda processes: processes[0])
        machine.victim = self.process


def test_the_power_of_a_known_host_is_cut_by_the_kernel_link_first(monkeypatch, tmp_path):
    machine = Machine(monkeypatch, ID)
    victim = Victim(monkeypatch, machine)
    alive_when_cut = []
    monkeypatch.setattr(
        hosts, "set_link", lambda link, *, up: alive_when_cut.append((link, up, victim.process.poll()))
    )
    backend = hosts.PodmanHosts(parse(LAB, tmp_path), machine)
    assert backend.off("pg1") is True
    assert alive_when_cut == [(f"veth{victim.process.pid}", False, None)]
    assert victim.process.wait(5) == -9
    assert (machine.asked, machine.done) == (0, [])
    assert backend.off("pg1") is False


@pytest.mark.parametrize("why", ["no init", "another process by now", "it does not die"])
def test_where_the_kernel_alone_cannot_podman_does_it(monkeypatch, tmp_path, why):
    machine = Machine(monkeypatch, ID)
    monkeypatch.setattr(hosts, "CUT_DEADLINE_SECONDS", 0.05)
    victim = subprocess.Popen(["sleep", "60"])
    seen = iter([[victim.pid], [1]]) if why == "another process by now" else None
    monkeypatch.setattr(
        hosts,
        "processes_of",
        lambda _identity: next(seen, []) if seen else [10, 11] if machine.running else [],
    )
    monkeypatch.setattr(hosts, "init_of", lambda _processes: None if why == "no init" else victim.pid)
    backend = hosts.PodmanHosts(parse(LAB, tmp_path), machine)
    assert backend.off("pg1") is True
    assert machine.done[-1] == "kill"
    assert (victim.poll() is None) is (why != "it does not die" or victim.poll() is None)
    victim.kill()
    victim.wait()


def storage(root, containers, conf=True):
    (root / "storage").mkdir()
    (root / "storage/overlay-containers").mkdir()
    if conf:
        (root / "storage.conf").write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{root}/storage"\n')
    (root / "storage/overlay-containers/containers.json").write_text(containers)


@pytest.mark.parametrize(
    ("containers", "found"),
    [
        (json.dumps([{"id": "x", "names": ["test-pg2"]}, {"id": ID, "names": ["test-pg1"]}]), ID),
        (json.dumps([{"id": "x", "names": ["test-pg2"]}]), None),
        (json.dumps([{"id": "x", "names": ["test-pg1"]}, {"id": "y", "names": ["test-pg1"]}]), None),
        (json.dumps([{"id": "x"}]), None),
        (json.dumps([{"id": "", "names": ["test-pg1"]}]), None),
        (json.dumps({}), None),
        ("rubbish", None),
    ],
)
def test_a_container_is_known_by_its_name_in_the_storage_as_it_is_now(tmp_path, containers, found):
    storage(tmp_path, containers)
    assert podman.Podman(tmp_path).identity("test-pg1") == found


def test_without_its_storage_nothing_is_known_and_podman_is_asked(tmp_path):
    storage(tmp_path, "[]", conf=False)
    assert podman.Podman(tmp_path).identity("test-pg1") is None


def test_the_init_of_a_container_is_the_first_process_of_its_own_numbering(tmp_path):
    for pid, numbers in ((10, "10"), (11, "11\t1"), (12, "12\t7"), (13, "13\t4\t1")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "status").write_text(f"Name:\tx\nNSpid:\t{numbers}\nThreads:\t1\n")
    assert podman.init_of([10, 11, 12], tmp_path) == 11
    assert podman.init_of([10, 12], tmp_path) is None
    assert podman.init_of([11, 13], tmp_path) == 11, "and not that of a container inside"
    assert podman.init_of([99], tmp_path) is None


def net(root, name, index, peer):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "ifindex").write_text(f"{index}\n")
    (folder / "iflink").write_text(f"{peer}\n")


@pytest.mark.parametrize(
    ("inside", "outside", "found"),
    [
        ((2, 7), {"veth1": (7, 2), "veth2": (9, 2)}, "veth1"),
        ((2, 7), {"veth1": (7, 3)}, None),  # not the other end of this one
        ((4, 4), {"eth0": (4, 4)}, None),  # no pair at all: the machine's own link
        ((2, 8), {"veth1": (7, 2)}, None),
    ],
)
def test_the_machines_end_of_a_link_is_read_and_not_asked_for(tmp_path, inside, outside, found):
    net(tmp_path / "inside", "eth0", *inside)
    for name, numbers in outside.items():
        net(tmp_path / "outside", name, *numbers)
    assert hosts.peer_of(tmp_path / "inside/eth0", tmp_path / "outside") == found


def test_a_link_that_cannot_be_read_is_not_found(tmp_path):
    assert hosts.peer_of(tmp_path / "nowhere/eth0", tmp_path) is None
