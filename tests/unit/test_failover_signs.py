# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs of life and votes, where the guard's order of steps would hide a broken one."""

from __future__ import annotations

import dataclasses

import pytest

from diting.core.failover_events import event_of
from diting.core.failover_signs import (
    fresh_vantages,
    has_quorum,
    is_confirmed,
    is_fresh,
    signs_of_life,
    symptom,
    unseen,
)
from diting.core.failover_state import Death, FailoverState, Lease
from diting.core.failover_table import Event, Phase
from diting.core.failover_view import (
    Answer,
    EtcdView,
    Observation,
    Outcome,
    Probe,
    Result,
    Vantage,
    VantageKind,
)
from support.failover_world import POLICY, World


def test_two_control_hosts_are_no_quorum():
    control = [Vantage(name, VantageKind.CONTROL) for name in ("ops1", "ops2")]
    replicas = [Vantage(name, VantageKind.REPLICA) for name in ("pg2", "pg3")]
    assert not has_quorum(control)
    assert not has_quorum(replicas[:1])
    assert not has_quorum([replicas[0], replicas[0]])
    assert has_quorum(replicas)
    assert has_quorum([control[0], replicas[0]])


def test_a_moment_in_the_future_is_no_evidence():
    assert is_fresh(9.5, 10.0, 1.0)
    assert not is_fresh(10.5, 10.0, 1.0)
    assert not is_fresh(8.9, 10.0, 1.0)
    assert not is_fresh(None, 10.0, 1.0)


BASE = Lease(asked_at=99.0, answered_at=99.0, lease_id=5, ttl_seconds=20, raft_term=3)
"""Expires between 119 and 120."""


@pytest.mark.parametrize(
    ("at", "ttl", "term", "lease_id", "sign"),
    [
        (101.0, 18, 3, 5, False),  # two seconds later, two seconds less
        (101.0, 17, 3, 5, False),
        (101.0, 29, 3, 5, True),  # renewed at 100 or later
        (101.0, 19, 3, 5, False),  # renewed, if at all, some 10 s ago
        (101.0, 29, 4, 5, False),  # a new etcd leader refreshed it
        (101.0, 29, 3, 6, False),  # another lease; the revision of the key tells
        (101.0, 0, 3, 5, False),
        (102.0, 27, 3, 5, False),  # renewed before 100
    ],
    ids=str,
)
def test_a_lease_that_was_renewed_after_the_read_back(at, ttl, term, lease_id, sign):
    state = FailoverState(off_asked_at=100.1, off_answered_at=100.2, lease=BASE)
    etcd = EtcdView(
        asked_at=at,
        answered_at=at,
        raft_term=term,
        lease_id=lease_id,
        lease_ttl_seconds=ttl,
        lease_granted_seconds=30,
    )
    assert bool(signs_of_life(state, Observation("r", "b", at, etcd=etcd))) is sign


@pytest.mark.parametrize(
    ("at", "ttl", "term", "granted", "proven"),
    [
        (101.0, 18, 3, 20, True),  # the newest renewal came before 100
        (101.0, 19, 3, 20, False),  # before 101: it may be newer than the read-back
        (101.9, 18, 3, 20, False),  # before 100.9
        (101.9, 17, 3, 20, True),
        (
            101.9,
            18,
            4,
            20,
            True,
        ),  # an election made the lease whole: it says nothing, and only a rise since then counts
        (101.0, 18, 3, None, False),
    ],
    ids=str,
)
def test_a_last_look_takes_proof_that_the_lease_was_not_renewed_since(at, ttl, term, granted, proven):
    """Patroni with ttl 20 and loop_wait 1 renews it each second, and etcd tells whole seconds: a rise would go unseen."""
    state = FailoverState(off_asked_at=100.1, off_answered_at=100.2, lease=BASE, raft_term=3)
    etcd = EtcdView(
        asked_at=at,
        answered_at=at,
        raft_term=term,
        lease_id=5,
        lease_ttl_seconds=ttl,
        lease_granted_seconds=granted,
    )
    found = unseen(state, Observation("r", "b", at, etcd=etcd))
    assert found == ([] if proven else ["that the leader key's lease was not renewed since the read-back"])


def test_without_a_known_term_the_proof_is_wanted_all_the_same():
    state = FailoverState(off_asked_at=100.1, off_answered_at=100.2)
    etcd = EtcdView(
        asked_at=101.0,
        answered_at=101.0,
        raft_term=3,
        lease_id=5,
        lease_ttl_seconds=19,
        lease_granted_seconds=20,
    )
    assert unseen(state, Observation("r", "b", 101.0, etcd=etcd))


def test_a_result_that_was_asked_for_before_this_step_is_not_of_this_step():
    world = World()
    for asked, event in ((world.now - 2, Event.NOTHING), (world.now - 0.5, Event.ORDER_DONE)):
        state = FailoverState(
            phase=Phase.FENCING,
            since=world.now - 1,
            run=world.run,
            boot=world.boot,
            target="pg1",
            mod_revision=7,
            incident="pg1-7-1",
        )
        result = Result("pg1-7-1", Outcome.DONE, asked, asked + 0.1)
        seen = dataclasses.replace(world, fence=result).see()
        assert event_of(state, seen, world.now, POLICY).event is event


