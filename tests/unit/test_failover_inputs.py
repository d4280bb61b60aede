# SPDX-License-Identifier: GPL-3.0-or-later
"""What others said, as moments of this host: which end of the doubt is taken, and what cannot be read forbids."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta

import pytest

from diting.core.breaker import Outcome
from diting.core.failover_view import Answer, GateView, Probe, VantageKind
from diting.core.gate_policy import DEFAULT_POLICY
from diting.guards.failover_inputs import GateReader, ViewError, stops_members, vantage_of
from diting.guards.probe_book import ProbeBook, as_ages
from diting.hostio.gate_controls import Controls
from diting.hostio.gate_store import Gate, GateFiles
from support.gate_place import request_of

SILENT = {
    "answer": "timeout",
    "tried_age": 0.2,
    "last_ok_age": 3.0,
    "failing_age": 2.9,
    "failures": 7,
    "last_reply_age": 2.95,
}
VIEW = {
    "witness": "pg2",
    "run": "r",
    "serial": 4,
    "target": "pg1",
    "probes": {"tcp": SILENT, "rest": SILENT, "sql": SILENT},
    "walreceiver": {"running": False, "read_age": 0.1, "fed_age": 3.0, "lsn": 500},
    "candidate": {"up": True, "has_space": True, "seen_age": 0.1},
}
ASKED, ANSWERED = 100.0, 100.4


def test_what_errs_towards_life_is_late_and_freshness_is_early():
    vantage, candidate = vantage_of("pg2", VIEW, ASKED, ANSWERED, "pg1")
    assert (vantage.kind, vantage.answered_at) == (VantageKind.REPLICA, ASKED)
    assert vantage.tcp == Probe(
        Answer.TIMEOUT,
        ASKED - 0.2,
        pytest.approx(ANSWERED - 3.0),
        pytest.approx(ANSWERED - 2.9),
        7,
        pytest.approx(ANSWERED - 2.95),
    )
    assert vantage.walreceiver.fed_at == pytest.approx(ANSWERED - 3.0)
    assert vantage.walreceiver.read_at == pytest.approx(ASKED - 0.1)
    assert candidate.seen_at == pytest.approx(ASKED - 0.1)
    assert (candidate.up, candidate.has_space) == (True, True)


@pytest.mark.parametrize("target", ["pg3", None])
def test_of_another_target_nothing_is_believed_but_that_the_witness_lives(target):
    vantage, _candidate = vantage_of("pg2", VIEW, ASKED, ANSWERED, target)
    assert (vantage.tcp, vantage.rest, vantage.sql) == (Probe(), Probe(), Probe())
    assert vantage.answered_at == ASKED


def test_an_age_below_zero_means_now():
    view = {**VIEW, "probes": {**VIEW["probes"], "tcp": {**SILENT, "last_ok_age": -3600.0}}}
    vantage, _candidate = vantage_of("pg2", view, ASKED, ANSWERED, "pg1")
    assert vantage.tcp.last_ok_at == ANSWERED


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("witness",), "pg3"),
        (("probes", "tcp", "answer"), "fine"),
        (("probes", "tcp", "tried_age"), "soon"),
        (("probes", "sql", "last_ok_age"), float("nan")),
        (("probes",), None),
        (("walreceiver",), {}),
        (("candidate",), []),
    ],
)
def test_what_cannot_be_understood_was_not_said(path, value):
    view = copy.deepcopy(VIEW)
    place = view
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ViewError):
        vantage_of("pg2", view, ASKED, ANSWERED, "pg1")


def test_only_true_is_up():
    view = {**VIEW, "candidate": {"up": "yes", "has_space": 1, "seen_age": 0.1}}
    _vantage, candidate = vantage_of("pg2", view, ASKED, ANSWERED, "pg1")
    assert (candidate.up, candidate.has_space) == (None, None)


def test_a_book_counts_from_the_first_failed_probe_and_ends_with_a_good_one():
    book = ProbeBook()
    assert book.note(Answer.OK, 1.0, 1.1)
    assert not book.note(Answer.OK, 2.0, 2.1)
    assert book.probe == Probe(Answer.OK, 2.0, 2.1, None, 0)
    book.note(Answer.TIMEOUT, 3.0, 3.5)
    book.note(Answer.UNREACHABLE, 4.0, 4.1)
    assert book.probe == Probe(Answer.UNREACHABLE, 4.0, 2.1, 3.0, 2)
    assert as_ages(book.probe, 5.0) == {
        "answer": "unreachable",
        "tried_age": 1.0,
        "last_ok_age": pytest.approx(2.9),
        "failing_age": 2.0,
        "failures": 2,
        "last_reply_age": None,
    }
    book.note(Answer.WAITING_SYNC, 6.0, 6.2)
    assert (book.probe.failing_since, book.probe.failures, book.probe.last_ok_at) == (None, 0, 6.2)


def test_another_kind_of_failure_is_counted_anew():
    """Silence after a refusal began with the silence; and the refusal is remembered, for it was an answer."""
    book = ProbeBook()
    book.note(Answer.REFUSED, 1.0, 1.1)
    book.note(Answer.REFUSED, 2.0, 2.1)
    assert book.probe == Probe(Answer.REFUSED, 2.0, None, 1.0, 2, 2.1)
    book.note(Answer.TIMEOUT, 3.0, 3.1)
    assert book.probe == Probe(Answer.TIMEOUT, 3.0, None, 3.0, 1, 2.1)
    book.note(Answer.NO_SPACE, 4.0, 4.1)
    book.note(Answer.READ_ONLY, 5.0, 5.1)
    assert book.probe == Probe(Answer.READ_ONLY, 5.0, None, 4.0, 2, 5.1)
    book.note(Answer.OK, 6.0, 6.1)
    assert book.probe == Probe(Answer.OK, 6.0, 6.1, None, 0, 5.1)


class Wall:
    """The two clocks of a host, moved by hand."""

    def __init__(self):
        self.mono, self.utc = 1000.0, datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture
def gate(tmp_path, wall):
    return reader(tmp_path, wall)


def reader(directory, wall, policy=DEFAULT_POLICY):
    file = directory.with_name(f"{directory.name}-policy.json")
    file.write_text(json.dumps(policy))
    made = GateReader(directory, file, "diting", lambda: wall.mono)
    made._files.now = lambda: wall.utc
    return made


def test_the_gate_is_asked_what_it_would_say_to_a_failover(gate, tmp_path, wall):
    assert gate.read(0, 1000.0).refusal == ""
    assert not (tmp_path / "journal.jsonl").exists(), "asking leaves no trace"


RULE = {"scenario": "l4.failover", "why": "w"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rules": [{**RULE, "needs": "person"}]}, "needs 1 approval"),
        ({"rules": [{**RULE, "needs": "approval"}]}, "needs 1 approval"),
        ({"rules": []}, "no rule of the policy knows"),
        ({"blacklist": [{"scenario": "l4.*", "target": "diting", "why": "not this week"}]}, "not this week"),
        ({"blacklist": [{"scenario": "l4.*", "target": "other", "why": "not this week"}]}, ""),
    ],
)
def test_what_the_policy_keeps_for_people_the_guard_keeps_its_hands_off(tmp_path, wall, change, words):
    refusal = reader(tmp_path, wall, {**DEFAULT_POLICY, **change}).read(0, 1000.0).refusal
    assert words in refusal if words else refusal == ""


def test_an_open_breaker_of_the_failover_stops_the_guard_too(gate, tmp_path, wall):
    assert gate.read(0, 1000.0).refusal == ""
    door = Gate(GateFiles(tmp_path, gate._files.policy_file, now=lambda: wall.utc))
    for number in range(3):
        assert door.request(request_of(incident_id=f"i{number}")).decision.allowed
        how = {"scenario": "l4.failover", "target": "diting", "detail": "x", "actor": "test"}
        door.complete(incident_id=f"i{number}", outcome=Outcome.FAILED, **how)
    assert "the breaker of l4.failover on diting is open" in gate.read(0, 1000.0).refusal


@pytest.mark.parametrize("broken", ["policy", "memory", "gone"])
def test_a_gate_that_cannot_be_asked_has_not_said_yes(gate, tmp_path, broken):
    if broken == "policy":
        gate._files.policy_file.write_text("{")
    elif broken == "memory":
        (tmp_path / "state.json").write_text("{")
    else:
        gate._files.policy_file.unlink()
    assert gate.read(0, 1000.0).refusal is None


def test_lever_and_window_are_left_to_rules_that_know_no_wall_clock(gate, tmp_path, wall):
    (tmp_path / "STOP").touch()
    files = GateFiles(tmp_path, now=lambda: wall.utc)
    Controls(files).pause(minutes=10, by="test", reason="kernel update")
    view = gate.read(0, 1000.0)
    assert (view.lever, view.maintenance, view.refusal) == (True, True, "")


def test_the_gate_is_asked_anew_only_when_something_has_changed(gate, tmp_path, wall, monkeypatch):
    asked = []
    judge = Gate.request
    monkeypatch.setattr(Gate, "request", lambda *given, **more: asked.append(1) or judge(*given, **more))
    for _time in range(20):
        gate.read(0, 1000.0)
    assert len(asked) == 1
    (tmp_path / "STOP").touch()
    gate.read(0, 1000.0)
    assert len(asked) == 2
    wall.mono += 61
    gate.read(0, 1000.0)
    assert len(asked) == 3, "a breaker half opens by time alone"


def seen(gate, elsewhere=0, at=1000.0):
    view = gate.read(elsewhere, at)
    return (view.lever, view.maintenance, view.planned_work, view.fences_elsewhere)


def test_a_quiet_gate_is_read_as_real_values(gate):
    assert seen(gate) == (False, False, False, 0)
    assert gate.read(0, 990.0).read_at == 1000.0, "the age is that of the files"


def test_a_gate_that_is_not_there_says_nothing(tmp_path):
    view = GateReader(tmp_path / "none", tmp_path / "policy", "diting").read(0, 1.0)
    assert (view.lever, view.maintenance, view.planned_work) == (None, None, None)


def test_fences_that_could_not_be_counted_are_not_none_at_all(gate):
    assert seen(gate, None)[3] is None
    assert seen(gate, 0, None)[3] is None


@pytest.mark.parametrize(("age", "count"), [(0.0, 1), (9.0, 1), (10.5, None)])
def test_a_count_of_fences_outlives_an_election_of_etcd_and_not_much_more(gate, age, count):
    """Under the lock nobody else fences, so a count of some seconds ago is right; the gate's files are asked anew."""
    view = gate.read(1, 1000.0 - age)
    assert (view.fences_elsewhere, view.read_at) == (count, 1000.0)


