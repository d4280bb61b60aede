# SPDX-License-Identifier: GPL-3.0-or-later
"""The dead man's switch: who should be heard from and is not. Pure.

An alerting that is down tells nobody that it is down. So it says all the time that it is well (an alert that
always fires, sent down the same way as all others), and somebody on another host tells people when that stops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

ALERT = "DitingAlertPathSilent"
RUNBOOK = "docs/runbooks/alerting.md#alert-path-silent"


@dataclass(frozen=True)
class Source:
    """Somebody who should be heard from. Times are of a monotonic clock, in seconds.

    ``heard_at`` begins as the moment in which listening began: who is never heard from at all is silent, too.
    """

    name: str
    limit_seconds: float
    heard_at: float
    ever_heard: bool = False
    silent_since: float | None = None
    told_at: float | None = None
    """When people were last told that it is silent; None while they need not know."""


def heard(source: Source, now: float) -> Source:
    """It was heard from."""
    return replace(source, heard_at=now, ever_heard=True)


def step(source: Source, now: float, repeat_seconds: float) -> tuple[Source, str | None]:
    """What people are to be told now: ``firing``, ``resolved`` or nothing."""
    if now - source.heard_at > source.limit_seconds:
        since = source.heard_at if source.silent_since is None else source.silent_since
        if source.told_at is None or now - source.told_at >= repeat_seconds:
            return replace(source, silent_since=since, told_at=now), "firing"
        return replace(source, silent_since=since), None
    if source.silent_since is not None:
        return replace(source, silent_since=None, told_at=None), "resolved"
    return source, None


def payload(source: Source, told: str, now: float, unix_now: float) -> dict[str, Any]:
    """The alert about ``source``, in the form of Alertmanager's webhook."""
    since = source.heard_at if source.silent_since is None else source.silent_since
    stamp = datetime.fromtimestamp(unix_now - (now - since), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {"alertname": ALERT, "severity": "emergency", "source": source.name}
    last = f"last at {stamp}" if source.ever_heard else f"not once since {stamp}"
    if told == "firing":
        summary = (
            f"The alerting of {source.name} has not been heard from for {now - since:.0f} s ({last}; limit"
            f" {source.limit_seconds:g} s). Prometheus, Alertmanager or the way from them is down: until it is back,"
            " nobody is told of anything else."
        )
    else:
        summary = f"The alerting of {source.name} is heard from again."
    annotations = {"summary": summary, "runbook": RUNBOOK}
    alert = {
        "status": told,
        "labels": labels,
        "annotations": annotations,
        "startsAt": stamp,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": f"alert-path-{source.name}",
    }
    return {
        "version": "4",
        "groupKey": f"{ALERT}:{source.name}",
        "truncatedAlerts": 0,
        "status": told,
        "receiver": "alert_relay",
        "groupLabels": {"alertname": ALERT},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [alert],
    }
