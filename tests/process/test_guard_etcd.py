# SPDX-License-Identifier: GPL-3.0-or-later
"""The guards' etcd client against real etcd: keys, leases, compare-and-delete, elections, locks."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import socket
import ssl
import subprocess
import time
from urllib.parse import urlsplit

import pytest
import yaml

from diting.guards.etcd import Etcd, EtcdError, KeyRevision, Release, encode
from diting.guards.etcd_lock import Lock
from support.etcd_cluster import cluster, etcd_program
from support.servers import wait_until
from support.tree import ROOT

pytestmark = pytest.mark.process
PREFIX = "/service/test/"
numbers = itertools.count()


@pytest.fixture(scope="module")
def one():
    yield from cluster(1)


@pytest.fixture(scope="module")
def three():
    yield from cluster(3)


@pytest.fixture
def etcd(one) -> Etcd:
    return one.client()


def put(etcd: Etcd, key: str, value: str, lease: int = 0) -> None:
    body = {"key": encode(key), "value": encode(value), "lease": str(lease)}
    etcd.call("/v3/kv/put", body, 5)


def grant(etcd: Etcd, seconds: int) -> int:
    return int(etcd.call("/v3/lease/grant", {"TTL": str(seconds)}, 5)["ID"])


def read(etcd: Etcd, prefix: str = PREFIX):
    return etcd.read_cluster(prefix, test_key="/diting/test", test_value="x", deadline_seconds=5)


def test_an_empty_cluster_reads_as_empty_and_not_as_unknown(etcd):
    seen = read(etcd, "/service/nobody/")
    assert (seen.leader, seen.sync_leader, seen.sync_members, seen.paused) == (None, None, (), None)
    assert seen.raft_term >= 1
    assert seen.asked_at <= seen.answered_at


def test_patronis_keys_are_read_with_revision_and_lease(etcd):
    lease = grant(etcd, 30)
    put(etcd, PREFIX + "leader", "pg1", lease)
    put(etcd, PREFIX + "sync", json.dumps({"leader": "pg1", "sync_standby": "pg2,pg3", "quorum": 1}))
    put(etcd, PREFIX + "config", json.dumps({"ttl": 30}))
    seen = read(etcd)
    assert (seen.leader.value, seen.leader.lease_id) == ("pg1", lease)
    assert (seen.sync_leader, seen.sync_members, seen.paused) == ("pg1", ("pg2", "pg3"), False)
    put(etcd, PREFIX + "config", json.dumps({"ttl": 30, "pause": True}))
    put(etcd, PREFIX + "sync", json.dumps({"leader": None, "sync_standby": None}))
    again = read(etcd)
    assert (again.paused, again.sync_leader, again.sync_members) == (True, None, ())
    assert again.leader.mod_revision == seen.leader.mod_revision
    put(etcd, PREFIX + "config", "not json")
    assert read(etcd).paused is None


def words_of(name: str, **values: str) -> list[str]:
    """What a task of the drill runs, with what Ansible would have filled in."""
    tasks = yaml.safe_load((ROOT / f"roles/drill/tasks/{name}.yml").read_text())
    task = next(task for task in tasks if "etcdctl " in str(task))
    return [
        re.sub(r"{{ (?:__)?(\w+).*?}}", lambda found: values[found[1]], word)
        for word in task["ansible.builtin.command"]["argv"]
    ]


def test_the_drills_word_to_the_guard_stands_under_a_lease_is_seen_and_taken_back(one, etcd, tmp_path):
    program = etcd_program().with_name("etcdctl")
    if not program.exists():
        pytest.skip("no etcdctl beside etcd")
    tls = {"CACERT": "ca.crt", "CERT": "host.crt", "KEY": "host.key"}
    lines = [f"ETCDCTL_{name}={one.folder}/{file}" for name, file in tls.items()]
    env = tmp_path / "etcdctl.env"
    env.write_text("\n".join([*lines, f"ETCDCTL_ENDPOINTS={one.clients[0]}", "ETCDCTL_API=3\n"]))
    values = {
        "drill_etcdctl_env": str(env),
        "drill_etcd_hold_seconds": "77",
        "drill_etcd_hold_key": "/diting/failover/x/leave_etcd_leader",
        "drill_id": "d-1",
    }

    def said(name: str) -> str:
        path = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
        words = words_of(name, **values)
        done = subprocess.run(words, env=path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert said("scan_etcd") == ""
    assert said("etcd_leader_hold") == "OK"
    body = {"key": encode(values["drill_etcd_hold_key"])}
    (found,) = etcd.call("/v3/kv/range", body, 5)["kvs"]
    lease = etcd.read_lease(int(found["lease"]), 5)
    assert (lease.granted_seconds, 70 < lease.ttl_seconds <= 77) == (77, True)
    assert said("scan_etcd") == values["drill_etcd_hold_key"]
    assert said("etcd_leader_free") == "1"
    assert said("etcd_leader_free") == "0"


def test_a_leases_ttl_falls_and_rises_when_it_is_renewed(etcd):
    lease = grant(etcd, 5)
    first = etcd.read_lease(lease, 5)
    assert (first.granted_seconds, first.ttl_seconds in (4, 5)) == (5, True)
    later = wait_until("the TTL has fallen", lambda: (r := etcd.read_lease(lease, 5)).ttl_seconds <= 3 and r)
    etcd.call("/v3/lease/keepalive", {"ID": str(lease)}, 5)
    renewed = etcd.read_lease(lease, 5)
    assert renewed.ttl_seconds > later.ttl_seconds
    assert renewed.raft_term == first.raft_term
    etcd.call("/v3/lease/revoke", {"ID": str(lease)}, 5)
    assert etcd.read_lease(lease, 5).ttl_seconds <= 0


def test_release_deletes_only_the_key_that_was_seen(etcd):
    key = f"/service/release{next(numbers)}/leader"
    put(etcd, key, "pg1")
    seen = etcd.read_cluster(
        key.removesuffix("leader"), test_key="/t", test_value="x", deadline_seconds=5
    ).leader
    lock = Lock(etcd, f"/diting/lock{next(numbers)}", "ops1", ttl_seconds=60)
    assert lock.hold(5)
    common = {"deadline_seconds": 5, "mod_revision": seen.mod_revision, "lock": lock.proof}
    assert etcd.release(key, holder="pg2", **common) is Release.CHANGED
    assert (
        etcd.release(key, holder="pg1", **{**common, "mod_revision": seen.mod_revision - 1})
        is Release.CHANGED
    )
    put(etcd, key, "pg1")  # the same holder, alive, has written it anew
    assert etcd.release(key, holder="pg1", **common) is Release.CHANGED
    new = etcd.read_cluster(
        key.removesuffix("leader"), test_key="/t", test_value="x", deadline_seconds=5
    ).leader
    common["mod_revision"] = new.mod_revision
    assert etcd.release(key, holder="pg1", **common) is Release.RELEASED
    assert etcd.release(key, holder="pg1", **common) is Release.GONE


@pytest.mark.parametrize("how", ["given back", "taken anew by the next life", "taken by another guard"])
def test_a_release_fails_once_the_lock_it_names_is_not_that_any_more(etcd, how):
    """What makes a release void that hangs somewhere between here and etcd's log."""
    number = next(numbers)
    key, name = f"/service/void{number}/leader", f"/diting/lock{number}"
    put(etcd, key, "pg1")
    seen = etcd.read_cluster(
        key.removesuffix("leader"), test_key="/t", test_value="x", deadline_seconds=5
    ).leader
    lock = Lock(etcd, name, "ops1", ttl_seconds=60)
    assert lock.proof is None
    assert lock.hold(5)
    common = {"holder": "pg1", "mod_revision": seen.mod_revision, "lock": lock.proof, "deadline_seconds": 5}
    assert lock.hold(5)
    assert lock.proof == common["lock"], "renewing leaves it as it is"
    if how == "taken anew by the next life":
        assert Lock(etcd, name, "ops1", ttl_seconds=60).hold(5)
    else:
        lock.release(5)
        assert lock.proof is None
        assert Lock(etcd, name, "ops2", ttl_seconds=60).hold(5) if how != "given back" else True
    assert etcd.release(key, **common) is Release.CHANGED
    assert etcd.release(key, **{**common, "lock": KeyRevision(name, 1)}) is Release.CHANGED


