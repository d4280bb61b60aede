# SPDX-License-Identifier: GPL-3.0-or-later
"""What people and programs get to sign in with: passfiles that libpq reads."""

from __future__ import annotations

import os

import pytest

from support.stand_in import Hosts

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
