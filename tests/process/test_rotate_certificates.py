# SPDX-License-Identifier: GPL-3.0-or-later
"""What is replaced, restarted and reported, in good time and after certificates have expired."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.patroni_members import ADDRESSES, PatroniMembers
from support.stand_in import Hosts

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="keys are given to root, which only root can do"),
]
SYSTEMCTL = """echo "$*" >> {log}
case "$*" in *show*) printf 'LoadState=loaded\\nActiveState=active\\n' ;; esac"""


class Estate(Hosts):
    """Three members, and a control host that is the authority; every host with its own directory of certificates."""

    def __init__(self, root: Path, members: PatroniMembers) -> None:
        super().__init__(root)
        self.members = members
        self.log = root / "systemctl.log"
        self.log.touch()
        programs = {"systemctl": SYSTEMCTL.format(log=self.log), "etcdctl": "true"}
        for name, address in ADDRESSES.items():
            self.add(
                name, programs, group="database", ansible_host=address, pki_reload_units=["patroni.service"]
            )
        self.groups["etcd"] = list(ADDRESSES)
        self.add("ops1", programs, group="control", ansible_host="127.0.0.1")
        (root / "ca").mkdir()
        words = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2 -subj /CN=authority"
        )
        command = [*words.split(), "-keyout", str(root / "ca/ca.key"), "-out", str(root / "ca/ca.crt")]
        subprocess.run(command, check=True, capture_output=True)
        for name in self.hosts:
            place = self.place(name)
            place.mkdir(parents=True)
            (place / "ca").symlink_to(root / "ca")
            # The members that only answer are not of this authority.
            (place / "ca.crt").write_text((root / "ca/ca.crt").read_text() + members.certificate.read_text())
            (place / "host.key").write_text("old")
            (place / "host.crt").write_text("old")

    def place(self, name: str) -> Path:
        return self.root / "pki" / name

    def rotate(self, *options: str, **variables: object) -> str:
        known = {
            "pki_dir": f"{self.root}/pki/{{{{ inventory_hostname }}}}",
            "pki_group": "root",
            "pki_ca_host": "ops1",
            "etcd_hosts": list(ADDRESSES),
            "pki_served_timeout_seconds": 1,
            **self.members.variables(),
        }
        return self.operate("rotate_certificates", *options, **known | variables)

    @property
    def rotated(self) -> set[str]:
        return {name for name in self.hosts if (self.place(name) / "host.crt").read_text() != "old"}

    def orders(self, word: str) -> int:
        return sum(line.startswith(word) for line in self.log.read_text().splitlines())


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    members = PatroniMembers(tmp_path)
    yield Estate(tmp_path, members)
    members.close()


def test_every_host_gets_a_new_pair_and_the_gate_hears_of_it_once(estate):
    printed = estate.rotate()
    assert estate.status == 0, printed
    assert estate.rotated == set(estate.hosts)
    assert (estate.orders("restart etcd.service"), estate.orders("reload patroni.service")) == (3, 3)
    assert estate.outcomes == ["success"]


def test_a_host_that_is_not_reached_is_told_before_anything_changes(estate):
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    estate.add("client1", group="client", **away)
    (estate.place("client1")).mkdir()
    (estate.place("client1") / "host.crt").write_text("old")
    printed = estate.rotate()
    assert estate.status != 0
    assert "Not reached: client1" in printed
    assert (estate.rotated, estate.gate.journal.records()) == (set(), [])


def test_expired_certificates_are_replaced_on_request_only(estate):
    # Nobody can be asked until Patroni has read a new pair on all members.
    estate.members.presents = lambda: estate.orders("reload patroni.service") == len(ADDRESSES)
    printed = estate.rotate()
    assert estate.status != 0
    assert "-e rotate_expired=true" in printed
    assert (estate.rotated, estate.gate.journal.records()) == (set(), [])

    printed = estate.rotate("-e", "rotate_expired=true")
    assert estate.status == 0, printed
    assert estate.rotated == set(estate.hosts)
    assert estate.orders("restart etcd.service") == 3
    assert estate.outcomes == ["success"]


def test_a_service_that_does_not_take_its_new_pair_is_no_success(estate):
    estate.hosts["pg2"]["pki_served_ports"] = ["1"]  # where nobody listens
    printed = estate.rotate("-e", "rotate_expired=true")
    assert estate.status != 0, printed
    assert "port 1: " in printed
    assert "Not reached" not in printed
    assert estate.outcomes == ["failed"]
