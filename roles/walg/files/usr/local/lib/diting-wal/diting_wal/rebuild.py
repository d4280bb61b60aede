# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of the cluster as it was at one moment, made beside production and kept; and its promotion once production has stopped.

The copy is complete, stopped and at its target before anything of production is touched. Its promotion comes later, in the gap:
a timeline that is begun while the old primary still runs would be two histories at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import Any

from . import config, prove
from .prove import Proof, Step
from .scratch import AUTO_CONF, Scratch, ScratchError

KINDS = ("name", "lsn", "time", "xid")
REQUEST: dict[str, type] = {
    **{name: kind for name, kind in prove.REQUEST.items() if name != "tables"},
    "inclusive": bool,
}
READY = "ready.json"
"""In the root: what a copy was made of, there once it is whole."""


def prepare(settings: config.Config, request: dict[str, Any], result: str) -> int:
    """Make the copy; 0 when it is whole. One that did not become whole is taken away again."""
    return 0 if _made(settings, request, result, Copy).run() else 1


def promote(settings: config.Config, request: dict[str, Any], result: str) -> int:
    """Promote a copy that is whole, and stop it; 0 when it can be taken over. Whatever happens, it stays."""
    return 0 if _made(settings, request, result, Promotion).run() else 1


def _made(settings: config.Config, request: dict[str, Any], result: str, kind: type[Copy]) -> Copy:
    walg = config.read_json(settings.walg_config)
    user = str(walg.get("PGUSER") or "postgres")
    scratch = Scratch(request["root"], request["pg_bin"], request["restore_command"], user)
    return kind(settings, walg, {**request, "tables": []}, scratch, result)


class Copy(Proof):
    """Fetched, recovered to its target, looked at, and stopped there."""

    def _steps(self) -> tuple[Step, ...]:
        return (
            ("space", self._space),
            ("fetch", self._fetch),
            ("replay", self._replay),
            ("look", self._look),
            ("stop", self._end),
            ("keep", self._keep),
        )

    def _configure(self, *, exact: bool = False) -> None:
        request = self._request
        self._scratch.configure(
            request["target_type"],
            request["target"],
            request["timeline"],
            inclusive=request["inclusive"],
            lasting=True,
            exact=exact,
        )

    def _look(self) -> dict[str, Any]:
        """Where it stands. Every database has to let itself be connected to: a copy that does not is nobody's production."""
        query = "SELECT coalesce(to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), '')"
        last = self._scratch.sql("postgres", query, 30)
        names = self._scratch.sql(
            "postgres",
            "SELECT json_agg(datname) FROM pg_database WHERE datallowconn AND NOT datistemplate",
            30,
        )
        for name in json.loads(names):
            self._scratch.sql(name, "SELECT count(*) FROM pg_class", 60)
        self._facts["last_commit"] = last or None
        return {"databases": len(json.loads(names))}

    def _keep(self) -> dict[str, Any]:
        _write(os.path.join(self._request["root"], READY), json.dumps(self._facts, sort_keys=True))
        return {}

    def _tear_down(self) -> bool:
        if not self._facts.get("complete"):
            return super()._tear_down()
        return self._finish()

    def _finish(self) -> bool:
        self._facts["kept"] = True
        self._save()
        return True


class Promotion(Copy):
    """Of a copy that is whole: it replays the little that follows its last restart point, reaches its target again, and ends there."""

    def _steps(self) -> tuple[Step, ...]:
        return (
            ("replay", self._again),
            ("promote", self._promote),
            ("look", self._branch),
            ("stop", self._end),
        )

    def _again(self) -> dict[str, Any]:
        if not os.path.exists(os.path.join(self._request["root"], READY)):
            raise ScratchError("not_prepared", f"{self._request['root']} holds no copy that is whole")
        # A break-off after the promotion: it is one already, and is not promoted a second time.
        self._facts["again"] = not os.path.exists(os.path.join(self._scratch.data, "recovery.signal"))
        if not self._facts["again"]:
            # By now the control file has what the source had at the target, whatever it was raised to on the way there.
            self._configure(exact=True)
        # What the log says of a target is to be of this start.
        _write(self._scratch.log, "")
        self._scratch.start()
        if self._facts["again"]:
            self._scratch.wait_for_primary(self._request["replay_seconds"])
            return {"words": "was promoted before"}
        words, lsn = self._scratch.wait_for_target(lambda _lsn: True, self._request["replay_seconds"])
        return {"words": words, "replayed_lsn": lsn}

    def _promote(self) -> dict[str, Any]:
        return {} if self._facts["again"] else super()._promote()

    def _branch(self) -> dict[str, Any]:
        query = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint"
        self._scratch.sql("postgres", "CHECKPOINT", self._request["replay_seconds"])
        found = int(self._scratch.sql("postgres", query, 30))
        if found <= self._request["timeline"]:
            words = f"it is on timeline {found}, and was to be on one after {self._request['timeline']}"
            raise ScratchError("promote_failed", f"{words}; discard the copy and make another")
        self._facts["new_timeline"] = found
        return {}

    def _end(self) -> dict[str, Any]:
        super()._end()
        # What ALTER SYSTEM set on the cluster: not for the copy's own server, and for production again.
        kept = os.path.join(self._request["root"], AUTO_CONF)
        if os.path.exists(kept):
            shutil.copyfile(kept, os.path.join(self._scratch.data, "postgresql.auto.conf"))
        return {}

    def _tear_down(self) -> bool:
        with contextlib.suppress(OSError):
            self._scratch.kill()
        return self._finish() and bool(self._facts.get("complete"))


def _write(path: str, text: str) -> None:
    part = f"{path}.part"
    with open(part, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(part, path)