def test_the_primary_is_no_vantage_point_of_itself_and_its_voice_is_a_sign():
    """A witness runs on every database host, the primary's among them."""
    world = World()
    seen = world.see()
    own = dataclasses.replace(world.vantage("pg2"), name="pg1")
    control = [v for v in seen.vantages if v.kind is VantageKind.CONTROL]
    alone = dataclasses.replace(seen, vantages=(*control, own))
    assert [v.name for v in fresh_vantages(alone, world.now, POLICY)] == ["ops1"]
    after = FailoverState(target="pg1", off_asked_at=world.now - 0.1)
    silent = dataclasses.replace(own, tcp=Probe(), rest=Probe(), sql=Probe(), walreceiver=None)
    heard = signs_of_life(after, dataclasses.replace(seen, vantages=(silent,)))
    assert heard == ["pg1 itself answered"]


def test_a_refusal_after_the_read_back_counts_although_silence_has_followed_it():
    world = dataclasses.replace(World(), alive_until=990.0)
    state = FailoverState(target="pg1", off_asked_at=world.now - 0.5, off_answered_at=world.now - 0.4)
    assert signs_of_life(state, world.see()) == []
    heard = signs_of_life(state, dataclasses.replace(world, replied_at=world.now - 0.3).see())
    assert heard
    assert signs_of_life(state, dataclasses.replace(world, replied_at=world.now - 0.6).see()) == []


def test_a_vantage_point_that_never_writes_can_confirm_silence_but_no_hang():
    world = dataclasses.replace(World(), alive_until=990.0)
    state = FailoverState(target="pg1", saw_alive=("ops1", "pg2", "pg3"))

    def told(**answers):
        now = dataclasses.replace(world, **answers)
        return dataclasses.replace(
            now.see(), vantages=tuple(dataclasses.replace(v, sql=Probe()) for v in now.see().vantages)
        )

    assert symptom(state, told(), world.now, POLICY) is Death.GONE
    assert is_confirmed(Death.GONE, state, told(), world.now, POLICY)
    assert symptom(state, told(tcp=Answer.OK), world.now, POLICY) is None


@pytest.mark.parametrize(
    ("death", "answers"),
    [
        (Death.GONE, {}),
        (Death.HUNG, {"tcp": Answer.OK, "rest": Answer.OK}),
        (Death.FULL, {"tcp": Answer.OK, "rest": Answer.OK, "broken": Answer.NO_SPACE}),
    ],
    ids=str,
)
def test_no_death_is_confirmed_by_a_probe_or_two(death, answers):
    """Long ago is not often: one question that failed before a pause, and none since."""
    world = dataclasses.replace(World(), alive_until=900.0, **answers)
    state = FailoverState(target="pg1", saw_alive=("ops1", "pg2", "pg3"))
    seen = world.see()
    assert symptom(state, seen, world.now, POLICY) is death
    assert is_confirmed(death, state, seen, world.now, POLICY)
    for failures in range(POLICY.confirm_probes):
        few = [
            dataclasses.replace(v, sql=dataclasses.replace(v.sql, failures=failures)) for v in seen.vantages
        ]
        few = dataclasses.replace(seen, vantages=tuple(few))
        assert not is_confirmed(death, state, few, world.now, POLICY)


@pytest.mark.parametrize(
    ("mute", "death"),
    [
        ((), Death.HUNG),
        (("pg3",), Death.HUNG),
        (("ops1",), Death.HUNG),
        (("pg2", "pg3"), None),
        (("ops1", "pg3"), None),
    ],
    ids=str,
)
def test_a_hang_takes_two_whose_writes_have_worked(mute, death):
    world = dataclasses.replace(World(), alive_until=990.0, tcp=Answer.OK, rest=Answer.OK)
    state = FailoverState(target="pg1", saw_alive=("ops1", "pg2", "pg3"))
    seen = world.see()
    vantages = [
        dataclasses.replace(v, sql=dataclasses.replace(v.sql, last_ok_at=None)) if v.name in mute else v
        for v in seen.vantages
    ]
    seen = dataclasses.replace(seen, vantages=tuple(vantages))
    assert symptom(state, seen, world.now, POLICY) is death
    if death is not None:
        assert is_confirmed(death, state, seen, world.now, POLICY)


def test_a_good_answer_counts_although_its_vantage_point_has_fallen_silent_since():
    world = dataclasses.replace(World(), alive_until=990.0, stale=("pg3",))
    state = FailoverState(target="pg1", saw_alive=("ops1", "pg2", "pg3"))
    assert is_confirmed(Death.GONE, state, world.see(), world.now, POLICY)
    heard = dataclasses.replace(world, heard=(("pg3", "rest", world.now - 0.1),))
    assert not is_confirmed(Death.GONE, state, heard.see(), world.now, POLICY)


def test_a_last_look_is_complete_when_every_witness_has_looked_at_everything():
    world = dataclasses.replace(World(), alive_until=990.0)
    seen = world.see()
    state = FailoverState(
        target="pg1",
        witnesses=("ops1", "pg2", "pg3"),
        survivors=("pg2", "pg3"),
        off_asked_at=world.now - 0.3,
        off_answered_at=world.now - 0.2,
    )
    assert unseen(state, seen) == []
    assert unseen(dataclasses.replace(state, off_answered_at=None), seen) == ["no read-back"]
    blind = [dataclasses.replace(v, walreceiver=None) if v.name == "pg3" else v for v in seen.vantages]
    assert unseen(state, dataclasses.replace(seen, vantages=tuple(blind))) == [
        "the walreceiver of pg3 was not seen since the read-back"
    ]
    late = dataclasses.replace(state, off_answered_at=world.now)
    assert len(unseen(late, seen)) == 4
    assert unseen(state, dataclasses.replace(seen, vantages=seen.vantages[:2])) == [
        "pg3 has not looked since the read-back"
    ]
    silent = dataclasses.replace(world, etcd_reads=False).see()
    assert unseen(state, silent) == ["the leader key's lease was not read since the read-back"]
