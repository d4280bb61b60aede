# SPDX-License-Identifier: GPL-3.0-or-later
"""Read an archive of WAL-G where it lies, with WAL-G's own settings: S3 by boto3, or a directory.

Only reading. Whatever is in the way of it is an :class:`ArchiveError` and never "nothing there".
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from ..core.backup_catalog import Catalog, StoredObject, catalog, wanted_files
from .archive_decode import CannotDecodeError, DecodeError, Decoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
TRIES = 3
_V2 = "list_objects_v2"
CHUNK_BYTES = 2**20
SMALL_BYTES = 256 * 2**20
"""A sentinel of v0.2.19 lists every file of the database; beyond this it is no sentinel."""


class ArchiveError(Exception):
    """The archive could not be read; the message says where and why."""


class Archive(Protocol):
    """One prefix of a store."""

    def objects(self) -> list[StoredObject]:
        """Every object below the prefix. Raises ArchiveError."""

    def read(self, name: str) -> bytes:
        """One small object whole. Raises ArchiveError."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """An object of any size, piece by piece. Raises ArchiveError."""


def settings_from(path: Path) -> dict[str, str]:
    """WAL-G's settings from its JSON file. Raises ArchiveError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArchiveError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ArchiveError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ArchiveError(f"{path} holds a {type(found).__name__}, wanted an object of WAL-G's settings")
    return {str(name): str(value) for name, value in found.items()}


def open_archive(settings: Mapping[str, str]) -> Archive:
    """The archive that these settings name. Raises ArchiveError when they name none that can be read here."""
    known = sorted(name for name, value in settings.items() if name.endswith("_PREFIX") and value)
    if len(known) > 1:
        raise ArchiveError(
            f"found {', '.join(known)} in the settings, wanted one: nobody can tell which WAL-G writes to"
        )
    if known == ["WALG_FILE_PREFIX"]:
        return FileArchive(settings["WALG_FILE_PREFIX"])
    if known == ["WALG_S3_PREFIX"]:
        return S3Archive(settings)
    raise ArchiveError(
        f"found {', '.join(known) or 'no prefix'} in the settings, wanted WALG_S3_PREFIX or WALG_FILE_PREFIX"
    )


@dataclass(frozen=True)
class Look:
    """An archive as it was found: what is in it, and what that means."""

    archive: Archive
    settings: Mapping[str, str]
    objects: tuple[StoredObject, ...]
    catalog: Catalog


def look_at(settings: Mapping[str, str], segment_bytes: int) -> Look:
    """List the archive of these settings and read its small files. Raises ArchiveError when it cannot be listed."""
    archive = open_archive(settings)
    objects = tuple(archive.objects())
    files: dict[str, Any] = {}
    wanted = wanted_files(objects)
    # The JSON files are as they are; a history went through what every WAL file goes through.
    plain = [name for name in wanted if name.endswith(".json")]
    for name in plain:
        try:
            files[name] = json.loads(archive.read(name))
        except (ArchiveError, ValueError, RecursionError) as error:
            files[name] = error
    histories = [name for name in wanted if name not in files]
    files.update(_histories(archive, settings, histories) if histories else {})
    return Look(archive, settings, objects, catalog(objects, files, segment_bytes))


def _histories(archive: Archive, settings: Mapping[str, str], names: list[str]) -> dict[str, Any]:
    files: dict[str, Any] = {}
    try:
        with Decoder(settings) as decoder:
            for name in names:
                try:
                    files[name] = decoder.read(name, archive.read(name)).decode("ascii")
                except (ArchiveError, DecodeError, ValueError) as error:
                    files[name] = error
    except CannotDecodeError as error:
        return dict.fromkeys(names, error)
    return files


