# SPDX-License-Identifier: GPL-3.0-or-later
"""Which guards there are: the modules beside the runtime that hold a ``GUARD``. A new one is listed nowhere."""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import guards

if TYPE_CHECKING:
    from .guard import Guard

_HOLDS_ONE = re.compile(r"^GUARD = ", re.MULTILINE)


@functools.cache
def names() -> tuple[str, ...]:
    """Every guard of this release, by name.

    Found in the text and not by importing: asking for one guard must not load what the others need.
    """
    folder = Path(str(guards.__file__)).parent
    return tuple(
        sorted(p.stem for p in folder.glob("*.py") if _HOLDS_ONE.search(p.read_text(encoding="utf-8")))
    )


def load(name: str) -> type[Guard[Any, Any, Any, Any]]:
    """The class of a guard. Raises KeyError for a name that is not one of :func:`names`."""
    if name not in names():
        raise KeyError(name)
    found: type[Guard[Any, Any, Any, Any]] = importlib.import_module(f"{guards.__name__}.{name}").GUARD
    return found