def test_without_a_client_certificate_nothing_is_answered(one):
    context = ssl.create_default_context(cafile=str(one.folder / "ca.crt"))
    parts = urlsplit(one.clients[0])
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=5, context=context)
    connection.connect()  # TLS 1.3: the server looks at the client's certificate after the handshake

    def ask() -> None:
        connection.request("POST", "/v3/kv/range", "{}")
        connection.getresponse()

    # The refusal is met by whichever of the two comes after it.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask()
    connection.close()


def test_two_guards_one_lock(one):
    key = f"/diting/lock{next(numbers)}"
    first = Lock(one.client(), key, "guard-a", ttl_seconds=2)
    second = Lock(one.client(), key, "guard-b", ttl_seconds=2)
    assert first.hold(5)
    assert not second.hold(5)
    assert second.until is None
    begin = first.until
    assert first.hold(5)
    assert first.until >= begin
    first.release(5)
    assert first.until is None
    assert second.hold(5)


def test_a_guard_that_was_killed_takes_its_own_lock_back(one):
    key = f"/diting/lock{next(numbers)}"
    assert Lock(one.client(), key, "ops1", ttl_seconds=60).hold(5)
    again = Lock(one.client(), key, "ops1", ttl_seconds=60)
    assert again.hold(5)
    assert not Lock(one.client(), key, "ops2", ttl_seconds=60).hold(5)
    assert again.hold(5)


