# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes power control misbehave on purpose, and what makes it keep a fenced host off.

A guard must be safe with a cloud API that lies, hangs, does not know or is slow. Each host has its own
switches; they are on disk before the request that set them is answered, and end by themselves when a
time was given. Nothing here shows in what a host's description says.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from diting.core.journal import utc_text_at
from diting.hostio.files import write_atomic
from diting.lab.records import Clocks

if TYPE_CHECKING:
    from pathlib import Path

HOLD_SECONDS = 120.0
"""How long a fenced host stays off when nobody reports what became of its leader key."""


@dataclass(frozen=True)
class Switches:
    """How power control treats one host. Durations in seconds.

    ``lie``: an order to switch off is answered "off" and not carried out, and the host is called off until
    it is ordered on. ``hang_seconds``: a question or an order gets no answer for so long, then a refusal, and
    nothing is done. ``unknown``: orders are carried out, and the state is called unknown.
    ``latency_seconds`` replaces the instance's delay of every order.
    """

    lie: bool = False
    hang_seconds: float = 0.0
    unknown: bool = False
    latency_seconds: float | None = None
    until_unix: float | None = None
    until_monotonic: float = 0.0
    boot_id: str = ""
    claims_off: bool = False
    """A lie that was told and still stands."""

    def public(self) -> dict[str, Any]:
        """The switches as the API shows them."""
        return {
            "lie": self.lie,
            "hang_seconds": self.hang_seconds,
            "unknown": self.unknown,
            "latency_seconds": self.latency_seconds,
            "until": None if self.until_unix is None else utc_text_at(self.until_unix),
        }


@dataclass(frozen=True)
class Hold:
    """A fenced host that may not be switched on yet; ``timer_id`` is the promise that ends it."""

    timer_id: str
    since_unix: float
    until_unix: float
    reason: str
    incident_id: str | None

    def public(self) -> dict[str, Any]:
        """The hold as the API shows it."""
        return {
            "since": utc_text_at(self.since_unix),
            "until": utc_text_at(self.until_unix),
            "reason": self.reason,
            "incident_id": self.incident_id,
        }


Entry = TypeVar("Entry", Switches, Hold)


class _HostFile:
    """One JSON file of one entry per host.

    An unreadable file raises ``ValueError`` at construction: what was lost must not look like nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def _load(self, kind: type[Entry]) -> dict[str, Entry]:
        if not self._path.exists():
            return {}
        try:
            return {host: kind(**item) for host, item in json.loads(self._path.read_text()).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{self._path}: unreadable: {error!r}") from error

    def _save(self, entries: dict[str, Entry]) -> None:
        write_atomic(self._path, json.dumps({host: asdict(entry) for host, entry in entries.items()}))


class SwitchStore(_HostFile):
    """Switches of every host."""

    def __init__(self, path: Path, clocks: Clocks | None = None) -> None:
        super().__init__(path)
        self._clocks = clocks or Clocks()
        self._entries = self._load(Switches)

    def of(self, host: str) -> Switches:
        """Switches in force for ``host``; all off once their time is over."""
        with self._lock:
            found = self._entries.get(host, Switches())
        until = found.until_unix
        if until is not None and self._clocks.left(until, found.until_monotonic, found.boot_id) <= 0:
            return Switches()
        return found

    def set(self, host: str, wanted: Switches, for_seconds: float | None) -> Switches:
        """Replace the switches of ``host``, for so many seconds or until they are set again."""
        found = replace(wanted, until_unix=None, claims_off=False)
        if for_seconds is not None:
            clocks = self._clocks
            found = replace(
                found,
                until_unix=clocks.wall() + for_seconds,
                until_monotonic=clocks.monotonic() + for_seconds,
                boot_id=clocks.boot_id,
            )
        self._put(host, found)
        return found

    def claim_off(self, host: str, *, claim: bool) -> None:
        """Begin or end the lie that ``host`` is off."""
        found = self.of(host)
        if found.claims_off != claim:
            self._put(host, replace(found, claims_off=claim))

    def clear(self, host: str | None = None) -> None:
        """Put one host's switches back to normal, or everybody's."""
        with self._lock:
            kept = {} if host is None else {k: v for k, v in self._entries.items() if k != host}
            if kept != self._entries:
                self._save(kept)
                self._entries = kept

    def _put(self, host: str, found: Switches) -> None:
        with self._lock:
            entries = {**self._entries, host: found}
            self._save(entries)
            self._entries = entries


class HoldStore(_HostFile):
    """Fenced hosts that are kept off."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._entries = self._load(Hold)

    def of(self, host: str) -> Hold | None:
        """The hold of ``host``, None when it may be switched on."""
        with self._lock:
            return self._entries.get(host)

    def put(self, host: str, hold: Hold) -> None:
        """Keep ``host`` off from now on."""
        with self._lock:
            entries = {**self._entries, host: hold}
            self._save(entries)
            self._entries = entries

    def end(self, host: str) -> Hold | None:
        """Let ``host`` be switched on again; returns the hold that ended, None when there was none."""
        with self._lock:
            if host not in self._entries:
                return None
            entries = {key: hold for key, hold in self._entries.items() if key != host}
            self._save(entries)
            ended, self._entries = self._entries[host], entries
            return ended
