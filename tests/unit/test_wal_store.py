# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to a store: our signature is the one AWS's own library makes, and no answer is not "nothing"."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "roles/walg/files/usr/local/lib/diting-wal"))

from diting_wal import store  # noqa: E402

SETTINGS = {
    "WALG_S3_PREFIX": "s3://wal-bucket/diting/15",
    "AWS_ENDPOINT": "https://store1:7070",
    "AWS_REGION": "eu-west-3",
    "AWS_S3_FORCE_PATH_STYLE": "true",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "se/cr+et",
}
LISTING = (
    '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<IsTruncated>{more}</IsTruncated>{token}{keys}</ListBucketResult>"
)


def listing(*keys: str, token: str = "") -> bytes:
    return LISTING.format(
        more=str(bool(token)).lower(),
        token=f"<NextContinuationToken>{token}</NextContinuationToken>" if token else "",
        keys="".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys),
    ).encode()


def s3(**changes: str) -> store.S3Store:
    opened = store.open_store({**SETTINGS, **changes})
    assert isinstance(opened, store.S3Store)
    return opened


@pytest.mark.parametrize("changes", [{}, {"AWS_SESSION_TOKEN": "a/b+c=="}], ids=["key", "token"])
@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/wal-bucket", "list-type=2&max-keys=10&prefix=diting%2F15%2Fwal_005%2F0"),
        ("/wal-bucket/a%20b/c", ""),
    ],
)
def test_signature_is_that_of_botocore(path: str, query: str, changes: dict[str, str]) -> None:
    stamp = "20261121T081500Z"
    request = AWSRequest("GET", f"https://store1:7070{path}" + (f"?{query}" if query else ""))
    request.context["payload_signing_enabled"] = True
    credentials = Credentials("key", "se/cr+et", changes.get("AWS_SESSION_TOKEN"))
    signer = S3SigV4Auth(credentials, "s3", "eu-west-3")
    with mock.patch("botocore.auth.get_current_datetime") as clock:
        clock.return_value.strftime.return_value = stamp
        signer.add_auth(request)
    ours = s3(**changes)._signature(path, query, stamp)
    assert ours["authorization"] == request.headers["Authorization"]


def test_virtual_host_style_names_the_bucket_in_the_host() -> None:
    opened = s3(AWS_S3_FORCE_PATH_STYLE="false", AWS_ENDPOINT="https://s3.oss-cn-x.aliyuncs.com")
    assert (opened.host, opened.port, opened.path_style) == (
        "wal-bucket.s3.oss-cn-x.aliyuncs.com",
        443,
        False,
    )


def test_pages_are_followed_and_the_prefix_taken_off() -> None:
    opened = s3()
    pages = [listing("diting/15/wal_005/1.lz4", token="t/1"), listing("diting/15/wal_005/2.lz4")]
    with mock.patch.object(
        store.S3Store, "_exchange", side_effect=[(200, page) for page in pages]
    ) as exchange:
        assert opened.names("wal_005/", 100, 1.0) == ["wal_005/1.lz4", "wal_005/2.lz4"]
    assert "continuation-token=t%2F1" in exchange.call_args_list[1].args[2]


@pytest.mark.parametrize(
    "answer",
    [
        (403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"),
        (404, b"<Error><Code>NoSuchBucket</Code></Error>"),
        (503, b"busy"),
        (301, b""),
        (200, b""),
        (200, b"<html>a proxy's page</html>"),
        (200, b"<Error><Code>InternalError</Code></Error>"),
    ],
)
def test_what_is_no_listing_is_an_error_and_never_empty(answer: tuple[int, bytes]) -> None:
    with mock.patch.object(store.S3Store, "_exchange", return_value=answer), pytest.raises(store.StoreError):
        s3().names("wal_005/0", 10, 1.0)


def test_missing_settings_are_all_named() -> None:
    with pytest.raises(store.StoreError) as error:
        store.open_store({"WALG_S3_PREFIX": "s3:///x"})
    for word in ("bucket in WALG_S3_PREFIX", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert word in str(error.value)
    with pytest.raises(store.StoreError):
        store.open_store({})


def test_a_directory_that_is_not_mounted_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "c1"
    opened = store.open_store({"WALG_FILE_PREFIX": f"file://localhost{root}"})
    for ask in (lambda: opened.probe(1), lambda: opened.names("wal_005/", 1, 1)):
        with pytest.raises(store.StoreError):
            ask()
    (root / "wal_005").mkdir(parents=True)
    assert opened.names("wal_005/0", 10, 1) == []
    (root / "wal_005" / "0A.lz4").touch()
    (root / "wal_005" / "1B.lz4").touch()
    assert opened.names("wal_005/0", 10, 1) == ["wal_005/0A.lz4"]
    assert opened.names("basebackups_005/", 10, 1) == []


@pytest.mark.parametrize(
    ("object_name", "wanted"),
    [
        ("00000003000000000000000B", True),
        ("00000003000000000000000B.lz4", True),
        ("00000003000000000000000B.zst", True),
        ("00000003000000000000000B.partial", False),
        ("00000003000000000000000B.partial.lz4", False),
        ("00000003000000000000000B.00000028.backup.lz4", False),
        ("00000003000000000000000BC.lz4", False),
    ],
)
def test_a_name_that_begins_the_same_is_another_file(tmp_path: Path, object_name: str, wanted: bool) -> None:
    folder = tmp_path / store.WAL_FOLDER
    folder.mkdir()
    (folder / object_name).touch()
    where = store.FileStore(str(tmp_path))
    assert store.holds(where, f"{store.WAL_FOLDER}/00000003000000000000000B", 1.0) is wanted
