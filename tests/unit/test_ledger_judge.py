# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts of the ledger's judge: each way to a false result must be caught."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from diting.ledger import checks, classify, effects
from diting.ledger import judge as judge_module
from diting.ledger.judge import judge
from support.ledger_builder import RUN, SETTINGS, Fate, Run, black_hole, codes, fine, found, ns, verdict_of

DOWN = black_hole(10.0, 14.0, 1.0)
ROOT = Path(__file__).parents[2]


def watch_lines(first: str = "up", *, to: str = "down", at: float = 10.2, until: float = 60) -> list[dict]:
    beats = [{"k": "heartbeat", "mono_ns": ns(t), "states": {}} for t in range(int(until))]
    changes = [(None, first, 0.1, None), (first, to, at, at - 0.2)]
    return beats + [
        {
            "k": "transition",
            "target": "pg1",
            "mono_ns": ns(moment),
            "from": before,
            "to": after,
            "last_seen_ns": None if seen is None else ns(seen),
            "confirmed_ns": ns(moment),
            "detail": "timeout",
        }
        for before, after, moment, seen in changes
    ]


def test_a_clean_failover_passes_with_all_figures():
    result = verdict_of(Run(fate=DOWN))
    assert result["verdict"] == "PASS", result["reasons"]
    head = result["headline"]
    assert (head["lost"], head["ghost"], head["duplicate"], head["unexpected"]) == (0, 0, 0, 0)
    assert head["acked"] == sum(op.ok for op in Run(fate=DOWN).ledger().ops)
    assert 4.0 <= head["rto_client_seconds"] <= 4.03
    assert head["rpo_time_seconds"] == 0.0
    assert result["detector_self_test"]["passed"]


def test_rto_fault_carries_its_bracket():
    fault = verdict_of(Run(fate=DOWN))["headline"]["rto_fault_seconds"]
    assert fault["value"] == fault["low"] < fault["high"]
    assert fault["high"] - fault["low"] == pytest.approx(0.05, abs=0.001)


def test_no_outage_is_zero_and_not_unknown():
    head = verdict_of(Run())["headline"]
    assert (head["rto_client_seconds"], head["rto_fault_seconds"]["value"]) == (0.0, 0.0)
    assert head["resolution_seconds"] > 0


@pytest.mark.parametrize(
    ("bend", "code"),
    [
        ({"missing": {500}}, "lost"),
        ({"twice": {500}}, "duplicate"),
        ({"extra": {999_999}}, "unexpected"),
    ],
)
def test_broken_promises_fail(bend, code):
    run = Run(fate=DOWN)
    result = verdict_of(run, documents=[found([run.ledger()], **bend)])
    assert result["verdict"] == "FAIL"
    assert code in codes(result, "FAIL")


def test_a_row_of_a_refused_operation_is_a_ghost():
    def fate(due: float) -> Fate:
        return ("fail", 0.002, "server_error") if 10 <= due < 11 else fine(due)

    run = Run(fate=fate)
    result = verdict_of(run, documents=[found([run.ledger()], extra={1050})])
    assert codes(result, "FAIL") == {"ghost"}


def test_a_row_of_an_unknown_operation_is_recovered_and_no_fault():
    run = Run(fate=DOWN)
    result = verdict_of(run, documents=[found([run.ledger()], extra={1001, 1002})])
    assert result["verdict"] == "PASS"
    assert result["headline"]["recovered_info"] == 2


def test_a_row_of_a_slot_that_was_never_sent_is_unexpected():
    def fate(due: float) -> Fate:
        return ("info", 1.0, "not_sent") if 10 <= due < 11 else fine(due)

    run = Run(fate=fate)
    result = verdict_of(run, documents=[found([run.ledger()], extra={1050})])
    assert "unexpected" in codes(result, "FAIL")


def test_lost_data_is_a_fail_even_if_the_run_has_other_flaws():
    run = Run(fate=DOWN, header={"failure_zone": "zone_pg1"})
    result = verdict_of(run, documents=[found([run.ledger()], missing={5})])
    assert result["verdict"] == "FAIL"
    assert "prober_in_failed_zone" in codes(result, "INVALID")


def test_rpo_time_runs_from_the_oldest_lost_acknowledgement_to_the_last_one():
    run = Run(fate=DOWN)
    lost = set(range(700, 1000))  # acknowledged in the last three seconds
    result = verdict_of(run, documents=[found([run.ledger()], missing=lost)], rpo_target_seconds=2)
    assert result["headline"]["rpo_count"] == 300
    assert result["headline"]["rpo_time_seconds"] == pytest.approx(2.99, abs=0.02)
    assert {"lost", "rpo_target"} <= codes(result, "FAIL")


def test_the_worse_path_is_the_headline_and_counts_add_up():
    slow, fast = Run(fate=black_hole(10, 15, 1), path="dsn"), Run(fate=DOWN, path="haproxy")
    ledgers = [slow.ledger(), fast.ledger()]
    settings = dataclasses.replace(SETTINGS, paths=("dsn", "haproxy"))
    result = judge(ledgers, [found(ledgers)], slow.marks(), [], settings)
    assert result["verdict"] == "PASS", result["reasons"]
    assert result["headline"]["path"] == "dsn"
    assert result["headline"]["acked"] == sum(p["acked"] for p in result["paths"].values())


