# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's files on the control host, and the requests that pass through them.

``STOP``              the stop-all lever: the file's existence pulls it, whatever it contains
``journal.jsonl``     every decision and outcome, hash-chained, never rewritten
``state.json``        open runs and breakers; a saved fold over the journal
``maintenance.json``  the maintenance window, if one was opened
``gate.lock``         held while one request is judged, so that two never see the same count

The order is always: journal, then state, then the answer. What was answered can be found again.
Nothing here talks to a database or to the network: the gate works when everything else is down.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import gate, gate_state, journal
from ..core.breaker import Breaker, Outcome
from ..core.gate import Decision, GateState, Lever, Pause, Policy, Request, Unreadable
from ..core.gate_state import Memory, Run
from ..core.verdict import Reason
from . import files
from .journal import JournalFile, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

GATE_DIRECTORY = Path("/var/lib/diting/gate")
POLICY_FILE = Path("/etc/diting/gate/policy.json")
NO_OUTCOME = "no outcome was reported in time"
SUPERSEDED = "a new run for the same scenario and target began before an outcome was reported"

Event = tuple[str, "Mapping[str, Any]"]


class GateError(Exception):
    """The gate could not do what it was told; the text says what to do about it."""


@dataclass(frozen=True)
class Answer:
    """A decision, the incident it belongs to, and whether it is on disk."""

    decision: Decision
    incident_id: str
    recorded: bool


