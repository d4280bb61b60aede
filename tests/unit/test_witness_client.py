# SPDX-License-Identifier: GPL-3.0-or-later
"""The line to a witness: kept while it is good, never trusted when it is not, open before it is needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest

from diting.guards.runtime.ports import SystemClock
from diting.guards.witness_client import Ahead, Line, WitnessClient, WitnessError


class Peer:
    """A witness, as far as its address goes; without TLS."""

    def __init__(self):
        self.lines = 0
        self.asked = []
        self.hang_up_after = None
        self.mute = False
        self.news = asyncio.Event()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_why):
        self.server.close()

    async def serve(self, reader, writer):
        self.lines += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while not self.mute:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
                await reader.readexactly(length)
                self.asked.append(head.split(" ")[1])
                body = json.dumps({"witness": "pg2", "serial": 1}).encode()
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
                if self.hang_up_after is not None and len(self.asked) >= self.hang_up_after:
                    break
        if not self.mute:
            writer.close()


async def until(what):
    async with asyncio.timeout(5):
        while not what():  # noqa: ASYNC110 - another task says it
            await asyncio.sleep(0.01)


def test_a_line_is_kept():
    async def run():
        async with Peer() as peer:
            line = Line(peer.url, lambda: None, time.monotonic)
            for _time in range(3):
                assert (await line.ask("GET", "/v1/view", None, 2))[0] == 200
            assert peer.lines == 1
            line.drop()

    asyncio.run(run())


def test_a_line_that_the_witness_has_closed_meanwhile_is_opened_anew():
    """It closes idle ones after a minute: the order of the next incident must not be the one that finds out."""

    async def run():
        async with Peer() as peer:
            peer.hang_up_after = 1
            line = Line(peer.url, lambda: None, time.monotonic)
            await line.ask("POST", "/v1/isolate", {}, 2)
            await until(line.is_lost)
            peer.hang_up_after = None
            assert (await line.ask("POST", "/v1/isolate", {}, 2))[0] == 200
            assert peer.lines == 2
            line.drop()

    asyncio.run(run())


def test_an_order_is_sent_once_even_when_its_end_is_not_known():
    async def run():
        async with Peer() as peer:
            line = Line(peer.url, lambda: None, time.monotonic)
            peer.mute = True
            with pytest.raises(WitnessError):
                await line.ask("POST", "/v1/isolate", {}, 0.2)
            assert peer.lines == 1

    asyncio.run(run())


def test_the_line_for_orders_is_open_before_it_is_needed():
    async def run():
        async with Peer() as peer:
            client = WitnessClient("pg2", peer.url, lambda: None, 0.5, SystemClock(), lambda: None)
            client.prepare()
            client.prepare()
            await until(lambda: peer.lines == 1)
            assert (await client.order("isolate", {}, 2))[0] == 200
            assert peer.lines == 1
            client.prepare()
            await asyncio.sleep(0.05)
            assert peer.lines == 1
            client.close()

    asyncio.run(run())


def test_a_last_look_is_asked_for_by_a_name_of_its_own():
    async def run():
        async with Peer() as peer:
            client = WitnessClient("pg2", peer.url, lambda: None, 0.5, SystemClock(), lambda: None)
            task = asyncio.create_task(client.run())
            await until(lambda: len(peer.asked) > 2)
            assert not any("anew" in asked for asked in peer.asked)
            names = set()
            for _look in range(2):
                before = len(peer.asked)
                client.look_anew(2.0)
                await until(lambda before=before: len(peer.asked) > before + 3)
                asked = peer.asked[before + 1 :]
                assert all("anew=" in words and "hurry=" in words for words in asked)
                names |= {words.partition("anew=")[2].partition("&")[0] for words in asked}
            assert len(names) == 2
            task.cancel()
            client.close()

    asyncio.run(run())


def test_a_line_that_cannot_be_opened_in_advance_stops_nothing():
    async def run():
        async with Peer() as peer:
            url = peer.url
        client = WitnessClient("pg2", url, lambda: None, 0.5, SystemClock(), lambda: None)
        client.prepare()
        await asyncio.sleep(0.05)
        with pytest.raises(WitnessError):
            await client.order("isolate", {}, 1)
        client.close()

    asyncio.run(run())


def test_a_line_that_has_been_quiet_is_not_trusted_with_an_order():
    """A host that lost power says goodbye to nobody: its line looks open until something is sent."""

    async def run():
        clock = SystemClock()
        ahead = 0.0
        clock.monotonic = lambda: time.monotonic() + ahead
        async with Peer() as peer:
            client = WitnessClient("pg2", peer.url, lambda: None, 0.5, clock, lambda: None)
            assert (await client.order("isolate", {}, 2))[0] == 200
            assert (await client.order("isolate", {}, 2))[0] == 200
            assert peer.lines == 1
            ahead = 3.0
            assert (await client.order("isolate", {}, 2))[0] == 200
            assert peer.lines == 2
            ahead = 6.0
            client.prepare()
            await until(lambda: peer.lines == 3)
            assert (await client.order("unisolate", {}, 2))[0] == 200
            assert peer.lines == 3
            client.close()

    asyncio.run(run())


def test_a_slow_answer_makes_nothing_in_it_newer():
    """The same old sign of life, told in a quick answer and in a slow one, is of one moment."""
    ahead = Ahead()
    view = {"run": "a", "now": 50.0}
    assert ahead.latest(view, 100.002) == pytest.approx(100.002)
    # Put together 0.1 s later by the witness's clock, and 0.2 s under way.
    assert ahead.latest({**view, "now": 50.1}, 100.302) == pytest.approx(100.102, abs=0.004)
    # Never later than it came, and of another life of the witness, or of one that does not say, nothing is known.
    assert ahead.latest({**view, "now": 50.4}, 100.4) <= 100.4
    assert ahead.latest({"run": "b", "now": 3.0}, 101.0) == 101.0
    assert ahead.latest({"run": "b"}, 102.0) == 102.0


def test_how_far_the_clocks_are_apart_is_forgotten_in_seconds():
    ahead = Ahead()
    ahead.latest({"run": "a", "now": 50.0}, 100.0)
    assert ahead.latest({"run": "a", "now": 55.0}, 105.5) == 105.5
