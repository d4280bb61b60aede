# SPDX-License-Identifier: GPL-3.0-or-later
"""The one alert that every guard has: it runs, and guards nothing, because no cycle gets through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.guard import Alert, raise_alert, resolve_alert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .notify import Notifier

ALERT = Alert(
    name="DitingGuardBlind",
    severity="critical",
    summary="A guard runs and guards nothing: its cycles fail",
    runbook="docs/runbooks/guards.md#guard-blind",
)

_CYCLES = 3
_FLOOR_SECONDS = 15.0


class Blindness:
    """Raises :data:`ALERT` when no cycle finished for a few intervals, and resolves it at the next that did."""

    def __init__(
        self, notifier: Notifier, labels: Mapping[str, str], log: Any, *, interval_seconds: float, now: float
    ) -> None:
        self._notifier = notifier
        self._labels = labels
        self._log = log
        self._limit_seconds = max(_CYCLES * interval_seconds, _FLOOR_SECONDS)
        self._last_finished = now
        # An earlier life may have raised it, so the first cycle that finishes resolves it in any case.
        self._raised = True
        self._told = False

    def finished(self, now: float) -> None:
        """A cycle got through to the end."""
        self._last_finished = now
        if self._raised:
            self._raised = self._told = False
            self._say(resolve_alert(ALERT.name))

    def failed(self, now: float, why: str) -> None:
        """A cycle did not happen."""
        if not self._told and now - self._last_finished >= self._limit_seconds:
            self._raised = self._told = True
            self._say(raise_alert(ALERT.name, description=why))

    def _say(self, action: Any) -> None:
        try:
            if self._notifier.spool_action(action, ALERT, self._labels):
                self._log.warning(action.name, alert=ALERT.name, **action.args.get("annotations", {}))
        except OSError as error:
            # A full disk is the likeliest reason to be here. The alert is in memory, and on its way.
            self._log.error("alert is only in memory", alert=ALERT.name, error=str(error))