def test_the_lever_is_seen_at_once(gate, tmp_path):
    assert seen(gate)[0] is False
    (tmp_path / "STOP").touch()
    assert seen(gate)[0] is True


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_clock_step_neither_opens_nor_closes_a_window(gate, tmp_path, wall, step):
    files = GateFiles(tmp_path, now=lambda: wall.utc)
    Controls(files).pause(minutes=10, by="test", reason="kernel update")
    assert seen(gate)[1] is True
    wall.utc += step
    wall.mono += 599
    assert seen(gate)[1] is True
    wall.mono += 2
    assert seen(gate)[1] is False


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_clock_step_and_a_restart_neither_open_nor_close_a_window(gate, tmp_path, wall, step):
    """The next life sees the same files for the first time, with a clock that has been set meanwhile."""
    files = GateFiles(tmp_path, now=lambda: wall.utc)
    Controls(files).pause(minutes=10, by="test", reason="kernel update")
    first = gate.read(0, 1000.0)
    assert first.maintenance is True
    wall.utc += step
    wall.mono += 100
    again = reader(tmp_path, wall)
    again.remember(GateView.from_dict(json.loads(json.dumps(first.as_dict()))).ends)
    wall.mono += 499
    assert seen(again)[1] is True
    wall.mono += 2
    assert seen(again)[1] is False