class FileArchive:
    """A directory, often a network mount."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def objects(self) -> list[StoredObject]:
        """See :class:`Archive`."""
        # An unmounted file system looks like an empty store; the prefix itself must be there.
        if not self._root.is_dir():
            raise ArchiveError(f"{self._root}: no such directory; is it mounted?")
        found = []
        try:
            for where, _folders, names in os.walk(self._root, onerror=_raise):
                for name in names:
                    path = Path(where, name)
                    seen = path.stat()
                    found.append(StoredObject(str(path.relative_to(self._root)), seen.st_size, seen.st_mtime))
        except OSError as error:
            raise ArchiveError(f"{error.filename or self._root}: {error.strerror}") from error
        return sorted(found, key=lambda item: item.name)

    def read(self, name: str) -> bytes:
        """See :class:`Archive`."""
        path = self._root / name
        try:
            with path.open("rb") as stream:
                raw = stream.read(SMALL_BYTES + 1)
        except OSError as error:
            raise ArchiveError(f"{path}: {error.strerror}") from error
        return _small(str(path), raw)

    def chunks(self, name: str) -> Iterator[bytes]:
        """See :class:`Archive`."""
        path = self._root / name
        try:
            with path.open("rb") as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise ArchiveError(f"{path}: {error.strerror}") from error


class S3Archive:
    """One prefix of one bucket."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        target = urlsplit(settings["WALG_S3_PREFIX"])
        if target.scheme != "s3" or not target.netloc:
            raise ArchiveError(f"WALG_S3_PREFIX is {settings['WALG_S3_PREFIX']!r}, wanted s3://bucket/path")
        self._bucket, self._prefix = target.netloc, target.path.strip("/")
        self._listing = "list_objects" if _is_true(settings.get("WALG_S3_USE_LIST_OBJECTS_V1")) else _V2
        self._client = _client(settings)

    @property
    def _place(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    def objects(self) -> list[StoredObject]:
        """See :class:`Archive`."""
        begin = f"{self._prefix}/" if self._prefix else ""
        found = []
        try:
            for page in self._client.get_paginator(self._listing).paginate(Bucket=self._bucket, Prefix=begin):
                # boto3 takes a page without a word of the next one for the last.
                if self._listing == _V2 and page.get("IsTruncated") and not page.get("NextContinuationToken"):
                    raise ArchiveError(
                        f"{self._place} could not be listed: the store cut its list off and does not say how to go on; "
                        "WALG_S3_USE_LIST_OBJECTS_V1 asks it another way"
                    )
                for item in page.get("Contents", ()):
                    name = item["Key"][len(begin) :]
                    if name and not name.endswith("/"):
                        modified, kind = item["LastModified"].timestamp(), item.get("StorageClass", "")
                        found.append(StoredObject(name, int(item["Size"]), modified, kind))
        except _s3_errors() as error:
            raise ArchiveError(f"{self._place} could not be listed: {_words(error)}") from error
        return found

    def read(self, name: str) -> bytes:
        """See :class:`Archive`."""
        try:
            raw = self._get(name).read(SMALL_BYTES + 1)
        except _s3_errors() as error:
            raise ArchiveError(f"{self._place}/{name} could not be read: {_words(error)}") from error
        return _small(name, raw)

    def chunks(self, name: str) -> Iterator[bytes]:
        """See :class:`Archive`."""
        try:
            yield from self._get(name).iter_chunks(CHUNK_BYTES)
        except _s3_errors() as error:
            raise ArchiveError(f"{self._place}/{name} could not be read: {_words(error)}") from error

    def _get(self, name: str) -> Any:
        key = f"{self._prefix}/{name}" if self._prefix else name
        return self._client.get_object(Bucket=self._bucket, Key=key)["Body"]


def _is_true(word: str | None) -> bool:
    return (word or "").lower() in {"true", "1", "t"}


def _client(settings: Mapping[str, str]) -> Any:
    try:
        import boto3
        import botocore.config
    except ImportError as error:
        raise ArchiveError(f"an archive in S3 needs boto3 (Debian: python3-boto3): {error}") from error
    path_style = _is_true(settings.get("AWS_S3_FORCE_PATH_STYLE"))
    config = botocore.config.Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": TRIES},
        s3={"addressing_style": "path" if path_style else "virtual"},
    )
    endpoint = settings.get("AWS_ENDPOINT") or None
    if endpoint is not None and "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    try:
        # Keys that are not there are looked for by boto3's own rules: environment, role of the instance.
        return boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=settings.get("AWS_REGION") or "us-east-1",
            aws_access_key_id=settings.get("AWS_ACCESS_KEY_ID") or None,
            aws_secret_access_key=settings.get("AWS_SECRET_ACCESS_KEY") or None,
            aws_session_token=settings.get("AWS_SESSION_TOKEN") or None,
            verify=settings.get("WALG_S3_CA_CERT_FILE") or None,
            config=config,
        )
    except _s3_errors() as error:
        raise ArchiveError(f"S3 client: {error}") from error


def _s3_errors() -> tuple[type[Exception], ...]:
    """What boto3 raises when it cannot ask, ValueError for an endpoint that is none."""
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError, OSError, ValueError)


def _words(error: Exception) -> str:
    answer = getattr(error, "response", None)
    if not isinstance(answer, dict):
        return str(error) or type(error).__name__
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", "?")
    return f"{answer.get('Error', {}).get('Code', '?')} (status {status})"


def _small(name: str, raw: bytes) -> bytes:
    if len(raw) > SMALL_BYTES:
        raise ArchiveError(f"{name} has more than {SMALL_BYTES} bytes, which no such file has")
    return raw


def _raise(error: OSError) -> None:
    raise error
