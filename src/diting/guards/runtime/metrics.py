# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus reads of a guard, all named ``diting_guard_...`` and labelled with the guard's name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import prometheus_client as prometheus

from ... import __version__
from . import http

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...core.guard import Machine
    from .settings import Metrics as MetricsSettings

PATH = "/metrics"
_CYCLE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

SHARED: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("info", "gauge", ("kind", "version"), "Always 1; names the kind of guard and its release."),
    ("state", "gauge", ("state",), "1 for the state that the guard is in, 0 for its others."),
    ("steady", "gauge", (), "1 while nothing is wrong, else 0."),
    ("ready", "gauge", (), "1 from the first full cycle on."),
    ("paused", "gauge", (), "1 while a person paused the guard."),
    ("last_cycle_timestamp_seconds", "gauge", (), "Unix time of the last cycle that finished."),
    ("cycles", "counter", ("outcome",), "Cycles: finished, or failed by the stage that failed."),
    ("late_cycles", "counter", (), "Cycles that began more than an interval after their time."),
    ("cycle_duration_seconds", "histogram", (), "Time from looking to having acted."),
    ("actions", "counter", ("action", "outcome"), "Actions by name, ok or failed."),
    ("journal_records", "counter", (), "Records appended to the decision journal."),
    (
        "alerts",
        "gauge",
        ("status",),
        "Alerts that stand (firing), and that no receiver was told of (waiting).",
    ),
    (
        "notify_attempts",
        "counter",
        ("outcome",),
        "Attempts to tell a receiver: ok, refused, error, unreachable.",
    ),
    ("notify_duration_seconds", "histogram", (), "Time until a receiver answered or was given up."),
)
"""Name without prefix, kind, labels beside ``guard``, help. The page of each guard lists them."""


class Metrics:
    """The metrics of one guard, in a registry of their own."""

    def __init__(self, name: str, machine: Machine[Any, Any, Any]) -> None:
        self._machine = machine
        self._name = name
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)
        self._all = {short: self._make(short, kind, labels, text) for short, kind, labels, text in SHARED}
        for measure in machine.measures:
            short = f"{machine.name}_{measure.name}"
            self._all[short] = self._make(short, "gauge", (), measure.help)
            # Until somebody looked there is no value; 0 would be one.
            self.set(short, math.nan)
        self.set("info", 1, machine.name, __version__)
        for short in ("ready", "steady", "paused"):
            self.set(short, 0)
        # A counter that is not there until it counts hides its first step from rate().
        self.count("cycles", "finished", by=0)
        for status in ("firing", "waiting"):
            self.set("alerts", 0, status)
        self._refresh: Callable[[], None] = lambda: None
        self._server = http.PageServer(PATH, self._page)

    def before_each_read(self, refresh: Callable[[], None]) -> None:
        """Have ``refresh`` set the gauges that show how things are: once a scrape, not once a cycle."""
        self._refresh = refresh

    def _make(self, short: str, kind: str, labels: tuple[str, ...], text: str) -> Any:
        name, all_labels = f"diting_guard_{short}", ("guard", *labels)
        if kind == "gauge":
            return prometheus.Gauge(name, text, all_labels, registry=self._registry)
        if kind == "counter":
            return prometheus.Counter(name, text, all_labels, registry=self._registry)
        return prometheus.Histogram(name, text, all_labels, registry=self._registry, buckets=_CYCLE_BUCKETS)

    def set(self, short: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._all[short].labels(self._name, *labels).set(value)

    def count(self, short: str, *labels: str, by: int = 1) -> None:
        """Raise a counter."""
        self._all[short].labels(self._name, *labels).inc(by)

    def time(self, short: str, seconds: float) -> None:
        """Observe a duration."""
        self._all[short].labels(self._name).observe(seconds)

    def state(self, state: Any) -> None:
        """Show the state of the guard."""
        phase = self._machine.phase_of(state)
        for other in self._machine.states:
            self.set("state", float(other is phase), str(other.value))
        self.set("steady", float(phase in self._machine.steady))

    def measured(self, values: Mapping[str, float | None]) -> None:
        """Show the guard's own gauges; None is no value."""
        for name, value in values.items():
            self.set(f"{self._machine.name}_{name}", math.nan if value is None else value)

    def notified(self, outcome: str, seconds: float) -> None:
        """An attempt to tell a receiver is over."""
        self.count("notify_attempts", outcome)
        self.time("notify_duration_seconds", seconds)

    def _page(self) -> tuple[str, bytes]:
        self._refresh()
        return "text/plain; version=0.0.4; charset=utf-8", prometheus.generate_latest(self._registry)

    async def serve(self, settings: MetricsSettings) -> int:
        """Listen, and return the port. Raises OSError."""
        tls = settings.tls
        context = None
        if tls:
            client_ca = str(tls.client_ca) if tls.client_ca else None
            context = http.server_context(str(tls.certificate), str(tls.key), client_ca)
        return await self._server.start(settings.address, settings.port, context)

    def close(self) -> None:
        """Listen no more."""
        self._server.close()
