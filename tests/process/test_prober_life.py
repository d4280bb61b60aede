# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""The prober's schedule, its file and its end, as a real process under real signals."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import signal
import socket
import statistics
import threading
import time
from pathlib import Path

import pytest

from diting.ledger.config import load_prober
from diting.ledger.prober import Prober
from diting.ledger.rundir import read_ledger
from support.ledger_fixtures import programs, server  # noqa: F401
from support.servers import wait_until

pytestmark = [pytest.mark.process, pytest.mark.alone]


def test_two_paths_beside_each_other_take_every_slot_of_a_hundred_a_second(server, programs):
    """At the rate of a drill; how late the slots are is a matter of the machine, and measured in scripts/bench."""
    processes = {path: programs.probe(path, max_duration_seconds=8) for path in ("dsn", "haproxy")}
    for path, process in processes.items():
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        ledger = read_ledger(programs.directory / f"ledger-{path}.jsonl")
        assert ledger.problems == ()
        assert ledger.footer["stop_reason"] == "deadline"
        assert [op.seq for op in ledger.ops] == list(range(len(ledger.ops)))
        assert {b.due_ns - a.due_ns for a, b in itertools.pairwise(ledger.ops)} == {10_000_000}
        # Eight seconds have eight hundred; a slow start costs some of them.
        assert 400 < len(ledger.ops) <= 800
        late = [op for op in ledger.ops if op.dispatch_ns - op.due_ns > ledger.header["late_slot_ns"]]
        assert ledger.footer["late_slots"] == len(late)
        assert {op.seq for op in ledger.ops if op.ok} == programs.found(path)


def test_the_schedule_does_not_drift(server, programs):
    process = programs.probe(interval_seconds=0.01)
    wait_until("rows arrive", lambda: programs.acked() > 100)
    programs.finish(process)
    due = [r["due_ns"] for r in programs.records() if r["k"] == "i"]
    assert {b - a for a, b in itertools.pairwise(due)} == {10_000_000}


def test_sigterm_drains_and_writes_the_footer(server, programs):
    process = programs.probe()
    wait_until("rows arrive", lambda: programs.acked() > 20)
    start = time.monotonic()
    footer = programs.finish(process)
    assert time.monotonic() - start < 3
    assert footer["stop_reason"] == "signal"
    ledger = read_ledger(programs.directory / "ledger-dsn.jsonl")
    assert ledger.problems == ()
    assert len(ledger.ops) == footer["slots"] == footer["ok"] + footer["fail"] + footer["info"]


def test_sigterm_while_nothing_answers_still_ends_in_time(server, programs):
    process = programs.probe(op_deadline_seconds=1.0)
    wait_until("rows arrive", lambda: programs.acked() > 20)
    server.freeze()
    try:
        start = time.monotonic()
        footer = programs.finish(process)
        assert time.monotonic() - start < 4
    finally:
        server.thaw()
    assert footer["info"] > 0


def test_what_reached_the_server_was_on_disk_before_even_after_kill_9(server, programs):
    process = programs.probe(interval_seconds=0.005)
    wait_until("rows arrive", lambda: programs.acked() > 200)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    ledger = read_ledger(programs.directory / "ledger-dsn.jsonl")
    assert ledger.footer is None
    assert programs.found() <= {op.seq for op in ledger.ops}
    unknown = {op.seq for op in ledger.ops if op.reason == "no_outcome"}
    assert unknown


