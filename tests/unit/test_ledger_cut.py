# SPDX-License-Identifier: GPL-3.0-or-later
"""The prober inside the cut: only attempts that reached a live server count, and one late answer is a FAIL."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diting.ledger import cut as cut_module
from diting.ledger.cut import reached
from diting.ledger.judge import judge
from diting.ledger.model import parse_ledger
from diting.ledger.rundir import judge_run
from diting.ledger.settings import Cut, Settings
from diting.report.build import build
from support.evidence_sample import BOOT, Sample, write
from support.ledger_builder import NS, RUN, SETTINGS, Run, black_hole, codes, found, ns

CUT_AT, PROMOTED, HEALED = 10.05, 31.0, 70.0
INTERVAL = 0.02


def inside(
    *,
    until: float = 60.0,
    acked_until: float = 10.0,
    refused_from: float = 1000.0,
    footer: bool = True,
    late_acks: tuple[float, ...] = (),
    session_every: float = 1.0,
) -> list[dict[str, Any]]:
    """Records of a prober on the cut-off primary: acknowledged, then silence, then refused."""
    header = {"run_id": RUN, "path": "cut", "failure_zone": "zone_pg1", "boot_id": "boot-1"}
    out: list[dict[str, Any]] = [
        {"k": "header", "interval_ns": ns(INTERVAL), "op_deadline_ns": 2 * NS, **header}
    ]
    opened: set[int] = set()
    for seq in range(round(until / INTERVAL)):
        due = seq * INTERVAL
        session = int(due / session_every)
        if session not in opened:
            opened.add(session)
            out.append({"k": "s", "c": session, "mono_ns": ns(due)})
        out.append({"k": "i", "seq": seq, "due_ns": ns(due)})
        fate: tuple[str, str | None, float] = ("info", "deadline", 2.0)
        if due < acked_until or any(abs(due - at) < INTERVAL / 2 for at in late_acks):
            fate = ("ok", None, 0.003)
        elif due >= refused_from:
            fate = ("fail", "server_error", 0.003)
        sent = {"k": "d", "seq": seq, "send_ns": ns(due), "c": session}
        out.append(sent)
        if due + fate[2] < until:
            outcome = {
                "outcome": fate[0],
                "reason": fate[1],
                "dispatch_ns": ns(due),
                "end_ns": ns(due + fate[2]),
            }
            out.append({**sent, "k": "o", **outcome})
    if footer:
        out.append({"k": "footer", "slots": round(until / INTERVAL), "clock_step_ns": 0})
    return out


def watch(promoted: float | None = PROMOTED) -> list[dict[str, Any]]:
    def change(target: str, at: float, before: str | None, after: str) -> dict[str, Any]:
        return {
            "k": "transition",
            "target": target,
            "mono_ns": ns(at),
            "confirmed_ns": ns(at),
            "from": before,
            "to": after,
            "last_seen_ns": ns(at - 0.25),
        }

    lines = [change("pg1:primary", 0.1, None, "up"), change("pg2:primary", 0.1, None, "http_503")]
    if promoted is not None:
        lines.append(change("pg2:primary", promoted, "http_503", "up"))
    lines.append(change("pg3:primary", 0.1, None, "http_503"))
    if promoted is not None:
        lines.append(change("pg3:primary", 65.0, "http_503", "up"))  # a later one, which is not the fault's
    lines.append(change("pg1:primary", HEALED, "down", "up"))  # the old one's own page proves nothing
    return lines


def verdict(
    records: list[dict[str, Any]] | None,
    seen: list[dict[str, Any]] | None = None,
    *,
    fenced: bool = False,
    **more: Any,
) -> dict[str, Any]:
    clients = Run(fate=black_hole(10.0, 31.2, 1.0), duration=90).ledger()
    ledgers = [clients] + ([parse_ledger(records)] if records is not None else [])
    settings: Settings = replace(
        SETTINGS, cut=Cut("cut", "pg1", 60.0, fenced=fenced), **{"rto_target_seconds": 60, **more}
    )
    marks = Run().marks()
    return judge(ledgers, [found(ledgers)], marks, watch() if seen is None else seen, settings)


def test_silence_inside_the_cut_and_a_promotion_outside_pass():
    result = verdict(inside())
    assert result["verdict"] == "PASS", result["reasons"]
    told = result["cut"]
    assert told["promoted"] == "pg2"
    assert told["reached"] >= told["reached_wanted"] == 100
    assert (told["acked_after_cut"], told["acked_after_promotion"]) == (0, 0)
    assert "cut" not in result["paths"]
    assert [note["code"] for note in result["notes"]] == ["cut_side"]


def test_refusals_of_a_former_primary_are_attempts_that_reached_it():
    few = verdict(inside(session_every=1000.0, acked_until=9.9))  # one old session, silent since the cut
    assert codes(few, "INVALID") == {"few_cut_attempts"}
    assert verdict(inside(session_every=1000.0, acked_until=9.9, refused_from=20.0))["verdict"] == "PASS"


@pytest.mark.parametrize("at", [PROMOTED, PROMOTED + 20])
def test_one_acknowledgement_after_the_promotion_is_a_fail(at):
    result = verdict(inside(late_acks=(at,)))
    assert (result["verdict"], codes(result)) == ("FAIL", {"split_brain"})
    assert result["cut"]["acked_after_promotion"] == 1


def test_an_acknowledgement_that_nobody_can_place_is_invalid():
    result = verdict(inside(late_acks=(PROMOTED - 0.1,)))
    assert (result["verdict"], codes(result)) == ("INVALID", {"cut_ack_doubtful"})


def test_an_acknowledgement_before_the_promotion_must_be_found_there():
    records = inside(late_acks=(15.0,))
    assert verdict(records)["verdict"] == "PASS"
    clients = Run(fate=black_hole(10.0, 31.2, 1.0), duration=90).ledger()
    ledger = parse_ledger(records)
    seq = next(op.seq for op in ledger.ops if op.ok and op.due_ns > ns(12))
    document = found([clients, ledger])
    document["found"]["cut"]["ranges"] = [
        [low, high] for low, high in document["found"]["cut"]["ranges"] if low != seq
    ]
    settings = replace(SETTINGS, cut=Cut("cut", "pg1", 60.0))
    result = judge([clients, ledger], [document], Run().marks(), watch(), settings)
    assert codes(result, "FAIL") == {"lost"}


def test_a_fenced_host_needs_fewer_attempts_and_no_orderly_end():
    # Switched off 0.7 s after the cut: nothing that was sent since then has an outcome.
    records = inside(until=10.75, footer=False)
    result = verdict(records, fenced=True)
    assert result["verdict"] == "PASS", result["reasons"]
    assert 20 <= result["cut"]["reached"] < 100
    assert codes(verdict(records)) == {"few_cut_attempts", "prober_died"}
    assert codes(verdict(inside(until=10.3, footer=False), fenced=True)) == {"few_cut_attempts"}


def test_attempts_count_from_the_earliest_moment_of_the_cut_without_its_last_acknowledgements():
    """The watcher was sure at 10.35 s and had seen the host for the last time at 10.0 s."""

    def judged(acked_until: float) -> dict[str, Any]:
        clients = Run(fate=black_hole(10.0, 31.2, 1.0), duration=90).ledger()
        ledger = parse_ledger(inside(until=10.75, footer=False, acked_until=acked_until))
        beats = [{"k": "heartbeat", "mono_ns": ns(t), "states": {}} for t in range(90)]
        sight = {"k": "transition", "target": "pg1:control", "detail": None}
        seen = [
            {**sight, "mono_ns": ns(0.1), "confirmed_ns": ns(0.1), "from": None, "to": "up", "last_seen_ns": None},
            {**sight, "mono_ns": ns(10.35), "confirmed_ns": ns(10.35), "from": "up", "to": "down",
             "last_seen_ns": ns(10.0)},
        ]  # fmt: skip
        cut = Cut("cut", "pg1", 60.0, fenced=True)
        settings = replace(SETTINGS, cut=cut, effect_target="pg1:control")
        watched = [*beats, *seen, *watch()]
        return judge([clients, ledger], [found([clients, ledger])], Run().marks(), watched, settings)

    assert judged(10.0)["cut"]["reached"] == 38  # 10.0 to 10.75 s at 50 a second
    assert judged(10.3)["cut"]["reached"] == 23


def test_a_torn_end_is_forgiven_to_the_fenced_only():
    records = inside(until=10.75, footer=False)
    torn = parse_ledger(records, torn_tail=True)
    clients = Run(fate=black_hole(10.0, 31.2, 1.0), duration=90).ledger()
    for fenced, wanted in ((True, set()), (False, {"few_cut_attempts", "ledger_damaged", "prober_died"})):
        settings = replace(SETTINGS, cut=Cut("cut", "pg1", 60.0, fenced=fenced))
        result = judge([clients, torn], [found([clients, torn])], Run().marks(), watch(), settings)
        assert codes(result) == wanted


def test_nobody_inside_the_cut_and_no_promotion_are_invalid():
    assert codes(verdict(None)) == {"cut_ledger_missing"}
    assert codes(verdict(inside(), watch(promoted=None))) == {"promotion_not_seen"}


def test_a_prober_that_reached_nothing_before_is_invalid():
    assert "few_acks" in codes(verdict(inside(acked_until=0.1)))


def test_a_session_that_was_silent_for_long_does_not_count():
    ledger = parse_ledger(inside(session_every=1000.0))
    hits = reached(ledger, ns(CUT_AT), ns(60), ns(2.0))
    assert {op.send_ns for op in hits} == {
        op.send_ns for op in ledger.ops if ns(CUT_AT) <= op.send_ns <= ns(11.983)
    }


@pytest.mark.parametrize(("late", "wanted"), [((), "PASS"), ((40.0,), "FAIL")])
def test_the_report_tells_what_was_tried_inside_the_cut(tmp_path, late, wanted):
    sample = Sample(fault="partition")
    run = write(tmp_path, sample)
    shift = sample.inject_ns - ns(10.0)

    def moved(record: dict[str, Any]) -> dict[str, Any]:
        told = {
            key: value + shift if key.endswith("_ns") and value > ns(0) else value
            for key, value in record.items()
        }
        if record["k"] == "header":
            told |= {"run_id": sample.drill_id, "boot_id": BOOT}
            told |= {key: record[key] for key in ("interval_ns", "op_deadline_ns")}
        if record["k"] == "footer":
            told["clock_step_ns"] = 0
        return told

    text = "".join(json.dumps(moved(record)) + "\n" for record in inside(late_acks=late))
    (run / "ledger-cut.jsonl").write_text(text)
    text = "".join(json.dumps(moved(line)) + "\n" for line in watch())
    (run / "watch-members.jsonl").write_text(text)
    document = json.loads((run / "judge-input.json").read_text())
    document["cut"] = {"path": "cut", "host": "pg1", "seconds": 60, "fenced": False}
    (run / "judge-input.json").write_text(json.dumps(document))
    read = json.loads((run / "found-pg2.json").read_text())
    read["found"]["cut"] = {"ranges": [[0, 499], *([[2000, 2000]] if late else [])], "duplicates": {}}
    (run / "found-pg2.json").write_text(json.dumps(read))
    (run / "judge.json").write_text(json.dumps(judge_run(run)))
    report = build(run)
    assert (report["verdict"], [r["code"] for r in report["reasons"]]) == (
        wanted,
        ["split_brain"] if late else [],
    )
    assert [note["code"] for note in report["data"]["notes"]] == ["cut_side"]


def test_every_reason_is_documented():
    text = (Path(__file__).parents[2] / "docs/measuring.md").read_text(encoding="utf-8")
    source = Path(cut_module.__file__).read_text(encoding="utf-8")
    used = set(re.findall(r'Reason\(\s*"([a-z_]+)"', source))
    assert {code for code in used if f"`{code}`" not in text} == set()
