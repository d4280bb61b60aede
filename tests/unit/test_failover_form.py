# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Time and form of the failover guard's decision."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pytest

from diting.core.failover import decide
from diting.core.failover_state import FailoverPolicy, FailoverState
from diting.core.failover_table import Phase
from diting.core.failover_view import (
    Observation,
    earliest_moment,
    latest_moment,
)
from support.failover_fixtures import guard, world  # noqa: F401 - fixtures are used by their names
from support.failover_world import POLICY, Guard, World, clear, play, replace, settle, until

CORE = Path(__file__).parents[2] / "src/diting/core"


def test_decisions_do_not_depend_on_the_epoch_of_the_clock():
    """No wall clock comes in, and the monotonic one may start anywhere."""
    runs = []
    for start in (10.0, 1000.0, 5_000_000.0):
        guard = Guard()
        world = settle(guard, World(now=start, renewed_at=start - 5))
        play(guard, world.dies(), 2)
        runs.append([(round(at - start, 3), action.name) for at, action in guard.done])
    assert runs[0] == runs[1] == runs[2]


def test_the_decision_reads_no_clock_and_rolls_no_dice():
    for path in sorted(CORE.glob("failover*.py")):
        imported = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            )
        }
        assert not imported & {"time", "datetime", "random", "os", "socket"}, path


def test_an_age_becomes_the_moment_at_its_careful_end():
    """Asked at 99.5, answered at 100: "two seconds ago" lies between 97.5 and 98."""
    assert latest_moment(100.0, 2.0) == 98.0
    assert earliest_moment(99.5, 2.0) == 97.5
    assert latest_moment(100.0, -3600.0) == 100.0  # a clock stepped back


def test_an_action_that_was_overtaken_by_time_is_not_begun(guard, world):
    play(guard, world.dies(), 1.2)
    for at, action in guard.done:
        if action.name not in ("raise_alert", "resolve_alert"):
            assert action.args["not_after"] == at + POLICY.begin_seconds
            assert action.args["deadline_seconds"] > 0


def test_all_three_forms_survive_json(guard, world):
    world = play(guard, world.dies(), 0.9)
    seen = world.see()
    assert Observation.from_dict(json.loads(json.dumps(seen.as_dict()))) == seen
    assert FailoverState.from_dict(json.loads(json.dumps(guard.state.as_dict()))) == guard.state
    assert FailoverPolicy.from_dict(json.loads(json.dumps(POLICY.as_dict()))) == POLICY
    again = decide(
        FailoverState.from_dict(guard.state.as_dict()),
        Observation.from_dict(seen.as_dict()),
        world.now,
        POLICY,
    )
    assert again == decide(guard.state, seen, world.now, POLICY)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"phase": "asleep"}, "phase: found 'asleep', wanted one of"),
        ({"since": "now"}, "since: found 'now', wanted float"),
        ({"fences": 3}, "fences: found 3"),
        ({"lease": {"asked_at": 1.0}}, "lease.answered_at: missing"),
        ({"colour": 1}, "colour: FailoverState has no such field"),
    ],
    ids=str,
)
def test_a_state_that_cannot_be_read_says_where(broken, words):
    with pytest.raises(ValueError, match=words):
        FailoverState.from_dict({**FailoverState().as_dict(), **broken})


def test_a_policy_names_every_bad_limit_at_once():
    with pytest.raises(ValueError, match=r"confirm_seconds.*hang_seconds.*confirm_probes"):
        FailoverPolicy(confirm_seconds=0, hang_seconds=-1, confirm_probes=0)
    assert FailoverPolicy(return_after_seconds=0).return_after_seconds == 0
    with pytest.raises(ValueError, match="return_after_seconds: want 0 seconds or more, found -1"):
        FailoverPolicy(return_after_seconds=-1)


def test_a_run_that_went_through_json_decides_the_same(guard, world):
    """What replay does: every state, observation and policy from its JSON form, every decision again."""
    states = [guard.state]
    seen = []
    world = world.dies()
    for _tick in range(25):
        seen.append((world.see(), world.now))
        for action in guard.tick(world):
            world = clear(world, action)
            if action.name == "release":
                world = replace(world, holder="pg2", mod_revision=9, etcd_leader="pg3")
        states.append(guard.state)
        world = world.after(0.1)
    assert guard.names()[-3:] == ["unisolate", "power_on", "read_back"]
    for number, (observation, now) in enumerate(seen):
        given = [json.loads(json.dumps(thing.as_dict())) for thing in (states[number], observation, POLICY)]
        state, view, policy = (
            kind.from_dict(data)
            for kind, data in zip((FailoverState, Observation, FailoverPolicy), given, strict=True)
        )
        after, actions = decide(state, view, now, policy)
        assert after == states[number + 1]
        json.dumps([action.as_dict() for action in actions])


def test_the_decision_counts_from_the_end_of_the_look(guard, world):
    """A look that hung until the evidence in it was old; and one that took a while, which is no fault."""
    world = until(guard, world.dies(), "last_look")
    seen = world.see()
    slow = dataclasses.replace(seen, taken_at=world.now + POLICY.last_look_seconds + 0.1)
    state, _actions = decide(guard.state, slow, world.now, POLICY)
    assert state.phase is Phase.STANDING_DOWN
    begun = world.now - 0.5
    state, actions = decide(guard.state, seen, begun, POLICY)
    assert state.phase is Phase.ISOLATING
    assert state.since == seen.taken_at
    assert actions[0].args["not_after"] == seen.taken_at + POLICY.begin_seconds
