# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that boots yields to the others for a while.

All hosts of a lab share one machine. Real ones do not: what a fenced host does while it boots costs the survivors nothing. Here it
took so much that commits on the new primary ran into their deadlines, and a drill measured the lab instead of the system.
"""

from __future__ import annotations

import threading
from pathlib import Path

BOOT_SECONDS = 30.0
"""Boot, rewind or clone, and catching up."""
YIELDING_SHARE = 0.1
"""Of an ordinary host's weight; what the others leave is its own all the same."""
WEIGHTS = (
    ("/sys/fs/cgroup/cpu/libpod_parent/libpod-{}/cpu.shares", 1024),
    ("/sys/fs/cgroup/libpod_parent/libpod-{}/cpu.weight", 100),
)
"""Of one container, and the kernel's default: cgroup v1, then v2."""


def yield_for_a_while(
    container_id: str, seconds: float = BOOT_SECONDS, weights: tuple[tuple[str, int], ...] = WEIGHTS
) -> threading.Timer | None:
    """Lower the weight of a container that has just been started, and give it back after ``seconds``.

    Returns the timer that does so. None where the machine has no such cgroup: the lab works, only less evenly.
    """
    for place, ordinary in weights:
        path = Path(place.format(container_id))
        if _write(path, max(int(ordinary * YIELDING_SHARE), 2)):
            timer = threading.Timer(seconds, _write, (path, ordinary))
            timer.daemon = True
            timer.start()
            return timer
    return None


def _write(path: Path, weight: int) -> bool:
    """Whether it was there to be written; a container that is gone took its cgroup along."""
    try:
        with path.open("r+", encoding="ascii") as handle:
            handle.write(f"{weight}\n")
    except OSError:
        return False
    return True
