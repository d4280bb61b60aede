# SPDX-License-Identifier: GPL-3.0-or-later
"""Drift between the wanted dynamic configuration and the one in the store: pure, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

PROTECTED = frozenset({"pause", "standby_cluster"})
"""Keys that operations set and end themselves: the inventory never removes them."""


def drift(current: Mapping[str, Any], wanted: Mapping[str, Any], *, purge: bool = False) -> dict[str, Any]:
    """Smallest patch that turns ``current`` into ``wanted``; empty when they agree.

    The patch has the meaning of ``PATCH /config``: nested dictionaries merge, ``None`` removes a key. Keys that only
    ``current`` has stay, unless ``purge`` is set; :data:`PROTECTED` ones always stay.
    """
    return _drift(current, wanted, purge, PROTECTED)


def _drift(
    current: Mapping[str, Any], wanted: Mapping[str, Any], purge: bool, protected: Collection[str]
) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    for key, value in wanted.items():
        have = current.get(key)
        if isinstance(value, Mapping) and isinstance(have, Mapping):
            nested = _drift(have, value, purge, ())
            if nested:
                patch[key] = nested
        elif (key in current and not _same(have, value)) or (key not in current and value is not None):
            patch[key] = value
    if purge:
        patch.update({key: None for key in current if key not in wanted and key not in protected})
    return patch


def _same(have: object, want: object) -> bool:
    """Equality without the surprise that True equals 1."""
    if isinstance(have, bool) != isinstance(want, bool):
        return False
    return have == want


def apply_patch(current: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """What the store will hold after ``PATCH /config`` with this patch."""
    result = dict(current)
    for key, value in patch.items():
        have = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(have, Mapping):
            result[key] = apply_patch(have, value)
        else:
            result[key] = value
    return result
