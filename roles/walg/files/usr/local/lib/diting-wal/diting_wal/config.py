# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the wrappers, and the settings of WAL-G that they share."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

DEFAULT_PATH = "/etc/wal-g/wrapper.json"


class ConfigError(Exception):
    """The settings cannot be used; the message lists every problem with its place."""


class Config(NamedTuple):
    """One host's wrapper settings. Times are seconds."""

    walg: str
    """Path of the wal-g binary."""
    walg_config: str
    """Path of WAL-G's own settings (JSON), which name the store and hold its keys."""
    archive_deadline_seconds: float
    """Longest one archive attempt may take while the server runs."""
    archive_stopping_seconds: float
    """Longest one archive attempt may go on once the postmaster is stopping."""
    archive_standby_patience_seconds: float
    """How long a standby leaves a file to the primary before it pushes the file itself."""
    restore_target_seconds: float
    """Longest one fetch may take when recovering to a target."""
    restore_standby_seconds: float
    """Time within which a standby gets its answer, counted from the start of the command."""
    store_probe_seconds: float
    """Time a store has to give any answer at all, before a command that must not wait goes on."""
    store_silent_seconds: float
    """How long a standby remembers that the store did not answer and does not ask again."""
    restore_absent_seconds: float
    """How long a standby goes by the store's word that it has not a file, instead of asking again."""
    state_dir: str
    """Directory of both memories; lost at boot, which is right."""
    planned_stop_file: str
    """While this file stands and is fresh, the server's stop is that of a planned switchover."""


def read_json(path: str) -> dict[str, Any]:
    """Read one JSON object; raises ConfigError naming the file."""
    try:
        with open(path, encoding="utf-8") as handle:
            value = json.load(handle)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: an object is wanted, found {type(value).__name__}")
    return value


def load(path: str = DEFAULT_PATH) -> Config:
    """Read and check the wrapper settings; raises ConfigError with all problems at once."""
    raw = read_json(path)
    problems = [f"/{name}: is missing" for name in Config._fields if name not in raw]
    problems += [f"/{name}: is not a known setting" for name in raw if name not in Config._fields]
    for name in Config._fields:
        value = raw.get(name)
        if name not in raw:
            continue
        is_path = not name.endswith("_seconds")
        if is_path and not (isinstance(value, str) and value.startswith("/")):
            problems.append(f"/{name}: an absolute path is wanted, found {value!r}")
        if not is_path and not (
            isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        ):
            problems.append(f"/{name}: seconds above 0 are wanted, found {value!r}")
    if problems:
        raise ConfigError(f"{path}: " + "; ".join(sorted(problems)))
    return Config(**raw)
