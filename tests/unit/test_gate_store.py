# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate on disk: what is answered was recorded, and nothing unreadable ever means yes."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from diting.core.breaker import Outcome
from diting.core.gate_state import Memory, Unreadable
from diting.hostio import files
from diting.hostio.gate_store import Gate, GateError, GateFiles
from support.gate_place import UNDO, Place, request_of


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


# --- requests and outcomes ----------------------------------------------------------------------


def test_a_decision_is_on_disk_before_it_is_answered(place):
    answer = place.ask()
    assert (answer.decision.allowed, answer.recorded, answer.incident_id) == (True, True, "inc-1")
    record = place.files.journal.records()[0]
    assert record["decision"] == answer.decision.as_dict()
    assert record["request"]["actor"] == "tester"
    assert place.controls.verify_journal().ok


def test_an_incident_gets_a_name_of_its_own(place):
    first, second = (place.ask(incident_id=None).incident_id for _ in range(2))
    assert first.startswith("inc-20260301T1200")
    assert first != second


def test_refusals_are_recorded_too_also_of_nonsense(place):
    assert place.ask(scenario="l4.restore").recorded
    bad = place.ask(kind="destroy")
    assert (bad.decision.code, bad.recorded) == ("request_invalid", True)
    assert [r["decision"]["allowed"] for r in place.files.journal.records()] == [False, False]


def test_a_malformed_revert_still_takes_the_fault_back(place):
    place.controls.stop(by="alice", reason="hands off")
    for changes in (
        {"target": ""},
        {"trigger": "cron"},
        {"incident_id": "\n"},
        {"plan": None},
        {"scenario": "drill.L4"},
    ):
        answer = place.ask(**{**UNDO, **changes})
        assert (answer.decision.allowed, answer.decision.code) == (True, "undo")
        assert "malformed" in answer.decision.message
    assert not place.ask(kind="revert", target="").decision.allowed


def test_prediction_says_the_same_and_writes_nothing(place):
    place.fail(3)
    before = {path.name: path.read_bytes() for path in place.directory.iterdir()}
    assert place.ask(predict=True).decision.code == "breaker_open"
    assert place.ask(predict=True, target="other").decision.allowed
    assert place.ask(predict=True, kind="nonsense").decision.code == "request_invalid"
    assert {path.name: path.read_bytes() for path in place.directory.iterdir()} == before


def test_the_third_failure_opens_the_breaker_and_it_outlives_the_process(place):
    place.fail(2)
    assert place.ask().decision.allowed
    assert "automation stops trying" in place.end(Outcome.INCONCLUSIVE)["notes"][0]
    place.again()
    assert place.ask().decision.code == "breaker_open"
    place.now += timedelta(days=30)
    assert place.ask().decision.code == "breaker_open"


def test_a_person_overrides_it_and_success_closes_it(place):
    place.fail(3)
    person = {"trigger": "person", "override_reason": "disk was replaced"}
    assert place.ask(**person).decision.code == "overridden"
    assert place.end(Outcome.FAILED)["breaker_open"] is True
    assert place.ask(**person).decision.allowed
    assert "closed again" in place.end(Outcome.SUCCESS)["notes"][0]
    assert place.ask().decision.allowed


def test_failed_drills_never_count_against_recovery(place):
    place.fail(5, trigger="drill")
    assert place.ask().decision.allowed
    assert place.controls.status()["open_breakers"] == []


def test_a_run_without_an_outcome_counts_as_inconclusive_when_its_time_is_up(place):
    for target in ("a", "b", "c"):
        place.ask(target=target)
    place.now += timedelta(hours=2)
    place.ask(target="d")
    outcomes = [r for r in place.files.journal.records() if r["event"] == "outcome"]
    assert [r["target"] for r in outcomes] == ["a", "b", "c"]
    assert {r["outcome"] for r in outcomes} == {"inconclusive"}


def test_a_daemon_that_asks_and_crashes_trips_its_breaker_instead_of_looping(place):
    allowed = [place.ask().decision.allowed for _ in range(5)]
    assert allowed == [True, True, True, False, False]
    assert place.ask().decision.code == "breaker_open"


def test_a_refused_request_disturbs_nobodys_run(place):
    place.ask()
    place.controls.stop(by="alice", reason="hands off")
    assert place.ask().decision.code == "stopped"
    assert [run["incident_id"] for run in place.controls.status()["open_runs"]] == ["inc-1"]
    assert place.end(Outcome.SUCCESS, "inc-1")["known"]


def test_an_outcome_nobody_waits_for_is_recorded_and_moves_nothing(place):
    assert place.end(Outcome.FAILED, "inc-unknown")["known"] is False
    assert place.events == ["outcome"]
    assert place.controls.status()["open_breakers"] == []


