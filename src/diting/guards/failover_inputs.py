# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns what others said into moments of this host's monotonic clock. No I/O but the gate's files."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from ..core.failover_view import (
    Answer,
    Candidate,
    GateEnd,
    GateView,
    Probe,
    Vantage,
    VantageKind,
    WalReceiver,
    earliest_moment,
    latest_moment,
)
from ..core.gate_state import Memory, Pause, Unreadable
from ..hostio.gate_store import Gate, GateFiles, read_lever

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

OPERATE = "operate."
RESTORE = "l4.restore"
BESIDE = frozenset({"operate.restore_test", "operate.restore_copy", "operate.retention"})
"""Work beside a cluster that goes on: for hours perhaps, in which a primary that dies is to be fenced as ever."""
SCENARIO = "l4.failover"
ASK_AGAIN_SECONDS = 60.0
"""What the gate says changes with its files; and a breaker half opens with time alone."""
UNREADABLE = frozenset({"policy_unreadable", "state_unreadable", "pause_unreadable"})
JUDGED_HERE = frozenset({"stopped", "paused"})
FENCES_FRESH_SECONDS = 10.0
"""An election of etcd is over by then. A count of others' fences stays right for as long as the lock among guards is held."""


def stops_members(scenario: str) -> bool:
    """Whether planned work of this name may take members down, whose silence is then no failure."""
    return scenario == RESTORE or (scenario.startswith(OPERATE) and scenario not in BESIDE)


class ViewError(ValueError):
    """What a witness said cannot be understood, and counts as nothing said."""


