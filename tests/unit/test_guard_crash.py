# SPDX-License-Identifier: GPL-3.0-or-later
"""Killed at every single moment at which something reaches the disk, a guard never acts twice and forgets nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diting.core import guard_replay
from support import guard_fakes as toy
from support.guard_fakes import World

LIFE = (20, 35, 36, 20, 20, 35)
"""Calm, hot, calm, and hot when the next life begins: two heats, of which the second goes on."""


class CrashError(BaseException):
    """Not an Exception: nothing may catch it, as nothing catches a kill."""


class Moments:
    """Counts what reaches the disk, and dies before the one that is asked for."""

    def __init__(self, monkeypatch, last):
        self.count, self.last = 0, last
        for owner, name in (
            (os, "fsync"),
            (os, "write"),
            (Path, "replace"),
            (Path, "rename"),
            (Path, "unlink"),
        ):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, original):
        def call(*args, **kw):
            self.count += 1
            if self.count == self.last:
                raise CrashError
            return original(*args, **kw)

        return call


def first_life(directory, monkeypatch, last):
    """Live until the disk is touched for the ``last``-th time; the world, and how often it was."""
    world = World(directory)
    with monkeypatch.context() as patch:
        moments = Moments(patch, last)
        try:
            world.cycles(*LIFE)
        except CrashError:
            world.parts.store.close()
    return world, moments.count


def moments_of_a_life(directory):
    with pytest.MonkeyPatch.context() as patch:
        return first_life(directory, patch, -1)[1]


def test_killed_at_every_moment(tmp_path, monkeypatch):
    total = moments_of_a_life(tmp_path / "whole")
    assert total > 30
    for last in range(1, total + 1):
        directory = tmp_path / str(last)
        first, _ = first_life(directory, monkeypatch, last)
        second = World(directory, first.clock)
        half_done = []
        second.guard.revive = lambda saved, unfinished, half_done=half_done, **_: (
            half_done.extend(action.name for action in unfinished) or saved
        )
        second.cycles(35, 35)
        where = f"killed before moment {last} of {total}"

        # The journal is whole again, and every decision of both lives is the one the rules make.
        report = guard_replay.replay(second.lines(), toy.MACHINE)
        assert report.ok, f"{where}: {report.difference}"

        # What was decided was done, or the next life was told that it may not be.
        did = [*first.guard.did, *second.guard.did]
        decided = second.runner.state.cooled
        assert did.count("cool") <= decided, f"{where}: a deed without a decision"
        assert did.count("cool") + half_done.count("cool") >= decided, f"{where}: a decision nobody knows of"

        # It is hot, so the alert stands on disk, whatever happened before.
        assert second.runner.state.phase is toy.Phase.HOT
        standing = [alert.labels["alertname"] for alert in second.parts.notifier.spool.standing()]
        assert standing == ["TooHot"], where

        third = World(directory, first.clock)
        third.cycles(20)
        assert third.parts.notifier.spool.standing() == [], where
