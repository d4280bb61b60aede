# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""What the prober calls ok, fail and info, against a real server that misbehaves in real ways."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from support.ledger_fixtures import programs, server  # noqa: F401
from support.ledger_server import Programs, Server
from support.servers import wait_until

pytestmark = [pytest.mark.process, pytest.mark.alone]

WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' LIMIT 1"
ALL_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(autouse=True)
def settings(server: Server) -> Iterator[None]:
    """What a test set on the server is gone after it."""
    yield
    with server.admin() as conn:
        conn.execute("ALTER SYSTEM RESET ALL")
        conn.execute("SELECT pg_reload_conf()")


def setting(server: Server, text: str) -> None:
    with server.admin() as conn:
        conn.execute(f"ALTER SYSTEM SET {text}")
        conn.execute("SELECT pg_reload_conf()")


def reasons(programs: Programs) -> Counter[str]:
    return Counter(f"{o['outcome']}:{o['reason']}" for o in programs.outcomes().values())


def no_standby(server: Server) -> None:
    """Commits now wait for a standby that does not exist."""
    setting(server, "synchronous_standby_names = 'nobody'")


def end_a_synchronous_wait(server: Server, programs: Programs, function: str) -> None:
    """A whole run in which one commit waits for a standby until ``function`` of the server ends the wait."""
    process = programs.probe(op_deadline_seconds=20, interval_seconds=0.1)
    wait_until("rows arrive", lambda: programs.acked() > 3)
    no_standby(server)
    pid = wait_until("a commit waits", lambda: server.value(WAITING))
    server.value(f"SELECT {function}({pid})")
    # What ends it is a signal: without this the setting might be there first, and end it well.
    still = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'SyncRep'"
    wait_until("that wait is over", lambda: server.value(still) == 0)
    setting(server, "synchronous_standby_names = ''")
    programs.finish(process)


def test_a_cancelled_synchronous_wait_is_not_an_acknowledgement(server, programs):
    # The server reports success for this commit, with a warning and nothing else.
    end_a_synchronous_wait(server, programs, "pg_cancel_backend")
    cancelled = [o for o in programs.outcomes().values() if o["reason"] == "sync_wait_cancelled"]
    assert len(cancelled) == 1
    assert cancelled[0]["outcome"] == "info"
    assert cancelled[0]["seq"] in programs.found()


def test_a_session_terminated_in_the_synchronous_wait_leaves_the_commit_unknown(server, programs):
    end_a_synchronous_wait(server, programs, "pg_terminate_backend")
    unknown = [o for o in programs.outcomes().values() if o["outcome"] == "info"]
    assert [o["reason"] for o in unknown] == ["sync_wait_cancelled"]
    assert unknown[0]["seq"] in programs.found()


def test_a_commit_that_waits_past_the_deadline_is_unknown_and_no_cancel_is_sent(server, programs):
    process = programs.probe(interval_seconds=0.1, op_deadline_seconds=0.5)
    wait_until("rows arrive", lambda: programs.acked() > 3)
    no_standby(server)
    wait_until("sessions pile up", lambda: reasons(programs)["info:deadline"] >= 3)
    # A cancel request would end these waits; their sessions are closed on our side only.
    assert server.value(ALL_WAITING) >= 3
    programs.finish(process)
    late = [o for o in programs.outcomes().values() if o["reason"] == "deadline"]
    assert all(o["outcome"] == "info" for o in late)
    intents = {r["seq"]: r["due_ns"] for r in programs.records() if r["k"] == "i"}
    assert all(0.5e9 <= o["end_ns"] - intents[o["seq"]] < 0.8e9 for o in late)
    assert "sync_wait_cancelled" not in {o["reason"] for o in programs.outcomes().values()}


def test_a_refused_write_is_proven_not_applied(server, programs):
    process = programs.probe(interval_seconds=0.05)
    wait_until("rows arrive", lambda: programs.acked() > 3)
    setting(server, "default_transaction_read_only = on")
    wait_until("a write is refused", lambda: reasons(programs)["fail:server_error"])
    wait_until("new sessions are turned away", lambda: reasons(programs)["info:not_sent"])
    setting(server, "default_transaction_read_only = off")
    before = programs.acked()
    wait_until("rows arrive again", lambda: programs.acked() > before + 3)
    programs.finish(process)
    failed = {seq for seq, o in programs.outcomes().items() if o["outcome"] == "fail"}
    assert not failed & programs.found()
    assert all("25006" in programs.outcomes()[seq]["detail"] for seq in failed)
    assert any(r["k"] == "f" and "read-only" in r["reason"] for r in programs.records())


