# SPDX-License-Identifier: GPL-3.0-or-later
"""An object store: what listens, who may read, what survives, what is refused."""

from __future__ import annotations

import time
from pathlib import Path

import boto3
import botocore.config
import botocore.exceptions
import pytest

from support.lab_host import (
    has_to_be_refused,
    has_to_run,
    home,
    listening,
    modes,
    run,
    unit,
    verify_while,
)

ADDRESS = "10.89.82.11"


@pytest.fixture(scope="module")
def authority(host, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.crt"
    path.write_text(run(host, "cat /etc/diting/pki/ca.crt"))
    return path


def client(authority: Path | bool, *, secret: str | None = None, scheme: str = "https"):
    """An S3 client as WAL-G is one: path style, the lab's keys unless told otherwise."""
    secrets = home() / "secrets"
    return boto3.client(
        "s3",
        endpoint_url=f"{scheme}://{ADDRESS}:7070",
        region_name="us-east-1",
        aws_access_key_id=(secrets / "s3_access_key").read_text().strip(),
        aws_secret_access_key=secret or (secrets / "s3_secret_key").read_text().strip(),
        verify=str(authority),
        config=botocore.config.Config(
            s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=5, read_timeout=5
        ),
    )


def test_listens_for_s3_and_for_the_alerting_and_for_nothing_else(host):
    assert listening(host) == {"*:7070 versitygw", "0.0.0.0:9097 diting"}


@pytest.mark.parametrize("name", ["chrony.service", "versitygw.service", "diting-alert-relay.service"])
def test_service_runs_and_starts_at_boot(host, name):
    has_to_run(host, name)


def test_service_may_do_no_more_than_it_needs(host):
    assert unit(host, "versitygw", "User", "NoNewPrivileges", "CapabilityBoundingSet", "ProtectSystem") == {
        "User": "versitygw",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
    }


def test_files_have_exactly_these_owners_and_modes(host):
    wanted = {
        "/etc/diting/pki/host.key": "640 root:diting-pki",
        "/etc/versitygw/versitygw.env": "600 root:root",
        "/etc/diting/alerts/relay.json": "640 root:diting",
        "/var/lib/versitygw/data": "750 versitygw:versitygw",
        "/var/lib/versitygw/data/diting-wal": "750 versitygw:versitygw",
    }
    assert modes(host, *wanted) == wanted


def test_the_key_is_in_no_argument(host):
    assert (home() / "secrets" / "s3_secret_key").read_text().strip() not in run(host, "ps -eo args")


def test_buckets_are_exactly_the_ones_asked_for(authority):
    assert [bucket["Name"] for bucket in client(authority).list_buckets()["Buckets"]] == ["diting-wal"]


def test_an_object_survives_a_restart(host, authority):
    body = bytes(range(256)) * 64
    client(authority).put_object(Bucket="diting-wal", Key="molecule/object", Body=body)
    run(host, "systemctl restart versitygw.service")
    deadline = time.monotonic() + 20
    while True:
        try:
            found = client(authority).get_object(Bucket="diting-wal", Key="molecule/object")["Body"].read()
            break
        except botocore.exceptions.EndpointConnectionError:
            assert time.monotonic() < deadline, run(host, "journalctl -u versitygw -n 50")
    assert found == body
    client(authority).delete_object(Bucket="diting-wal", Key="molecule/object")
    assert "Contents" not in client(authority).list_objects_v2(Bucket="diting-wal", Prefix="molecule/")


def test_a_wrong_key_is_refused(authority):
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        client(authority, secret="x" * 32).list_buckets()
    assert refused.value.response["Error"]["Code"] == "SignatureDoesNotMatch"


def test_an_unknown_authority_and_plain_text_are_refused():
    with pytest.raises(botocore.exceptions.SSLError):
        client(Path("/etc/ssl/certs/ca-certificates.crt")).list_buckets()
    with pytest.raises((botocore.exceptions.ClientError, botocore.exceptions.HTTPClientError)):
        client(True, scheme="http").list_buckets()


@pytest.mark.parametrize(
    ("role", "variables", "named"),
    [
        ("object_store", {"object_store_install_method": "release"}, "object_store_release_sha256"),
        ("object_store", {"object_store_install_method": "file"}, "object_store_binary_file"),
        ("object_store", {"object_store_secret_key": "short"}, "object_store_secret_key"),
        ("object_store", {"object_store_min_free_bytes": 1 << 60}, "object_store_min_free_bytes"),
        ("pki", {"pki_ca_host": "nobody"}, "pki_ca_host"),
        ("alert_relay", {"alert_relay_direct": ["somebody"]}, "alert_relay_direct"),
        ("alert_relay", {"alert_relay_clients": ["store1"]}, "alert_relay_clients"),
    ],
    ids=[
        "no checksum",
        "no file",
        "weak key",
        "no space",
        "no authority",
        "nobody is told",
        "watches itself",
    ],
)
def test_a_wrong_variable_is_refused_by_name_before_anything_changes(role, variables, named):
    has_to_be_refused(role, variables, named)


def test_verify_sees_what_is_broken(host):
    done = verify_while(
        host,
        "systemctl stop versitygw.service",
        *("--extra-vars", "object_store_start_timeout_seconds=2"),
        mended="systemctl start versitygw.service",
    )
    assert done.returncode != 0
