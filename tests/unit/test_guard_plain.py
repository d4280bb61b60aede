# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guard saw survives the way into a journal and back."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diting.core.plain import Plain, PlainError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Leaf(Plain):
    colour: Colour
    age: float | None = None


@dataclass(frozen=True)
class Tree(Plain):
    name: str
    leaves: tuple[Leaf, ...] = ()
    pair: tuple[int, str] = (0, "")
    by_name: Mapping[str, Leaf] = field(default_factory=dict)
    alive: bool = True


LEAVES = st.builds(
    Leaf, st.sampled_from(Colour), st.none() | st.floats(allow_nan=False, allow_infinity=False)
)
TREES = st.builds(
    Tree,
    st.text(),
    st.lists(LEAVES).map(tuple),
    st.tuples(st.integers(), st.text()),
    st.dictionaries(st.text(), LEAVES),
    st.booleans(),
)


@given(TREES)
def test_there_and_back_is_the_same(tree):
    assert Tree.from_dict(json.loads(json.dumps(tree.as_dict()))) == tree


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "name: missing"),
        ({"name": 1}, "name: found 1, wanted str"),
        ({"name": "x", "alive": 1}, "alive: found 1, wanted bool"),
        ({"name": "x", "pair": [True, ""]}, "pair[0]: found True, wanted int"),
        ({"name": "x", "pair": [1]}, "pair: found [1]"),
        (
            {"name": "x", "leaves": [{"colour": "red"}, {"colour": "green"}]},
            "leaves[1].colour: found 'green', wanted one of 'red', 'blue'",
        ),
        (
            {"name": "x", "by_name": {"k": {"colour": "red", "age": "old"}}},
            "by_name.k.age: found 'old', wanted float",
        ),
        ({"name": "x", "nmae": "y"}, "nmae: Tree has no such field"),
        ({"name": "x", "leaves": ["red"]}, "leaves[0]: found 'red', wanted an object"),
    ],
)
def test_what_does_not_fit_is_named_with_its_path(data, words):
    with pytest.raises(PlainError) as caught:
        Tree.from_dict(data)
    assert str(caught.value).startswith(words)


def test_what_a_newer_release_saved_can_be_dropped():
    data = {"name": "x", "leaves": [{"colour": "red", "shape": "oval"}], "height": 3}
    assert Tree.from_dict(data, ignore_unknown=True) == Tree("x", (Leaf(Colour.RED),))
