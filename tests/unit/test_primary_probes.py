# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is asked how often, and what a wait of our own does to what is known."""

from __future__ import annotations

import asyncio

import pytest

from diting.core.failover_view import Answer
from diting.guards.primary_probes import FRESH_SECONDS, PrimaryProbes
from diting.guards.probe_book import Target
from diting.guards.probe_config import Pace
from support import virtual_time


class Said:
    """A way that answers what it is told to, after so many seconds; None never answers."""

    def __init__(self, answer, after=0.0):
        self.answer, self.after = answer, after
        self.asked = self.answered = self.cut_off = self.at_once = self.most_at_once = 0
        self.dropped = False

    async def ask(self):
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(60 if self.answer is None else self.after)
            self.answered += 1
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        finally:
            self.at_once -= 1
        return self.answer

    def given_up(self):
        return Answer.TIMEOUT

    def drop(self):
        self.dropped = True


BEGIN = 1000.0
PACE = Pace(
    tcp_interval_seconds=0.02,
    tcp_calm_interval_seconds=0.06,
    tcp_timeout_seconds=0.02,
    uneasy_seconds=0.01,
    slow_interval_seconds=0.4,
    rest_calm_interval_seconds=1.2,
    slow_timeout_seconds=0.3,
    quick_timeout_seconds=0.03,
)


def probed(seconds, stall=None, **answers):
    ways = {way: answers.get(way, Answer.OK) for way in ("tcp", "rest", "sql")}
    ways = {way: said if isinstance(said, Said) else Said(said) for way, said in ways.items()}

    async def run():
        loop = asyncio.get_running_loop()
        probes = PrimaryProbes(lambda _target: ways, PACE, loop, lambda: None)
        probes.aim(Target("pg1", "10.0.0.1"))
        if stall is not None:
            # The whole process stands still: an event loop that is busy, a machine that was paused.
            loop.call_later(stall[0], loop.stand_still, stall[1])
        await asyncio.sleep(seconds)
        found = {way: probes.probe(way) for way in ways}
        probes.aim(Target("pg2", "10.0.0.2"))
        fresh = probes.probe("tcp")
        await probes.close()
        return found, fresh

    found, fresh = virtual_time.run(run())
    assert fresh.last_ok_at is None, "another target begins with empty books"
    assert all(way.dropped for way in ways.values())
    return ways, found


def test_in_peace_only_tcp_is_asked_often():
    ways, found = probed(0.3)
    assert ways["tcp"].asked > 4 * ways["rest"].asked
    assert ways["rest"].asked == ways["sql"].asked
    assert found["sql"].failing_since is None


def test_a_hurry_wakes_whoever_rests():
    ways = {way: Said(Answer.OK) for way in ("tcp", "rest", "sql")}
    counts = []

    async def run():
        probes = PrimaryProbes(lambda _target: ways, PACE, asyncio.get_running_loop(), lambda: None)
        probes.aim(Target("pg1", "10.0.0.1"))
        await asyncio.sleep(0.085)
        counts.append({name: way.asked for name, way in ways.items()})
        probes.hurry(0.1)
        await asyncio.sleep(0.005)
        counts.append({name: way.asked for name, way in ways.items()})
        await asyncio.sleep(0.04)
        counts.append({name: way.asked for name, way in ways.items()})
        await probes.close()

    virtual_time.run(run())
    assert counts[0] == {"tcp": 2, "rest": 1, "sql": 1}
    assert counts[1] == {"tcp": 3, "rest": 2, "sql": 2}, "at once, and not when the rest would have ended"
    assert counts[2] == {"tcp": 5, "rest": 4, "sql": 4}, "and quickly from then on"


def test_rest_of_a_primary_that_is_known_well_is_asked_less_often():
    fresh, _ = probed(FRESH_SECONDS)
    assert fresh["rest"].asked == fresh["sql"].asked, (
        "nobody may accuse a new primary before it has heard it over REST"
    )
    later, _ = probed(FRESH_SECONDS + 6)
    asked = {way: later[way].asked - fresh[way].asked for way in ("rest", "sql")}
    assert (asked["rest"] in (5, 6), asked["sql"]) == (True, 15)


def test_rest_that_fails_is_asked_at_the_pace_of_sql():
    fresh, _ = probed(FRESH_SECONDS, rest=Answer.REFUSED)
    later, _ = probed(FRESH_SECONDS + 6, rest=Answer.REFUSED)
    assert later["rest"].asked - fresh["rest"].asked == 15


def test_a_refusal_hurries_nobody():
    """A planned stop, a server that was killed: the members that take over need the processors."""
    ways, found = probed(0.6, tcp=Answer.REFUSED)
    assert (ways["rest"].asked, ways["sql"].asked) == (2, 2)
    assert 9 <= found["tcp"].failures <= 11


