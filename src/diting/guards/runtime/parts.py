# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts a running guard is put together from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .decisions import DecisionJournal
    from .guard import Guard
    from .metrics import Metrics
    from .notify import Notifier
    from .pauses import PauseWatch
    from .ports import Ports
    from .settings import Document
    from .store import Store


@dataclass(frozen=True)
class Parts:
    """Everything the cycle works with. ``labels`` are those of every alert of this guard."""

    guard: Guard[Any, Any, Any, Any]
    document: Document[Any]
    policy: Any
    ports: Ports
    store: Store
    journal: DecisionJournal
    notifier: Notifier
    pauses: PauseWatch
    metrics: Metrics
    log: Any
    run_id: str
    version: str
    labels: Mapping[str, str]
