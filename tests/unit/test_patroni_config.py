# SPDX-License-Identifier: GPL-3.0-or-later
"""Drift between inventory and store: the patch is smallest, complete, and leaves alone what is not its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diting.core.patroni_config import apply_patch, drift

CURRENT = {
    "ttl": 30,
    "synchronous_mode": "quorum",
    "pause": True,
    "postgresql": {"use_slots": True, "parameters": {"max_connections": 100, "work_mem": "4MB"}},
}


def test_agreement_gives_no_patch():
    assert drift(CURRENT, {"ttl": 30, "postgresql": {"parameters": {"max_connections": 100}}}) == {}


def test_only_what_differs_is_sent():
    wanted = {"ttl": 20, "postgresql": {"use_slots": True, "parameters": {"max_connections": 400}}}
    assert drift(CURRENT, wanted) == {"ttl": 20, "postgresql": {"parameters": {"max_connections": 400}}}


def test_true_is_not_one():
    assert drift({"failsafe_mode": 1}, {"failsafe_mode": True}) == {"failsafe_mode": True}


def test_none_removes_only_what_is_there():
    assert drift(CURRENT, {"ttl": None, "absent": None}) == {"ttl": None}


def test_unnamed_keys_stay_without_purge():
    assert drift(CURRENT, {"ttl": 30}) == {}


def test_purge_removes_unnamed_keys_but_never_the_pause():
    wanted = {"ttl": 30, "postgresql": {"use_slots": True, "parameters": {"max_connections": 100}}}
    assert drift(CURRENT, wanted, purge=True) == {
        "synchronous_mode": None,
        "postgresql": {"parameters": {"work_mem": None}},
    }


@pytest.mark.parametrize("have", ["text", 1, None])
def test_a_dictionary_replaces_a_scalar(have):
    assert drift({"a": have}, {"a": {"b": 1}}) == {"a": {"b": 1}}


SCALARS = st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(["x", "y"]))
TREES = st.recursive(
    st.dictionaries(st.sampled_from("abc"), SCALARS, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.one_of(SCALARS, inner), max_size=3),
    max_leaves=8,
)


@given(TREES, TREES, st.booleans())
def test_after_the_patch_there_is_no_drift(current, wanted, purge):
    after = apply_patch(current, drift(current, wanted, purge=purge))
    assert drift(after, wanted, purge=purge) == {}