def vantage_of(
    name: str, view: Mapping[str, Any], asked_at: float, answered_at: float, target: str | None
) -> tuple[Vantage, Candidate]:
    """What the witness ``name`` said in the answer to a request sent at ``asked_at``. Raises :class:`ViewError`.

    Of another target than ``target`` only that the witness lives is taken over.
    """
    try:
        if view["witness"] != name:
            raise ViewError(f"asked {name}, and {view['witness']!r} answered")
        on_target = view["target"] == target and target is not None
        probes = {
            way: _probe(view["probes"][way], asked_at, answered_at) if on_target else Probe()
            for way in ("tcp", "rest", "sql")
        }
        wal = view["walreceiver"]
        receiver = None
        if wal is not None:
            lsn = wal["lsn"]
            receiver = WalReceiver(
                wal["running"] is True,
                _earliest(asked_at, wal["read_age"]) or 0.0,
                _latest(answered_at, wal["fed_age"]),
                None if lsn is None else int(lsn),
            )
        said = view["candidate"]
        candidate = Candidate(
            name, _truth(said["up"]), _truth(said["has_space"]), _earliest(asked_at, said["seen_age"])
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ViewError(f"{name}: {error!r}") from error
    return Vantage(name, VantageKind.REPLICA, asked_at, **probes, walreceiver=receiver), candidate


def _probe(said: Mapping[str, Any], asked_at: float, answered_at: float) -> Probe:
    # What errs towards life is taken late (a good answer, the begin of a silence), freshness is taken early.
    return Probe(
        Answer(said["answer"]),
        _earliest(asked_at, said["tried_age"]),
        _latest(answered_at, said["last_ok_age"]),
        _latest(answered_at, said["failing_age"]),
        int(said["failures"]),
        _latest(answered_at, said["last_reply_age"]),
    )


def _age(value: Any) -> float | None:
    if value is None:
        return None
    age = float(value)
    if not math.isfinite(age):
        raise ViewError(f"an age of {value!r}")
    return age


def _latest(answered_at: float, value: Any) -> float | None:
    age = _age(value)
    return None if age is None else latest_moment(answered_at, age)


def _earliest(asked_at: float, value: Any) -> float | None:
    age = _age(value)
    return None if age is None else earliest_moment(asked_at, age)


def _truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _pause_key(pause: Pause) -> str:
    return f"pause until {pause.until.isoformat()}"


class GateReader:
    """The gate's word, read from its files when they have changed.

    The gate's own times are of the wall clock. Each is turned into a moment of the monotonic clock when it is first
    seen, so that a clock step afterwards neither opens nor closes a window.
    """

    def __init__(
        self,
        directory: Path,
        policy_file: Path,
        cluster: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = GateFiles(directory, policy_file)
        self._cluster = cluster
        self._clock = clock
        self._refused: str | None = None
        self._asked_at: float | None = None
        self._stamps: dict[str, Any] = {}
        self._known: dict[str, float] = {}
        self._pause_until: float | None = None
        self._pause: Pause | Unreadable | None = None
        self._memory: Memory | Unreadable = Unreadable("not read yet")
        self._due: dict[tuple[str, str, str], float] = {}

    def remember(self, ends: Iterable[GateEnd]) -> None:
        """What an earlier life of this boot has seen: the same windows end when it said they would."""
        self._known = {end.key: end.until for end in ends}

    def read(self, fences_elsewhere: int | None, fences_read_at: float | None) -> GateView:
        """The view now; its age is that of the files. ``fences_elsewhere`` was asked of etcd at ``fences_read_at``."""
        now = self._clock()
        if fences_read_at is None or now - fences_read_at > FENCES_FRESH_SECONDS:
            fences_elsewhere = None
        if not self._files.directory.is_dir():
            return GateView(now, None, None, None, fences_elsewhere, None)
        lever = read_lever(self._files.lever_file) is not None
        maintenance, planned = self._maintenance(now), self._planned(now)
        ends = tuple(GateEnd(key, until) for key, until in sorted(self._ends().items()))
        return GateView(now, lever, maintenance, planned, fences_elsewhere, self._refusal(now), ends)

    def _refusal(self, now: float) -> str | None:
        files = self._files
        paths = (
            files.policy_file,
            files.lever_file,
            files.pause_file,
            files.state_file,
            files.journal.path,
        )
        old = self._asked_at is None or now - self._asked_at >= ASK_AGAIN_SECONDS
        if self._is_new("gate", *paths) or old or self._refused is None:
            self._asked_at = now
            self._refused = self._ask()
        return self._refused

    def _ask(self) -> str | None:
        """What the gate would say to a failover now. Asked in peace, so that nobody waits for a lock when it counts."""
        request: dict[str, Any] = {
            "scenario": SCENARIO,
            "kind": "recover",
            "target": self._cluster,
            "trigger": "automated",
            "actor": "guard failover",
            "incident_id": "asked in advance",
            "plan": {"scenario": SCENARIO, "target": self._cluster, "by": "guard failover"},
            "approvals": [],
            "override_reason": None,
            "environment": None,
        }
        reasons = Gate(self._files).request(request, predict=True).decision.reasons
        if any(reason.code in UNREADABLE for reason in reasons):
            return None
        return "; ".join(reason.message for reason in reasons if reason.code not in JUDGED_HERE)

    def _ends(self) -> dict[str, float]:
        ends = {f"run {' '.join(key)}": due for key, due in self._due.items()}
        if isinstance(self._pause, Pause) and self._pause_until is not None:
            ends[_pause_key(self._pause)] = self._pause_until
        return ends

    def _is_new(self, name: str, *paths: Path) -> bool:
        stamp: list[tuple[int, int, int] | None] = []
        for path in paths:
            try:
                found = path.stat()
                stamp.append((found.st_mtime_ns, found.st_ino, found.st_size))
            except FileNotFoundError:
                stamp.append(None)
            except OSError:
                return True
        new = self._stamps.get(name) != stamp
        self._stamps[name] = stamp
        return new

    def _maintenance(self, now: float) -> bool | None:
        if self._is_new("pause", self._files.pause_file) or isinstance(self._pause, Unreadable):
            self._pause = self._files.pause()
            self._pause_until = None
            if isinstance(self._pause, Pause):
                left = (self._pause.until - self._files.now()).total_seconds()
                self._pause_until = self._known.get(_pause_key(self._pause), now + left)
        if isinstance(self._pause, Unreadable):
            return None
        return self._pause_until is not None and now < self._pause_until

    def _planned(self, now: float) -> bool | None:
        files = self._files
        if self._is_new("memory", files.state_file, files.journal.path) or isinstance(
            self._memory, Unreadable
        ):
            self._memory = files.memory()
            if isinstance(self._memory, Memory):
                left = {
                    (run.incident_id, *run.key): (run.due_at - files.now()).total_seconds()
                    for run in self._memory.runs
                    if stops_members(run.scenario)
                }
                known = {key: self._known.get(f"run {' '.join(key)}", now + left[key]) for key in left}
                self._due = {key: self._due.get(key, until) for key, until in known.items()}
        if isinstance(self._memory, Unreadable):
            return None
        return any(now < due for due in self._due.values())
