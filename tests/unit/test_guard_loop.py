# SPDX-License-Identifier: GPL-3.0-or-later
"""The cycle: nothing happens before it is written, nothing is claimed before it happened."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import threading
import time
from datetime import timedelta

import pytest

from diting.core import guard_replay, journal
from diting.guards.runtime.ports import SystemClock
from diting.guards.runtime.store import MAX_PAUSE_MINUTES, begin_pause
from support import guard_fakes as toy
from support.guard_fakes import World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def replayed(world):
    return guard_replay.replay(world.lines(), toy.MACHINE)


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_decision_and_state_are_on_disk_before_the_first_action(world):
    found = []

    def look(action):
        standing = world.parts.notifier.spool.standing()
        found.append((action.name, world.records()[-1], world.parts.store.load(), standing))

    world.guard.on_act = look
    world.cycles(20, 35)
    assert [item[0] for item in found] == ["cool", "fan"]
    _, last, saved, standing = found[0]
    assert [action["name"] for action in last["actions"]] == ["raise_alert", "cool", "fan"]
    assert saved.state["phase"] == "hot"
    assert [action.name for action in saved.unfinished] == ["raise_alert", "cool", "fan"]
    # The alert holds no deed up: it is among what is unfinished, and if the process dies now the next life raises it.
    assert standing == []


def test_what_is_urgent_waits_for_no_alert(world, monkeypatch):
    """An alert costs an fsync; the deed was decided to be done now."""
    order = []
    spool = world.parts.notifier.spool_action
    monkeypatch.setattr(
        world.parts.notifier, "spool_action", lambda *given: order.append(given[0].name) or spool(*given)
    )
    world.guard.on_act = lambda action: order.append(action.name)
    world.cycles(20, 35)
    assert order[-3:] == ["cool", "fan", "raise_alert"]
    assert [alert.labels["alertname"] for alert in world.parts.notifier.spool.standing()] == ["TooHot"]


def test_what_came_before_is_written_beside_the_probes_and_not_in_their_way(world, monkeypatch):
    """Fifty cycles become JSON when the guard leaves its peace: just when its probes must not stand still."""
    threads = []
    take = world.parts.journal._recorder.take

    def watched(cycle):
        threads.append(threading.current_thread() is threading.main_thread())
        return take(cycle)

    monkeypatch.setattr(world.parts.journal._recorder, "take", watched)
    world.cycles(*[20] * 60, 35)
    assert threads
    assert not any(threads)
    cycles = [record for record in world.records() if record["event"] == "cycle"]
    assert len(cycles) > 40
    assert replayed(world).ok


def test_what_must_survive_is_saved_in_peace_too(world):
    """Killed with -9 in peace, a guard still knows what it says it must."""
    world.guard.keeps = lambda before, after: before is None or after.cooled != before.cooled
    world.cycles(20, 20)
    assert world.parts.store.load() is not None
    world.parts.store.state_file.unlink()
    world.cycles(20, 20, begin=False)
    assert not world.parts.store.state_file.exists(), "and what has not changed is not written again"


@pytest.mark.parametrize(("degrees", "least", "most"), [(20, 0.049, 0.06), (35, 0.019, 0.021)])
def test_a_guard_that_wakes_itself_is_heard_at_once_when_something_is_wrong(world, degrees, least, most):
    """In peace it leaves the host its cores; in trouble each of half a dozen hand-overs would cost a wait."""
    world.runner.interval_seconds = 1.0
    looks = []
    original = world.guard.observe

    async def observe(now):
        looks.append(now)
        world.guard.wake.set()
        return await original(now)

    world.guard.observe = observe
    world.cycles(*[degrees] * 20)
    pauses = [b - a for a, b in itertools.pairwise(looks[3:])]
    assert all(least <= pause <= most for pause in pauses), pauses


@pytest.mark.parametrize("degrees", [20, 35])
def test_the_end_of_an_action_waits_for_no_pause(world, degrees):
    looks = []
    original = world.guard.observe

    async def observe(now):
        looks.append(now)
        asyncio.get_running_loop().call_soon(world.guard.wake_at_once)
        return await original(now)

    world.guard.observe = observe
    world.cycles(*[degrees] * 20)
    assert looks[-1] - looks[3] < 0.05, looks


def test_what_neither_moves_nor_acts_waits_for_the_next_fsync(world, monkeypatch):
    """Fifty cycles a second that look at a silent primary; etcd may share the disk."""
    synced = []
    original = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(world.clock.monotonic()) or original(fd))
    world.cycles(*[35] * 3)
    before = len(synced)
    world.cycles(*[35] * 20, begin=False)
    assert len(synced) - before < 20
    cycles = [r for r in world.records() if r["event"] == "cycle"]
    assert len(cycles) >= 20, "written down all the same"


def test_a_stop_is_heeded_without_waiting_for_the_next_cycle():
    """On the real clock: whoever stops the guard wakes it."""

    async def run():
        clock, stop, wake = SystemClock(), asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, wake.set)
        began = time.monotonic()
        await clock.wait(wake, seconds=60)
        await clock.wait(seconds=0.05)
        await clock.wait(stop, wake, seconds=60)
        before = len(asyncio.all_tasks())
        await asyncio.sleep(0)
        return time.monotonic() - began, before

    seconds, tasks = asyncio.run(run())
    assert 0.09 <= seconds < 5
    assert tasks == 1


def test_the_status_is_shown_at_each_change_and_every_few_seconds(world, monkeypatch):
    """Written each second it cost more than the probes."""
    written = []
    show = world.parts.store.write_status
    monkeypatch.setattr(
        world.parts.store, "write_status", lambda found: written.append(found["phase"]) or show(found)
    )
    world.runner.interval_seconds = 1.0
    world.cycles(*[20] * 30, 35)
    assert written[-1] == "hot"
    assert 5 <= written.count("calm") <= 9


def test_what_is_done_is_not_unfinished_any_more(world):
    world.cycles(20, 35)
    assert world.parts.store.load().unfinished == ()
    acted = [record for record in world.records() if record["event"] == "acted"]
    assert [item["outcome"] for item in acted[0]["results"]] == ["ok", "ok"]


def test_without_a_journal_there_is_no_action_and_no_watchdog(world, monkeypatch):
    world.cycles(20, begin=True)
    world.told.clear()
    monkeypatch.setattr("diting.hostio.journal.JournalFile._write", staticmethod(full))
    world.cycles(35, 35, begin=False)
    assert world.guard.did == []
    assert world.runner.state.phase is toy.Phase.CALM
    assert "WATCHDOG=1" not in world.told
    monkeypatch.undo()
    world.cycles(35, begin=False)
    assert world.guard.did == ["cool", "fan"]
    assert replayed(world).ok


def test_without_a_saved_state_there_is_no_action_and_the_replay_still_holds(world, monkeypatch):
    world.cycles(20)
    monkeypatch.setattr(world.parts.store, "save", full)
    world.cycles(35, begin=False)
    assert world.guard.did == []
    monkeypatch.undo()
    world.cycles(36, 20, begin=False)
    assert world.guard.did == ["cool", "fan"]
    assert replayed(world).ok, str(replayed(world).difference)
    why = [record["why"] for record in world.records() if record["event"] == "segment"]
    assert "could not be saved" in why[-1]


def test_a_guard_that_guards_nothing_says_so_even_with_a_full_disk(world, monkeypatch):
    monkeypatch.setattr("diting.hostio.files.write_atomic", full)
    monkeypatch.setattr("diting.hostio.journal.JournalFile._write", staticmethod(full))
    world.cycles(*([20] * 30))
    (alert,) = world.parts.notifier.spool.standing()
    assert alert.labels["alertname"] == "DitingGuardBlind"
    assert alert.annotations["description"] == "journal: [Errno 28] No space left on device"
    monkeypatch.undo()
    world.cycles(20, begin=False)
    assert world.parts.notifier.spool.standing() == []
    assert [record["event"] for record in world.records()] == ["started", "segment", "cycle"]


def test_a_few_failed_cycles_are_no_alert(world):
    world.cycles(*([RuntimeError("no sensor")] * 10), 20)
    assert world.parts.notifier.spool.alerts == {}


def test_a_failed_action_stops_those_behind_it(world):
    def refuse(action):
        raise RuntimeError("the pump is stuck")

    world.guard.on_act = refuse
    world.cycles(35)
    results = next(record for record in world.records() if record["event"] == "acted")["results"]
    assert [(item["action"]["name"], item["outcome"]) for item in results] == [
        ("cool", "failed"),
        ("fan", "skipped"),
    ]
    assert results[0]["error"] == "the pump is stuck"


def test_ready_after_the_first_full_cycle_and_watchdog_only_for_finished_ones(world):
    world.cycles(RuntimeError("no sensor"), 20, RuntimeError("no sensor"), 20)
    assert world.told == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    assert world.runner.cycle == 2


def test_a_look_that_hangs_is_a_failed_cycle(tmp_path):
    world = World(tmp_path, observe_timeout_seconds=0.05)
    began = time.monotonic()
    world.cycles("hang", 20)
    assert time.monotonic() - began < 5
    assert world.told == ["READY=1", "WATCHDOG=1"]
    failed = [json.loads(line) for line in world.log.getvalue().splitlines() if "cycle failed" in line]
    assert [(line["stage"], line["error"]) for line in failed] == [
        ("observe", "no observation within 0.05 s")
    ]


def test_a_bug_in_decide_changes_nothing(world, monkeypatch):
    world.cycles(20)
    broken = __import__("dataclasses").replace(toy.MACHINE, decide=lambda *_: 1 / 0)
    monkeypatch.setattr(world.runner, "machine", broken)
    world.cycles(35, begin=False)
    assert world.guard.did == []
    assert world.runner.last_error.startswith("decide: ")


def test_an_alert_that_the_machine_does_not_have_is_a_bug_in_decide(world, monkeypatch):
    monkeypatch.setattr(world.runner._deeds, "_alerts", {})
    world.cycles(35)
    assert world.guard.did == []
    assert world.runner.last_error == "decide: no alert TooHot in the machine"


def test_an_incident_has_one_id_from_the_first_sign_to_peace(world):
    world.cycles(20, 35, 35, 20, 20, 35)
    ids = [(r["cycle"], r["incident_id"]) for r in world.records() if r["event"] == "cycle"]
    by_cycle = dict(ids)
    assert by_cycle[1] is None
    assert by_cycle[2] == by_cycle[3] == by_cycle[4]
    assert by_cycle[6] not in (None, by_cycle[2])
    cool = next(json.loads(line) for line in world.log.getvalue().splitlines() if '"acted"' in line)
    assert cool["incident_id"] == by_cycle[2]
    record = next(r for r in world.records() if r["event"] == "cycle" and r["cycle"] == 2)
    assert cool["trace_id"] == record["trace_id"]


def test_a_pause_reaches_decide_and_ends_by_itself(world):
    begin_pause(world.parts.store, world.clock, minutes=0.05, by="ann", reason="works on it")
    world.cycles(35, 35, 35, 35, 35)
    assert [r["event"] for r in world.records() if r["event"] in ("paused", "pause_over")] == [
        "paused",
        "pause_over",
    ]
    paused = next(r for r in world.records() if r["event"] == "paused")["pause"]
    assert (paused["by"], paused["reason"]) == ("ann", "works on it")
    # Three seconds, one a cycle: hot and paused, then hot.
    hot = [(r["cycle"], r["observation"]["paused"]) for r in world.records() if r["event"] == "cycle"]
    assert (1, True) in hot
    assert (4, False) in hot
    assert world.guard.did == ["cool", "fan"]
    assert not world.parts.store.pause_file.exists()


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_step_of_the_wall_clock_neither_ends_nor_prolongs_a_pause(world, step):
    begin_pause(world.parts.store, world.clock, minutes=1, by="ann", reason="x")
    world.clock.wall += step
    world.clock.advance(59)
    assert world.parts.pauses.look()[0] is True
    world.clock.advance(2)
    assert world.parts.pauses.look() == (False, "pause_over")


def test_a_pause_of_an_earlier_boot_ends_by_the_wall(world):
    begin_pause(world.parts.store, world.clock, minutes=1, by="ann", reason="x")
    world.clock.boot, world.clock.now = "boot-2", 0.0
    assert world.parts.pauses.look()[0] is True
    world.clock.wall += timedelta(seconds=61)
    assert world.parts.pauses.look()[0] is False


def test_a_pause_that_cannot_be_read_counts_as_one(world):
    world.parts.store.pause_file.write_text("{")
    assert world.parts.pauses.look() == (True, "pause_unreadable")
    assert world.parts.pauses.look() == (True, None)
    world.cycles(35)
    assert world.guard.did == []


@pytest.mark.parametrize("minutes", [0, -1, MAX_PAUSE_MINUTES + 1, float("nan")])
def test_a_pause_has_an_end(world, minutes):
    with pytest.raises(ValueError, match="wanted more than 0"):
        begin_pause(world.parts.store, world.clock, minutes=minutes, by="ann", reason="x")


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_step_of_the_wall_clock_changes_no_decision(tmp_path, step):
    steady, stepped = World(tmp_path / "a"), World(tmp_path / "b")
    seen = [20, 35, 35, 20, 20, 35]
    steady.cycles(*seen)
    stepped.cycles(*seen[:3])
    stepped.clock.wall += step
    stepped.cycles(*seen[3:], begin=False)

    def decisions(world):
        return [(r["cycle"], r["actions"], r["phase"]) for r in world.records() if r["event"] == "cycle"]

    assert decisions(stepped) == decisions(steady)


def test_a_long_journal_moves_on_and_each_file_replays_by_itself(tmp_path):
    world = World(tmp_path, journal_max_bytes=65536, journal_keep_files=2)
    world.cycles(*([20, 35] * 200))
    files = sorted(world.parts.journal.path.parent.glob("journal-*.jsonl"))
    assert len(files) == 2
    for path in [*files, world.parts.journal.path]:
        report = guard_replay.replay(path.read_text().splitlines(), toy.MACHINE)
        assert report.ok, f"{path}: {report.difference}"
    first = json.loads(world.lines()[0])
    last = json.loads(files[-1].read_text().splitlines()[-1])
    assert first["event"] == "continues"
    assert (first["file"], first["last_sha256"]) == (files[-1].name, last["sha256"])


def test_an_edited_journal_is_not_written_to(world):
    world.cycles(20)
    path = world.parts.journal.path
    path.write_text(path.read_text().replace('"degrees":20', '"degrees":21'))
    world.cycles(35, begin=False)
    assert world.guard.did == []
    assert "edited" in world.runner.last_error
    with pytest.raises(journal.JournalError):
        world.parts.journal._file.append("x", {})


def test_status_says_what_is_going_on(world):
    world.cycles(20, 35)
    found = world.parts.store.read_status()
    assert (found["phase"], found["steady"], found["ready"]) == ("hot", False, True)
    assert found["alerts_firing"] == ["TooHot"]
    assert found["observation"]["degrees"] == 35
    assert found["state"]["phase"] == "hot"
