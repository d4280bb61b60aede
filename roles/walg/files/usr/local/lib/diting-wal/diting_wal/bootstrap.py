# SPDX-License-Identifier: GPL-3.0-or-later
"""The data directory of a cluster that has lost all its hosts, fetched from the archive for Patroni to begin with.

Fetched beside its place and looked at there, then put there in one step: a fetch that ends half-way leaves nothing that could be
taken for a database. Recovery itself is Patroni's, as with every server it starts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any

from . import config
from .prove import Proof, Step
from .scratch import Scratch, ScratchError

KINDS = ("end",)
"""Of what is recovered to: the end of what the archive has."""
REQUEST: dict[str, type] = {
    "id": str,
    "root": str,
    "pg_bin": str,
    "data_dir": str,
    "backup": str,
    "backup_bytes": int,
    "target_type": str,
    "target": str,
    "timeline": int,
    "fetch_seconds": float,
    "stall_seconds": float,
}
_LEFT_BEHIND = ("postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal")
"""What the server that was backed up, or the one before it, was told; it is nobody's word any more."""


def run(settings: config.Config, request: dict[str, Any], result: str) -> int:
    """Carry out the request; 0 when the data directory is in its place. The facts are in ``result``."""
    walg = config.read_json(settings.walg_config)
    scratch = Scratch(request["root"], request["pg_bin"], "", str(walg.get("PGUSER") or "postgres"))
    return 0 if Bootstrap(settings, walg, request, scratch, result).run() else 1


class Bootstrap(Proof):
    """Fetched, complete, and in its place; the directory beside it is gone afterwards."""

    def _steps(self) -> tuple[Step, ...]:
        return (
            ("empty", self._empty),
            ("space", self._space),
            ("fetch", self._fetch),
            ("place", self._place),
        )

    def _empty(self) -> dict[str, Any]:
        """Before anything is fetched: what is there is somebody's. Raises ScratchError."""
        place = self._request["data_dir"]
        with contextlib.suppress(FileNotFoundError):
            found = sorted(os.listdir(place))
            if found:
                words = f"{place} is not empty, it has {', '.join(found[:3])}"
                raise ScratchError(
                    "not_empty", f"{words}; a cluster that has data is not lost: move it away if it is"
                )
        return {}

    def _place(self) -> dict[str, Any]:
        data, place = self._scratch.data, self._request["data_dir"]
        for name in _LEFT_BEHIND:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(data, name))
        # Of members that are gone: they would keep WAL for ever.
        for slot in os.scandir(os.path.join(data, "pg_replslot")):
            shutil.rmtree(slot.path)
        os.chmod(data, 0o700)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(place)
        os.rename(data, place)
        return {"words": place}
