# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows a decision once it is on disk: alerts to the spool, actions to the guard's hands."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from ...core.guard import RUNTIME_ACTIONS
from ...core.plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...core.guard import Action
    from .parts import Parts


class Deeds:
    """Carries out what one guard decided. Nothing here raises: how it went is an answer, or in the log."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._alerts = {alert.name: alert for alert in parts.guard.machine.alerts}

    def sort(self, actions: Sequence[Action]) -> tuple[list[Action], list[Action]]:
        """Alerts that these actions mean, and the actions that are left for the guard's hands.

        Raises :class:`LookupError` for an alert that the machine does not have.
        """
        alerts: list[Action] = []
        todo: list[Action] = []
        for action in actions:
            found = self._parts.guard.alerts_of(action)
            alerts += found
            todo += () if found else (action,)
        for alert in alerts:
            if alert.args.get("alert") not in self._alerts:
                raise LookupError(f"no alert {alert.args.get('alert')} in the machine")
        return alerts, todo

    @staticmethod
    def stamped(alerts: Sequence[Action], **ids: str) -> list[Action]:
        """The same alerts with the ids of their incident among the annotations."""
        return [
            dataclasses.replace(a, args={**a.args, "annotations": {**a.args.get("annotations", {}), **ids}})
            for a in alerts
        ]

    def alert(self, alerts: Sequence[Action]) -> None:
        """Spool alerts. Doing it again, after a crash, changes nothing."""
        parts = self._parts
        for action in alerts:
            alert = self._alerts.get(action.args["alert"])
            if alert is None:
                # Saved by a release that had it.
                parts.log.error("alert is not known any more", alert=action.args["alert"])
                continue
            try:
                changed = parts.notifier.spool_action(action, alert, parts.labels)
            except OSError as error:
                changed = True
                parts.log.error("alert is only in memory", alert=alert.name, error=str(error))
            parts.metrics.count("actions", action.name, "ok")
            if changed:
                parts.log.warning(action.name, alert=alert.name, **action.args.get("annotations", {}))

    async def act(self, todo: Sequence[Action], now: float) -> list[dict[str, Any]]:
        """Have the guard act, in order, and say how each action went."""
        parts = self._parts
        results: list[dict[str, Any]] = []
        for action in todo:
            if results and results[-1]["outcome"] != "ok":
                # What follows was decided in the belief that this would work.
                results.append({"action": action.as_dict(), "outcome": "skipped"})
                continue
            try:
                async with asyncio.timeout(parts.document.runtime.act_timeout_seconds):
                    result = await parts.guard.act(action, now)
                results.append({"action": action.as_dict(), "outcome": "ok", "result": to_plain(result)})
            except Exception as error:
                text = str(error) or type(error).__name__
                results.append({"action": action.as_dict(), "outcome": "failed", "error": text})
                parts.log.exception("action failed", action=action.name, error=text)
        for item in results:
            parts.metrics.count("actions", item["action"]["name"], item["outcome"])
        parts.log.info("acted", results=results)
        return results


def split_unfinished(unfinished: Sequence[Action]) -> tuple[list[Action], list[Action]]:
    """Alerts, which the runtime does again, and actions, of which only the guard knows whether it may."""
    alerts = [action for action in unfinished if action.name in RUNTIME_ACTIONS]
    return alerts, [action for action in unfinished if action.name not in RUNTIME_ACTIONS]
