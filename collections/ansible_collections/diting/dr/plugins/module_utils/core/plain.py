# SPDX-License-Identifier: GPL-3.0-or-later
"""Frozen dataclasses as plain JSON values, and back, exactly. Pure.

What a guard saw and decided is written to a journal and fed to the same code again, perhaps years
later, so the way there and back must lose nothing and guess nothing: ``T.from_dict(t.as_dict()) == t``.

Supported field types: ``bool``, ``int``, ``float``, ``str``, ``None``, enums, other dataclasses,
``tuple[X, ...]``, fixed tuples, ``Mapping[str, X]`` and unions of them with ``None``. The types
are read at run time, so they must be imported outside ``if TYPE_CHECKING``. There is no infinity in
JSON: what never happened is ``None``.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, Self, TypeVar

T = TypeVar("T")


class PlainError(ValueError):
    """A value does not fit its field; the text begins with the path of the field."""


class Plain:
    """Mixin for a frozen dataclass that can be written to a journal."""

    def as_dict(self) -> dict[str, Any]:
        """JSON form, which :meth:`from_dict` reads."""
        return {name: to_plain(getattr(self, name)) for name in hints_of(type(self))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, ignore_unknown: bool = False) -> Self:
        """Reads :meth:`as_dict`. A key that is missing takes the field's default, if it has one.

        ``ignore_unknown`` drops keys that the class does not have (state saved by a newer release).
        Raises :class:`PlainError`.
        """
        return from_plain(cls, data, ignore_unknown=ignore_unknown)


_HINTS: dict[type[Any], dict[str, Any]] = {}


def hints_of(cls: type[Any]) -> dict[str, Any]:
    """Field name -> type of a dataclass, in the order of definition."""
    if cls not in _HINTS:
        hints = typing.get_type_hints(cls)
        _HINTS[cls] = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    return _HINTS[cls]


def to_plain(value: Any) -> Any:
    """``value`` as JSON can carry it: dataclasses as objects, enums by value, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_plain(getattr(value, name)) for name in hints_of(type(value))}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    return value


def from_plain(cls: type[T], data: Any, path: str = "", *, ignore_unknown: bool = False) -> T:
    """The dataclass that :func:`to_plain` wrote, of a class that need not be a :class:`Plain`.

    Raises :class:`PlainError`; a class that judges its own values may raise another ``ValueError``.
    """
    made: T = _dataclass(cls, data, path, ignore_unknown=ignore_unknown)
    return made


def _dataclass(cls: type[Any], data: Any, path: str, *, ignore_unknown: bool = False) -> Any:
    if not isinstance(data, Mapping):
        raise PlainError(f"{path or cls.__name__}: found {data!r}, wanted an object")
    hints = hints_of(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown and not ignore_unknown:
        raise PlainError(f"{_join(path, unknown[0])}: {cls.__name__} has no such field")
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name in data:
            values[field.name] = decode(
                hints[field.name], data[field.name], _join(path, field.name), ignore_unknown=ignore_unknown
            )
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise PlainError(f"{_join(path, field.name)}: missing")
    return cls(**values)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def decode(hint: Any, data: Any, path: str, *, ignore_unknown: bool = False) -> Any:
    """``data`` as a value of the type ``hint``. Raises :class:`PlainError` naming ``path``."""
    again = functools.partial(decode, ignore_unknown=ignore_unknown)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, data, path, again)
    if origin is tuple and isinstance(data, (list, tuple)):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(again(arguments[0], item, f"{path}[{n}]") for n, item in enumerate(data))
        if len(arguments) == len(data):
            pairs = zip(arguments, data, strict=True)
            return tuple(again(kind, item, f"{path}[{n}]") for n, (kind, item) in enumerate(pairs))
    elif origin in (Mapping, dict) and isinstance(data, Mapping):
        return {str(key): again(arguments[1], item, _join(path, str(key))) for key, item in data.items()}
    elif isinstance(hint, type):
        return _scalar(hint, data, path, ignore_unknown=ignore_unknown)
    raise PlainError(f"{path}: found {data!r}, wanted {hint}")


def _union(arguments: tuple[Any, ...], data: Any, path: str, again: Any) -> Any:
    if data is None and type(None) in arguments:
        return None
    faults: list[str] = []
    for kind in arguments:
        if kind is not type(None):
            try:
                return again(kind, data, path)
            except PlainError as error:
                faults.append(str(error))
    raise PlainError("; or ".join(faults))


def _scalar(hint: type, data: Any, path: str, *, ignore_unknown: bool) -> Any:
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, data, path, ignore_unknown=ignore_unknown)
    if issubclass(hint, enum.Enum):
        try:
            return hint(data)
        except ValueError:
            wanted = ", ".join(repr(item.value) for item in hint)
            raise PlainError(f"{path}: found {data!r}, wanted one of {wanted}") from None
    # Not isinstance(): True is an int. A whole number stays one in a float's place, so that its text stays.
    kind = type(data)
    if kind is hint or (hint is float and kind is int):
        return data
    raise PlainError(f"{path}: found {data!r}, wanted {hint.__name__}")
