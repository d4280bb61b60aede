# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a run directory for the judge: the only part of it that touches files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .fields import ConfigError, load
from .judge import judge
from .model import Ledger, parse_found, parse_ledger
from .settings import parse_settings

if TYPE_CHECKING:
    from pathlib import Path


def read_lines(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Records of a JSON lines file, and whether its last line is torn (its writer died).

    Raises:
        ConfigError: unreadable, or damaged anywhere but in the last line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ConfigError(str(path), [f"/: cannot read: {error.strerror}"]) from error
    tail = lines.pop()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ConfigError(str(path), [f"line {number}: not JSON: {error}"]) from error
        if not isinstance(record, dict):
            raise ConfigError(str(path), [f"line {number}: not an object"])
        records.append(record)
    return records, bool(tail)


def read_ledger(path: Path) -> Ledger:
    """Parse one prober's file.

    Raises:
        ConfigError: unreadable or not a ledger.
    """
    records, torn = read_lines(path)
    try:
        return parse_ledger(records, torn)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(str(path), [f"a record lacks or misuses the field {error}"]) from error


def judge_run(run_dir: Path) -> dict[str, Any]:
    """Judge the run in ``run_dir``; ``docs/measuring.md`` names the files.

    Raises:
        ConfigError: a file is missing or cannot be parsed. That is not a verdict on the run.
    """
    settings = load(run_dir / "judge-input.json", parse_settings)
    ledgers = [read_ledger(path) for path in sorted(run_dir.glob("ledger-*.jsonl"))]
    documents = [_found(path) for path in sorted(run_dir.glob("found-*.json"))]
    marks = _optional(run_dir / "marks.jsonl")
    watch = [record for path in sorted(run_dir.glob("watch*.jsonl")) for record in _optional(path)]
    return judge(ledgers, documents, marks, watch, settings)


def _found(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        parse_found(document)
    except OSError as error:
        raise ConfigError(str(path), [f"/: cannot read: {error.strerror}"]) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(str(path), [f"/: not the output of 'ledger read': {error!r}"]) from error
    return dict(document)


def _optional(path: Path) -> list[dict[str, Any]]:
    return read_lines(path)[0] if path.exists() else []
