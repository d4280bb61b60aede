# SPDX-License-Identifier: GPL-3.0-or-later
"""Any state with any observation, however little sense they make: decide answers, and holds what it can hold alone."""

from __future__ import annotations

import dataclasses
import json
import typing

from hypothesis import given, settings
from hypothesis import strategies as st

from diting.core.failover import decide
from diting.core.failover_machine import signature
from diting.core.failover_state import FailoverPolicy, FailoverState
from diting.core.failover_table import ACTIONS, Phase
from diting.core.failover_view import Observation
from diting.core.plain import hints_of

NUMBERS = st.integers(-3, 40)
MOMENTS = st.floats(0, 100).map(lambda moment: round(moment, 1))
NAMES = st.sampled_from(["pg1", "pg2", "ops1"])
KINDS = {float: MOMENTS, int: NUMBERS, str: NAMES, bool: st.booleans()}


def made_of(hint):
    """Values of a type: like from_type, with moments that lie near each other and names that meet again."""
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        return st.none() | made_of(next(kind for kind in arguments if kind is not type(None)))
    if typing.get_origin(hint) is tuple:
        return st.lists(made_of(arguments[0]), max_size=3).map(tuple)
    if typing.get_origin(hint) is dict:
        return st.just({})
    if dataclasses.is_dataclass(hint):
        return st.builds(hint, **{name: made_of(kind) for name, kind in hints_of(hint).items()})
    return KINDS[hint] if hint in KINDS else st.sampled_from(list(hint))


POLICY = FailoverPolicy()


@settings(max_examples=150, deadline=None)
@given(made_of(FailoverState), made_of(Observation), MOMENTS)
def test_any_state_with_any_observation(state, seen, now):
    after, actions = decide(state, seen, now, POLICY)
    assert isinstance(after, FailoverState)
    names = [action.name for action in actions]
    assert set(names) <= ACTIONS
    if "fence" in names:
        assert seen.armed
        assert not seen.paused
        assert (seen.gate.lever, seen.gate.maintenance, seen.gate.planned_work) == (False, False, False)
        assert seen.etcd.paused is False
    if "release" in names:
        assert state.phase is Phase.ISOLATING
        assert state.run == seen.run
        assert state.off_asked_at is not None
        assert seen.armed
    if "fence" in names or "release" in names:
        assert after.phase in (Phase.FENCING, Phase.RELEASING)
    # What went through a journal decides the same.
    again = decide(
        FailoverState.from_dict(json.loads(json.dumps(state.as_dict()))),
        Observation.from_dict(json.loads(json.dumps(seen.as_dict()))),
        now,
        POLICY,
    )
    assert again == (after, actions)
    json.dumps([after.as_dict(), [action.as_dict() for action in actions], signature(seen)])
