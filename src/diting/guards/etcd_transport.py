# SPDX-License-Identifier: GPL-3.0-or-later
"""One request to one etcd endpoint: JSON over HTTPS with a client certificate, connections kept open."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


class TransportError(Exception):
    """No answer came; whether etcd has got the request is not known."""


class Transport(Protocol):
    """Sends one request and waits for its answer."""

    def __call__(
        self, endpoint: str, path: str, body: Mapping[str, Any], timeout_seconds: float
    ) -> tuple[int, dict[str, Any]]:
        """Status and body. Raises :class:`TransportError` when none came in time."""


class HttpsTransport:
    """:class:`Transport` with the standard library. One connection per endpoint and thread stays open between requests."""

    def __init__(self, ca_file: str, cert_file: str, key_file: str) -> None:
        self._context = ssl.create_default_context(cafile=ca_file)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_cert_chain(cert_file, key_file)
        self._local = threading.local()

    def __call__(
        self, endpoint: str, path: str, body: Mapping[str, Any], timeout_seconds: float
    ) -> tuple[int, dict[str, Any]]:
        """Send the request; a connection that failed is not used again."""
        connection = self._connect(endpoint, timeout_seconds)
        done = False
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            done = not answer.will_close
        except (OSError, http.client.HTTPException) as error:
            raise TransportError(f"{endpoint}: {error or type(error).__name__}") from error
        finally:
            if not done:
                self._forget(endpoint)
        try:
            # A stream (a keep-alive) answers in lines; the first one is the answer.
            data = json.loads(text.split(b"\n", 1)[0] or b"{}")
        except ValueError:
            data = {"message": text.decode("utf-8", "replace")[:200]}
        return answer.status, data if isinstance(data, dict) else {"message": str(data)[:200]}

    def _connect(self, endpoint: str, timeout_seconds: float) -> http.client.HTTPSConnection:
        known: dict[str, http.client.HTTPSConnection] = self._local.__dict__.setdefault("known", {})
        connection = known.get(endpoint)
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(timeout_seconds)
            return connection
        parts = urlsplit(endpoint)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 2379, timeout=timeout_seconds, context=self._context
        )
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise TransportError(f"{endpoint}: {error or type(error).__name__}") from error
        known[endpoint] = connection
        return connection

    def _forget(self, endpoint: str) -> None:
        connection = self._local.__dict__.get("known", {}).pop(endpoint, None)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()