def test_nothing_is_sent_while_the_disk_has_not_confirmed_the_record(server, programs, monkeypatch):
    """In this process, so that the disk can be held."""
    may_flush = threading.Event()
    may_flush.set()
    real = os.fdatasync

    def held(fd: int) -> None:
        may_flush.wait(20)
        real(fd)

    async def scenario() -> None:
        prober = Prober(load_prober(programs.config(interval_seconds=0.02, lookahead_seconds=0.1)))
        running = asyncio.create_task(prober.run(lambda _: None))
        await asyncio.to_thread(wait_until, "rows arrive", lambda: programs.acked() > 10)
        may_flush.clear()
        await asyncio.sleep(0.3)  # what was on disk already may still be sent
        before = await asyncio.to_thread(programs.found)
        await asyncio.sleep(1.5)  # long enough for many slots to fall due
        assert await asyncio.to_thread(programs.found) == before
        may_flush.set()
        await asyncio.to_thread(wait_until, "rows again", lambda: programs.acked() > len(before) + 10)
        prober._stop.set("test")
        footer = await running
        assert footer["late_slots"] > 0
        assert footer["slots"] == footer["ok"] + footer["info"]

    monkeypatch.setattr("diting.ledger.writer.os.fdatasync", held)
    monkeypatch.setattr("diting.ledger.prober.prioritise", lambda: "normal")
    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_disk_that_is_slow_holds_no_send_up(server, programs, monkeypatch):
    """A flush takes a hundred times as long as it should: the records were written so far ahead that nothing waits for it."""
    real = os.fdatasync

    def slow(fd: int) -> None:
        time.sleep(0.15)
        real(fd)

    async def scenario() -> None:
        prober = Prober(load_prober(programs.config(interval_seconds=0.02)))
        running = asyncio.create_task(prober.run(lambda _: None))
        await asyncio.to_thread(wait_until, "rows arrive", lambda: programs.acked() > 100)
        prober._stop.set("test")
        footer = await running
        assert footer["max_sync_ns"] > 150_000_000
        # Half of the sends, and not the slowest: that one is a matter of the machine. Who waits for the disk is late by half a
        # flush at the least, nearly every time.
        delays = [
            op.dispatch_ns - op.due_ns for op in read_ledger(programs.directory / "ledger-dsn.jsonl").ops
        ]
        assert statistics.median(delays) < 50_000_000

    monkeypatch.setattr("diting.ledger.writer.os.fdatasync", slow)
    monkeypatch.setattr("diting.ledger.prober.prioritise", lambda: "normal")
    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_ledger_is_never_continued(server, programs):
    process = programs.probe()
    wait_until("rows arrive", lambda: programs.acked() > 3)
    programs.finish(process)
    before = (programs.directory / "ledger-dsn.jsonl").read_bytes()
    done = programs.diting("ledger", "run", "--config", programs.config(), status=64)
    assert "never continued" in done.stderr
    assert (programs.directory / "ledger-dsn.jsonl").read_bytes() == before


def test_without_a_disk_nothing_more_is_sent(server, programs):
    limit = 40_000

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = programs.start("ledger", "run", "--config", programs.config(), preexec_fn=small_files)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "the ledger cannot be written" in err
    ledger = (programs.directory / "ledger-dsn.jsonl").read_bytes()
    scheduled = {
        line.split(b'"seq":')[1].split(b",")[0] for line in ledger.split(b"\n") if b'"k":"i"' in line
    }
    assert programs.found() <= {int(seq) for seq in scheduled}


def test_no_session_at_the_start_is_an_error_that_says_why(server, programs):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        config = programs.config(ports=(closed.getsockname()[1],), ready_timeout_seconds=0.5)
        done = programs.diting("ledger", "run", "--config", config, status=1)
    assert "found 0 open sessions" in done.stderr
    assert "Connection refused" in done.stderr


def test_systemd_is_told(server, programs, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(20)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        process = programs.start("ledger", "run", "--config", programs.config(), env=environment)
        assert notify.recv(100) == b"READY=1"
        process.terminate()
        assert notify.recv(100) == b"STOPPING=1"
        process.communicate(timeout=20)


def test_the_password_is_in_no_argument_and_no_file_of_the_run(server, programs):
    process = programs.probe()
    wait_until("rows arrive", lambda: programs.acked() > 3)
    assert b"probe-secret" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    programs.finish(process)
    text = (programs.directory / "ledger-dsn.jsonl").read_text(encoding="utf-8")
    assert "probe-secret" not in text
