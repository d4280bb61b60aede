# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the store itself what it holds, with WAL-G's own settings.

WAL-G's exit codes and listings cannot be trusted for this: v0.2.19 reports a wrong key as "No
backups found" and an absent segment with the same code as a dead store. Here an answer is an
answer, and everything else raises StoreError.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import http.client
import os
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol
from xml.parsers import expat

WAL_FOLDER = "wal_005"
BACKUP_FOLDER = "basebackups_005"
_TIMELINE_DIGITS = 8


class StoreError(Exception):
    """The store could not be asked, or refused to answer. It says nothing about what it holds."""


class Store(Protocol):
    """What the wrappers need from a store. Every call may raise StoreError."""

    def session(self) -> contextlib.AbstractContextManager[Store]:
        """The same store for several questions in a row, over one connection where it has such."""

    def probe(self, timeout_seconds: float) -> None:
        """Return when the store gives any sign of life."""

    def names(self, prefix: str, limit: int, timeout_seconds: float) -> list[str]:
        """Names below the cluster's prefix that start with ``prefix``, at most ``limit``."""

    def read(self, name: str, timeout_seconds: float) -> bytes:
        """Content of one small object."""


def open_store(settings: Mapping[str, object]) -> Store:
    """Store that WAL-G's settings name; raises StoreError when they name none we can ask."""
    values = {name: str(value) for name, value in settings.items()}
    if values.get("WALG_FILE_PREFIX"):
        path = values["WALG_FILE_PREFIX"]
        return FileStore(urllib.parse.urlsplit(path).path if "://" in path else path)
    if values.get("WALG_S3_PREFIX"):
        return S3Store.from_settings(values)
    raise StoreError("the settings of WAL-G name neither WALG_S3_PREFIX nor WALG_FILE_PREFIX")


def holds(where: Store, name: str, timeout_seconds: float) -> bool:
    """Does the store list the file, whatever way it is compressed? Raises StoreError."""
    return any(_is_file(item, name) for item in where.names(name, 10, timeout_seconds))


def lacks(where: Store, word: str, timeout_seconds: float) -> bool:
    """Has the store nothing of a timeline (its eight digits), or not the file? Raises StoreError."""
    name = f"{WAL_FOLDER}/{word}"
    if len(word) == _TIMELINE_DIGITS:
        return not where.names(name, 1, timeout_seconds)
    return not holds(where, name, timeout_seconds)


def _is_file(item: str, name: str) -> bool:
    """Is the object the file itself, and not another one whose name begins the same?

    WAL-G adds one ending for the compression. ``<segment>.partial.lz4`` is the half of a segment that a
    promotion left behind, ``<segment>.00000028.backup.lz4`` the label of a backup.
    """
    if not item.startswith(name):
        return False
    ending = item[len(name) :]
    return not ending or (
        ending[0] == "." and "." not in ending[1:] and ending not in {".partial", ".backup"}
    )


class FileStore(NamedTuple):
    """A directory, often a network mount."""

    root: str

    @contextlib.contextmanager
    def session(self) -> Iterator[FileStore]:
        """See Store.session."""
        yield self

    def probe(self, timeout_seconds: float) -> None:  # noqa: ARG002 - the caller's limit kills us
        """See Store.probe."""
        self._require_root()

    def names(self, prefix: str, limit: int, timeout_seconds: float) -> list[str]:  # noqa: ARG002
        """See Store.names."""
        self._require_root()
        folder, _slash, start = prefix.rpartition("/")
        found: list[str] = []
        try:
            for where, _dirs, files in os.walk(os.path.join(self.root, folder), onerror=_unless_absent):
                below = os.path.relpath(where, self.root)
                found += [f"{below}/{name}" for name in files]
        except OSError as error:
            raise StoreError(f"{self.root}: {error}") from error
        wanted = f"{folder}/{start}" if folder else start
        return sorted(name for name in found if name.startswith(wanted))[:limit]

    def read(self, name: str, timeout_seconds: float) -> bytes:  # noqa: ARG002
        """See Store.read."""
        try:
            with open(os.path.join(self.root, name), "rb") as handle:
                return handle.read()
        except OSError as error:
            raise StoreError(f"{self.root}/{name}: {error.strerror}") from error

    def _require_root(self) -> None:
        # An unmounted file system looks like an empty store; the prefix itself must be there.
        if not os.path.isdir(self.root):
            raise StoreError(f"{self.root}: no such directory; is it mounted?")


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


class _Line:
    """A connection that is kept from one question to the next."""

    def __init__(self) -> None:
        self.connection: http.client.HTTPConnection | None = None


