# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of restore tests as they are kept."""

from __future__ import annotations

from typing import Any


def record(size_bytes: int, fetch: float, verdict: str = "HEALTHY", **more: Any) -> dict[str, Any]:
    """One of a copy of that size, which was fetched in so many seconds."""
    evidence = {"size_bytes": size_bytes, "wal_bytes": more.pop("wal", 2 * 10**8)}
    evidence["phases"] = {"fetch": fetch, "replay": more.pop("replay", 4.0), "promote": 1.0}
    return {"id": "r", "ended": 1.8e9, "verdict": verdict, "reasons": [], "evidence": evidence, **more}
