# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of power control: standard library only, so that hosts can use it as it is."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from diting.lab.instance import Instance


class PowerClientError(Exception):
    """Power control could not be asked, or refused; ``status`` is the HTTP status or None."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class PowerClient:
    """Requests to one power control. ``timeout_seconds`` bounds each step of the connection.

    A state of ``on`` or ``off`` is what power control saw while it answered; every other outcome,
    an error included, means the state is unknown.
    """

    def __init__(self, url: str, token: str, ca_file: Path, timeout_seconds: float = 60.0) -> None:
        self._url = url
        self._token = token
        self._timeout = timeout_seconds
        context = ssl.create_default_context(cafile=str(ca_file))
        # A proxy of the machine must not carry what never leaves it.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    @classmethod
    def for_instance(cls, instance: Instance, timeout_seconds: float = 60.0) -> PowerClient:
        """Client for a lab of this machine. Raises ``PowerClientError`` when its files are missing."""
        directory = instance.power_dir
        try:
            token = (directory / "token").read_text().strip()
            return cls(instance.power_url, token, directory / "cert.pem", timeout_seconds)
        except OSError as error:
            raise PowerClientError(f"{directory}: {error}; run ./scripts/lab up") from error

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the address is https, by Instance
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                data = json.load(answer)
        except urllib.error.HTTPError as error:
            try:
                message = json.load(error)["error"]
            except (ValueError, KeyError, TypeError, OSError):
                message = error.reason
            raise PowerClientError(f"power control: {message}", error.code) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise PowerClientError(f"power control at {self._url} cannot be asked: {reason}") from error
        if not isinstance(data, dict):
            raise PowerClientError("power control: want a JSON object in the answer")
        return data

    def daemon(self) -> dict[str, Any]:
        """The daemon's own description, with the fingerprint of what it runs."""
        return self._ask("GET", "/v1/daemon")

    def hosts(self) -> list[dict[str, Any]]:
        """State of every host."""
        found: list[dict[str, Any]] = self._ask("GET", "/v1/hosts")["hosts"]
        return found

    def host(self, name: str) -> dict[str, Any]:
        """State of one host with its timers."""
        return self._ask("GET", f"/v1/hosts/{name}")

    def on(self, name: str, reason: str, incident_id: str | None = None) -> dict[str, Any]:
        """Power a host on; it is not yet ready when this returns."""
        return self._ask("POST", f"/v1/hosts/{name}/on", {"reason": reason, "incident_id": incident_id})

    def off(
        self,
        name: str,
        reason: str,
        incident_id: str | None = None,
        *,
        revert_after_seconds: float | None,
        fence: bool = False,
    ) -> dict[str, Any]:
        """Cut a host's power; ``revert_after_seconds`` None means nobody brings it back by itself.

        With ``fence`` every power-on is refused until :meth:`release`, or until 120 s have passed.
        """
        body = {"reason": reason, "incident_id": incident_id, "revert_after_seconds": revert_after_seconds}
        if fence:
            body["fence"] = True
        return self._ask("POST", f"/v1/hosts/{name}/off", body)

    def release(
        self,
        name: str,
        reason: str,
        incident_id: str | None = None,
        *,
        leader: str | None,
        after_seconds: float = 0.0,
    ) -> dict[str, Any]:
        """Let a fenced host come back in ``after_seconds``; ``leader`` is who holds the leader key now."""
        body = {
            "reason": reason,
            "incident_id": incident_id,
            "leader": leader,
            "after_seconds": after_seconds,
        }
        return self._ask("POST", f"/v1/hosts/{name}/release", body)

    def timers(self, name: str) -> list[dict[str, Any]]:
        """What is promised to a host; answered whatever the host's switches are."""
        found: list[dict[str, Any]] = self._ask("GET", f"/v1/hosts/{name}/timers")["timers"]
        return found

    def switches(self, name: str) -> dict[str, Any]:
        """How power control treats a host."""
        return self._ask("GET", f"/v1/hosts/{name}/switches")

    def set_switches(self, name: str, **switches: bool | float | None) -> dict[str, Any]:
        """Replace a host's switches: ``lie``, ``hang_seconds``, ``unknown``, ``latency_seconds``, ``for_seconds``."""
        return self._ask("PUT", f"/v1/hosts/{name}/switches", dict(switches))

    def clear_switches(self, name: str | None = None) -> None:
        """Put one host's switches back to normal, or everybody's."""
        self._ask("DELETE", "/v1/switches" if name is None else f"/v1/hosts/{name}/switches")

    def add_timer(
        self, name: str, after_seconds: float, reason: str, incident_id: str | None = None
    ) -> dict[str, Any]:
        """Have the host powered on after ``after_seconds``, whatever becomes of the caller."""
        body = {"action": "on", "after_seconds": after_seconds, "reason": reason, "incident_id": incident_id}
        return self._ask("POST", f"/v1/hosts/{name}/timers", body)

    def remove_timer(self, name: str, timer_id: str) -> None:
        """Take a timer back."""
        self._ask("DELETE", f"/v1/hosts/{name}/timers/{timer_id}")
