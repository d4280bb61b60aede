# SPDX-License-Identifier: GPL-3.0-or-later
"""Laws of the gate that no request, policy, state or file content may break."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diting.core import approval, gate, gate_state, journal
from diting.core.breaker import Breaker, Failure, Outcome, after_automated_run
from diting.core.gate import GateState, Lever, Pause, Unreadable
from diting.core.gate_policy import SCENARIO_PATTERN
from diting.core.gate_state import Memory, Trigger
from diting.hostio.journal import JournalFile

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DEFAULT = gate.parse_policy(gate.DEFAULT_POLICY)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,20}", fullmatch=True)
known = st.sampled_from(["l4.failover", "l4.rejoin_member", "l4.reseed_member", "l4.restore", "l5.switch"])
scenarios = known | st.from_regex(SCENARIO_PATTERN, fullmatch=True)
moments = st.integers(-7200, 7200).map(lambda s: NOW + timedelta(seconds=s))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
plans = st.dictionaries(st.text(max_size=10), json_values, max_size=4)
breakers = st.builds(
    Breaker,
    st.lists(st.builds(Failure, moments, names, st.sampled_from(Outcome)), max_size=4).map(tuple),
    st.none() | moments,
)
unreadable = st.builds(Unreadable, st.text(max_size=20))
levers = st.none() | st.builds(Lever, st.none() | moments, names, st.text(max_size=20))
pauses = st.none() | unreadable | st.builds(Pause, moments, moments, names, st.text(max_size=20))


@st.composite
def requests(draw):
    kind = draw(st.sampled_from(gate.Kind))
    own = {gate.Kind.RECOVER: None, gate.Kind.OPERATE: "operate"}.get(kind, "drill")
    scenario = draw(scenarios) if own is None else f"{own}.{draw(st.sampled_from(['l4', 'switchover', 'x']))}"
    assume(own is not None or not scenario.startswith(("operate.", "drill.")))
    target, plan = draw(names), draw(plans)
    if draw(st.booleans()):
        plan = {**plan, "scenario": scenario, "target": target}
    yeses = []
    if plan and draw(st.booleans()):
        made = approval.issue(
            plan, issued_by=draw(names), issued_at=draw(moments), lifetime_seconds=draw(st.integers(1, 7200))
        )
        yeses.append(made.as_dict())
    return gate.parse_request(
        {
            "scenario": scenario,
            "kind": kind.value,
            "target": target,
            "trigger": draw(st.sampled_from(gate.Trigger)).value,
            "actor": draw(names),
            "incident_id": draw(names),
            "plan": plan,
            "approvals": yeses,
            "override_reason": draw(st.none() | st.text(max_size=30)),
            "environment": draw(st.none() | names),
        }
    )


@st.composite
def situations(draw):
    """A request together with a state that may well speak about it."""
    asked = draw(requests())
    about = {(asked.scenario, asked.target): draw(breakers)} if draw(st.booleans()) else {}
    memory = draw(unreadable | st.just(Memory(breakers=about)))
    return asked, GateState(draw(levers), draw(pauses), memory)


policies = st.just(DEFAULT) | unreadable


@given(situations(), policies)
def test_reverts_and_cleanups_always_pass(situation, policy):
    asked, state = situation
    if asked.kind.is_undo:
        assert gate.decide(policy, state, asked, NOW).allowed


@given(situations(), policies)
def test_nothing_else_passes_a_pulled_lever_or_what_cannot_be_read(situation, policy):
    asked, state = situation
    blocked = (
        state.lever is not None
        or isinstance(policy, Unreadable)
        or isinstance(state.memory, Unreadable)
        or isinstance(state.pause, Unreadable)
    )
    if blocked and not asked.kind.is_undo:
        assert not gate.decide(policy, state, asked, NOW).allowed


@given(situations(), policies)
def test_a_decision_is_consistent_and_can_be_recorded(situation, policy):
    asked, state = situation
    decision = gate.decide(policy, state, asked, NOW)
    assert decision.allowed is (not decision.reasons)
    assert decision.message
    assert decision.allowed or decision.code == decision.reasons[0].code
    again = gate.decide(policy, state, asked, NOW)
    assert again == decision
    assert json.loads(journal.canonical_json(decision.as_dict())) == decision.as_dict()
    assert (
        gate.parse_request(json.loads(journal.canonical_json(asked.as_dict()))).plan_sha256
        == asked.plan_sha256
    )


@given(situations())
def test_automation_never_passes_an_open_breaker(situation):
    asked, state = situation
    if isinstance(state.memory, Unreadable) or asked.kind.is_undo or asked.trigger is not Trigger.AUTOMATED:
        return
    if state.memory.breaker(asked.scenario, asked.target).is_open and asked.kind is not gate.Kind.DRILL:
        assert not gate.decide(DEFAULT, state, asked, NOW).allowed


@given(situations())
def test_taking_a_reason_away_never_turns_a_yes_into_a_no(situation):
    """Lever, window and breaker only ever stop things: a quiet gate allows all that a busy one does."""
    asked, state = situation
    if gate.decide(DEFAULT, state, asked, NOW).allowed:
        assert gate.decide(DEFAULT, GateState(), asked, NOW).allowed


@given(requests(), plans)
def test_an_approval_never_counts_for_another_plan(asked, other):
    if asked.kind is not gate.Kind.DRILL or dict(asked.plan) == other:
        return
    assume(approval.plan_sha256(other) != asked.plan_sha256)
    changed = gate.parse_request({**asked.as_dict(), "plan": other})
    assert not gate.decide(DEFAULT, GateState(), changed, NOW).allowed


@given(st.lists(st.tuples(st.sampled_from(Outcome), st.integers(0, 5000)), max_size=12), st.integers(1, 5))
def test_the_breaker_opens_exactly_at_its_limit(story, limit):
    breaker, at, model, opened = Breaker(), NOW, [], False
    for number, (outcome, gap) in enumerate(story):
        at += timedelta(seconds=gap)
        breaker = after_automated_run(
            breaker, outcome, at=at, incident_id=str(number), limit=limit, window_seconds=3600
        )
        if not opened:
            model = [] if outcome is Outcome.SUCCESS else [*model, at]
            model = [moment for moment in model if (at - moment).total_seconds() <= 3600]
            opened = len(model) >= limit
        assert breaker.is_open is opened


events = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from(["a", "b"]), st.sampled_from(Trigger), st.none()),
        st.tuples(st.just("end"), st.sampled_from(["a", "b"]), st.none(), st.sampled_from(Outcome)),
        st.tuples(st.just("reset"), st.none(), st.none(), st.none()),
        st.tuples(st.just("stop"), st.none(), st.none(), st.none()),
    ),
    max_size=20,
)


def records_of(story):
    head, records = journal.Head(), []
    for number, (what, incident, trigger, outcome) in enumerate(story):
        at = NOW + timedelta(seconds=number)
        event, fields = {
            "stop": ("stop", {}),
            "reset": ("breaker_reset", {"scenario": "l4.failover", "target": "x"}),
        }.get(what, ("", {}))
        if what == "begin":
            run = gate_state.run_for(
                incident_id=incident,
                scenario="l4.failover",
                target="x",
                trigger=trigger,
                actor="t",
                now=at,
                run_seconds=60,
            )
            event, fields = "decision", {"run": run.as_dict()}
        elif what == "end":
            event = "outcome"
            fields = gate_state.outcome_fields(
                incident_id=incident,
                scenario="l4.failover",
                target="x",
                outcome=outcome,
                detail="",
                failures=3,
                window_seconds=3600,
            )
        record = journal.make_record(head, ts=at, mono_ns=number, source="gate", event=event, fields=fields)
        head = journal.head_of(record)
        records.append(record)
    return records


@given(events, st.integers(0, 20))
def test_saving_the_state_anywhere_changes_nothing(story, cut):
    records = records_of(story)
    half = gate_state.rebuild(records[:cut])
    resumed = gate_state.parse_memory(json.loads(json.dumps(half.as_dict())))
    for record in records[cut:]:
        resumed = gate_state.apply(resumed, record)
    assert resumed == gate_state.rebuild(records)


@given(events)
def test_drills_leave_no_trace_in_the_breakers(story):
    drills = [(w, i, Trigger.DRILL if t else t, o) for w, i, t, o in story]
    assert gate_state.rebuild(records_of(drills)).breakers == {}


# --- the journal --------------------------------------------------------------------------------


@given(plans)
def test_canonical_json_is_one_text_and_loses_nothing(value):
    text = journal.canonical_json(value)
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text) == value
    assert journal.canonical_json(dict(reversed(list(value.items())))) == text


@given(events.filter(len), st.data())
def test_any_changed_byte_breaks_the_chain(story, data):
    text = "".join(journal.canonical_json(record) + "\n" for record in records_of(story))
    where = data.draw(st.integers(0, len(text) - 2))
    letter = data.draw(st.characters(min_codepoint=32, max_codepoint=126))
    assume(text[where] != letter)
    lines = (text[:where] + letter + text[where + 1 :]).split("\n")[:-1]
    anchor = journal.head_of(records_of(story)[-1])
    assert not journal.verify_chain(lines, anchor=anchor).ok


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=60)), max_size=6))
def test_whatever_a_crash_leaves_behind_the_next_append_makes_it_whole(story):
    with tempfile.TemporaryDirectory() as folder:
        book = JournalFile(Path(folder) / "journal.jsonl", "test")
        written = 0
        for tears, garbage in story:
            if tears:
                with book.path.open("ab") as stream:
                    stream.write(garbage.replace(b"\n", b"?"))
            book.append("one", {})
            written += 1
        assert book.verify().ok
        assert sum(record["event"] == "one" for record in book.records()) == written


@given(st.binary(max_size=200))
def test_any_file_as_policy_is_a_policy_or_a_named_problem(content):
    try:
        gate.parse_policy(json.loads(content))
    except ValueError:
        pass
    except gate.PolicyError as error:
        assert error.problems  # noqa: PT017 - not raising at all is fine too


@given(json_values)
def test_any_json_as_policy_is_a_named_problem(value):
    try:
        gate.parse_policy(value)
    except gate.PolicyError as error:
        assert all(problem.startswith("/") for problem in error.problems)  # noqa: PT017
    else:
        raise AssertionError("nothing random is a policy")