def test_a_frozen_server_costs_every_slot_its_deadline_and_no_slot_is_dropped(server, programs):
    process = programs.probe(interval_seconds=0.02, op_deadline_seconds=0.6, connect_timeout_seconds=0.5)
    wait_until("rows arrive", lambda: programs.acked() > 20)
    server.freeze()
    try:
        frozen_at = time.monotonic_ns()
        time.sleep(3.0)  # the length of the outage, not a wait for something
        thawed_at = time.monotonic_ns()
    finally:
        server.thaw()
    before = programs.acked()
    wait_until("rows arrive again", lambda: programs.acked() > before + 20)
    footer = programs.finish(process)
    intents = {r["seq"]: r["due_ns"] for r in programs.records() if r["k"] == "i"}
    outcomes = programs.outcomes()
    assert sorted(outcomes) == list(range(footer["slots"]))
    # Due while nothing answered, and with more than a second left to be given up in while nothing did.
    dark = [s for s, due in intents.items() if frozen_at < due < thawed_at - 1.7e9]
    assert len(dark) >= 40
    assert {outcomes[s]["outcome"] for s in dark} == {"info"}
    assert all(outcomes[s]["end_ns"] < thawed_at for s in dark)
    assert programs.found() >= {s for s, o in outcomes.items() if o["outcome"] == "ok"}
    # With less than a tenth of the deadline left, sending would only cost a fresh session.
    sent = [o for o in outcomes.values() if o["send_ns"] is not None]
    assert all(o["send_ns"] - intents[o["seq"]] <= 0.54e9 + 1e6 for o in sent)
    unsent = {s for s, o in outcomes.items() if o["reason"] == "not_sent"}
    assert unsent
    assert not unsent & programs.found()


def test_a_killed_server_loses_nothing_that_was_acknowledged(server, programs):
    process = programs.probe()
    wait_until("rows arrive", lambda: programs.acked() > 50)
    server.kill()
    server.start()
    wait_until("the server takes writes", lambda: programs.acked() > 0)
    before = programs.acked()
    wait_until("rows arrive again", lambda: programs.acked() > before + 50)
    programs.finish(process)
    outcomes = programs.outcomes()
    assert any(o["reason"] in ("connection_lost", "not_sent") for o in outcomes.values())
    refused = {s for s, o in outcomes.items() if o["outcome"] == "fail" or o["reason"] == "not_sent"}
    assert programs.found() >= {s for s, o in outcomes.items() if o["outcome"] == "ok"}
    assert not programs.found() & refused


def test_a_silent_host_listed_first_costs_its_whole_timeout_and_no_more(server, programs):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)  # the kernel accepts, nobody answers
        ports = (silent.getsockname()[1], server.port)
        process = programs.probe(ports=ports, connect_timeout_seconds=0.4, pool_min=1)
        wait_until("rows arrive", lambda: programs.acked() > 20)
        programs.finish(process)
    records = programs.records()
    header = records[0]
    first = next(r for r in records if r["k"] == "s")
    assert first["endpoint"] == f"localhost:{server.port}"
    assert 0.4 <= (first["mono_ns"] - header["mono_ns"]) / 1e9 < 1.2
    failure = next(r for r in records if r["k"] == "f")
    assert failure["endpoint"] == f"localhost:{ports[0]}"
    assert "0.4 s" in failure["reason"]


def test_the_server_that_answers_is_named_with_its_timeline(server, programs):
    process = programs.probe()
    wait_until("rows arrive", lambda: programs.acked() > 3)
    programs.finish(process)
    session = next(r for r in programs.records() if r["k"] == "s")
    assert (session["server_addr"], session["timeline"]) == ("127.0.0.1", 1)


def test_a_server_certificate_of_another_authority_is_not_trusted(server, programs, tmp_path):
    other = Server.create()
    try:
        connection = {**programs.connection(), "sslrootcert": str(other.ca)}
        config = programs.config(connection=connection, ready_timeout_seconds=1)
        done = programs.diting("ledger", "run", "--config", config, status=1)
    finally:
        other.destroy()
    assert "certificate verify failed" in done.stderr
