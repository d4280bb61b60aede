# SPDX-License-Identifier: GPL-3.0-or-later
"""The lever works whatever else is broken; the window ends by itself; a reset forgets."""

from __future__ import annotations

from datetime import timedelta

import pytest

from diting.hostio import files
from diting.hostio.gate_store import GateError
from support.gate_place import UNDO, Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize("content", ["", "exchange fault\n", "{}", '{"at": 5}'])
def test_a_file_made_by_hand_pulls_the_lever(place, content):
    place.files.lever_file.write_text(content)
    assert place.ask().decision.code == "stopped"
    assert place.ask(**UNDO).decision.allowed


def test_the_lever_is_pulled_whatever_else_is_broken(tmp_path):
    bare = Place(tmp_path)
    bare.directory.rmdir()
    bare.policy_file.unlink()
    assert bare.controls.stop(by="alice", reason="")["changed"]
    assert bare.ask().decision.code == "stopped"


def test_the_lever_waits_for_no_lock_and_no_journal(place):
    place.ask()
    place.files.journal.path.write_text("broken\n")
    with files.locked(place.directory / "gate.lock", timeout_seconds=1):
        result = place.controls.stop(by="alice", reason="hands off")
    assert result["changed"]
    assert "not recorded" in result["notes"][0]
    assert place.ask().decision.code == "stopped"


def test_the_first_to_pull_the_lever_stays_on_record(place):
    place.controls.stop(by="alice", reason="exchange fault")
    again = place.controls.stop(by="bob", reason="me too")
    assert again["changed"] is False
    assert "alice" in again["notes"][0]
    assert place.controls.status()["lever"].endswith("by alice (exchange fault)")


def test_resume_says_who_and_why_and_is_idempotent(place):
    place.controls.stop(by="alice", reason="exchange fault")
    with pytest.raises(GateError, match="reason"):
        place.controls.resume(by="bob", reason=" ")
    assert place.controls.resume(by="bob", reason="exchange is back")["changed"]
    assert place.controls.resume(by="bob", reason="exchange is back")["changed"] is False
    assert place.ask().decision.allowed
    assert place.events == ["stop", "resume", "decision"]


def test_a_window_ends_by_itself(place):
    place.controls.pause(minutes=5, by="bob", reason="kernel update")
    assert place.ask().decision.code == "paused"
    place.now += timedelta(minutes=5)
    assert place.ask().decision.allowed
    assert place.controls.unpause(by="bob", reason="done")["changed"] is False


def test_a_window_can_be_closed_early_also_one_that_cannot_be_read(place):
    place.controls.pause(minutes=5, by="bob", reason="kernel update")
    assert place.controls.unpause(by="bob", reason="done early")["changed"]
    assert place.ask().decision.allowed
    place.files.pause_file.write_text("what?")
    assert place.ask().decision.code == "pause_unreadable"
    assert place.controls.unpause(by="bob", reason="was damaged")["changed"]
    assert place.ask().decision.allowed


@pytest.mark.parametrize("minutes", [0, -1, 1441, float("nan"), float("inf")])
def test_a_window_has_a_length_within_limits(place, minutes):
    with pytest.raises(GateError, match="minutes"):
        place.controls.pause(minutes=minutes, by="bob", reason="kernel update")
    assert place.ask().decision.allowed


def test_predicting_moves_nothing(place):
    assert place.controls.stop(by="a", reason="because", predict=True)["changed"]
    assert place.controls.pause(minutes=5, by="a", reason="because", predict=True)["changed"]
    assert list(place.directory.iterdir()) == []


def test_a_reset_forgets_and_says_when_there_is_nothing_to_forget(place):
    place.fail(3)
    reset = {"scenario": "l4.failover", "target": "diting", "by": "alice", "reason": "fixed the cause"}
    assert place.controls.reset(**reset)["changed"]
    assert place.ask().decision.allowed
    assert place.controls.reset(**reset)["changed"] is False


def test_status_names_what_cannot_be_read(place):
    place.ask()
    place.policy_file.write_text("{}")
    place.files.state_file.write_text("{}")
    place.files.pause_file.write_text("{}")
    status = place.controls.status()
    assert len(status["problems"]) == 3
    assert (status["open_breakers"], status["paused"]) == (None, True)
