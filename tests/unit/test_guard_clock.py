# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard ``clock``: what it makes of chrony's answers, and when it speaks up."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diting.core import clock_guard as core
from diting.core.clock_guard import Answer, Observation, Phase, Policy, State
from diting.guards.clock import ClockConfig, ClockGuard, parse_tracking
from diting.guards.runtime.ports import CommandResult, Ports

POLICY = Policy(limit_seconds=0.1, confirm_seconds=30, clear_seconds=60)
GOOD = Observation(Answer.SYNCHRONISED, 0.001)
FAR = Observation(Answer.SYNCHRONISED, -0.2)
LOST = Observation(Answer.NOT_SYNCHRONISED, 0.0, "leap status")
BLIND = Observation(Answer.NONE, detail="refused")
PAUSED = Observation(Answer.SYNCHRONISED, 5.0, paused=True)
LINE = "A9FEA97B,169.254.169.123,4,1700000000.0,{offset},0.00002,0.00003,-9.9,-0.001,0.02,0.0004,0.0001,16.2,{leap}"


def live(*steps, state=None):
    """States and actions along (seconds, observation)."""
    state = state or State()
    found = []
    for now, observation in steps:
        state, actions = core.decide(state, observation, now, POLICY)
        found.append((state.phase, [action.name for action in actions]))
    return found


def test_every_pair_of_the_table_is_taken():
    """From every state, every event leads where the table says, with the actions that it names."""
    policies = [POLICY, Policy(0.1, 0, 0)]
    seen = set()
    for phase, policy, since, observation in itertools.product(
        Phase, policies, (None, 0.0), (GOOD, FAR, LOST, BLIND, PAUSED)
    ):
        state = State(phase, since, since)
        event = core.event_of(state, observation, 100.0, policy)
        after, actions = core.decide(state, observation, 100.0, policy)
        line = core.TABLE[phase, event]
        assert after.phase is line.to
        assert tuple(action.name for action in actions) == line.actions
        seen.add((phase, event))
    assert seen == set(itertools.product(Phase, core.Event))


@pytest.mark.parametrize("bad", [FAR, LOST, BLIND])
def test_trouble_must_last_to_be_an_alert_and_be_gone_to_end_one(bad):
    assert live(
        (0, GOOD), (10, bad), (39, bad), (40, bad), (50, bad), (60, GOOD), (119, GOOD), (120, GOOD)
    ) == [
        (Phase.TRUSTED, ["resolve_alert"]),
        (Phase.DOUBTED, []),
        (Phase.DOUBTED, []),
        (Phase.ALERTING, ["raise_alert"]),
        (Phase.ALERTING, []),
        (Phase.ALERTING, []),
        (Phase.ALERTING, []),
        (Phase.TRUSTED, ["resolve_alert"]),
    ]


def test_one_good_answer_between_starts_the_count_anew():
    assert live((0, GOOD), (10, FAR), (39, GOOD), (41, FAR), (70, FAR))[-1] == (Phase.DOUBTED, [])
    assert live((0, FAR), (30, FAR), (40, GOOD), (90, FAR), (95, GOOD), (150, GOOD))[-1] == (
        Phase.ALERTING,
        [],
    )


def test_a_pause_ends_the_alert_and_nothing_is_said_until_it_is_over():
    steps = live((0, FAR), (30, FAR), (31, PAUSED), (500, PAUSED), (501, FAR), (530, FAR), (531, FAR))
    assert steps[1:] == [
        (Phase.ALERTING, ["raise_alert"]),
        (Phase.PAUSED, ["resolve_alert"]),
        (Phase.PAUSED, []),
        (Phase.DOUBTED, []),
        (Phase.DOUBTED, []),
        (Phase.ALERTING, ["raise_alert"]),
    ]


def test_the_alert_says_what_is_wrong():
    _, actions = core.decide(State(Phase.DOUBTED, 0.0), FAR, 30.0, POLICY)
    assert actions[0].args["annotations"]["description"] == "the clock is off by -0.2 s, limit 0.1 s"


def test_peace_does_not_change_the_state():
    """Or every quiet cycle would be worth a line and an fsync."""
    state, _ = core.decide(State(), GOOD, 0.0, POLICY)
    for now in range(1, 500):
        assert core.decide(state, GOOD, float(now), POLICY) == (state, [])


@given(st.lists(st.tuples(st.floats(0, 1e6), st.sampled_from([GOOD, FAR, LOST, BLIND, PAUSED])), max_size=40))
def test_an_alert_stands_exactly_while_the_guard_is_alerting(steps):
    state, standing = State(), False
    for now, observation in sorted(steps, key=lambda step: step[0]):
        state, actions = core.decide(state, observation, now, POLICY)
        for action in actions:
            standing = action.name == "raise_alert"
        assert standing == (state.phase is Phase.ALERTING)
        assert State.from_dict(state.as_dict()) == state


@pytest.mark.parametrize(
    ("result", "answer", "offset"),
    [
        (
            CommandResult(0, LINE.format(offset="0.000012", leap="Normal") + "\n", ""),
            Answer.SYNCHRONISED,
            -0.000012,
        ),
        (CommandResult(0, LINE.format(offset="-0.5", leap="Insert second"), ""), Answer.SYNCHRONISED, 0.5),
        (
            CommandResult(0, LINE.format(offset="0.0", leap="Not synchronised"), ""),
            Answer.NOT_SYNCHRONISED,
            0.0,
        ),
        (CommandResult(0, LINE.format(offset="nan", leap="Normal"), ""), Answer.NONE, None),
        (CommandResult(0, "", ""), Answer.NONE, None),
        (CommandResult(0, "a,b,c", ""), Answer.NONE, None),
        (CommandResult(1, "", "506 Cannot talk to daemon"), Answer.NONE, None),
        (CommandResult(None, "", "no answer within 2 s"), Answer.NONE, None),
    ],
)
def test_answers_of_chrony(result, answer, offset):
    found = parse_tracking(result)
    assert (found.answer, found.offset_seconds) == (answer, offset)
    assert found.detail or answer is Answer.SYNCHRONISED


def test_the_guard_asks_chronyc_and_no_one_else():
    asked = []

    async def run(argv, *, timeout_seconds):
        asked.append((argv, timeout_seconds))
        return CommandResult(0, LINE.format(offset="0.25", leap="Normal"), "")

    guard = ClockGuard(ClockConfig(), Ports(run=run))
    seen = asyncio.run(guard.observe(0.0))
    assert asked == [(["/usr/bin/chronyc", "-c", "tracking"], 2.0)]
    assert guard.measures(seen, State()) == {"offset_seconds": -0.25, "synchronised": 1.0}
    assert guard.measures(BLIND, State()) == {"offset_seconds": None, "synchronised": None}
    assert {measure.name for measure in guard.machine.measures} == set(guard.measures(seen, State()))


def test_an_alert_outlives_a_reboot_and_its_times_do_not():
    guard = ClockGuard(ClockConfig(), Ports())
    before = State(Phase.ALERTING, 5000.0, None, "off")
    assert guard.revive(before, [], same_boot=True, now=1.0) == before
    assert guard.revive(before, [], same_boot=False, now=1.0) == State(Phase.ALERTING, None, None, "off")
