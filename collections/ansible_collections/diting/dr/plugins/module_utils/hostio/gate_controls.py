# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's handles for people: stop and resume, pause and unpause, reset, repair, status.

The lever is special: it is pulled first and written down afterwards, waits for no lock, and works
with a full journal, a broken state and no role applied. Everything else is recorded or not done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..core import gate, gate_state, journal
from ..core.gate import Pause, Unreadable
from ..core.gate_state import Memory
from . import files
from .gate_store import GateError, GateFiles, read_lever

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MIN_REASON_CHARS = 3


def _wanted_reason(reason: str) -> str:
    text = reason.strip()
    if len(text) < MIN_REASON_CHARS:
        raise GateError(f"reason: found {reason!r}, wanted why, for whoever reads it at night")
    return text


class Controls:
    """Each method returns ``changed`` and ``notes``, and is idempotent where a repeat makes sense."""

    def __init__(self, gate_files: GateFiles) -> None:
        self.files = gate_files

    def _record_if_possible(self, event: str, fields: Mapping[str, Any]) -> list[str]:
        try:
            self.files.journal.append(event, fields)
        except (OSError, journal.JournalError) as error:
            return [f"done, but not recorded: {error}"]
        return []

    def _record(self, event: str, fields: Mapping[str, Any]) -> None:
        try:
            self.files.journal.append(event, fields)
        except (OSError, journal.JournalError) as error:
            raise GateError(f"nothing was changed, because it cannot be recorded: {error}") from error

    def stop(self, *, by: str, reason: str, predict: bool = False) -> dict[str, Any]:
        """Pull the lever. The first to pull it stays on record; pulling it again changes nothing."""
        text = reason.strip() or "no reason given"  # never refuse to stop for want of a sentence
        lever = read_lever(self.files.lever_file)
        if lever is not None:
            return {"changed": False, "notes": [gate.lever_text(lever)]}
        if predict:
            return {"changed": True, "notes": []}
        try:
            self.files.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            content = {"at": journal.utc_text(self.files.now()), "by": by, "reason": text}
            files.write_atomic(self.files.lever_file, json.dumps(content) + "\n")
        except OSError as error:
            raise GateError(
                f"the lever could NOT be pulled: {error}; try: touch {self.files.lever_file}"
            ) from error
        return {"changed": True, "notes": self._record_if_possible("stop", {"by": by, "reason": text})}

    def resume(self, *, by: str, reason: str, predict: bool = False) -> dict[str, Any]:
        """Put the lever back. What was refused meanwhile is not replayed: whoever still wants it asks anew."""
        text = _wanted_reason(reason)
        lever = read_lever(self.files.lever_file)
        if lever is None:
            return {"changed": False, "notes": ["the stop-all lever is not pulled"]}
        if not predict:
            self._record(
                "resume", {"by": by, "reason": text, "stopped_by": lever.by, "stopped_for": lever.reason}
            )
            try:
                self.files.lever_file.unlink()
                files.fsync_directory(self.files.directory)
            except OSError as error:
                raise GateError(f"the lever could not be put back: {error}") from error
        return {"changed": True, "notes": []}

    def pause(self, *, minutes: float, by: str, reason: str, predict: bool = False) -> dict[str, Any]:
        """Open a maintenance window of ``minutes`` from now, in place of any other."""
        text = _wanted_reason(reason)
        policy = self.files.policy()
        default = gate.DEFAULT_POLICY["limits"]["pause_seconds"]
        limit = default if isinstance(policy, Unreadable) else policy.pause_seconds
        if not 0 < minutes * 60 <= limit:
            raise GateError(f"minutes: found {minutes:g}, wanted more than 0 and at most {limit / 60:g}")
        now = self.files.now()
        window = Pause(now + timedelta(minutes=minutes), now, by, text)
        if not predict:
            self._record("pause", window.as_dict())
            try:
                files.write_atomic(self.files.pause_file, json.dumps(window.as_dict()) + "\n")
            except OSError as error:
                raise GateError(f"the maintenance window could not be opened: {error}") from error
        return {"changed": True, "notes": [], "until": journal.utc_text(window.until)}

    def unpause(self, *, by: str, reason: str, predict: bool = False) -> dict[str, Any]:
        """Close the maintenance window before its time; also removes one that cannot be read."""
        text = _wanted_reason(reason)
        window = self.files.pause()
        if window is None or (isinstance(window, Pause) and self.files.now() >= window.until):
            return {"changed": False, "notes": ["no maintenance window is open"]}
        if not predict:
            self._record("unpause", {"by": by, "reason": text})
            try:
                self.files.pause_file.unlink()
                files.fsync_directory(self.files.directory)
            except OSError as error:
                raise GateError(f"the maintenance window could not be closed: {error}") from error
        return {"changed": True, "notes": []}

    def reset(self, *, scenario: str, target: str, by: str, reason: str) -> dict[str, Any]:
        """Close one breaker. Old failures are forgotten with it, or one more would open it again."""
        text = _wanted_reason(reason)
        with self._locked():
            memory = self.files.memory()
            if isinstance(memory, Unreadable):
                raise GateError(f"the gate's memory cannot be read: {memory.problem}")
            if (scenario, target) not in memory.breakers:
                return {"changed": False, "notes": [f"nothing is held against {scenario} on {target}"]}
            fields = {"scenario": scenario, "target": target, "by": by, "reason": text}
            self._record("breaker_reset", fields)
            self.files.save(self.files.catch_up(memory))
        return {"changed": True, "notes": []}

    def verify_journal(self) -> journal.ChainReport:
        """Follow the chain to its end, through the head that ``state.json`` remembers."""
        anchor = None
        # Without the state the chain can still be followed; only its end is not vouched for.
        with contextlib.suppress(OSError, ValueError):
            anchor = gate_state.parse_memory(
                json.loads(self.files.state_file.read_text(encoding="utf-8"))
            ).head
        return self.files.journal.verify(anchor)

    def rebuild_state(self, *, by: str, reason: str) -> dict[str, Any]:
        """Derive ``state.json`` anew from a journal whose chain holds."""
        text = _wanted_reason(reason)
        with self._locked():
            try:
                self.files.catch_up(Memory())  # a chain that does not hold is not built upon
                self._record("state_rebuilt", {"by": by, "reason": text})
                self.files.save(self.files.catch_up(Memory()))
            except (OSError, ValueError, journal.JournalError) as error:
                raise GateError(f"the journal does not hold: {error}; diting gate new-journal") from error
        return {"changed": True, "notes": []}

    def new_journal(self, *, by: str, reason: str) -> dict[str, Any]:
        """Set a broken journal aside, unchanged, and begin a new one that names it by its hash.

        Refused while the chain holds: then there is nothing to leave behind.
        """
        text = _wanted_reason(reason)
        with self._locked():
            report = self.verify_journal()
            if report.ok:
                raise GateError("the journal is whole: nothing was set aside")
            memory, notes = self._remembered()
            old = self.files.journal.path
            aside = old.with_name(f"journal-broken-{self.files.now():%Y%m%dT%H%M%S%fZ}.jsonl")
            try:
                digest = hashlib.sha256(old.read_bytes()).hexdigest() if old.exists() else None
                if digest is not None:
                    old.rename(aside)
                fields = {
                    "by": by,
                    "reason": text,
                    "set_aside": aside.name if digest else None,
                    "set_aside_sha256": digest,
                    "problem": report.problem,
                    "line": report.line,
                    "memory": memory.as_dict(),
                }
                self._record("journal_started_anew", fields)
                self.files.save(self.files.catch_up(Memory()))
            except (OSError, ValueError, journal.JournalError) as error:
                raise GateError(f"a new journal could not be begun: {error}") from error
        return {"changed": True, "notes": notes, "set_aside": aside.name if digest else None}

    def _remembered(self) -> tuple[Memory, list[str]]:
        """What ``state.json`` still says, without asking the broken journal."""
        try:
            memory = gate_state.parse_memory(json.loads(self.files.state_file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            return Memory(), [f"open runs and breakers are forgotten: state.json: {error}"]
        return replace(memory, head=journal.Head(), offset_bytes=0), []

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.files.directory / "gate.lock"
        try:
            with files.locked(path, timeout_seconds=self.files.lock_timeout_seconds):
                yield
        except OSError as error:
            raise GateError(f"nothing was changed: {error}") from error

    def status(self) -> dict[str, Any]:
        """Everything an operator wants to see first, as plain data. Reads only."""
        policy, state, now = self.files.policy(), self.files.state(), self.files.now()
        lever, pause, memory = state.lever, state.pause, state.memory
        return {
            "stopped": lever is not None,
            "lever": None if lever is None else gate.lever_text(lever),
            "paused": isinstance(pause, Unreadable) or (pause is not None and now < pause.until),
            "pause": pause.as_dict() if isinstance(pause, Pause) and now < pause.until else None,
            "policy_sha256": None if isinstance(policy, Unreadable) else policy.sha256,
            "environment": None if isinstance(policy, Unreadable) else policy.environment,
            "open_breakers": [
                {"scenario": key[0], "target": key[1], **breaker.as_dict()}
                for key, breaker in sorted(memory.breakers.items())
                if breaker.is_open
            ]
            if isinstance(memory, Memory)
            else None,
            "open_runs": [run.as_dict() for run in memory.runs] if isinstance(memory, Memory) else None,
            "journal_records": memory.head.seq if isinstance(memory, Memory) else None,
            "problems": [thing.problem for thing in (policy, pause, memory) if isinstance(thing, Unreadable)],
        }
