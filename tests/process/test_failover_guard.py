# SPDX-License-Identifier: GPL-3.0-or-later
"""The guards ``failover`` and ``witness`` as processes, against real PostgreSQL, etcd and power control on loopback.

pg1 leads, pg2 and pg3 are its standbys; the test is Patroni: it writes the leader key and elects.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from diting.guards.etcd import encode
from diting.hostio.gate_controls import Controls
from diting.hostio.gate_store import GateFiles
from support.etcd_cluster import etcd_program
from support.failover_place import ADDRESSES, OWN, Place
from support.guard_process import environment
from support.own_network import own_network, routes
from support.servers import require_postgres, wait_until

pytestmark = [pytest.mark.process, pytest.mark.alone]
RTO_SECONDS = 8.0
"""A loaded machine under test is slow; what the guard takes on one that is not stands in the drills' reports."""


@pytest.fixture(scope="module")
def built():
    etcd_program()
    require_postgres()
    with own_network(), tempfile.TemporaryDirectory(prefix="dfo-", dir="/tmp") as name:
        place = Place(Path(name))
        try:
            place.serve_proxy()
            yield place
        finally:
            place.close()


@pytest.fixture
def place(built):
    built.calm()
    yield built
    for daemon in built.daemons:
        replay(daemon)


def replay(daemon):
    """What is on record follows from what was seen."""
    if daemon.journal.exists():
        argv = [sys.executable, "-m", "diting.cli.main", "guard", "replay", str(daemon.journal)]
        done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def watching(place, *, environment=None, **changes):
    guard = place.guard(**changes)
    guard.environment = environment or {}
    guard.start()
    guard.reaches("watching")
    # Only those who have seen the primary alive may accuse it.
    try:
        wait_until("everybody sees pg1 alive", lambda: sum(map(sees_alive, vantages(guard))) == 3, 15)
    except AssertionError as error:
        raise AssertionError(json.dumps(guard.status(), indent=1)) from error
    return guard


def vantages(guard):
    return (guard.status().get("observation") or {}).get("vantages", [])


def sees_alive(vantage):
    return all(vantage[way]["answer"] == "ok" for way in ("tcp", "rest", "sql"))


def fenced(place):
    return (place.hosts / "pg1").read_text() == "off"


def names(guard):
    return [action["name"] for action in guard.actions()]


def test_a_dead_primary_is_fenced_read_back_and_released(place):
    guard = watching(place)
    began = time.monotonic()
    place.cut()
    wait_until("the leader key is released", lambda: place.leader() is None, RTO_SECONDS)
    took = time.monotonic() - began
    assert fenced(place)
    assert routes() == [ADDRESSES["pg1"]]
    wanted = ["fence", "read_back", "last_look", "isolate", "release", "tell_proxies"]
    wait_until("the proxies are told", lambda: "tell_proxies" in names(guard))
    found = names(guard)
    assert [name for name, _again in itertools.groupby(found) if name in wanted] == wanted
    wait_until("the proxy was told", lambda: len(place.told) == 4)
    assert place.told[:2] == [
        "set server postgresql_write/pg1 health down",
        "shutdown sessions server postgresql_write/pg1",
    ]
    place.lead("pg2")
    guard.reaches("watching")
    assert routes() == []
    assert not fenced(place), "the host comes back once another member leads"
    print(f"released after {took:.2f} s")


def test_a_fence_that_lies_while_tcp_answers_releases_nothing(place):
    guard = watching(place)
    # The whole of PostgreSQL hangs; its host takes connections on, and goes on doing so after it was "switched off".
    place.signal_primary(signal.SIGSTOP)
    guard.reaches("standing_down", seconds=30)
    assert fenced(place)
    assert place.leader() == "pg1"
    assert "release" not in names(guard)
    assert "isolate" not in names(guard)
    assert any("a sign of life" in alert["annotations"]["description"] for alert in raised(guard))


def raised(guard):
    actions = [action for record in guard.records() for action in record.get("actions", ())]
    return [action["args"] for action in actions if action["name"] == "raise_alert"]


def test_power_control_that_says_unknown_releases_nothing(place):
    guard = watching(place, limits={"read_back_seconds": 1.5})
    (place.hosts / "refuse").touch()
    try:
        place.cut()
        guard.reaches("standing_down")
    finally:
        (place.hosts / "refuse").unlink()
    assert place.leader() == "pg1"
    assert names(guard).count("fence") == 1


def test_power_control_that_is_gone_releases_nothing(place):
    guard = watching(place)
    place.stop_power()
    place.cut()
    guard.reaches("standing_down")
    assert place.leader() == "pg1"


