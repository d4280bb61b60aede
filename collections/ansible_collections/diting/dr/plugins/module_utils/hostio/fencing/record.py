# SPDX-License-Identifier: GPL-3.0-or-later
"""Which security groups a host's interfaces had before they were swapped: on disk before the first swap."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from ..files import fsync_directory
from .base import FencingError

_SAFE = re.compile(r"^[A-Za-z0-9._-]{1,100}$")


class Record:
    """One file for one instance, gone when the groups are back."""

    def __init__(self, directory: str, agent: str, instance_id: str) -> None:
        if not _SAFE.match(instance_id):
            raise FencingError(f"instance_id: want letters, digits, dots, dashes, found {instance_id!r}")
        self.path = Path(directory) / f"{agent}-{instance_id}.json"

    def read(self) -> dict[str, list[str]]:
        """Groups by interface; empty when nothing is on record. Raises :class:`FencingError` when it cannot be read."""
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            return {str(key): [str(group) for group in groups] for key, groups in data["groups"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FencingError(f"{self.path}: the record of the groups cannot be read: {error}") from error

    def write(self, groups: dict[str, list[str]]) -> None:
        """Make the record durable. Raises ``OSError``."""
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as handle:
            json.dump({"groups": groups}, handle, sort_keys=True)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.rename(self.path)
        fsync_directory(self.path.parent)

    def forget(self) -> None:
        """The groups are back."""
        self.path.unlink(missing_ok=True)
