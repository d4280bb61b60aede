# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of restore tests on the host that makes them: one JSON file each, and the metrics of the last."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

SUFFIX = ".json"


class RecordsError(Exception):
    """The records could not be read or written; the message names the file."""


def read(directory: Path) -> list[dict[str, Any]]:
    """Every record, oldest first; none where the directory is not there. Raises RecordsError: a proof may be among them."""
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == SUFFIX)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordsError(f"{directory}: {error.strerror}") from error
    found = []
    for path in paths:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecordsError(f"{path}: {error}; move it away if it cannot be mended") from error
        if not isinstance(record, dict) or not isinstance(record.get("ended"), (int, float)):
            raise RecordsError(f"{path}: no record of a restore test; move it away")
        found.append(record)
    return sorted(found, key=lambda record: float(record["ended"]))


def keep(directory: Path, record: dict[str, Any]) -> Path:
    """Write one record, which is whole or not there. Raises RecordsError."""
    path = directory / f"{record['id']}{SUFFIX}"
    write(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return path


def write(path: Path, text: str) -> None:
    """A file for everybody to read, put in place in one step. Raises RecordsError."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as part:
                part.write(text)
                part.flush()
                os.fsync(part.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RecordsError(f"{path}: {error.strerror}") from error
