# SPDX-License-Identifier: GPL-3.0-or-later
"""Everybody looks quickly while the primary is silent, and nobody once its key is released."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from diting.core.failover_view import Answer, Outcome, Probe, Result
from diting.guards.failover import FailoverGuard
from diting.guards.failover_config import FailoverConfig
from diting.guards.runtime.ports import Ports

SILENT = Probe(Answer.TIMEOUT, failing_since=99.7, failures=3, tried_at=99.9)
FULL = Probe(Answer.NO_SPACE, failing_since=99.7, failures=3, tried_at=99.9, last_reply_at=99.9)
REFUSED = Probe(Answer.REFUSED, failing_since=99.7, failures=3, tried_at=99.9, last_reply_at=99.9)
REJECTED = Probe(Answer.REJECTED, failing_since=99.7, failures=3, tried_at=99.9, last_reply_at=99.9)
FINE = Probe(Answer.OK, last_ok_at=99.9, tried_at=99.9)


def hurried(probe, release=None):
    """Whether the witnesses were hurried by news of ``probe`` at the moment 100."""
    guard = FailoverGuard(
        FailoverConfig.model_validate(
            {
                "owner": "ops1",
                "members": {
                    name: {"address": f"10.0.0.{name[-1]}", "witness": f"https://{name}:7444"}
                    for name in ("pg1", "pg2", "pg3")
                },
                "etcd": {"endpoints": ["https://10.0.0.8:2379"]},
                "fencing": {"agent": "power", "options": {}},
            }
        ),
        Ports(clock=SimpleNamespace(monotonic=lambda: 100.0, boot_id=lambda: "b")),
    )
    told = []
    guard._probes = SimpleNamespace(probe=lambda _way: probe)
    guard._clients = {
        "pg2": SimpleNamespace(hurry=lambda _seconds, probes: told.append(probes), prepare=lambda: None)
    }
    guard._hands = SimpleNamespace(results={} if release is None else {"release": release})
    guard._heard()
    assert guard.wake.is_set()
    return bool(told)


def released(at):
    return Result("inc-1", Outcome.DONE, at - 0.1, at)


@pytest.mark.parametrize(
    ("probe", "release", "quick"),
    [
        (FINE, None, False),
        # A server that was killed or is being stopped: Patroni is at work, and needs the processors.
        (REFUSED, None, False),
        (REJECTED, None, False),
        (FULL, None, True),
        (SILENT, None, True),
        (SILENT, released(99.0), False),
        (SILENT, released(60.0), True),
    ],
)
def test_silence_is_looked_at_quickly_until_the_key_is_released(probe, release, quick):
    assert hurried(probe, release) is quick
