# SPDX-License-Identifier: GPL-3.0-or-later
"""What an error says about the primary, and what it only says about this host; and who is asked how often."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time

import pytest

from diting.core.failover_view import Answer
from diting.guards import probe_ways
from diting.guards.primary_probes import PrimaryProbes
from diting.guards.probe_book import Target
from diting.guards.probe_config import Account, Identity, Pace
from diting.guards.probe_ways import RestWay, TcpWay, answer_of, answer_of_text, conninfo
from diting.ledger.session import ConnectError
from support import virtual_time


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        (errno.ECONNREFUSED, Answer.REFUSED),
        (errno.ECONNRESET, Answer.REFUSED),
        (errno.EHOSTUNREACH, Answer.UNREACHABLE),
        (errno.ENETUNREACH, Answer.UNREACHABLE),
        (errno.ETIMEDOUT, Answer.TIMEOUT),
        (errno.EMFILE, Answer.NONE),
        (errno.ECONNABORTED, Answer.NONE),
        (errno.EPERM, Answer.NONE),
        (errno.ENOENT, Answer.NONE),
    ],
)
def test_an_error_of_our_own_accuses_nobody(number, answer):
    assert answer_of(OSError(number, "x")) is answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            '53100: ERROR: could not write to file "base/pgsql_tmp/x": No space left on device',
            Answer.NO_SPACE,
        ),
        ("25006: ERROR: cannot execute in a read-only transaction", Answer.READ_ONLY),
        ("55000: ERROR: recovery is in progress", Answer.READ_ONLY),
        ("connection failed: Connection refused", Answer.REFUSED),
        ("connection failed: No route to host", Answer.UNREACHABLE),
        ("could not receive data from server: Connection timed out", Answer.TIMEOUT),
        ('FATAL: password authentication failed for user "diting_guard"', Answer.REJECTED),
        ("53300: FATAL: sorry, too many clients already", Answer.REJECTED),
        ('certificate file "/x" could not be read', Answer.NONE),
        ("could not receive data from server: Software caused connection abort", Answer.NONE),
        ('could not open certificate file "/x": Permission denied', Answer.NONE),
        ('could not read root certificate file "/x": no certificate', Answer.NONE),
        ('could not load private key file "/x": key values mismatch', Answer.NONE),
        ('root certificate file "/x" does not exist', Answer.NONE),
        ('certificate present, but not private key file "/x"', Answer.NONE),
        ('private key file "/x" has group or world access', Answer.NONE),
        ('58P01: ERROR:  could not open file "base/1/2": No such file or directory', Answer.REJECTED),
        ('connection failed: FATAL:  could not open file "global/1": x', Answer.REJECTED),
        ("SSL error: certificate verify failed", Answer.REJECTED),
    ],
)
def test_what_the_server_says_is_told_from_what_libpq_says(text, answer):
    assert answer_of_text(text) is answer


@pytest.mark.parametrize("error", [ssl.SSLError(1, "key values mismatch"), FileNotFoundError(2, "x")])
def test_a_certificate_of_our_own_that_cannot_be_used_accuses_nobody(error):
    def broken():
        raise error

    assert asyncio.run(RestWay(Target("pg1", "127.0.0.1"), 1, "/", broken).ask()) is Answer.NONE


def test_a_value_cannot_break_out_of_its_quotes():
    assert conninfo({"user": "a'b\\c", "port": 5432, "passfile": None}) == b"user='a\\'b\\\\c' port='5432'"


FULL = '53100: ERROR:  could not write to file "base/pgsql_tmp/pgsql_tmp1.0": No space left on device'


@pytest.mark.parametrize(
    ("commit", "space", "answer"),
    [
        (None, None, Answer.OK),
        (
            None,
            FULL,
            Answer.NO_TEMP,
        ),  # a file system of its own for temporary files, or the first sign of a full one
        (FULL, None, Answer.NO_SPACE),
        (FULL, FULL, Answer.NO_SPACE),
        (None, "53400: ERROR:  temporary file size exceeds temp_file_limit", Answer.OK),
        (None, "57014: ERROR:  canceling statement due to statement timeout", Answer.OK),
    ],
)
def test_a_commit_that_works_weighs_more_than_a_temporary_file_that_does_not(
    monkeypatch, commit, space, answer
):
    sent = []

    class Conn:
        def send_query(self, text):
            sent.append(text)

        def finish(self):
            pass

    async def connect(_conninfo):
        return Conn()

    async def query(conn, send):
        send(conn)
        trouble = commit if sent[-1] == probe_ways.PROBE_SQL else space
        if trouble:
            raise ConnectError(trouble)
        return [("x", "f", "off")]

    monkeypatch.setattr(probe_ways, "connect", connect)
    monkeypatch.setattr(probe_ways, "query", query)

    async def run():
        way = probe_ways.SqlWay(b"", space_every=2)
        return [await way.ask() for _ in range(3)]

    first, second, _third = asyncio.run(run())
    assert (first, second) == (Answer.NO_SPACE if commit else Answer.OK, answer)
    # What was full is looked at each time until it is not.
    full = answer is Answer.NO_TEMP
    assert sent.count(probe_ways.SPACE_SQL) == (2 if full else 0 if commit else 1)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        (("0/3000028", "f", "off"), Answer.OK),
        (("0/3000028", "f", "on"), Answer.READ_ONLY),
        ((None, "t", "on"), Answer.REJECTED),
    ],
)
def test_a_server_in_recovery_lives_and_gives_no_cause_for_a_fence(monkeypatch, row, answer):
    """A promotion may take longer than a primary that has become read-only is given."""
    sent = []

    class Conn:
        send_query = sent.append

    async def connect(_conninfo):
        return Conn()

    async def query(conn, send):
        send(conn)
        return [row]

    monkeypatch.setattr(probe_ways, "connect", connect)
    monkeypatch.setattr(probe_ways, "query", query)
    assert asyncio.run(probe_ways.SqlWay(b"", space_every=1).ask()) is answer
    assert (probe_ways.SPACE_SQL in sent) is (answer is Answer.OK)


def test_no_setting_of_the_cluster_makes_a_healthy_server_look_broken():
    """A cluster that is read-only by default, or has a disk of its own for temporary files, is as its owner wants it."""
    options = Account().values(Identity())["options"]
    assert "-c default_transaction_read_only=off" in options
    assert options.endswith("-c temp_tablespaces=")


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


@pytest.mark.parametrize("tcp", [None, Answer.REFUSED])
def test_silence_over_tcp_has_everybody_asked_quickly(tcp):
    ways, found = probed(0.6, tcp=tcp, rest=None, sql=None)
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


def test_a_connection_that_stood_when_it_was_given_up_is_an_answer():
    """The loop was busy while the kernel connected: that is no silence of the other end."""

    async def run(listener):
        way = TcpWay(Target("pg1", "127.0.0.1"), listener.getsockname()[1])
        asked = asyncio.create_task(way.ask())
        await asyncio.sleep(0.05)
        assert not asked.done()
        for peer in full:
            peer.close()
        listener.accept()[0].close()
        listener.accept()[0].close()
        time.sleep(1.5)  # noqa: ASYNC251 - the kernel tries again after a second
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        return way.given_up()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        full = [socket.create_connection(listener.getsockname()) for _ in range(2)]
        assert asyncio.run(run(listener)) is Answer.OK


def test_a_connection_that_did_not_stand_when_it_was_given_up_is_none():
    async def run(listener):
        way = TcpWay(Target("pg1", "127.0.0.1"), listener.getsockname()[1])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await way.ask()
        return way.given_up()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        full = [socket.create_connection(listener.getsockname()) for _ in range(2)]
        assert asyncio.run(run(listener)) is Answer.TIMEOUT
        assert full


def test_a_failure_whose_word_is_lost_is_no_answer():
    """The loop had read the kernel's error when the probe was cut off: nothing is left of it, and nothing stands either."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(address) in (0, errno.EINPROGRESS, errno.ECONNREFUSED)
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert probe_ways._settled(sock) is Answer.NONE


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
