# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed access to parsed JSON that collects every problem with its path.

A measurement must not start on half a configuration, and an operator must not meet its mistakes one
at a time: readers ask for each field, then call :meth:`Fields.finish` once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MISSING: Any = object()
T = TypeVar("T")


class ConfigError(Exception):
    """The document cannot be used; ``problems`` names each fault as ``path: what, wanted``."""

    def __init__(self, source: str, problems: list[str]) -> None:
        """Keep all ``problems`` found in ``source`` (a file name)."""
        self.source = source
        self.problems = problems
        super().__init__(f"{source}: " + "; ".join(problems))


class Fields:
    """One JSON object being read. Values that are wrong are reported and replaced by a stand-in."""

    def __init__(self, value: object, path: str, problems: list[str]) -> None:
        """Read ``value``, found at ``path`` (JSON pointer), adding to the shared ``problems``."""
        self.path = path
        self.problems = problems
        self._seen: set[str] = set()
        self._data: dict[str, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            self.problem(path or "/", f"found {_kind(value)}, wanted an object")

    def problem(self, path: str, text: str) -> None:
        """Add one problem."""
        self.problems.append(f"{path}: {text}")

    def _take(self, key: str, default: Any) -> tuple[str, Any]:
        self._seen.add(key)
        path = f"{self.path}/{key}"
        if key not in self._data:
            if default is MISSING:
                self.problem(path, "missing")
            return path, MISSING
        return path, self._data[key]

    def text(self, key: str, default: Any = MISSING, choices: tuple[str, ...] = ()) -> str:
        """A non-empty string, one of ``choices`` if there are any."""
        path, value = self._take(key, default)
        if value is MISSING:
            return "" if default is MISSING else default
        if not isinstance(value, str) or not value:
            self.problem(path, f"found {_show(value)}, wanted a non-empty string")
            return ""
        if choices and value not in choices:
            self.problem(path, f"found {_show(value)}, wanted one of {', '.join(choices)}")
        return value

    def optional_text(self, key: str) -> str | None:
        """A non-empty string, or None when absent or null."""
        if self._data.get(key) is None:
            self._seen.add(key)
            return None
        return self.text(key)

    def number(self, key: str, default: Any = MISSING, *, minimum: float, maximum: float) -> float:
        """A number within [minimum, maximum], in the unit its key names."""
        path, value = self._take(key, default)
        if value is MISSING:
            return minimum if default is MISSING else float(default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.problem(path, f"found {_show(value)}, wanted a number")
            return minimum
        if not minimum <= value <= maximum:
            self.problem(path, f"found {value}, wanted {minimum} to {maximum}")
            return minimum
        return float(value)

    def optional_number(self, key: str, *, minimum: float, maximum: float) -> float | None:
        """A number within [minimum, maximum], or None when absent or null."""
        if self._data.get(key) is None:
            self._seen.add(key)
            return None
        return self.number(key, minimum=minimum, maximum=maximum)

    def integer(self, key: str, default: Any = MISSING, *, minimum: int, maximum: int) -> int:
        """A whole number within [minimum, maximum]."""
        found = self.number(key, default, minimum=minimum, maximum=maximum)
        if found != int(found):
            self.problem(f"{self.path}/{key}", f"found {found}, wanted a whole number")
        return int(found)

    def items(self, key: str, default: Any = MISSING) -> list[Any]:
        """A list, which may be empty only if it has a default."""
        path, value = self._take(key, default)
        if value is MISSING:
            return [] if default is MISSING else list(default)
        if not isinstance(value, list) or (not value and default is MISSING):
            self.problem(path, f"found {_show(value)}, wanted a list with entries")
            return []
        return value

    def texts(self, key: str, default: Any = MISSING) -> list[str]:
        """A list of non-empty strings."""
        found = self.items(key, default)
        for index, item in enumerate(found):
            if not isinstance(item, str) or not item:
                self.problem(f"{self.path}/{key}/{index}", f"found {_show(item)}, wanted a string")
        return [item for item in found if isinstance(item, str)]

    def child(self, key: str, default: Any = MISSING) -> Fields:
        """A nested object."""
        _, value = self._take(key, default)
        if value is MISSING:
            return Fields({} if default is MISSING else default, f"{self.path}/{key}", self.problems)
        return Fields(value, f"{self.path}/{key}", self.problems)

    def has(self, key: str) -> bool:
        """Whether ``key`` is there and not null; a null counts as read."""
        if self._data.get(key) is None:
            self._seen.add(key)
            return False
        return True

    def flag(self, key: str) -> bool:
        """True or false, false when absent."""
        path, value = self._take(key, False)
        if value is MISSING:
            return False
        if not isinstance(value, bool):
            self.problem(path, f"found {_show(value)}, wanted true or false")
            return False
        return value

    def finish(self) -> None:
        """Report keys nobody asked for: a misspelt optional key must not be ignored in silence."""
        for key in sorted(set(self._data) - self._seen):
            self.problem(f"{self.path}/{key}", "unknown key")


def load(path: Path, parse: Callable[[Fields], T]) -> T:
    """Parse the JSON file at ``path``.

    Raises:
        ConfigError: unreadable, not JSON, or any field is wrong; all problems at once.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [f"/: cannot read: {error.strerror}"]) from error
    except ValueError as error:
        raise ConfigError(str(path), [f"/: not JSON: {error}"]) from error
    problems: list[str] = []
    fields = Fields(raw, "", problems)
    parsed = parse(fields)
    fields.finish()
    if problems:
        raise ConfigError(str(path), problems)
    return parsed


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
