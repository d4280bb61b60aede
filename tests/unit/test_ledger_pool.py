# SPDX-License-Identifier: GPL-3.0-or-later
"""How the prober's pool paces its attempts to connect."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from diting.ledger import pool as pools
from diting.ledger.session import ConnectError
from support import virtual_time

SPACING, TIMEOUT = 0.1, 1.0


class Server:
    """What an attempt meets: it is answered after ``answers`` seconds, and ends after ``takes``."""

    def __init__(self, *, answers: float | None, takes: float, gives: bool = False) -> None:
        self.answers, self.takes, self.gives = answers, takes, gives
        self.begun: list[float] = []

    async def open(self, _connection, endpoint, limit, _extra, on_answer):
        loop = asyncio.get_running_loop()
        self.begun.append(round(loop.time() - 1000, 3))
        spent = 0.0
        if self.answers is not None:
            await asyncio.sleep(self.answers)
            spent = self.answers
            on_answer()
        await asyncio.sleep(min(self.takes, limit) - spent)
        if not self.gives or self.takes >= limit:
            raise ConnectError("no session")
        return SimpleNamespace(number=0, on_lost=None, closed=False, close=lambda: None, endpoint=endpoint)


def begun(monkeypatch, server, *, seconds=1.0, wanted=100):
    """When attempts were begun in the first ``seconds``."""
    monkeypatch.setattr(pools, "open_session", server.open)
    config = SimpleNamespace(
        path="x", op_deadline_seconds=1.0, connect_timeout_seconds=TIMEOUT, connect_spacing_seconds=SPACING,
        connect_parallel=20, pool_max=100, connection=SimpleNamespace(endpoints=["a"]),
    )  # fmt: skip
    events = SimpleNamespace(
        session_opened=lambda _s: None, session_closed=lambda *_: None, connect_failed=lambda *_: None
    )

    async def play():
        pool = pools.Pool(config, events, lambda: wanted)
        pool.fill()
        await asyncio.sleep(seconds)
        pool.close()
        return [at for at in server.begun if at < seconds - 0.001]

    return virtual_time.run(play())


def test_nobody_waits_for_a_host_that_says_nothing(monkeypatch):
    times = begun(monkeypatch, Server(answers=None, takes=TIMEOUT))
    assert times == pytest.approx([n * SPACING for n in range(10)])


def test_while_a_server_answers_one_attempt_none_is_begun_beside_it(monkeypatch):
    times = begun(monkeypatch, Server(answers=0.01, takes=0.25, gives=True))
    assert times == pytest.approx([0, 0.25, 0.5, 0.75])


def test_one_that_is_quick_keeps_the_spacing(monkeypatch):
    times = begun(monkeypatch, Server(answers=0.01, takes=0.02))
    assert times == pytest.approx([n * SPACING for n in range(10)])


def test_a_server_that_answers_and_then_hangs_holds_up_for_a_moment_only(monkeypatch):
    times = begun(monkeypatch, Server(answers=0.01, takes=TIMEOUT))
    held = 0.01 + pools.HOLD_SECONDS
    assert times == pytest.approx([0, held, 2 * held, 3 * held])
