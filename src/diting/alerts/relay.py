# SPDX-License-Identifier: GPL-3.0-or-later
"""The alert relay: hands Alertmanager's notifications to chat rooms, and is the dead man's switch of the alerting.

It keeps nothing: a notification is answered 200 once the receiver took it, and with 502 and the reason before
that, so that Alertmanager, which keeps them, sends it again. It runs on a host that is not the alerting's own.

Over mutual TLS; what is posted is taken from the names in ``clients`` alone, the rest is for every host of the estate:

``POST /v1/receivers/NAME``   Alertmanager's webhook message, handed to the receiver
``POST /v1/heartbeats/NAME``  the same with an alert that fires all the time: its alerting is well
``GET /metrics``              for Prometheus
``GET /v1/status``            for people
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import messages, silence
from .deliver import deliver

if TYPE_CHECKING:
    from collections.abc import Callable

    from .messages import Notification
    from .settings import Receiver, Settings


@dataclass
class Due:
    """What one receiver is still to be told about one source."""

    told: str
    payload: dict[str, Any]
    at: float
    under_way: bool = False


@dataclass
class Counts:
    """Of one receiver, since the start."""

    taken: int = 0
    refused: int = 0
    last_taken_at: float | None = None
    last_problem: str | None = None


class Relay:
    """What is behind the address. ``now`` is monotonic, ``unix_now`` the wall clock, both in seconds."""

    def __init__(
        self,
        settings: Settings,
        log: Callable[..., None],
        *,
        now: Callable[[], float] = time.monotonic,
        unix_now: Callable[[], float] = time.time,
        send: Callable[[Receiver, Notification, float], str | None] = deliver,
    ) -> None:
        self.settings = settings
        self._log, self._now, self._unix_now, self._send = log, now, unix_now, send
        self._lock = threading.Lock()
        self._receivers = {receiver.name: receiver for receiver in settings.receivers}
        self._counts = {name: Counts() for name in self._receivers}
        self._sources = {
            beat.name: silence.Source(beat.name, beat.limit_seconds, heard_at=now())
            for beat in settings.heartbeats
        }
        self._due: dict[tuple[str, str], Due] = {}
        self._knows: set[tuple[str, str]] = set()
        """Who was told that a source is silent, and not yet that this is over."""

    def tell(self, name: str, told: Notification) -> str | None:
        """Hand ``told`` to receiver ``name``; None when it took it, else why not. Raises KeyError for a stranger."""
        why = self._send(self._receivers[name], told, self.settings.timeout_seconds)
        with self._lock:
            counts = self._counts[name]
            if why is None:
                counts.taken, counts.last_taken_at = counts.taken + 1, self._unix_now()
            else:
                counts.refused, counts.last_problem = counts.refused + 1, why
        self._log(
            "told" if why is None else "not taken", receiver=name, what=messages.title(told), problem=why
        )
        return why

    def heard(self, name: str, told: Notification) -> None:
        """A heartbeat came. Raises KeyError for a stranger; one that does not fire says nothing."""
        with self._lock:
            source = self._sources[name]
            if told.firing:
                self._sources[name] = silence.heard(source, self._now())

    def watch(self) -> list[tuple[str, str]]:
        """Look once who is silent; the (source, receiver) pairs that :meth:`settle` should be called for now."""
        now = self._now()
        with self._lock:
            for name, source in self._sources.items():
                self._sources[name], told = silence.step(source, now, self.settings.repeat_seconds)
                if told is not None:
                    self._plan(name, source, told, now)
            ready = [pair for pair, due in self._due.items() if not due.under_way and due.at <= now]
            for pair in ready:
                self._due[pair].under_way = True
        return ready

    def _plan(self, name: str, source: silence.Source, told: str, now: float) -> None:
        body = silence.payload(source, told, now, self._unix_now())
        self._log("silent" if told == "firing" else "heard again", source=name)
        for receiver in self.settings.direct:
            pair = (name, receiver)
            if told == "resolved" and pair not in self._knows:
                # It was never told that anything was wrong.
                self._due.pop(pair, None)
            else:
                self._due[pair] = Due(told, body, now)

    def settle(self, pair: tuple[str, str]) -> None:
        """Tell one receiver about one source; what it does not take is tried again later."""
        with self._lock:
            due = self._due.get(pair)
        if due is None:
            return
        why: str | None = "not tried"
        try:
            why = self.tell(pair[1], messages.notification(due.payload))
        finally:
            # Whatever went wrong: what is under way for ever is told to nobody.
            self._settled(pair, due, why)

    def _settled(self, pair: tuple[str, str], due: Due, why: str | None) -> None:
        with self._lock:
            due.under_way = False
            due.at = self._now() + self.settings.retry_seconds
            if why is not None:
                return
            if due.told == "firing":
                self._knows.add(pair)
            else:
                self._knows.discard(pair)
            if self._due.get(pair) is due:
                del self._due[pair]
            elif due.told == "firing" and pair not in self._due and self._is_heard(pair[0]):
                # It came back while this was on its way.
                source = self._sources[pair[0]]
                body = silence.payload(source, "resolved", self._now(), self._unix_now())
                self._due[pair] = Due("resolved", body, self._now())

    def _is_heard(self, name: str) -> bool:
        return self._sources[name].silent_since is None

    def status(self) -> dict[str, Any]:
        """For people: ages in seconds, moments in Unix time."""
        now = self._now()
        with self._lock:
            return {
                "heartbeats": {
                    name: {
                        "age_seconds": round(now - source.heard_at, 3),
                        "limit_seconds": source.limit_seconds,
                        "ever_heard": source.ever_heard,
                        "silent": source.silent_since is not None,
                    }
                    for name, source in self._sources.items()
                },
                "receivers": {
                    name: {
                        "kind": self._receivers[name].kind,
                        "taken": counts.taken,
                        "refused": counts.refused,
                        "last_taken_at": counts.last_taken_at,
                        "last_problem": counts.last_problem,
                    }
                    for name, counts in self._counts.items()
                },
                "waiting": sorted(f"{source} to {receiver}" for source, receiver in self._due),
            }

    def metrics(self) -> str:
        """In Prometheus's text format."""
        shown = self.status()
        rows: list[tuple[str, str, str, dict[str, Any]]] = [
            (
                "diting_alert_relay_messages_total",
                "counter",
                "Messages to a receiver, by what became of them.",
                {
                    f'receiver="{name}",outcome="{outcome}"': one[outcome]
                    for name, one in shown["receivers"].items()
                    for outcome in ("taken", "refused")
                },
            ),
            (
                "diting_alert_relay_heartbeat_age_seconds",
                "gauge",
                "Time since the alerting was heard from, or since the relay began to listen.",
                {f'source="{name}"': one["age_seconds"] for name, one in shown["heartbeats"].items()},
            ),
            (
                "diting_alert_relay_silent",
                "gauge",
                "1 while the alerting is not heard from.",
                {f'source="{name}"': int(one["silent"]) for name, one in shown["heartbeats"].items()},
            ),
            (
                "diting_alert_relay_waiting",
                "gauge",
                "Receivers that are still to be told of a silence.",
                {"": len(shown["waiting"])},
            ),
        ]
        text = []
        for name, kind, words, values in rows:
            text += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
            text += [
                f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"
                for labels, value in values.items()
            ]
        return "\n".join(text) + "\n"