# --- what cannot be read or written -------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda p: p.policy_file.unlink(), "policy_unreadable"),
        (lambda p: p.policy_file.write_text("{"), "policy_unreadable"),
        (lambda p: p.policy_file.write_text("{}"), "policy_unreadable"),
        (lambda p: p.policy_file.write_bytes(b"\xff\xfe"), "policy_unreadable"),
        (lambda p: p.files.state_file.write_text(""), "state_unreadable"),
        (lambda p: p.files.state_file.write_text("[]"), "state_unreadable"),
        (lambda p: p.files.journal.path.unlink(), "state_unreadable"),
        (lambda p: p.files.journal.path.write_text(""), "state_unreadable"),
        (lambda p: p.files.pause_file.write_text("soon"), "pause_unreadable"),
        (lambda p: p.files.pause_file.write_text("{}"), "pause_unreadable"),
        (lambda p: p.files.lever_file.mkdir(), "stopped"),
    ],
)
def test_what_cannot_be_read_refuses_everything_but_a_revert(place, damage, code):
    place.ask()
    damage(place)
    place.again()
    refused = place.ask().decision
    assert (refused.allowed, refused.code) == (False, code)
    assert place.ask(**UNDO).decision.allowed


def test_a_host_without_the_role_refuses_and_still_reverts(tmp_path):
    bare = Place(tmp_path)
    bare.directory.rmdir()
    refused = bare.ask().decision
    assert (refused.allowed, refused.code) == (False, "state_unreadable")
    assert "role gate" in refused.message
    undo = bare.ask(**UNDO)
    assert (undo.decision.allowed, undo.recorded) == (True, False)


def test_what_cannot_be_recorded_does_not_happen_except_a_revert(place, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    refused = place.ask()
    assert (refused.decision.allowed, refused.decision.code, refused.recorded) == (
        False,
        "journal_unwritable",
        False,
    )
    assert "No space left" in refused.decision.message
    undo = place.ask(**UNDO)
    assert (undo.decision.allowed, undo.recorded) == (True, False)
    assert "not recorded" in undo.decision.message
    with pytest.raises(GateError, match="could not be recorded"):
        place.end(Outcome.SUCCESS)


def test_a_lock_that_is_held_refuses_in_time_except_a_revert(place):
    with files.locked(place.directory / "gate.lock", timeout_seconds=1):
        assert place.ask().decision.code == "journal_unwritable"
        assert place.ask(**UNDO).decision.allowed
        with pytest.raises(GateError, match="locked"):
            place.controls.reset(scenario="l4.failover", target="diting", by="a", reason="because")
    assert place.ask().decision.allowed


def test_an_edited_journal_refuses_until_it_is_set_aside(place):
    place.fail(3)
    path = place.files.journal.path
    text = path.read_text()
    path.write_text(text.replace('"outcome":"failed"', '"outcome":"failef"'))
    assert place.ask(target="other").decision.code == "journal_unwritable"
    with pytest.raises(GateError, match="does not hold"):
        place.controls.rebuild_state(by="alice", reason="try")
    result = place.controls.new_journal(by="alice", reason="it was edited")
    assert (place.directory / result["set_aside"]).read_text() != text
    assert place.controls.verify_journal().ok
    assert place.ask(target="other").decision.allowed
    assert place.ask().decision.code == "breaker_open"  # what was learnt is not lost with the old file


def test_a_whole_journal_is_not_set_aside(place):
    place.ask()
    with pytest.raises(GateError, match="whole"):
        place.controls.new_journal(by="alice", reason="just because")


def test_a_crash_between_journal_and_state_loses_nothing(place, monkeypatch):
    place.fail(2)
    place.ask()

    def crash(_memory):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(place.files, "save", crash)
        with pytest.raises(GateError):
            place.end(Outcome.FAILED)
    place.again()
    assert place.ask().decision.code == "breaker_open"


def test_a_lost_state_follows_from_the_journal(place):
    place.fail(3)
    place.files.state_file.unlink()
    place.again()
    assert place.ask().decision.code == "breaker_open"


def test_the_state_can_be_rebuilt_from_the_journal(place):
    place.fail(3)
    place.ask(target="running")
    before = place.files.memory()
    place.files.state_file.write_text("{}")
    assert isinstance(place.files.memory(), Unreadable)
    place.controls.rebuild_state(by="alice", reason="state.json was damaged")
    after = place.files.memory()
    assert isinstance(before, Memory)
    assert isinstance(after, Memory)
    assert (after.runs, after.breakers) == (before.runs, before.breakers)


def test_two_gates_never_see_the_same_count(place):
    """The lock covers look, decision and record: of five at once, the breaker lets three begin."""
    import threading

    barrier, allowed = threading.Barrier(5), []
    patient = GateFiles(place.directory, place.policy_file, now=lambda: place.now, lock_timeout_seconds=30)

    def ask(number: int) -> None:
        barrier.wait()
        allowed.append(Gate(patient).request(request_of(incident_id=f"t-{number}")).decision.allowed)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(allowed) == [False, False, True, True, True]
