# SPDX-License-Identifier: GPL-3.0-or-later
"""What an error says about the primary, and what it only says about this host."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time

import pytest

from diting.core.failover_view import Answer
from diting.guards import probe_ways
from diting.guards.probe_book import Target
from diting.guards.probe_config import Account, Identity
from diting.guards.probe_ways import RestWay, TcpWay, answer_of, answer_of_text, conninfo
from diting.ledger.session import ConnectError


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
