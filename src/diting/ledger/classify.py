# SPDX-License-Identifier: GPL-3.0-or-later
"""Set arithmetic between what was promised and what is there, and the proof that it works. Pure."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .model import parse_found, ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .model import Op

PLANTED_LOSSES = (1, 3, 17)


@dataclass(frozen=True)
class Sets:
    """Sequence numbers by class; see ``docs/measuring.md`` for the definitions."""

    acked: frozenset[int]
    lost: frozenset[int]
    ghost: frozenset[int]
    duplicate: frozenset[int]
    recovered_info: frozenset[int]
    unexpected: frozenset[int]

    def counts(self) -> dict[str, int]:
        """Number of operations per class."""
        return {name: len(getattr(self, name)) for name in self.__dataclass_fields__}

    def listed(self) -> dict[str, list[list[int]]]:
        """The classes a reader wants to look up, as ranges; acked is only counted."""
        return {name: ranges(getattr(self, name)) for name in self.__dataclass_fields__ if name != "acked"}


def classify(ops: Iterable[Op], found: Mapping[int, int]) -> Sets:
    """Classify the operations of one path against the count of each seq found on the primary."""
    ok, fail, info = set(), set(), set()
    for op in ops:
        if op.ok:
            ok.add(op.seq)
        elif op.outcome == "fail":
            fail.add(op.seq)
        elif op.attempted:
            info.add(op.seq)
    present = {seq for seq, count in found.items() if count > 0}
    return Sets(
        acked=frozenset(ok),
        lost=frozenset(ok - present),
        ghost=frozenset(present & fail),
        duplicate=frozenset(seq for seq, count in found.items() if count > 1),
        recovered_info=frozenset(present & info),
        unexpected=frozenset(present - ok - fail - info),
    )


def self_test(
    ops: Sequence[Op],
    document: dict[str, Any],
    path: str,
    losses: Iterable[int] = PLANTED_LOSSES,
    seed: int = 0,
) -> dict[str, Any]:
    """Plant faults in scratch copies of a found set and see whether exactly those are reported.

    The copies are documents as ``diting ledger read`` writes them, so the reading of them is part of
    the test. ``passed`` is False as well when there was nothing to plant a loss in: a detector that
    was never tried is not a working one.
    """
    original = classify(ops, parse_found(document).counts.get(path, {}))
    present = sorted(original.acked - original.lost)
    chooser = random.Random(seed)  # noqa: S311 - a repeatable choice, not a secret
    runs = []
    for count in losses:
        if count > len(present):
            continue
        planted = set(chooser.sample(present, count))
        sets = _reclassify(ops, document, path, remove=planted)
        runs.append(_run("lost", sorted(planted), original.lost, sets.lost))
    tried = bool(runs)
    if present:
        twice = chooser.choice(present)
        sets = _reclassify(ops, document, path, double=twice)
        runs.append(_run("duplicate", [twice], original.duplicate, sets.duplicate))
    beyond = max((op.seq for op in ops), default=-1) + 1000
    sets = _reclassify(ops, document, path, add=beyond)
    runs.append(_run("unexpected", [beyond], original.unexpected, sets.unexpected))
    refused = sorted(op.seq for op in ops if op.outcome == "fail")
    absent = [seq for seq in refused if seq not in original.ghost]
    if absent:
        sets = _reclassify(ops, document, path, add=absent[0])
        runs.append(_run("ghost", absent[:1], original.ghost, sets.ghost))
    return {"passed": tried and all(run["exact"] for run in runs), "seed": seed, "runs": runs}


def _run(kind: str, planted: list[int], before: frozenset[int], after: frozenset[int]) -> dict[str, Any]:
    return {
        "kind": kind,
        "planted": len(planted),
        "reported": len(after) - len(before),
        "exact": after - before == set(planted) and before <= after,
    }


def _reclassify(
    ops: Sequence[Op],
    document: dict[str, Any],
    path: str,
    remove: Iterable[int] = (),
    add: int | None = None,
    double: int | None = None,
) -> Sets:
    """Change a scratch copy of the document, then classify as always."""
    scratch = copy.deepcopy(document)
    entry = scratch["found"].setdefault(path, {"ranges": [], "duplicates": {}})
    gone = set(remove)
    seqs = {seq for low, high in entry["ranges"] for seq in range(low, high + 1)} - gone
    if add is not None:
        seqs.add(add)
    entry["ranges"] = ranges(seqs)
    entry["duplicates"] = {k: v for k, v in entry["duplicates"].items() if int(k) not in gone}
    if double is not None:
        entry["duplicates"][str(double)] = 2
    return classify(ops, parse_found(scratch).counts[path])
