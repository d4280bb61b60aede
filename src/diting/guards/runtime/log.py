# SPDX-License-Identifier: GPL-3.0-or-later
"""The log: one JSON object a line on stderr, which systemd's journal keeps.

Each line has ``ts``, ``level``, ``event``, ``guard`` and ``run_id``; lines of a cycle also ``cycle`` and
``trace_id`` (the same as in the decision journal), lines of an incident ``incident_id``.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

from ...core import journal

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import TextIO

    from .ports import Clock


def make_logger(level: str, clock: Clock, stream: TextIO | None = None, **bound: Any) -> Any:
    """A logger of its own, so that two guards in one process (tests) do not share settings."""

    def stamp(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["ts"] = journal.utc_text(clock.utc())
        return event

    wrapper = structlog.make_filtering_bound_logger(getattr(logging, level.upper()))
    return structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            stamp,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=True, default=str),
        ],
        wrapper_class=wrapper,
        cache_logger_on_first_use=True,
    ).bind(**bound)
