# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what the lab's chat rooms were told."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_POLL_SECONDS = 0.2


def rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One row an alert; one for a message whose form does not say what it is about, with its text."""
    head = {"at": record["at"], "mono_ns": record["mono_ns"], "kind": record["kind"], "room": record["room"]}
    if record["alerts"]:
        return [{**head, **alert} for alert in record["alerts"]]
    text = json.dumps(record["body"], ensure_ascii=False)
    # The title that diting.alerts.messages begins each text with.
    status = "firing" if "[FIRING " in text else "resolved" if "[RESOLVED " in text else None
    return [{**head, "alert": None, "status": status, "text": text}]


def received(
    path: Path,
    names: Collection[str],
    hosts: Collection[str],
    status: str | None,
    since: str,
    wait_seconds: float,
) -> list[dict[str, Any]]:
    """Rows about any alert of ``names`` about any instance of ``hosts`` (all, if there are none), begun and told in ``status`` at or after ``since`` (UTC, ISO 8601), waiting for the first one.

    Raises ValueError for a line that cannot be read, other than a last one that is being written.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        found = [
            row
            for line in lines
            for row in rows(json.loads(line))
            if row["at"] >= since.removesuffix("Z")
            and status in (None, row["status"])
            and (row.get("starts_at") or row["at"]) >= since.removesuffix("Z")
            and (not names or row["alert"] in names)
            and (not hosts or str(row.get("labels", {}).get("instance", "")).partition(":")[0] in hosts)
        ]
        if found or time.monotonic() >= deadline:
            return found
        time.sleep(_POLL_SECONDS)
