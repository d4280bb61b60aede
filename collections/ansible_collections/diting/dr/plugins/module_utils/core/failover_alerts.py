# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts of the failover guard, and which of them a transition raises. Pure."""

from __future__ import annotations

from .failover_table import Event, Phase
from .guard import Alert

CANNOT_FENCE = "DitingFailoverCannotFence"
FENCING = "DitingFailoverFencing"
NOT_ALLOWED = "DitingFailoverNotAllowed"
STOOD_DOWN = "DitingFailoverStoodDown"
PROXY_NOT_TOLD = "DitingFailoverProxyNotTold"
NOBODY_TOOK_OVER = "DitingFailoverNobodyTookOver"
HOST_NOT_BACK = "DitingFailoverHostNotBack"

ALERTS = (
    Alert(
        CANNOT_FENCE,
        "warning",
        "The failover guard could not fence now; Patroni's TTL would work alone",
        "docs/runbooks/failover.md#cannot-fence",
    ),
    Alert(
        FENCING,
        "critical",
        "A silent primary is being fenced; Patroni elects another one",
        "docs/runbooks/failover.md#fencing",
    ),
    Alert(
        NOT_ALLOWED,
        "critical",
        "The primary is silent and a fence is not allowed; Patroni's TTL works alone",
        "docs/runbooks/failover.md#not-allowed",
    ),
    Alert(
        STOOD_DOWN,
        "critical",
        "The failover guard was not certain and does nothing; Patroni's TTL works alone",
        "docs/runbooks/failover.md#stood-down",
    ),
    Alert(
        PROXY_NOT_TOLD,
        "warning",
        "A proxy could not be told of a failover; clients wait for its own checks",
        "docs/runbooks/failover.md#proxy-not-told",
    ),
    Alert(
        NOBODY_TOOK_OVER,
        "critical",
        "No member has taken the leader key since a fence",
        "docs/runbooks/failover.md#nobody-took-over",
    ),
    Alert(
        HOST_NOT_BACK,
        "warning",
        "A fenced host may still be off; redundancy is missing",
        "docs/runbooks/failover.md#host-not-back",
    ),
)


def alert_for(phase: Phase, to: Phase, event: Event) -> str:
    """Name of the alert that the transition from ``phase`` to ``to`` on ``event`` raises."""
    if event is Event.CANNOT_FENCE:
        return CANNOT_FENCE
    if event is Event.CONFIRMED:
        return FENCING
    if event is Event.COMEBACK_DUE:
        return NOBODY_TOOK_OVER
    if phase is Phase.TELLING:
        return PROXY_NOT_TOLD
    if phase is Phase.REJOINING:
        return HOST_NOT_BACK
    return NOT_ALLOWED if to is Phase.ALERT_ONLY else STOOD_DOWN
