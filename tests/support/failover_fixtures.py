# SPDX-License-Identifier: GPL-3.0-or-later
"""A failover guard in a settled world, for tests of its decisions."""

from __future__ import annotations

import pytest

from .failover_world import Guard, World, settle

STEPS = ["fence", "alert", "read_back", "last_look", "isolate", "release", "tell_proxies"]
"""What a fence that goes well consists of."""


@pytest.fixture
def guard():
    return Guard()


@pytest.fixture
def world(guard):
    return settle(guard, World())