def read_lever(path: Path) -> Lever | None:
    """The lever at ``path``. A lever that cannot be looked at counts as pulled."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        return Lever(None, "nobody known", f"{path} cannot be looked at: {error.strerror}")
    try:
        data = json.loads(text)
        return Lever(journal.parse_utc(data["at"]), str(data["by"]), str(data["reason"]))
    except (ValueError, KeyError, TypeError):
        # Pulled by hand, with touch or echo: as good as any other way.
        return Lever(None, "somebody with a shell", text.strip()[:200] or "no reason given")


class GateFiles:
    """Reads of the gate's files; everything that cannot be read becomes :class:`Unreadable`."""

    def __init__(
        self,
        directory: Path = GATE_DIRECTORY,
        policy_file: Path = POLICY_FILE,
        *,
        now: Callable[[], datetime] = utc_now,
        lock_timeout_seconds: float = 5.0,
    ) -> None:
        self.directory = directory
        self.policy_file = policy_file
        self.lever_file = directory / "STOP"
        self.state_file = directory / "state.json"
        self.pause_file = directory / "maintenance.json"
        self.journal = JournalFile(
            directory / "journal.jsonl", "gate", now=now, lock_timeout_seconds=lock_timeout_seconds
        )
        self.now = now
        self.lock_timeout_seconds = lock_timeout_seconds

    def policy(self) -> Policy | Unreadable:
        """The policy, or why there is none."""
        try:
            return gate.parse_policy(json.loads(self.policy_file.read_text(encoding="utf-8")))
        except OSError as error:
            return Unreadable(f"{self.policy_file}: {error.strerror}")
        except ValueError as error:
            return Unreadable(f"{self.policy_file}: not JSON: {error}")
        except gate.PolicyError as error:
            return Unreadable(f"{self.policy_file}: {error}")

    def pause(self) -> Pause | Unreadable | None:
        """The maintenance window, also one that is over."""
        try:
            return gate_state.parse_pause(json.loads(self.pause_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except OSError as error:
            return Unreadable(f"{self.pause_file}: {error.strerror}")
        except (ValueError, KeyError, TypeError) as error:
            return Unreadable(f"{self.pause_file}: {type(error).__name__}: {error}")

    def memory(self) -> Memory | Unreadable:
        """The memory as of the journal's last record."""
        if not self.directory.is_dir():
            return Unreadable(f"{self.directory} does not exist: role gate was not applied here")
        try:
            memory = gate_state.parse_memory(json.loads(self.state_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            # No request yet, or a crash before the first save: the journal tells it all from the start.
            memory = Memory()
        except OSError as error:
            return Unreadable(f"{self.state_file}: {error.strerror}")
        except ValueError as error:
            return Unreadable(f"{self.state_file}: {error}; diting gate rebuild-state")
        try:
            return self.catch_up(memory)
        except (OSError, ValueError, journal.JournalError) as error:
            return Unreadable(f"{error}; diting gate verify-journal")

    def catch_up(self, memory: Memory) -> Memory:
        """``memory`` plus what the journal recorded since: also after a crash between the two files."""
        records, offset = self.journal.read_from(memory.head, memory.offset_bytes)
        for record in records:
            memory = gate_state.apply(memory, record)
        return replace(memory, offset_bytes=offset)

    def save(self, memory: Memory) -> None:
        """Write ``state.json``."""
        files.write_atomic(self.state_file, json.dumps(memory.as_dict(), indent=1, sort_keys=True) + "\n")

    def state(self) -> GateState:
        """Lever, window and memory."""
        return GateState(read_lever(self.lever_file), self.pause(), self.memory())


def _rehearse(memory: Memory, events: list[Event], now: datetime) -> Memory:
    """``memory`` as it will be once ``events`` are recorded."""
    for name, fields in events:
        record = journal.make_record(memory.head, ts=now, mono_ns=0, source="", event=name, fields=fields)
        memory = gate_state.apply(memory, record)
    return memory


class Gate:
    """Requests and completions, each judged under one lock."""

    def __init__(self, gate_files: GateFiles) -> None:
        self.files = gate_files

    def _breaker_numbers(self, policy: Policy | Unreadable) -> tuple[int, int]:
        usable = gate.parse_policy(gate.DEFAULT_POLICY) if isinstance(policy, Unreadable) else policy
        return usable.breaker_failures, usable.breaker_window_seconds

    def _unfinished(self, runs: tuple[Run, ...], policy: Policy | Unreadable, detail: str) -> list[Event]:
        failures, window_seconds = self._breaker_numbers(policy)
        return [
            (
                "outcome",
                gate_state.outcome_fields(
                    incident_id=run.incident_id,
                    scenario=run.scenario,
                    target=run.target,
                    outcome=Outcome.INCONCLUSIVE,
                    detail=detail,
                    failures=failures,
                    window_seconds=window_seconds,
                ),
            )
            for run in runs
        ]

    def request(self, raw: Mapping[str, Any], *, predict: bool = False) -> Answer:
        """Judge ``raw`` (see :data:`core.gate_request.REQUEST_KEYS`) and record the decision.

        With ``predict`` nothing is written. An ``incident_id`` of None gets a new one. Never raises
        for a bad request or an unreadable file: that is a refusal, with its reasons.
        """
        now = self.files.now()
        incident_id = raw.get("incident_id") or f"inc-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        data = {**raw, "incident_id": incident_id}
        try:
            request = gate.parse_request(data)
        except gate.RequestError as error:
            decision = gate.refuse_malformed(data, error.problems)
            recorded = not predict and self._record_invalid(data, decision)
            return Answer(decision, str(incident_id), recorded)
        if predict:
            return Answer(self._judge(request, now)[0], request.incident_id, recorded=False)
        try:
            with files.locked(
                self.files.directory / "gate.lock", timeout_seconds=self.files.lock_timeout_seconds
            ):
                decision, events, memory = self._judge(request, self.files.now())
                self.files.journal.append_all(events)
                if isinstance(memory, Memory):
                    self.files.save(self.files.catch_up(memory))
        except (OSError, ValueError, journal.JournalError) as error:
            return Answer(self._unrecorded(request, now, str(error)), request.incident_id, recorded=False)
        return Answer(decision, request.incident_id, recorded=True)

    def _record_invalid(self, data: Mapping[str, Any], decision: Decision) -> bool:
        """Also what could not be understood was asked for; it opens no door, so trying is enough."""
        fields = {
            "incident_id": str(data["incident_id"]),
            "request": dict(data),
            "decision": decision.as_dict(),
            "run": None,
        }
        try:
            self.files.journal.append("decision", fields)
        except (OSError, journal.JournalError):
            return False
        return True

    def _judge(self, request: Request, now: datetime) -> tuple[Decision, list[Event], Memory | Unreadable]:
        """The decision, what to record, and the memory it was made from."""
        policy, state = self.files.policy(), self.files.state()
        events: list[Event] = []
        on_disk = state.memory
        if isinstance(on_disk, Memory):
            events = self._unfinished(on_disk.overdue(now), policy, NO_OUTCOME)
            swept = _rehearse(on_disk, events, now)
            left = swept.superseded_by(request.incident_id, request.scenario, request.target)
            more = self._unfinished(left, policy, SUPERSEDED) if request.counts else []
            after = _rehearse(swept, more, now)
            key = (request.scenario, request.target)
            trips = after.breaker(*key).is_open and not swept.breaker(*key).is_open
            decision = gate.decide(policy, replace(state, memory=after), request, now)
            # A request that is refused for another reason disturbs nobody's run.
            if decision.allowed or trips:
                events += more
            else:
                decision = gate.decide(policy, replace(state, memory=swept), request, now)
        else:
            decision = gate.decide(policy, state, request, now)
        run = None
        if decision.allowed and request.counts and isinstance(policy, Policy):
            run = gate_state.run_for(
                incident_id=request.incident_id,
                scenario=request.scenario,
                target=request.target,
                trigger=request.trigger,
                actor=request.actor,
                now=now,
                run_seconds=policy.run_seconds,
            ).as_dict()
        fields = {
            "incident_id": request.incident_id,
            "request": request.as_dict(),
            "decision": decision.as_dict(),
            "run": run,
        }
        return decision, [*events, ("decision", fields)], on_disk

    def _unrecorded(self, request: Request, now: datetime, problem: str) -> Decision:
        """What is not on record does not happen, except taking a fault back."""
        decision = gate.decide(self.files.policy(), self.files.state(), request, now)
        if request.kind.is_undo:
            return replace(decision, notes=(*decision.notes, f"not recorded: {problem}"))
        text = f"the decision cannot be recorded ({problem}); see: diting gate status"
        reasons = (*decision.reasons, Reason("journal_unwritable", text, problem, None))
        return replace(
            decision,
            allowed=False,
            code=reasons[0].code,
            reasons=reasons,
            requires=(*decision.requires, "writable_journal"),
        )

    def complete(
        self, *, incident_id: str, scenario: str, target: str, outcome: Outcome, detail: str, actor: str
    ) -> dict[str, Any]:
        """Record how a run ended, and let it move its breaker.

        Returns ``known`` (whether the run was open: drills, reverts and clean-ups never are),
        ``breaker_open`` (None if that cannot be told) and ``notes``. Raises :class:`GateError` if
        nothing could be recorded.
        """
        failures, window_seconds = self._breaker_numbers(self.files.policy())
        fields = gate_state.outcome_fields(
            incident_id=incident_id,
            scenario=scenario,
            target=target,
            outcome=outcome,
            detail=detail,
            failures=failures,
            window_seconds=window_seconds,
        )
        try:
            with files.locked(
                self.files.directory / "gate.lock", timeout_seconds=self.files.lock_timeout_seconds
            ):
                memory = self.files.memory()
                self.files.journal.append("outcome", {**fields, "actor": actor})
                if isinstance(memory, Unreadable):
                    note = f"recorded, but the breaker could not be moved: {memory.problem}"
                    return {"known": False, "breaker_open": None, "notes": [note]}
                after = self.files.catch_up(memory)
                self.files.save(after)
        except (OSError, ValueError, journal.JournalError) as error:
            raise GateError(f"the outcome of {incident_id} could not be recorded: {error}") from error
        before: Breaker = memory.breaker(scenario, target)
        now_open = after.breaker(scenario, target).is_open
        notes = []
        if now_open and not before.is_open:
            notes.append(f"the breaker of {scenario} on {target} has opened: automation stops trying")
        elif before.is_open and not now_open:
            notes.append(f"the breaker of {scenario} on {target} is closed again")
        known = memory.open_run(incident_id, scenario, target) is not None
        return {"known": known, "breaker_open": now_open, "notes": notes}
