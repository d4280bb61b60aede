# SPDX-License-Identifier: GPL-3.0-or-later
"""What people and programs get to sign in with: passfiles that libpq reads, a certificate that is renewed in time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography import x509

from support.servers import self_signed
from support.stand_in import Hosts
from support.tree import ROOT

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="the files are given to root, which only root can do"),
]
AWKWARD = r"a:b\c\\:d"
"""Every character that means something in a passfile, alone and together."""


def test_a_password_with_colons_and_backslashes_reaches_libpq_whole(tmp_path):
    hosts = Hosts(tmp_path)
    entries = [
        {"user": "prober", "password": AWKWARD},
        {"host": "2001:db8::1", "port": 5432, "database": "diting", "user": "app", "password": "plain"},
    ]
    passfile = tmp_path / "etc" / "pgpass"
    hosts.add("client1", database_client_passfiles=[{"path": str(passfile), "entries": entries}])
    include = {"name": "diting.dr.database_client", "tasks_from": "configure"}
    printed = hosts.play([{"ansible.builtin.include_role": include}])
    assert hosts.status == 0, printed
    # PostgreSQL's manual, "The Password File": a backslash stands before each : and \.
    assert passfile.read_text() == (
        "*:*:*:prober:" + r"a\:b\\c\\\\\:d" + "\n" + r"2001\:db8\:\:1:5432:diting:app:plain" + "\n"
    )


class Operator(Hosts):
    """A controller that is also the authority's host."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        (root / "ca").mkdir()
        self_signed(root / "ca" / "ca.key", root / "ca" / "ca.crt", "authority")
        self.place = root / "client"
        self.add("ops1")

    def keep(self, **variables: object) -> str:
        tasks = [{"ansible.builtin.include_tasks": str(ROOT / "playbooks/tasks/operator_client.yml")}]
        known = {
            "estate_operator_client_dir": str(self.place),
            "pki_dir": str(self.root),
            "pki_ca_host": "ops1",
            "patroni_app_password": AWKWARD,
        }
        printed = self.play(tasks, **known | variables)
        assert self.status == 0, printed
        return printed

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate((self.place / "diting_app.crt").read_bytes()).serial_number


def test_the_operators_certificate_is_renewed_when_it_is_due_and_not_before(tmp_path):
    operator = Operator(tmp_path)
    operator.keep()
    first, key = operator.serial, (operator.place / "diting_app.key").read_bytes()
    assert (operator.place / "pgpass").read_text() == "*:*:*:diting_app:" + r"a\:b\\c\\\\\:d" + "\n"
    assert "changed=0" in operator.keep()
    assert operator.serial == first
    # It was made for 365 days: with more than that to go before its end, it is due at once.
    operator.keep(pki_renew_before_days=370)
    assert operator.serial != first
    assert (operator.place / "diting_app.key").read_bytes() == key


def test_verify_tells_of_an_authority_that_ends_soon(tmp_path):
    hosts = Hosts(tmp_path)
    self_signed(tmp_path / "ca.key", tmp_path / "ca.crt", "authority")  # for two days
    known = {"pki_dir": str(tmp_path), "pki_ca_host": "a", "ansible_host": "127.0.0.1"}
    hosts.add("a", **known, pki_renew_before_days=3)
    hosts.add("b", **known, pki_renew_before_days=1)
    found = hosts.findings("pki")
    assert "wanted more than pki_renew_before_days, 3 days, left" in found["a"], found
    # It ends in good time: what is wrong with b is that it has no certificate.
    assert "Certificate" in found["b"], found
