# SPDX-License-Identifier: GPL-3.0-or-later
"""A gate in a temporary directory."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from diting.core import gate
from diting.core.breaker import Outcome
from diting.hostio.gate_controls import Controls
from diting.hostio.gate_store import Gate, GateFiles

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UNDO = {"kind": "revert", "scenario": "drill.l4"}


def request_of(**changes: Any) -> dict[str, Any]:
    """A request as it comes in, of an automated failover unless it is changed."""
    return {
        "scenario": "l4.failover",
        "kind": "recover",
        "target": "diting",
        "trigger": "automated",
        "actor": "tester",
        "incident_id": "inc-1",
        "plan": {},
        "approvals": [],
        "override_reason": None,
        "environment": None,
        **changes,
    }


class Place:
    """A gate in a temporary directory, with a clock that the test moves."""

    def __init__(self, root):
        self.now = START
        self.directory = root / "gate"
        self.directory.mkdir()
        self.policy_file = root / "policy.json"
        self.policy_file.write_text(json.dumps(gate.DEFAULT_POLICY))
        self.asked = 0
        self.again()

    def again(self):
        """A new process that finds only the files."""
        self.files = GateFiles(
            self.directory, self.policy_file, now=lambda: self.now, lock_timeout_seconds=0.2
        )
        self.gate, self.controls = Gate(self.files), Controls(self.files)

    def ask(self, *, predict: bool = False, **changes: Any):
        self.asked += 1
        self.now += timedelta(seconds=1)
        return self.gate.request(
            request_of(**{"incident_id": f"inc-{self.asked}", **changes}), predict=predict
        )

    def end(self, outcome: Outcome, incident_id: str | None = None, **changes: Any):
        fields = {"scenario": "l4.failover", "target": "diting", "detail": "", "actor": "tester", **changes}
        return self.gate.complete(incident_id=incident_id or f"inc-{self.asked}", outcome=outcome, **fields)

    def fail(self, times: int, **changes: Any):
        for _ in range(times):
            assert self.ask(**changes).decision.allowed
            self.end(Outcome.FAILED)

    @property
    def events(self):
        return [record["event"] for record in self.files.journal.records()]