def test_a_lock_that_is_not_renewed_is_lost_here_before_it_is_free_there(one):
    key = f"/diting/lock{next(numbers)}"
    first = Lock(one.client(), key, "guard-a", ttl_seconds=1)
    second = Lock(one.client(), key, "guard-b", ttl_seconds=5)
    assert first.hold(5)

    def taken() -> bool:
        sure = first.until is not None  # asked before the other one tries
        got = second.hold(5)
        assert not (sure and got and first.until is not None), "both were sure"
        return got

    wait_until("the lease has run out", taken, 15)
    assert first.until is None


@pytest.mark.alone
def test_a_silent_endpoint_costs_one_attempt_and_a_dead_one_nothing(one):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = "https://127.0.0.1:1"
        mute = f"https://127.0.0.1:{silent.getsockname()[1]}"
        etcd = Etcd([mute, dead, *one.clients], one.make_transport(), attempt_seconds=0.3)
        begin = time.monotonic()
        read(etcd)
        assert time.monotonic() - begin < 2
        assert etcd.endpoints[0] == one.clients[0]
        lonely = Etcd([mute, dead], one.make_transport(), attempt_seconds=0.2)
        with pytest.raises(EtcdError, match="nothing within 1 s"):
            lonely.read_cluster(PREFIX, test_key="/t", test_value="x", deadline_seconds=1)


def test_an_election_is_waited_out_on_the_others(three):
    etcd = three.client()
    put(etcd, PREFIX + "leader", "pg1")
    before = read(etcd)
    names = {member.id: member.name for member in etcd.members(5)}
    leader = int(names[etcd.leader_id(5)].removeprefix("e"))
    three.kill(leader)
    try:
        after = read(etcd)
        assert after.raft_term > before.raft_term
        lock = Lock(etcd, f"/diting/lock{next(numbers)}", "ops1", ttl_seconds=60)
        assert lock.hold(5)
        revision = before.leader.mod_revision
        found = etcd.release(
            PREFIX + "leader", holder="pg1", mod_revision=revision, lock=lock.proof, deadline_seconds=5
        )
        assert found is Release.RELEASED
    finally:
        three.start(leader)
        wait_until("all three answer", lambda: all(_answers(three, url) for url in three.clients))


def _answers(three, url) -> bool:
    try:
        return Etcd([url], three.transport).leader_id(0.5) is not None
    except EtcdError:
        return False


def test_leadership_is_moved_off_a_host(three):
    etcd = three.client()
    members = {member.id: member for member in etcd.members(5)}
    now = etcd.leader_id(5)
    other = next(member for member in members.values() if member.id != now)
    assert other.name in etcd.move_leader(other, 10)
    wait_until("the other one leads", lambda: etcd.leader_id(5) == other.id)
    assert "already" in etcd.move_leader(other, 10)


@pytest.mark.alone
def test_without_quorum_there_is_no_reading_at_all(three):
    etcd = three.client()
    for number in (0, 1):
        three.kill(number)
    try:
        begin = time.monotonic()
        with pytest.raises(EtcdError):
            etcd.read_cluster(PREFIX, test_key="/t", test_value="x", deadline_seconds=1.5)
        assert time.monotonic() - begin < 3
    finally:
        for number in (0, 1):
            three.start(number)
        wait_until("etcd leads again", three.leads)