def test_another_window_is_not_taken_for_the_one_that_was_remembered(gate, tmp_path, wall):
    files = GateFiles(tmp_path, now=lambda: wall.utc)
    Controls(files).pause(minutes=10, by="test", reason="kernel update")
    ends = gate.read(0, 1000.0).ends
    Controls(files).pause(minutes=60, by="test", reason="longer than thought")
    again = reader(tmp_path, wall)
    again.remember(ends)
    wall.mono += 3000
    assert seen(again)[1] is True


@pytest.mark.parametrize("name", ["maintenance.json", "state.json"])
def test_what_cannot_be_read_is_none_and_not_false(gate, tmp_path, name):
    assert seen(gate)[1:3] == (False, False)
    (tmp_path / name).write_text("{")
    assert None in seen(gate)[1:3]


def test_planned_work_is_an_operate_run_that_is_open(gate, tmp_path, wall):
    def run(scenario, due):
        when = [f"{t:%Y-%m-%dT%H:%M:%S.%fZ}" for t in (wall.utc, wall.utc + timedelta(seconds=due))]
        kinds = {"incident_id": "i", "target": "pg1", "trigger": "person", "actor": "a"}
        runs = [{**kinds, "scenario": scenario, "allowed_at": when[0], "due_at": when[1]}]
        place = {"seq": 0, "sha256": "0" * 64, "offset_bytes": 0}
        data = {"schema_version": 1, "runs": runs, "breakers": [], "journal": place}
        (tmp_path / "state.json").write_text(json.dumps(data))

    run("drill.l4", 60)
    assert seen(gate)[2] is False
    run("operate.switchover", 61)
    assert seen(gate)[2] is True
    wall.utc += timedelta(hours=1)
    assert seen(gate)[2] is True, "a clock step does not end it"
    wall.mono += 62
    assert seen(gate)[2] is False


@pytest.mark.parametrize(
    ("scenario", "stops"),
    [
        ("operate.switchover", True),
        ("l4.restore", True),
        # Hours beside a cluster that goes on: a primary that dies meanwhile is fenced as ever.
        ("operate.restore_test", False),
        ("operate.retention", False),
        ("operate.restore_copy", False),
        ("l4.failover", False),
    ],
)
def test_only_work_that_may_stop_members_holds_the_guard_back(scenario, stops):
    assert stops_members(scenario) is stops
