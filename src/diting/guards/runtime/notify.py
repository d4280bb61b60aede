# SPDX-License-Identifier: GPL-3.0-or-later
"""The notify port: tells Alertmanagers (API v2) what stands in the spool, until one of them knows.

A standing alert is sent again every ``resend_seconds``: a guard that dies stops vouching for its alerts,
and the receiver lets them end after its ``resolve_timeout``. It is sent without times of ours: a
receiver whose clock differs by more than that timeout would refuse the alert or take it for over, and of
all alerts the one about a wrong clock must arrive. When it was raised is an annotation.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ...core import journal
from . import http
from .spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ...core.guard import Action, Alert
    from .ports import Clock
    from .settings import Alertmanager
    from .spool import Spooled

_API = "/api/v2/alerts"
_REFUSED = frozenset({400, 413, 422})
"""Answers that are about what was sent; all others are about the receiver, and asking again may help."""


class Notifier:
    """Keeps the spool and sends it. ``count(outcome, seconds)`` is told about each attempt."""

    def __init__(
        self,
        directory: Path,
        settings: Alertmanager | None,
        clock: Clock,
        log: Any,
        count: Callable[[str, float], None],
    ) -> None:
        self.spool = Spool(directory)
        self._settings = settings
        self._clock = clock
        self._log = log
        self._count = count
        self._news = asyncio.Event()
        self._context: Any = None
        self._failures = 0
        self._reached = True

    def open(self) -> None:
        """Read the spool and the certificates. Raises OSError."""
        self.spool.open()
        for problem in self.spool.damaged:
            self._log.error("alert could not be read, set aside", problem=problem)
        settings = self._settings
        if settings and any(url.startswith("https:") for url in settings.urls):
            files = (
                str(path) if path else None for path in (settings.ca, settings.certificate, settings.key)
            )
            self._context = http.client_context(*files)

    def spool_action(self, action: Action, alert: Alert, labels: Mapping[str, str]) -> bool:
        """Put a raised or resolved alert on disk; whether anything changed. Raises OSError (it is sent all the same)."""
        at = journal.utc_text(self._clock.utc())
        extra = dict(self._settings.labels) if self._settings else {}
        # What the guard says of itself is not overwritten by the configuration.
        full = {**extra, **labels, "alertname": alert.name, "severity": alert.severity}
        try:
            if action.name == "resolve_alert":
                return self.spool.resolved(full, at=at)
            texts = {"summary": alert.summary, "runbook": alert.runbook}
            return self.spool.firing(full, {**texts, **action.args.get("annotations", {})}, at=at)
        finally:
            self._news.set()

    async def run(self) -> None:
        """Send until cancelled. Without receivers the alerts stay where they are."""
        if self._settings is None:
            return
        resend_at = self._clock.monotonic()
        while True:
            if self._failures:
                # A dead receiver is not asked more often because there is more to say; one that
                # answers, but refused something, is.
                news = (self._news,) if self._reached else ()
                await self._clock.wait(*news, seconds=self._backoff())
            else:
                wait = 0.0 if self.spool.waiting() else resend_at - self._clock.monotonic()
                await self._clock.wait(self._news, seconds=wait)
            self._news.clear()
            batch = self.spool.waiting()
            if self._failures or self._clock.monotonic() >= resend_at:
                batch = list(self.spool.alerts.values())
                resend_at = self._clock.monotonic() + self._settings.resend_seconds
            try:
                self._failures = 0 if not batch or await self.send(batch) else self._failures + 1
            except Exception as error:  # noqa: BLE001 - whatever it is, alerts must go on being tried
                self._failures += 1
                self._log.error("sending failed", error=repr(error), exc_info=True)

    def _backoff(self) -> float:
        assert self._settings is not None  # noqa: S101 - for the type checker; run() has looked
        doubled = self._settings.retry_first_seconds * 2.0 ** min(self._failures - 1, 30)
        return float(min(doubled, self._settings.retry_max_seconds))

    async def send(self, batch: list[Spooled]) -> bool:
        """Offer ``batch`` to every receiver; whether each alert of it was taken by one."""
        assert self._settings is not None  # noqa: S101 - for the type checker; run() has looked
        self._reached = False
        answers = await asyncio.gather(*(self._offer(url, batch) for url in self._settings.urls))
        taken = set().union(*answers)
        for alert in batch:
            if alert.fingerprint in taken:
                try:
                    self.spool.took(alert)
                except OSError as error:
                    # It will be told again: twice is better than never.
                    self._log.error("spool could not be written", error=str(error))
        return len(taken) == len({alert.fingerprint for alert in batch})

    async def _offer(self, url: str, batch: list[Spooled]) -> set[str]:
        status = await self._post(url, batch)
        if status == "ok":
            return {alert.fingerprint for alert in batch}
        if status == "refused" and len(batch) > 1:
            # One alert that the receiver does not like must not hold back the others.
            single = [(alert.fingerprint, await self._post(url, [alert])) for alert in batch]
            return {name for name, outcome in single if outcome == "ok"}
        return set()

    async def _post(self, url: str, batch: list[Spooled]) -> str:
        assert self._settings is not None  # noqa: S101 - for the type checker; run() has looked
        body = journal.canonical_json([self._wire(alert) for alert in batch]).encode("ascii")
        began = self._clock.monotonic()
        detail = ""
        try:
            status, detail = await http.post_json(
                url + _API,
                body,
                timeout_seconds=self._settings.timeout_seconds,
                context=self._context,
                headers={},
            )
            outcome = "ok" if 200 <= status < 300 else "refused" if status in _REFUSED else "error"
            detail = f"status {status}: {detail[:200]}"
        except http.HttpError as error:
            outcome, detail = "unreachable", str(error)
        self._count(outcome, self._clock.monotonic() - began)
        self._reached = self._reached or outcome in ("ok", "refused")
        if outcome == "ok":
            self._log.debug("alerts sent", url=url, alerts=len(batch))
        else:
            self._log.warning("alerts not taken", url=url, alerts=len(batch), outcome=outcome, detail=detail)
        return outcome

    @staticmethod
    def _wire(alert: Spooled) -> dict[str, Any]:
        annotations = {**alert.annotations, "raised_at": alert.starts_at}
        times = {} if alert.ends_at is None else {"endsAt": alert.ends_at}
        return {"labels": dict(alert.labels), "annotations": annotations, **times}