def test_without_a_live_replica_nobody_is_accused(place):
    guard = watching(place, limits={"suspect_limit_seconds": 1.5})
    for witness in place.witnesses.values():
        witness.kill()
    place.cut()
    guard.reaches("standing_down")
    assert place.leader() == "pg1"
    assert names(guard) == []


@pytest.mark.parametrize("why", ["lever", "maintenance", "not armed", "gate is gone", "patroni is paused"])
def test_hands_off_means_hands_off(place, why):
    guard = watching(place, armed=why != "not armed")
    files = GateFiles(place.gate)
    if why == "lever":
        (place.gate / "STOP").touch()
    elif why == "maintenance":
        Controls(files).pause(minutes=5, by="test", reason="kernel update")
    elif why == "gate is gone":
        place.gate.rename(place.gate.with_name("gone"))
    elif why == "patroni is paused":
        place.put("config", json.dumps({"ttl": 30, "pause": True}))
    try:
        wait_until("it was read", lambda: is_read(guard, why))
        place.cut()
        guard.reaches("alert_only")
    finally:
        guard.kill()  # allowed again, it would go on
        if why == "gate is gone":
            place.gate.with_name("gone").rename(place.gate)
    assert place.leader() == "pg1"
    assert not fenced(place)
    assert names(guard) == []


def is_read(guard, why):
    seen = guard.status().get("observation") or {}
    gate = seen.get("gate", {})
    return {
        "lever": gate.get("lever") is True,
        "maintenance": gate.get("maintenance") is True,
        "not armed": seen.get("armed") is False,
        "gate is gone": gate.get("planned_work", 0) is None,
        "patroni is paused": seen.get("etcd", {}).get("paused") is True,
    }[why]


@pytest.mark.parametrize(
    "phase", ["suspect", "fencing", "reading_back", "last_look", "isolating", "releasing"]
)
def test_killed_in_any_phase_it_does_nothing_twice(place, phase):
    guard = watching(place, limits={"read_back_seconds": 5.0})
    place.cut()
    try:
        wait_until(f"{phase} is on record", lambda: phase in guard.phases(), RTO_SECONDS)
    except AssertionError as error:
        raise AssertionError(json.dumps([guard.phases(), raised(guard)], indent=1)) from error
    guard.kill()
    guard.start()
    wait_until("it has come to an end", lambda: ended(place, guard), 30)
    found = names(guard)
    assert found.count("fence") <= 1
    assert found.count("release") <= 1
    if place.leader() is None:
        assert fenced(place)


@pytest.mark.parametrize("phase", ["telling", "cooling", "returning", "rejoining"])
def test_killed_after_the_release_it_comes_to_rest_and_does_nothing_twice(place, phase):
    # Whether the routes are gone is not asked again after a restart: their time is waited for.
    guard = watching(place, limits={"isolate_hold_seconds": 2.0})
    place.cut()
    wait_until("the leader key is released", lambda: place.leader() is None, RTO_SECONDS)
    if phase in ("returning", "rejoining"):
        place.lead("pg2")
    wait_until(f"{phase} is on record", lambda: phase in guard.phases(), RTO_SECONDS)
    guard.kill()
    guard.start()
    if place.leader() is None:
        place.lead("pg2")
    wait_until("it watches again", lambda: lives(guard) > 1 and guard.phases()[-1] == "watching", 30)
    found = names(guard)
    assert {name: found.count(name) for name in ("fence", "isolate", "release")} == {
        "fence": 1,
        "isolate": 1,
        "release": 1,
    }
    assert found.count("tell_proxies") <= 1
    orders = [
        record
        for record in guard.records()
        if any(action["name"] == "power_on" for action in record.get("actions", ()))
    ]
    # An order that may have been lost with the killed process is given again, but never to a host that reads back "on".
    # Nothing was read back before one that was decided on, and killed before it was saved and given.
    read = [record["observation"]["read_back"] for record in orders[1:]]
    assert "on" not in [found["power"] for found in read if found]
    assert not fenced(place) or "DitingFailoverHostNotBack" in [alert["alert"] for alert in raised(guard)]


def lives(guard):
    return len([record for record in guard.records() if record["event"] == "started"])


def ended(place, guard):
    phases = guard.phases()
    return lives(guard) > 1 and phases[-1] in ("standing_down", "telling", "cooling", "returning", "watching")