def test_an_unknown_path_makes_the_headline_unknown_and_never_zero():
    stuck, fast = Run(fate=black_hole(10, 1e9, 1), path="dsn"), Run(fate=DOWN, path="haproxy")
    ledgers = [stuck.ledger(), fast.ledger()]
    settings = dataclasses.replace(SETTINGS, paths=("dsn", "haproxy"))
    result = judge(ledgers, [found(ledgers)], stuck.marks(), [], settings)
    assert result["headline"]["rto_client_seconds"] is None
    assert codes(result, "FAIL") == {"not_recovered"}


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (Run(fate=DOWN, dispatch_delay=lambda seq: 0.2 if seq % 50 == 0 else 0.0), "missed_slots"),
        (Run(fate=DOWN, header={"failure_zone": "zone_pg1"}), "prober_in_failed_zone"),
        (Run(fate=DOWN, with_footer=False), "prober_died"),
        (Run(fate=DOWN, footer={"clock_step_ns": 80_000_000}), "clock_step"),
        (Run(fate=DOWN, footer={"clock_step_ns": -80_000_000}), "clock_step"),
        (Run(fate=DOWN, footer={"slots": 3}), "ledger_damaged"),
        (Run(fate=DOWN, header={"run_id": "another"}), "foreign_ledger"),
        (Run(fate=DOWN, header={"boot_id": "boot-2"}), "clock_domain"),
        (Run(fate=DOWN, effect=None), "effect_unknown"),
        (Run(fate=DOWN, effect=9.9), "effect_before_injection"),
        (Run(fate=black_hole(8.0, 14.0, 1.0)), "no_acks_before_fault"),
        (Run(fate=black_hole(5.0, 5.9, 1.0)), "control_not_clean"),
        (Run(fate=lambda due: ("fail", 0.002, "x") if due == 5.0 else DOWN(due)), "control_not_clean"),
        (Run(fate=DOWN, duration=20), "stability_window_incomplete"),
        (Run(fate=DOWN, interval=1.0, deadline=2.0), "few_acks"),
    ],
)
def test_a_doubt_about_the_measurement_is_invalid(run, code):
    result = verdict_of(run)
    assert result["verdict"] == "INVALID"
    assert code in codes(result, "INVALID")


def test_missed_slots_below_one_percent_are_accepted():
    run = Run(fate=DOWN, dispatch_delay=lambda seq: 0.2 if seq % 125 == 0 else 0.0)
    assert verdict_of(run)["verdict"] == "PASS"


@pytest.mark.parametrize("label", ["control_start", "control_end", "inject_sent"])
def test_a_missing_mark_is_invalid(label):
    run = Run(fate=DOWN)
    marks = [mark for mark in run.marks() if mark["label"] != label]
    result = verdict_of(run, marks=marks)
    assert result["verdict"] == "INVALID"
    assert "mark_missing" in codes(result)


def test_a_short_control_window_is_invalid():
    assert "control_too_short" in codes(verdict_of(Run(fate=DOWN), control_min_seconds=20))


def test_a_missing_path_is_invalid():
    result = verdict_of(Run(fate=DOWN), paths=("dsn", "haproxy"))
    assert (result["verdict"], codes(result)) == ("INVALID", {"ledger_missing"})


def test_without_a_final_read_nothing_is_known_about_the_data():
    result = verdict_of(Run(fate=DOWN), documents=[])
    assert result["verdict"] == "INVALID"
    assert result["headline"]["lost"] is None
    assert result["headline"]["rpo_time_seconds"] is None


def test_a_replica_alone_is_no_final_read():
    run = Run(fate=DOWN)
    result = verdict_of(run, documents=[found([run.ledger()], in_recovery=True)])
    assert "no_final_read" in codes(result, "INVALID")


def test_a_replica_that_lacks_rows_fails():
    run = Run(fate=DOWN)
    ledger = run.ledger()
    documents = [found([ledger]), found([ledger], host="pg3", in_recovery=True, missing={7, 8})]
    result = verdict_of(run, documents=documents)
    assert codes(result, "FAIL") == {"replica_differs"}
    assert result["servers"]["pg3"]["differs_from_primary"] == 2


@pytest.mark.parametrize("lsn", ["0/5000147", None])
def test_a_replica_that_was_read_too_early_proves_nothing(lsn):
    run = Run(fate=DOWN)
    ledger = run.ledger()
    early = {**found([ledger], host="pg3", in_recovery=True, missing={7, 8}), "lsn": lsn}
    result = verdict_of(run, documents=[found([ledger]), early])
    assert (result["verdict"], codes(result)) == ("INVALID", {"replica_behind"})


