# SPDX-License-Identifier: GPL-3.0-or-later
"""Fencing by a power control that speaks the lab's HTTPS protocol (``docs/lab.md``). Standard library only."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ...core.fence import Order, Reading, read_power_control
from .base import FencingError, RefusedError, UnclearError, credentials, looked, ordered

if TYPE_CHECKING:
    from ...core.fence import Read

TOKEN = "DITING_POWER_TOKEN"  # noqa: S105 - the name of the variable


class _NotHeldError(RefusedError):
    """Power control does not hold this host off."""


class PowerAgent:
    """One host of one power control. The bearer token comes from ``DITING_POWER_TOKEN``, file or environment.

    With ``hold`` an "off" is a fence that power control itself keeps: it refuses every "on" until it is told who has
    taken the leader key since, or until its own time for that is over.
    """

    def __init__(
        self,
        *,
        host: str,
        url: str,
        ca_file: str,
        credentials_file: str | None = None,
        reason: str = "fenced",
        incident_id: str | None = None,
        hold: bool = False,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username:
            raise FencingError(f"url: want https://<address>[:port] without credentials, found {url!r}")
        self.host = host
        self._keeps_off = hold
        self._address = (parts.hostname, parts.port or 443)
        self._path = f"/v1/hosts/{quote(host, safe='')}"
        self.incident_id = incident_id
        """May be set anew for each order."""
        self._reason = reason
        self._kept: http.client.HTTPSConnection | None = None
        try:
            self._context = ssl.create_default_context(cafile=ca_file)
            self._token = credentials(credentials_file, [TOKEN])[TOKEN]
        except KeyError:
            where = credentials_file or "the environment"
            raise FencingError(f"{TOKEN} is not in {where}") from None
        except (OSError, ssl.SSLError) as error:
            raise FencingError(f"ca_file {ca_file}: {error}") from error

    @property
    def _said(self) -> dict[str, str | None]:
        return {"reason": self._reason, "incident_id": self.incident_id}

    def off(self, deadline_seconds: float) -> Order:
        """Cut the power; nobody brings the host back by itself, unless ``hold`` makes power control do so."""
        body = {**self._said, "revert_after_seconds": None, **({"fence": True} if self._keeps_off else {})}
        return ordered(
            f"power off of {self.host}",
            deadline_seconds,
            lambda: self._order("off", body, deadline_seconds),
        )

    def on(self, deadline_seconds: float, *, leader: str | None = None) -> Order:
        """Switch it on; a host that power control holds off is released to it, with the word who leads now.

        Without that word nothing is released, and power control refuses for as long as it holds the host.
        """
        return ordered(
            f"power on of {self.host}", deadline_seconds, lambda: self._bring_back(leader, deadline_seconds)
        )

    def _bring_back(self, leader: str | None, seconds: float) -> str:
        # To power control "leader": null says that nobody holds the key. Not knowing who does is not that.
        if self._keeps_off and leader is not None:
            body = {**self._said, "leader": leader, "after_seconds": 0}
            try:
                return self._order("release", body, seconds)
            except _NotHeldError:
                pass  # its time was over, or it was never fenced: then "on" is all that is left to say
        return self._order("on", self._said, seconds)

    def state(self, deadline_seconds: float) -> Reading:
        """What power control sees while it answers."""

        def look() -> tuple[Read, dict[str, Any]]:
            status, body = self._ask("GET", self._path, None, deadline_seconds)
            if status != http.client.OK:
                raise UnclearError(f"power control answered {status}: {_words(body)}")
            evidence = body if isinstance(body, dict) else {"answer": str(body)[:200]}
            return read_power_control(body, self.host), evidence

        return looked(f"power state of {self.host}", deadline_seconds, look)

    def _order(self, action: str, body: dict[str, Any], seconds: float) -> str:
        status, answer = self._ask("POST", f"{self._path}/{action}", body, seconds)
        if status == http.client.OK:
            return f"power control took the order {action} for {self.host}"
        words = f"power control answered {status}: {_words(answer)}"
        if action == "release" and status == http.client.NOT_FOUND:
            raise _NotHeldError(words)
        # 4xx was refused before anything was done; a 5xx may have come from halfway through.
        if http.client.BAD_REQUEST <= status < http.client.INTERNAL_SERVER_ERROR:
            raise RefusedError(words)
        raise UnclearError(words)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> tuple[int, Any]:
        # A question may go by the line that the order left, for it can be asked again over another. An order never does:
        # over a line that was closed meanwhile nobody could say whether it was heard.
        kept, self._kept = self._kept, None
        if kept is not None and method == "GET" and kept.sock is not None:
            kept.sock.settimeout(seconds)
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self._once(kept, method, path, body)
        elif kept is not None:
            kept.close()
        # http.client takes no proxy from the environment: a proxy must not carry what never leaves the site.
        connection = http.client.HTTPSConnection(*self._address, timeout=seconds, context=self._context)
        try:
            return self._once(connection, method, path, body)
        except (OSError, http.client.HTTPException) as error:
            where = f"{self._address[0]}:{self._address[1]}"
            raise UnclearError(f"power control at {where}: {error or type(error).__name__}") from error

    def _once(
        self, connection: http.client.HTTPSConnection, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int, Any]:
        keeps = False
        try:
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read(1 << 20)
            keeps = answer.isclosed() and not answer.will_close
        finally:
            if not keeps:
                connection.close()
        self._kept = connection if keeps else None
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode("utf-8", "replace")

    def close(self) -> None:
        """Give a kept connection up."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()


def _words(body: Any) -> str:
    return str(body.get("error", body))[:300] if isinstance(body, dict) else str(body)[:300]