def test_it_reads_that_etcds_leader_is_to_be_left_until_the_lease_of_that_word_ends(place):
    guard = watching(place)

    def told():
        return (guard.status().get("observation") or {}).get("etcd", {}).get("leave_etcd_leader")

    assert told() is False
    lease = int(place.client.call("/v3/lease/grant", {"TTL": "600"}, 5)["ID"])
    body = {"key": encode(OWN + "leave_etcd_leader"), "value": encode("drill"), "lease": str(lease)}
    place.client.call("/v3/kv/put", body, 5)
    wait_until("it knows", lambda: told() is True)
    place.client.call("/v3/lease/revoke", {"ID": str(lease)}, 5)
    wait_until("it knows that this is over", lambda: told() is False)


def test_an_election_of_etcd_forbids_nothing_and_is_waited_for(place):
    """etcd answers nobody for longer than the gate's word may be old; the gate's files are still there to be read."""
    guard = watching(place)
    place.etcd.processes[0].send_signal(signal.SIGSTOP)
    try:
        wait_until("what is known of etcd is too old for a fence", lambda: silence(guard) > 1)
        place.cut()
        guard.reaches("suspect")
        wait_until("etcd has been silent for 3 s", lambda: silence(guard) > 3)
    finally:
        place.etcd.processes[0].send_signal(signal.SIGCONT)
    wait_until("the leader key is released", lambda: place.leader() is None, RTO_SECONDS)
    assert "alert_only" not in guard.phases()
    assert guard.phases().count("suspect") == 1, "silence is confirmed once"


def silence(guard):
    """Age of what the guard knows of etcd, in seconds."""
    seen = guard.status()["observation"]
    return seen["taken_at"] - seen["etcd"]["answered_at"]


@pytest.mark.parametrize("hours", [1, -1])
def test_a_step_of_the_wall_clock_changes_no_decision(place, hours):
    """The clock of the guard's own process steps just before the fault, and back in the middle of the fence."""
    library = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
    if not library.exists():
        pytest.skip(f"libfaketime is not installed (Debian: faketime): {library} is missing")
    clock = place.root / "clock"
    clock.write_text("+2h")
    guard = watching(
        place,
        environment={
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        },
    )
    clock.write_text(f"+{2 + hours}h")
    place.cut()
    wait_until("the fence is ordered", lambda: "fencing" in guard.phases(), RTO_SECONDS)
    clock.write_text("+2h")
    wait_until("the leader key is released", lambda: place.leader() is None, RTO_SECONDS)
    wait_until("the proxies are told", lambda: "tell_proxies" in names(guard))
    place.lead("pg2")
    guard.reaches("watching")
    found = names(guard)
    assert {name: found.count(name) for name in ("fence", "isolate", "release", "power_on")} == dict.fromkeys(
        ("fence", "isolate", "release", "power_on"), 1
    )
    assert "standing_down" not in guard.phases()
    told = [datetime.fromisoformat(record["ts"]) for record in guard.records()]
    steps = [round((after - before) / timedelta(hours=1)) for before, after in itertools.pairwise(told)]
    assert [step for step in steps if step] == [hours, -hours], "the guard's clock did step"


def test_two_guards_fence_once(place):
    first = watching(place)
    second = place.guard("ops2")
    second.start()
    second.reaches("watching")
    place.cut()
    wait_until("the leader key is released", lambda: place.leader() is None, RTO_SECONDS)
    assert names(first).count("fence") == 1
    assert names(second) == []


def test_a_proxy_that_is_gone_stops_nothing(place):
    guard = watching(place, proxies=[{"name": "client1", "socket": str(place.root / "nobody.sock")}])
    place.cut()
    wait_until("the leader key is released", lambda: place.leader() is None, RTO_SECONDS)
    place.lead("pg2")
    wait_until("it comes back", lambda: guard.phases()[-1] == "watching" and not fenced(place))
    assert "DitingFailoverProxyNotTold" in [alert["alert"] for alert in raised(guard)]


def test_a_witness_that_dies_leaves_no_address_cut_off(place):
    watching(place)
    place.cut()
    wait_until("the address is cut off", lambda: routes() == [ADDRESSES["pg1"]], RTO_SECONDS)
    for witness in place.witnesses.values():
        witness.kill()
    assert routes() == [ADDRESSES["pg1"]]
    place.witnesses["pg2"].start()
    wait_until("its next life mends it", lambda: routes() == [])


def test_it_starts_quickly_and_stays_small(place):
    began = time.monotonic()
    guard = watching(place)
    started = time.monotonic() - began
    pid = guard.process.pid
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    assert size <= 60e6 * 1.1, f"{size / 1e6:.1f} MB"
    print(f"{started:.2f} s until it watches with every witness, {size / 1e6:.1f} MB")
