# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guard knows, as short lines for people. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Line = tuple[str, str]
"""A label, empty where the line above goes on, and words."""

MOST = 84
"""Characters of the words of one line: with its label it fits a terminal of 100 columns."""


def cut(words: str, most: int = MOST) -> str:
    """One line of at most ``most`` characters; dots stand for what is left out."""
    words = " ".join(words.split())
    return words if len(words) <= most else words[: most - 3] + "..."


def plain_lines(values: Mapping[str, Any]) -> list[Line]:
    """One line for each value that is there, for guards without words of their own; ``--json`` has the whole."""
    return [
        ("sees" if number == 0 else "", cut(f"{name}: {_words(value)}"))
        for number, (name, value) in enumerate(
            (n, v) for n, v in values.items() if v not in (None, "", [], {})
        )
    ]


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def age(moment: float | None, now: float) -> str:
    """How long ago, in the unit that people would choose; "never" for None."""
    return "never" if moment is None else f"{span(now - moment)} ago"


def span(seconds: float) -> str:
    """A length of time, as exact as it matters."""
    if seconds < 1:
        return f"{max(0.0, seconds):.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