def test_silence_over_tcp_has_everybody_asked_quickly():
    ways, found = probed(0.6, tcp=None, rest=None, sql=None)
    assert ways["sql"].asked == 1, "one question is left to wait, however often it is looked for an answer"
    assert all(probe.failing_since is not None and probe.failures >= 3 for probe in found.values())


def test_a_server_that_hangs_is_not_flooded():
    """TCP is taken by the kernel; each such connection waits in a queue that nobody empties."""
    ways, found = probed(1.5, sql=None)
    assert found["sql"].answer is Answer.TIMEOUT
    assert ways["tcp"].asked < 30


@pytest.mark.parametrize("tcp", [Answer.OK, None])
def test_a_slow_commit_is_waited_for_and_counts(tcp):
    """Slower than any timeout: each answer is life all the same, and nothing is asked or connected beside it."""
    ways, found = probed(2.0, tcp=tcp, sql=Said(Answer.OK, after=0.5))
    sql = ways["sql"]
    assert (sql.most_at_once, sql.answered >= 2, sql.cut_off <= 1) == (1, True, True), vars(sql)
    assert found["sql"].last_ok_at is not None
    assert found["sql"].failures <= 40


def test_while_a_slow_commit_is_waited_for_it_is_silent_for_those_who_judge_silence():
    ways, found = probed(0.9, tcp=None, rest=None, sql=Said(Answer.OK, after=5))
    assert ways["sql"].asked == 1
    assert found["sql"].answer is Answer.TIMEOUT
    assert found["sql"].failures >= 3


def test_an_unanswered_page_is_asked_for_anew_now_and_then():
    """It is asked over a connection that may be lost since; a fresh one would be answered."""
    ways, found = probed(1.5, rest=None)
    assert 3 <= ways["rest"].asked <= 6
    assert ways["rest"].most_at_once == 1
    assert found["rest"].failures >= 3


@pytest.mark.parametrize("way", ["tcp", "rest", "sql"])
def test_what_failed_before_a_standstill_of_our_own_is_forgotten(way):
    """A machine that was paused for ten seconds has seen nothing for ten seconds, and not the primary silent."""
    _ways, found = probed(12.6, stall=(1.2, 11.0), tcp=None, rest=None, sql=None)
    assert found[way].failing_since >= BEGIN + 12.1
    assert 3 <= found[way].failures <= 25


@pytest.mark.parametrize("way", ["tcp", "rest", "sql"])
def test_a_short_wait_of_our_own_starts_no_count_anew(way):
    _ways, found = probed(1.2, stall=(0.6, 0.05), tcp=None, rest=None, sql=None)
    assert found[way].failing_since <= BEGIN + 0.1


def test_a_last_look_begins_at_once_and_drops_what_is_under_way():
    """What was asked before the read-back cannot be the look after it; waiting for its timeout would only cost time."""
    slow = PACE.model_copy(update={"tcp_timeout_seconds": 0.25, "slow_timeout_seconds": 0.8})
    ways = {"tcp": Said(None), "rest": Said(None), "sql": Said(None)}

    async def run():
        loop = asyncio.get_running_loop()
        probes = PrimaryProbes(lambda _target: ways, slow, loop, lambda: None)
        probes.aim(Target("pg1", "10.0.0.1"))
        await asyncio.sleep(3.1)
        before = {way: said.asked for way, said in ways.items()}
        asked_at = loop.time()
        await probes.look_anew()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        begun = {way: said.asked - before[way] for way, said in ways.items()}
        await asyncio.sleep(0.26)
        found = {way: probes.probe(way) for way in ways}
        await probes.close()
        return asked_at, begun, found

    asked_at, begun, found = virtual_time.run(run())
    assert begun == {"tcp": 1, "rest": 1, "sql": 0}, "a commit is left to wait: it is no look"
    for way in ("tcp", "rest"):
        assert found[way].tried_at >= asked_at, way
        assert found[way].failing_since < asked_at - 2, "and what was silent before goes on being so"


@pytest.mark.parametrize("way", ["tcp", "rest", "sql"])
def test_a_way_that_breaks_in_our_own_hands_is_asked_again(way):
    """Whatever it is, it must not leave the guard without this way for ever, and nobody knowing."""

    class Broken(Said):
        async def ask(self):
            self.asked += 1
            if self.asked < 4:
                raise KeyError("a fault of our own")
            return Answer.OK

    ways, found = probed(3.0, **{way: Broken(Answer.OK)})
    assert ways[way].asked > 4
    assert found[way].answer is Answer.OK


def test_a_question_that_could_not_be_asked_leaves_the_book_as_it_was():
    _ways, found = probed(0.2, tcp=Answer.NONE)
    assert (found["tcp"].failing_since, found["tcp"].tried_at) == (None, None)
