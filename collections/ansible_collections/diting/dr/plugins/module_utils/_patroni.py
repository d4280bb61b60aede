# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: no promise is made to anybody outside it.
"""Speaking to Patroni's REST interface: the I/O half of patroni_info, patroni_config and recovery_check."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from .core.patroni_state import MemberAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .core.verdict import Health

POLL_SECONDS = 0.5


class PatroniError(Exception):
    """The member could not be asked or refused; the message says which member and why."""


class Rest(Protocol):
    """One request to one member. Returns the status and the body; raises :class:`PatroniError` if none came."""

    def __call__(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """Send the request and wait for the answer."""


@dataclass(frozen=True)
class HttpsRest:
    """:class:`Rest` over HTTPS with CA and, for writes, client certificate and basic authentication."""

    ca_file: str
    cert_file: str | None = None
    key_file: str | None = None
    authorization: str | None = None
    timeout_seconds: float = 2.0

    def __call__(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """Send the request and wait for the answer, at most ``timeout_seconds`` per step."""
        parts = urlsplit(url)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.authorization is not None and method != "GET":
            headers["Authorization"] = self.authorization
        payload = None if body is None else json.dumps(body)
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=self.timeout_seconds, context=context
            )
            try:
                connection.request(method, parts.path or "/", payload, headers)
                response = connection.getresponse()
                return response.status, response.read().decode("utf-8", "replace")
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise PatroniError(f"{url}: {error or type(error).__name__}") from error


def get_json(rest: Rest, url: str) -> Mapping[str, Any]:
    """Body of a GET as a dictionary. 503 counts as an answer: that is how a replica says "not me"."""
    status, text = rest("GET", url)
    if status not in {200, 503}:
        raise PatroniError(f"{url}: HTTP {status}: {text.strip()[:200]}")
    try:
        body = json.loads(text)
    except ValueError as error:
        raise PatroniError(f"{url}: the answer is not JSON ({error})") from error
    if not isinstance(body, dict):
        raise PatroniError(f"{url}: the answer is {type(body).__name__}; wanted: an object")
    return body


def ask_member(rest: Rest, name: str, base_url: str) -> MemberAnswer:
    """What one member says of itself and of the cluster."""
    try:
        status = get_json(rest, f"{base_url}/patroni")
    except PatroniError as error:
        return MemberAnswer(name=name, error=str(error))
    try:
        view: Mapping[str, Any] | None = get_json(rest, f"{base_url}/cluster")
    except PatroniError:
        view = None
    return MemberAnswer(name=name, status=status, view=view)


def ask_members(rest: Rest, urls: Mapping[str, str]) -> Sequence[MemberAnswer]:
    """Ask all members at once, so that a dead one costs its timeout and not the sum of all."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(urls))) as pool:
        return list(pool.map(lambda item: ask_member(rest, item[0], item[1]), urls.items()))


class Judged(Protocol):
    """What a look at a cluster came to."""

    @property
    def health(self) -> Health:
        """The verdict."""


Look = TypeVar("Look", bound=Judged)


def look(
    ask: Callable[[], Look],
    wait_for: Collection[str],
    wait_seconds: float,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Look, float]:
    """Look until the verdict is one of ``wait_for`` or the deadline passed; returns the last look and its age."""
    start = monotonic()
    while True:
        judged = ask()
        waited = monotonic() - start
        if judged.health.value in wait_for or waited + POLL_SECONDS > wait_seconds:
            return judged, waited
        sleep(POLL_SECONDS)
