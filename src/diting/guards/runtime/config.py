# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a guard's configuration, or say everything that is wrong with it at once.

Each problem is one line: where in the file, what was found, what is wanted, how to fix it.
"""

from __future__ import annotations

import difflib
import json
import re
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from . import registry
from .ports import Ports
from .settings import Document

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .guard import Guard

_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. ``path`` is the key's place in the file, empty for the file itself."""

    path: str
    found: str
    wanted: str
    fix: str

    def __str__(self) -> str:
        """One line for people."""
        place = f"{self.path}: " if self.path else ""
        return f"{place}found {self.found}, wanted {self.wanted}. Fix: {self.fix}."


class ConfigError(Exception):
    """A configuration that cannot be used, with every reason."""

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


@dataclass(frozen=True)
class Loaded:
    """A configuration that can be used, and the class of its guard."""

    document: Document[Any]
    guard: type[Guard[Any, Any, Any, Any]]


def load(path: Path) -> Loaded:
    """Read a configuration file, JSON if it begins with a brace, else YAML. Raises :class:`ConfigError`."""
    source = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problem = Problem(
            "", f"no readable file ({error.strerror})", "a JSON or YAML file", "name another file"
        )
        raise ConfigError(source, [problem]) from error
    except UnicodeDecodeError as error:
        problem = Problem("", f"bytes that are no text ({error.reason})", "UTF-8", "save the file as UTF-8")
        raise ConfigError(source, [problem]) from error
    try:
        data = _parse(text)
    except ValueError as error:
        problem = Problem("", f"a fault ({error})", "JSON or YAML", "mend the syntax there")
        raise ConfigError(source, [problem]) from error
    return check(data, source)


def _parse(text: str) -> Any:
    if text.lstrip().startswith("{"):
        return json.loads(text, object_pairs_hook=_no_duplicates)
    # Late: a host whose guards have JSON files never loads it.
    from .yaml_text import parse_yaml

    return parse_yaml(text)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _value in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"key {twice[0]!r} stands there twice")
    return dict(pairs)


def check(data: Any, source: str) -> Loaded:
    """Judge a parsed file. Raises :class:`ConfigError` with every problem of it."""
    if not isinstance(data, dict):
        problem = Problem("", _shown(data), "an object with 'guard' and 'settings'", "see docs/guards.md")
        raise ConfigError(source, [problem])
    problems: list[Problem] = []
    guard: type[Guard[Any, Any, Any, Any]] | None = None
    settings: type[BaseModel] = BaseModel
    kind = data.get("guard")
    if isinstance(kind, str) and kind in registry.names():
        guard = registry.load(kind)
        settings = guard.config_model
    elif "guard" in data:
        choice = registry.names()
        near = difflib.get_close_matches(str(kind), choice, n=1)
        fix = f"write {near[0]!r}" if near else "name one of them"
        problems.append(Problem("guard", _shown(kind), f"one of {', '.join(choice)}", fix))
    # Pydantic makes the model of "a document whose settings are these" when it is asked for.
    model: type[Document[Any]] = Document[settings] if guard else Document[Any]  # type: ignore[valid-type]
    try:
        # Through JSON, where a list may become a tuple and a text a path, but "1" never a number.
        document = model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        problems += [
            p for item in error.errors() if (p := _problem(model, item)).path != "guard" or not problems
        ]
        raise ConfigError(source, problems) from error
    if guard is None or problems:
        raise ConfigError(source, problems)
    try:
        # Limits that are right one by one may contradict each other; the guard's own policy says so.
        guard(document.settings, Ports()).policy(document.settings)
    except ValueError as error:
        found = [
            Problem("settings", f"({words})", "settings that go together", "change one of them")
            for words in str(error).split("; ")
        ]
        raise ConfigError(source, found) from error
    return Loaded(document, guard)


def _problem(model: type[BaseModel], item: Any) -> Problem:
    where = tuple(item["loc"])
    path = _path(where)
    parent = _model_at(model, where[:-1])
    known = list(parent.model_fields) if parent else []
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(where[-1]), known, n=1)
        fix = f"write {near[0]!r} instead" if near else "remove it"
        return Problem(path, "an unknown key", f"one of {', '.join(known)}", fix)
    field = parent.model_fields.get(str(where[-1])) if parent and where else None
    meaning = f" ({field.description})" if field and field.description else ""
    if item["type"] == "missing":
        return Problem(path, "nothing", f"a value{meaning}", f"add {path}")
    if item["type"] == "string_pattern_mismatch":
        wanted = f"a text that matches {item['ctx']['pattern']}"
    else:
        wanted = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    found = "(not shown)" if _looks_secret(path) else _shown(item["input"])
    return Problem(path, found, f"{wanted}{meaning}", f"change {path}{_example(field)}")


def _example(field: Any) -> str:
    default = getattr(field, "default", None)
    examples = getattr(field, "examples", None)
    if examples:
        return f", for example to {json.dumps(examples[0])}"
    if isinstance(default, (int, float, str)) and not isinstance(default, bool) and default != "":
        return f", or remove it for the default {json.dumps(default)}"
    return ""


def _model_at(model: type[BaseModel], where: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model that the object at ``where`` is of, None if it is of none."""
    here: Any = model
    for step in where:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(step))
            here = field.annotation if field else None
        else:
            arguments = typing.get_args(here)
            here = arguments[-1] if arguments else None
        here = _without_none(here)
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _without_none(hint: Any) -> Any:
    arguments = [a for a in typing.get_args(hint) if a is not type(None)]
    return arguments[0] if type(None) in typing.get_args(hint) and len(arguments) == 1 else hint


def _path(where: tuple[Any, ...]) -> str:
    text = ""
    for step in where:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def _looks_secret(path: str) -> bool:
    last = path.rpartition(".")[2].lower()
    return any(word in last for word in ("password", "secret", "token")) and not last.endswith(
        ("_file", "_path")
    )


def _shown(value: Any) -> str:
    # An address with a password in it is refused, and must not be printed on the way.
    text = re.sub(r"//[^/@\s]*@", "//...@", json.dumps(value, default=str))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
