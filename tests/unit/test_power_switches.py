# SPDX-License-Identifier: GPL-3.0-or-later
"""Switches and holds of power control: on disk, per host, over in time, and never lost in silence."""

from __future__ import annotations

import pytest

from diting.lab import power_service
from diting.lab.power_api import RequestError, _switches
from diting.lab.power_switches import Hold, HoldStore, Switches, SwitchStore
from diting.lab.records import Clocks

HOLD = Hold("t1", 1000.0, 1120.0, "fenced", "inc-1")


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def store(tmp_path, clock):
    return SwitchStore(tmp_path / "s.json", Clocks(lambda: clock[0], lambda: clock[0], "boot-1"))


def again(tmp_path, clock):
    return SwitchStore(tmp_path / "s.json", Clocks(lambda: clock[0], lambda: clock[0], "boot-1"))


def test_a_host_without_switches_is_treated_well(store):
    assert store.of("pg1") == Switches()
    assert store.of("pg1").public() == {
        "lie": False,
        "hang_seconds": 0.0,
        "unknown": False,
        "latency_seconds": None,
        "until": None,
    }


def test_switches_are_one_hosts_and_survive_a_restart(store, tmp_path, clock):
    store.set("pg1", Switches(lie=True, latency_seconds=8.0), None)
    assert store.of("pg2") == Switches()
    assert again(tmp_path, clock).of("pg1") == Switches(lie=True, latency_seconds=8.0)


def test_switches_end_when_their_time_is_over_also_across_a_restart(store, tmp_path, clock):
    store.set("pg1", Switches(unknown=True), 60)
    clock[0] = 1059.9
    assert again(tmp_path, clock).of("pg1").unknown
    clock[0] = 1060.0
    assert store.of("pg1") == again(tmp_path, clock).of("pg1") == Switches()


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_step_of_the_wall_clock_neither_ends_switches_nor_prolongs_them(tmp_path, step):
    wall, mono = [1_000_000.0], [500.0]
    store = SwitchStore(tmp_path / "s.json", Clocks(lambda: wall[0], lambda: mono[0], "boot-1"))
    store.set("pg1", Switches(unknown=True), 60)
    wall[0] += step
    assert store.of("pg1").unknown
    mono[0] += 60
    assert not store.of("pg1").unknown


def test_a_lie_stands_until_it_is_taken_back_or_the_switches_are_set_anew(store, tmp_path, clock):
    store.set("pg1", Switches(lie=True), None)
    store.claim_off("pg1", claim=True)
    assert again(tmp_path, clock).of("pg1").claims_off
    store.claim_off("pg1", claim=False)
    assert not store.of("pg1").claims_off
    store.claim_off("pg1", claim=True)
    store.set("pg1", Switches(lie=True), None)
    assert not store.of("pg1").claims_off


def test_a_lie_that_was_told_ends_with_its_time(store, clock):
    store.set("pg1", Switches(lie=True), 60)
    store.claim_off("pg1", claim=True)
    clock[0] = 1061.0
    assert not store.of("pg1").claims_off


def test_one_host_or_all_are_put_back(store):
    for host in ("pg1", "pg2"):
        store.set(host, Switches(unknown=True), None)
    store.clear("pg1")
    assert (store.of("pg1").unknown, store.of("pg2").unknown) == (False, True)
    store.clear()
    assert not store.of("pg2").unknown


def test_a_hold_survives_a_restart_and_ends_once(tmp_path):
    HoldStore(tmp_path / "h.json").put("pg1", HOLD)
    found = HoldStore(tmp_path / "h.json")
    assert (found.of("pg1"), found.of("pg2")) == (HOLD, None)
    assert found.end("pg1") == HOLD
    assert found.end("pg1") is None
    assert HoldStore(tmp_path / "h.json").of("pg1") is None


@pytest.mark.parametrize("text", ["", "[]", "{}rubbish", '{"pg1": {"more": 2}}', '{"pg1": 1}'])
@pytest.mark.parametrize("kind", [SwitchStore, HoldStore])
def test_what_cannot_be_read_is_not_nothing(tmp_path, text, kind):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="unreadable"):
        kind(tmp_path / "x.json")


def test_what_a_request_does_not_name_is_off():
    assert _switches({}) == (Switches(), None)
    assert _switches({"hang_seconds": 60, "for_seconds": 5}) == (Switches(hang_seconds=60.0), 5.0)
    assert _switches({"latency_seconds": 0})[0].latency_seconds == 0.0


@pytest.mark.parametrize("body", [{"lie": 1}, {"hang_seconds": True}, {"latency_seconds": -1}, {"off": True}])
def test_a_wrong_request_is_refused(body):
    with pytest.raises(RequestError) as caught:
        _switches(body)
    assert caught.value.status == 400


def test_a_daemon_of_other_code_is_replaced():
    """Every file that decides what power control does is in its fingerprint."""
    assert {"power.py", "power_api.py", "power_switches.py"} <= set(power_service.SOURCES)
