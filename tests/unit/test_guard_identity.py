# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate that a guard shows: read once for each time it is written."""

from __future__ import annotations

import ssl

import pytest

from diting.guards.probe_config import Identity
from support.etcd_cluster import make_certificates


@pytest.fixture
def folder(tmp_path):
    make_certificates(tmp_path)
    return tmp_path


@pytest.fixture
def identity(folder):
    return Identity(ca=folder / "ca.crt", certificate=folder / "host.crt", key=folder / "host.key")


def test_it_is_read_once_as_long_as_the_files_are_the_same(identity):
    assert identity.context() is identity.context()


def test_a_certificate_that_was_renewed_is_used_from_the_next_connection_on(identity, folder):
    before = identity.context()
    make_certificates(folder)
    after = identity.context()
    assert after is not before
    assert after.get_ca_certs() != before.get_ca_certs()


def test_a_key_that_does_not_fit_is_an_error_and_not_the_one_from_before(identity, folder, tmp_path_factory):
    identity.context()
    other = tmp_path_factory.mktemp("other")
    make_certificates(other)
    (other / "host.key").replace(folder / "host.key")
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            identity.context()
    (folder / "ca.crt").unlink()
    with pytest.raises(FileNotFoundError):
        identity.context()
