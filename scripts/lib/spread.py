# SPDX-License-Identifier: GPL-3.0-or-later
"""How a benchmark prints what it measured several times."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def spread(values: Sequence[float]) -> str:
    """``n / min / median / max``; ``values`` has at least one."""
    return f"{len(values)} / {min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"
