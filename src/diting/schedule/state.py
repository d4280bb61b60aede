# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of each job: one small file each, written in one step."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..hostio.restore_records import RecordsError, write

if TYPE_CHECKING:
    from pathlib import Path


class StateError(Exception):
    """A job's file could not be read or written; the message names it."""


@dataclass(frozen=True)
class State:
    """Times in seconds since 1970. ``since``: first seen in the table. A run that has begun and not ended is under way, or was cut off."""

    name: str
    since: float
    begun: float | None = None
    ended: float | None = None
    status: int | None = None
    succeeded: float | None = None

    def started(self, now: float) -> State:
        """A run has begun."""
        return dataclasses.replace(self, begun=now, ended=None, status=None)

    def ended_with(self, begun: float, now: float, status: int) -> State:
        """The run that began then has ended."""
        return dataclasses.replace(
            self, begun=begun, ended=now, status=status, succeeded=now if status == 0 else self.succeeded
        )


_TIMES = ("since", "begun", "ended", "succeeded")


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name}.json"


def read(directory: Path, name: str) -> State | None:
    """None where there is none yet. Raises StateError: what cannot be read is not "never"."""
    path = _path(directory, name)
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateError(f"{path}: {error}; move it away if it cannot be mended") from error
    keys = {field.name for field in dataclasses.fields(State)}
    if not isinstance(found, dict) or set(found) != keys or found["name"] != name or not _numbers(found):
        raise StateError(f"{path}: is not what a job leaves behind; move it away")
    return State(**found)


def _numbers(found: dict[str, Any]) -> bool:
    times = all(found[key] is None or type(found[key]) in (int, float) for key in _TIMES)
    return times and found["since"] is not None and (found["status"] is None or type(found["status"]) is int)


def keep(directory: Path, state: State) -> None:
    """Raises StateError."""
    try:
        write(_path(directory, state.name), json.dumps(dataclasses.asdict(state), sort_keys=True) + "\n")
    except RecordsError as error:
        raise StateError(str(error)) from error