def test_a_replica_that_holds_everything_early_is_as_good():
    run = Run(fate=DOWN)
    ledger = run.ledger()
    early = {**found([ledger], host="pg3", in_recovery=True), "lsn": "0/1"}
    assert verdict_of(run, documents=[found([ledger]), early])["verdict"] == "PASS"


def test_a_replica_that_was_not_read_is_invalid():
    assert "replica_not_read" in codes(verdict_of(Run(fate=DOWN), replicas=("pg3",)), "INVALID")


def test_two_servers_that_take_writes_are_a_split_brain():
    run = Run(fate=DOWN)
    ledger = run.ledger()
    result = verdict_of(run, documents=[found([ledger]), found([ledger], host="pg1")])
    assert "split_brain" in codes(result, "FAIL")


def test_servers_of_two_clusters_are_invalid():
    run = Run(fate=DOWN)
    ledger = run.ledger()
    other = {**found([ledger], host="pg3", in_recovery=True), "system_identifier": "1"}
    assert "foreign_server" in codes(verdict_of(run, documents=[found([ledger]), other]), "INVALID")


def test_a_read_of_another_run_is_invalid():
    run = Run(fate=DOWN)
    document = {**found([run.ledger()]), "run_id": "another"}
    assert "foreign_read" in codes(verdict_of(run, documents=[document]), "INVALID")


def test_the_target_is_compared_with_value_and_resolution():
    run = Run(fate=DOWN)  # 4.0 s, resolution 0.12 s
    assert verdict_of(run, rto_target_seconds=4.2)["verdict"] == "PASS"
    assert codes(verdict_of(run, rto_target_seconds=4.05), "FAIL") == {"rto_target"}


def test_a_service_that_is_back_but_slow_is_not_back():
    def fate(due: float) -> Fate:
        return ("ok", 0.7, None) if due >= 14 else DOWN(due)

    assert "slow_after_recovery" in codes(verdict_of(Run(fate=fate)), "FAIL")


def test_a_later_outage_is_a_note():
    def fate(due: float) -> Fate:
        return ("info", 1.0, "deadline") if 50 <= due < 51 else DOWN(due)

    result = verdict_of(Run(fate=fate, duration=90))
    assert result["verdict"] == "PASS"
    assert [note["code"] for note in result["notes"]] == ["later_outage"]


def test_the_watcher_confirms_the_effect_with_its_own_bracket():
    result = verdict_of(Run(fate=DOWN, effect=None), watch=watch_lines(), effect_target="pg1")
    assert result["verdict"] == "PASS", result["reasons"]
    assert result["effect"]["confirmed_seconds"] == pytest.approx(0.2)
    assert result["effect"]["earliest_seconds"] == 0.0


@pytest.mark.parametrize(
    "watch",
    [
        [],
        watch_lines(to="readonly"),
        watch_lines(first="down", to="up"),
        watch_lines(at=8.0),
        [line for line in watch_lines() if line["k"] != "heartbeat" or line["mono_ns"] < ns(3)],
        watch_lines(first="down", to="up", at=10.1) + watch_lines(first="up", at=10.2)[-1:],
    ],
    ids=["nothing", "another state", "down before", "too early", "watcher stalled", "flapping"],
)
def test_an_effect_that_was_not_seen_is_invalid_even_if_a_mark_claims_it(watch):
    result = verdict_of(Run(fate=DOWN), watch=watch, effect_target="pg1")
    assert result["verdict"] == "INVALID"
    assert "effect_unknown" in codes(result)


def test_a_detector_that_misses_a_planted_loss_makes_everything_invalid(monkeypatch):
    monkeypatch.setattr(
        judge_module, "self_test", lambda *_: {"passed": False, "seed": 0, "runs": [{"exact": False}]}
    )
    run = Run(fate=DOWN)
    result = verdict_of(run, documents=[found([run.ledger()], missing={5})])
    assert result["verdict"] == "INVALID"


def test_the_series_covers_the_gap_and_never_draws_it_as_zero():
    series = verdict_of(Run(fate=DOWN))["paths"]["dsn"]["series"]
    points = series["points"]
    assert len(points) <= 400
    dark = [p for p in points if 0.5 < p["t_seconds"] < 2.5]
    assert dark
    assert all(p["max_seconds"] is None and p["info"] > 0 for p in dark)
    assert points[0]["t_seconds"] < 0
    assert points[-1]["t_seconds"] > 4


def test_every_reason_is_documented():
    text = (ROOT / "docs/measuring.md").read_text(encoding="utf-8")
    used = set()
    for module in (checks, effects, judge_module):
        source = Path(module.__file__).read_text(encoding="utf-8")
        used |= set(re.findall(r'Reason\(\s*"([a-z_]+)"', source))
    used |= {"lost", "ghost", "duplicate", "unexpected"}
    assert {code for code in used if f"`{code}`" not in text} == set()


def test_the_run_id_of_the_builder_is_the_one_judged():
    assert verdict_of(Run())["run_id"] == RUN


def test_planted_numbers_are_the_ones_documented():
    assert classify.PLANTED_LOSSES == (1, 3, 17)