class S3Store(NamedTuple):
    """One prefix of one bucket, asked by plain HTTP with AWS signature version 4."""

    scheme: str
    host: str
    port: int
    bucket: str
    prefix: str
    path_style: bool
    region: str
    access_key: str
    secret_key: str
    session_token: str
    ca_file: str
    line: _Line | None = None

    @classmethod
    def from_settings(cls, values: Mapping[str, str]) -> S3Store:
        """Build from WAL-G's setting names; raises StoreError naming what is missing."""
        target = urllib.parse.urlsplit(values["WALG_S3_PREFIX"])
        region = values.get("AWS_REGION") or "us-east-1"
        endpoint = values.get("AWS_ENDPOINT") or f"https://s3.{region}.amazonaws.com"
        url = urllib.parse.urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        missing = [
            name
            for name, value in (
                ("bucket in WALG_S3_PREFIX", target.netloc),
                ("host in AWS_ENDPOINT", url.hostname),
                ("AWS_ACCESS_KEY_ID", values.get("AWS_ACCESS_KEY_ID")),
                ("AWS_SECRET_ACCESS_KEY", values.get("AWS_SECRET_ACCESS_KEY")),
            )
            if not value
        ]
        if missing:
            raise StoreError("the settings of WAL-G lack: " + ", ".join(missing))
        path_style = values.get("AWS_S3_FORCE_PATH_STYLE", "false").lower() in {"true", "1", "t"}
        host = url.hostname or ""
        return cls(
            scheme=url.scheme,
            host=host if path_style else f"{target.netloc}.{host}",
            port=url.port or (443 if url.scheme == "https" else 80),
            bucket=target.netloc,
            prefix=target.path.strip("/"),
            path_style=path_style,
            region=region,
            access_key=values["AWS_ACCESS_KEY_ID"],
            secret_key=values["AWS_SECRET_ACCESS_KEY"],
            session_token=values.get("AWS_SESSION_TOKEN", ""),
            ca_file=values.get("WALG_S3_CA_CERT_FILE", ""),
        )

    @contextlib.contextmanager
    def session(self) -> Iterator[S3Store]:
        """See Store.session."""
        line = _Line()
        try:
            yield self._replace(line=line)
        finally:
            if line.connection is not None:
                line.connection.close()

    def probe(self, timeout_seconds: float) -> None:
        """See Store.probe: any HTTP answer will do, so nothing is signed."""
        self._exchange("HEAD", "/", "", {}, timeout_seconds)

    def names(self, prefix: str, limit: int, timeout_seconds: float) -> list[str]:
        """See Store.names."""
        base = f"{self.prefix}/" if self.prefix else ""
        found: list[str] = []
        token = ""
        while len(found) < limit:
            query = {
                "list-type": "2",
                "max-keys": str(min(1000, limit - len(found))),
                "prefix": base + prefix,
            }
            if token:
                query["continuation-token"] = token
            listing = _parse(self._signed("", query, timeout_seconds))
            root = listing[-1][0]
            if root != "ListBucketResult":
                raise StoreError(f"{self.host}: the listing is not one: <{root}>")
            found += [text[len(base) :] for path, text in listing if path == f"{root}/Contents/Key"]
            rest = dict(listing)
            token = rest.get(f"{root}/NextContinuationToken", "")
            if rest.get(f"{root}/IsTruncated") != "true" or not token:
                break
        return found[:limit]

    def read(self, name: str, timeout_seconds: float) -> bytes:
        """See Store.read."""
        key = f"{self.prefix}/{name}" if self.prefix else name
        return self._signed(key, {}, timeout_seconds)

    def _signed(self, key: str, query: Mapping[str, str], timeout_seconds: float) -> bytes:
        path = f"/{self.bucket}/{key}" if self.path_style else f"/{key}"
        path = urllib.parse.quote(path.rstrip("/") or "/")
        encoded = urllib.parse.urlencode(sorted(query.items()), quote_via=urllib.parse.quote)
        now = datetime.datetime.now(datetime.UTC)
        headers = self._signature(path, encoded, now.strftime("%Y%m%dT%H%M%SZ"))
        status, body = self._exchange("GET", path, encoded, headers, timeout_seconds)
        if status != http.HTTPStatus.OK:
            raise StoreError(f"{self.host}:{self.port} answered {status} {_error_code(body)}")
        return body

    def _host_header(self) -> str:
        default = {"https": 443, "http": 80}[self.scheme]
        return self.host if self.port == default else f"{self.host}:{self.port}"

    def _signature(self, path: str, query: str, stamp: str) -> dict[str, str]:
        """Headers of AWS signature version 4 for a GET without a body."""
        payload = hashlib.sha256(b"").hexdigest()
        headers = {
            "host": self._host_header(),
            "x-amz-content-sha256": payload,
            "x-amz-date": stamp,
        }
        if self.session_token:
            headers["x-amz-security-token"] = self.session_token
        names = ";".join(sorted(headers))
        canonical = "\n".join(
            ["GET", path, query]
            + [f"{name}:{headers[name]}" for name in sorted(headers)]
            + ["", names, payload]
        )
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}".encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return headers

    def _exchange(
        self, method: str, path: str, query: str, headers: Mapping[str, str], timeout_seconds: float
    ) -> tuple[int, bytes]:
        try:
            connection = self._connection(timeout_seconds)
            try:
                connection.request(method, f"{path}?{query}" if query else path, headers=dict(headers))
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                if self.line is None:
                    connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise StoreError(
                f"{self.host}:{self.port} did not answer: {error or type(error).__name__}"
            ) from error

    def _connection(self, timeout_seconds: float) -> http.client.HTTPConnection:
        """The session's connection with this limit, or a new one. It connects at its first request."""
        connection = self.line.connection if self.line else None
        if connection is not None:
            connection.timeout = timeout_seconds
            if connection.sock is not None:
                connection.sock.settimeout(timeout_seconds)
            return connection
        if self.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca_file or None)
            connection = http.client.HTTPSConnection(
                self.host, self.port, timeout=timeout_seconds, context=context
            )
        else:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_seconds)
        if self.line is not None:
            self.line.connection = connection
        return connection


def _parse(body: bytes) -> list[tuple[str, str]]:
    """Elements of an answer: path of names and text, each at its end, so the root is the last.

    By the parser itself: the tree that the library makes of it takes twice as long to load.
    """
    found: list[tuple[str, str]] = []
    path: list[str] = []
    text: list[str] = []

    def begin(tag: str, _attributes: Mapping[str, str]) -> None:
        path.append(tag.rpartition(":")[2])
        text.clear()

    def end(_tag: str) -> None:
        found.append(("/".join(path), "".join(text)))
        path.pop()
        text.clear()

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = text.append
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise StoreError(f"the listing is not XML: {error}") from error
    return found


def _error_code(body: bytes) -> str:
    try:
        return dict(_parse(body)).get("Error/Code", "")
    except StoreError:
        return ""
