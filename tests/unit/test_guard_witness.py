# SPDX-License-Identifier: GPL-3.0-or-later
"""What a witness cuts off, and what it never does."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time

import pytest

from diting.core.witness_guard import (
    MACHINE,
    Event,
    Observation,
    Phase,
    Policy,
    State,
    Wish,
    decide,
    refusal,
)
from diting.guards.routes import NetlinkRoutes, _attribute, _attributes
from diting.guards.runtime.ports import Ports
from diting.guards.witness import WitnessConfig, WitnessGuard

POLICY = Policy(("10.0.0.1", "10.0.0.3"), max_hold_seconds=100.0, stuck_seconds=5.0)
CALM = State(Phase.WATCHING)


def wish(number=1, address="10.0.0.1", hold=60.0, before=1002.0):
    return Wish(number, address, hold, before)


def see(order=None, routes=(), **more):
    return Observation("run", order, routes, **more)


def step(state, seen, now=1000.0):
    new, actions = decide(state, seen, now, POLICY)
    return new, [action.name for action in actions]


def test_an_order_is_carried_out_once_and_ends_by_itself():
    state, actions = step(CALM, see(wish()))
    assert (state.phase, actions, state.until) == (Phase.ISOLATING, ["isolate"], 1060.0)
    assert step(state, see(wish(), ("10.0.0.1",)), 1059.0) == (state, [])
    state, actions = step(state, see(wish(), ("10.0.0.1",)), 1060.1)
    assert (state.phase, actions) == (Phase.WATCHING, ["unisolate"])
    assert step(state, see(wish(), ()), 1061.0)[1] == []


def test_it_is_taken_back_on_order():
    state, _actions = step(CALM, see(wish()))
    state, actions = step(state, see(wish(2, hold=None), ("10.0.0.1",)))
    assert (state.phase, actions) == (Phase.WATCHING, ["unisolate"])


@pytest.mark.parametrize(
    ("order", "paused"),
    [
        (wish(address="10.0.0.41"), False),  # a client
        (wish(address="10.0.0.31"), False),  # the control host
        (wish(address="0.0.0.0/0"), False),
        (wish(address=""), False),
        (wish(hold=0.0), False),
        (wish(hold=-1.0), False),
        (wish(hold=101.0), False),
        (wish(before=999.0), False),
        (wish(), True),
    ],
)
def test_nothing_else_is_ever_cut_off(order, paused):
    assert refusal(order, POLICY, 1000.0, paused=paused)
    state, actions = step(CALM, see(order, paused=paused))
    assert (state.phase, actions) == (Phase.WATCHING, ["refuse"]), "and whoever ordered it is told at once"
    assert step(state, see(order))[1] == [], "a refused order is not taken up later"


def test_a_stuck_witness_refuses_and_says_so():
    state, actions = step(State(Phase.STUCK), see(wish(), ("10.0.0.1",)))
    assert (state.phase, actions) == (Phase.STUCK, ["refuse"])
    assert step(state, see(wish(), ("10.0.0.1",)))[1] == ["unisolate"]


def ordered(paused=False, failing=False, end=None):
    """Order an isolation of a witness whose cycle runs beside it; status, words and seconds until the answer."""

    async def nothing(address):
        return ""

    class Table:
        def add(self, address):
            if failing:
                raise OSError(1, "not permitted")

        def remove(self, address):
            pass

        def listed(self):
            return ()

    async def run():
        settings = config()
        guard = WitnessGuard(settings, Ports(), Table(), end or nothing)
        state, policy = CALM, guard.policy(settings)
        order = asyncio.create_task(guard.order("isolate", {"address": "10.0.0.1", "hold_seconds": 5}))
        began = time.monotonic()
        while not order.done():
            await asyncio.sleep(0.01)
            now = time.monotonic()
            seen = dataclasses.replace(await guard.observe(now), paused=paused)
            state, actions = decide(state, seen, now, policy)
            for action in actions:
                with contextlib.suppress(OSError):
                    await guard.act(action, now)
        return *order.result(), time.monotonic() - began

    return asyncio.run(asyncio.wait_for(run(), 10))


def test_a_paused_witness_says_at_once_that_it_does_not():
    """The control host waits for nobody who will not act: its own deadline would be over."""
    status, answer, seconds = ordered(paused=True)
    assert (status, answer["error"]) == (403, "the witness is paused")
    assert seconds < 1


def test_connections_to_what_is_cut_off_are_ended_and_the_order_waits_for_none_of_it():
    ended = []

    async def end(address):
        ended.append(address)
        await asyncio.sleep(60)

    status, _answer, seconds = ordered(end=end)
    assert (status, ended, seconds < 1) == (200, ["10.0.0.1"], True)
    ordered(end=end, failing=True)
    ordered(end=end, paused=True)
    assert ended == ["10.0.0.1"], "only of what is cut off"


def test_asking_anew_ends_the_connections_to_etcd_and_sets_no_route():
    ended = []

    async def end(*what):
        ended.append(what)
        return ""

    async def run():
        guard = WitnessGuard(config(), Ports(), None, end)
        assert await guard.order("ask_anew", {}) == (200, {})
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert ended == [(None, 2379)]


def test_what_was_carried_out_and_what_failed_is_told_apart():
    assert ordered()[:2] == (200, {"routes": []})
    status, answer, _seconds = ordered(failing=True)
    assert (status, "not permitted" in answer["error"]) == (503, True)


def test_a_last_look_is_begun_once_however_often_it_is_asked_for():
    """The control host asks every 30 ms; a look that began anew each time would never end."""
    looks = []

    async def run():
        guard = WitnessGuard(config(), Ports(), None)

        async def look():
            looks.append("anew")

        guard._probes.look_anew = look
        guard._local.look_soon = lambda: looks.append("local")
        for number in ("a", "a", "a", "b", "b"):
            await guard.view({"target": "pg1", "hurry": "0.2", "anew": number})
        await guard.view({"target": "pg1", "hurry": "0.2"})
        await guard.close()

    asyncio.run(run())
    assert looks == ["local", *["anew", "local"] * 2]


def test_taking_back_is_never_refused():
    assert not refusal(wish(address="10.0.0.41", hold=None, before=0.0), POLICY, 1000.0, paused=True)


def test_a_route_that_nobody_ordered_goes():
    assert step(CALM, see(routes=("10.0.0.1",)))[1] == ["unisolate"]
    assert step(State(), see(routes=("10.0.0.1",)))[1] == ["unisolate"]


@pytest.mark.parametrize("routes", [("10.0.0.1",), None])
def test_a_route_that_will_not_go_is_said(routes):
    state = State(Phase.WATCHING, 1, "10.0.0.1", 1000.0)
    state, actions = step(state, see(wish(), routes), 1005.1)
    assert (state.phase, actions) == (Phase.STUCK, ["raise_alert"])
    state, actions = step(state, see(wish(), ("10.0.0.1",)), 1006.0)
    assert (state.phase, actions) == (Phase.STUCK, ["unisolate"])
    state, actions = step(state, see(wish(), ()), 1007.0)
    assert (state.phase, actions) == (Phase.WATCHING, ["resolve_alert"])


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("phase", Phase)
def test_every_pair_has_a_line(phase, event):
    assert MACHINE.table[phase, event].comment


def test_isolation_is_only_ever_begun_by_an_order():
    lines = [event for (_phase, event), line in MACHINE.table.items() if "isolate" in line.actions]
    assert set(lines) == {Event.ORDERED}


def config(**changes):
    data = {
        "member": "pg2",
        "members": {"pg1": "10.0.0.1", "pg2": "10.0.0.2", "pg3": "10.0.0.3"},
        "listen": {"address": "10.0.0.2"},
        "clients": ["ops1"],
        **changes,
    }
    return WitnessConfig.model_validate(data)


def test_the_closed_list_is_the_other_members():
    settings = config()
    assert WitnessGuard(settings, Ports()).policy(settings).members == ("10.0.0.1", "10.0.0.3")


@pytest.mark.parametrize("changes", [{"member": "pg9"}, {"members": {"pg2": "10.0.0.2", "pg3": "10.0.0.2"}}])
def test_a_list_that_contradicts_itself_is_refused(changes):
    settings = config(**changes)
    with pytest.raises(ValueError, match="member"):
        WitnessGuard(settings, Ports()).policy(settings)


def test_attributes_of_rtnetlink_go_there_and_back():
    data = _attribute(1, b"\x7f\0\0\x01") + _attribute(15, b"abc")
    assert list(_attributes(data)) == [(1, b"\x7f\0\0\x01"), (15, b"abc")]


def test_a_table_that_nobody_uses_holds_none_of_ours():
    assert NetlinkRoutes(7213).listed() == ()
