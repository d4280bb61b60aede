# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts on disk: one file per alert, named by the fingerprint of its labels, until a receiver knows.

The spool holds *states*, not messages: an alert that was raised five times is one file, and one that was
raised and resolved while no receiver answered is one resolved alert. So it stays small however long the
receivers are away.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...core import journal
from ...hostio import files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def fingerprint(labels: Mapping[str, str]) -> str:
    """Names an alert: equal labels, equal name. 16 hex digits."""
    return hashlib.sha256(journal.canonical_json(dict(labels)).encode("ascii")).hexdigest()[:16]


@dataclass(frozen=True)
class Spooled:
    """One alert, as it stands. ``told``: a receiver took it in this state."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: str
    ends_at: str | None = None
    told: bool = False

    @property
    def fingerprint(self) -> str:
        """See :func:`fingerprint`."""
        return fingerprint(self.labels)


@dataclass
class Spool:
    """All alerts of a guard that stand, or whose end nobody was told yet. Not for two processes."""

    directory: Path
    alerts: dict[str, Spooled] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def open(self) -> None:
        """Read what an earlier life left. A damaged file is set aside and named in ``damaged``."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        for path in sorted(self.directory.glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                alert = Spooled(**content)
                self.alerts[alert.fingerprint] = alert
            except (OSError, ValueError, TypeError, AttributeError) as error:
                path.rename(path.with_suffix(".damaged"))
                self.damaged.append(f"{path.name}: {error}")

    def firing(self, labels: Mapping[str, str], annotations: Mapping[str, str], *, at: str) -> bool:
        """An alert is raised; on disk when this returns. False if it stood already just so."""
        name = fingerprint(labels)
        before = self.alerts.get(name)
        if before is not None and before.ends_at is None:
            if dict(before.annotations) == dict(annotations):
                return False
            self._put(dataclasses.replace(before, annotations=dict(annotations), told=False))
            return True
        self._put(Spooled(dict(labels), dict(annotations), starts_at=at))
        return True

    def resolved(self, labels: Mapping[str, str], *, at: str) -> bool:
        """An alert is over; on disk when this returns. False if it did not stand."""
        alert = self.alerts.get(fingerprint(labels))
        if alert is None or alert.ends_at is not None:
            return False
        # Even one that no receiver took is kept until one did: the answer to an attempt may have been lost.
        self._put(dataclasses.replace(alert, ends_at=at, told=False))
        return True

    def took(self, alert: Spooled) -> None:
        """A receiver took ``alert`` as it is. A later state of the same alert is still to be told."""
        if self.alerts.get(alert.fingerprint) != alert:
            return
        if alert.ends_at is not None:
            self._remove(alert)
        elif not alert.told:
            self._put(dataclasses.replace(alert, told=True))

    def waiting(self) -> list[Spooled]:
        """Alerts whose present state nobody was told."""
        return [alert for alert in self.alerts.values() if not alert.told]

    def standing(self) -> list[Spooled]:
        """Alerts that are raised."""
        return [alert for alert in self.alerts.values() if alert.ends_at is None]

    def _put(self, alert: Spooled) -> None:
        content: dict[str, Any] = dataclasses.asdict(alert)
        # In memory first: a full disk must not keep an alert from being sent.
        self.alerts[alert.fingerprint] = alert
        files.write_atomic(
            self.directory / f"{alert.fingerprint}.json", journal.canonical_json(content) + "\n"
        )

    def _remove(self, alert: Spooled) -> None:
        del self.alerts[alert.fingerprint]
        (self.directory / f"{alert.fingerprint}.json").unlink(missing_ok=True)
        files.fsync_directory(self.directory)
