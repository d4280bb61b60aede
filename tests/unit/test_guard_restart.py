# SPDX-License-Identifier: GPL-3.0-or-later
"""What one life of a guard leaves to the next: its state, its incident, and what may be half done."""

from __future__ import annotations

import pytest

from diting.core import guard_replay
from diting.guards.runtime.store import AlreadyRunningError, StoreError
from support import guard_fakes as toy
from support.guard_fakes import FakeClock, World


def test_a_killed_guard_goes_on_where_it_was_and_acts_once(tmp_path):
    clock = FakeClock()
    first = World(tmp_path, clock)
    first.cycles(20, 35)
    second = World(tmp_path, clock)
    second.cycles(35, 35)
    assert second.runner.state.cooled == 1
    assert second.guard.did == []
    assert second.runner.incident_id == first.runner.incident_id
    assert guard_replay.replay(second.lines(), toy.MACHINE).ok
    third = World(tmp_path, clock)
    third.cycles(20)
    assert third.parts.notifier.spool.standing() == []


def test_an_incident_that_was_over_is_not_taken_up_again(tmp_path):
    first = World(tmp_path)
    first.cycles(35, 20)
    old = next(record["incident_id"] for record in first.records() if record["event"] == "cycle")
    second = World(tmp_path)
    second.cycles(35)
    assert second.runner.incident_id not in (None, old)


def test_killed_between_journal_and_action_the_guard_is_told_what_may_be_half_done(tmp_path):
    first = World(tmp_path)
    first.guard.on_act = lambda _action: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        first.cycles(35)
    first.parts.store.close()
    second = World(tmp_path)
    told = []
    second.guard.revive = lambda saved, unfinished, **kw: told.append((unfinished, kw["same_boot"])) or saved
    second.cycles(35)
    assert [action.name for action in told[0][0]] == ["cool", "fan"]
    assert told[0][1] is True


def test_another_boot_begins_anew_unless_the_guard_knows_better(tmp_path):
    first = World(tmp_path)
    first.cycles(35)
    clock = FakeClock()
    clock.boot, clock.now = "boot-2", 5.0
    second = World(tmp_path, clock)
    second.cycles(20)
    assert second.runner.state == toy.State()
    started = [record for record in second.records() if record["event"] == "started"][-1]
    assert (started["resumed"], started["same_boot"]) == (True, False)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text.replace('"cooled":1', '"cooled":0'), "edited or damaged"),
        (lambda text: text[:40], "state.json"),
        (lambda text: "", "state.json"),
    ],
)
def test_a_damaged_state_is_never_a_fresh_start(tmp_path, spoil, words):
    World(tmp_path).cycles(35)
    again = World(tmp_path)
    again.parts.store.state_file.write_text(spoil(again.parts.store.state_file.read_text()))
    with pytest.raises(StoreError, match=words):
        again.parts.store.load()


def test_a_second_one_is_kept_out(tmp_path):
    _first = World(tmp_path)
    with pytest.raises(AlreadyRunningError):
        World(tmp_path)
