# SPDX-License-Identifier: GPL-3.0-or-later
"""The prober inside a cut, with a real server: a fence that kills it leaves the attempts it had made."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from diting.ledger.cut import reached
from diting.ledger.rundir import read_ledger
from support.ledger_server import Programs, Server
from support.servers import wait_until

pytestmark = [pytest.mark.process, pytest.mark.alone]
NS = 1_000_000_000


@pytest.fixture
def programs(tmp_path) -> Iterator[Programs]:
    server = Server.create()
    made = Programs(server, tmp_path)
    yield made
    made.cleanup()
    server.destroy()


def test_what_was_sent_before_the_kill_is_on_record(programs):
    programs.diting("ledger", "prepare", "--config", programs.config("cut"))
    prober = programs.probe(
        "cut", interval_seconds=0.02, op_deadline_seconds=2.0, pool_min=40, record_sends=True,
        connection={**programs.connection(), "target_session_attrs": "any"},
    )  # fmt: skip
    wait_until("every session was used", lambda: programs.acked("cut") > 60)
    programs.server.freeze()  # writes that nobody acknowledges, as a cut-off primary's
    cut_ns = time.monotonic_ns()
    file = programs.directory / "ledger-cut.jsonl"

    def sent_since() -> int:
        return len([r for r in programs.records("cut") if r["k"] == "d" and r["send_ns"] >= cut_ns])

    wait_until("attempts were made", lambda: sent_since() >= 25)
    prober.kill()
    prober.wait()
    ledger = read_ledger(file)
    assert ledger.footer is None
    assert set(ledger.problems) <= {"the last line is torn"}
    hits = reached(ledger, cut_ns, cut_ns + 60 * NS, 2 * NS)
    assert len(hits) >= 20
    assert not [op for op in hits if op.ok]
    assert any(op.reason == "no_outcome" for op in hits)
