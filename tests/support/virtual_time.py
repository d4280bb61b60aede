# SPDX-License-Identifier: GPL-3.0-or-later
"""An event loop in which waiting takes no time: its clock jumps to whatever is due next, on any machine alike."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing outside of the loop may be waited for; a coroutine that waits for nothing at all is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._look = self._selector.select
        self._selector.select = self._jump

    def time(self) -> float:
        return self.now

    monotonic = time
    """So that the loop is the clock of what runs in it."""

    def stand_still(self, seconds: float) -> None:
        """Time goes on, and nothing else does."""
        self.now += seconds

    def _jump(self, timeout: float | None = None) -> list[Any]:
        found = self._look(0)
        if not found and timeout is None:
            raise RuntimeError("everything waits, and nothing is due")
        if not found:
            self.now += max(0.0, timeout or 0.0)
        return found


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` in a :class:`VirtualLoop`."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)
