# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where a drill's verdict is decided, from everything its run directory holds. Pure.

Precedence: ABORTED, a drill that was cut short, comes first. Then a detector that failed its own
test, which makes everything INVALID. Then data that was acknowledged and is gone: a FAIL whatever
else is doubtful. Then every other doubt about the measurement, INVALID, before any figure is
compared with a target. PASS is what is left when nothing speaks against it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.verdict import Verdict
from .judged import Finding, finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .contract import Clocks, Drill, Residue, Target
    from .inputs import Run
    from .judged import Judged

COULD_NOT_LOOK = "could_not_look"
BROKEN_DETECTOR = "detector_self_test"
UNSAFE = frozenset({"lost", "ghost", "duplicate", "unexpected", "split_brain", "replica_differs"})
"""Promises broken: these fail a drill even if its times mean nothing."""

POWER_LOSSES = frozenset({"host_off", "replica_off", "guard_off"})
"""Faults that must look like a power loss: no FIN and no RST from the host after the cut."""

TARGET_CODES = {"rto_client_seconds": "rto_target", "rpo_time_seconds": "rpo_target", "rpo_count": "lost"}
"""The ledger's own words for a missed target, so that one trouble is told once."""


def _rank(found: Finding) -> int:
    if found.verdict is Verdict.ABORTED:
        return 0
    if found.verdict is Verdict.INVALID:
        return 1 if found.code == BROKEN_DETECTOR else 3
    return 2 if found.code in UNSAFE else 4


def decide(
    run: Run, judged: Judged | None, targets: Mapping[str, Mapping[str, Any]]
) -> tuple[Verdict, list[Finding]]:
    """Verdict and all reasons, the gravest first. ``targets`` as :func:`compare_targets` returns it."""
    told = [finding(reason) for reason in run.drill.get("reasons", [])]
    told += judged.findings if judged is not None else []
    own: list[Finding] = []
    if run.drill["outcome"] == "aborted":
        # What a cut-short drill did not get to is no further news: the cut is, and what was found.
        own.append(_aborted(run.drill))
        own += [f for f in _residue(run.drill, run.residue) if f.verdict is Verdict.FAIL]
    else:
        own += _unusable(run, judged)
        own += _injection(run.drill, judged)
        own += _clocks(run.drill.get("clocks"))
        own += _frame(run.drill)
        own += _residue(run.drill, run.residue)
        own += _targets(targets, judged)
    known = {f.code for f in told}
    findings = _once([*told, *(f for f in own if f.code not in known)])
    ranked = sorted(findings, key=_rank)
    return (ranked[0].verdict if ranked else Verdict.PASS), ranked


def compare_targets(
    drill: Drill,
    measured: Mapping[str, float | None],
    resolutions: Mapping[str, float | None],
    not_recovered: bool = False,
) -> dict[str, dict[str, Any]]:
    """Each target beside what was measured. The worst bound, value plus resolution, must keep the limit.

    ``met`` is None when nobody knows; but a time that was not reached because writes never came back
    (``not_recovered``) is a target missed, not one unknown.
    """
    table: dict[str, dict[str, Any]] = {}
    for name, target in sorted(drill.get("targets", {}).items()):
        value = measured.get(name)
        resolution = resolutions.get(name) if target["unit"] == "s" else 0
        worst = None if value is None else round(value + (resolution or 0), 6)
        table[name] = {
            **target,
            "measured": value,
            "resolution": resolution,
            "worst": worst,
            "met": _met(worst, target, not_recovered),
        }
    return table


def _met(worst: float | None, target: Target, not_recovered: bool) -> bool | None:
    if worst is not None:
        return worst <= target["limit"]
    return False if not_recovered and target["unit"] == "s" else None


def _once(findings: Iterable[Finding]) -> list[Finding]:
    """Drop repetitions: drill and ledger may both have seen the same trouble."""
    seen: dict[tuple[str, str], Finding] = {}
    for one in findings:
        seen.setdefault((one.code, one.message), one)
    return list(seen.values())


def _aborted(drill: Drill) -> Finding:
    given = drill.get("aborted")
    if given:
        return Finding(Verdict.ABORTED, given["code"], given["message"])
    phase = drill.get("phase") or "an unknown phase"
    return Finding(Verdict.ABORTED, "drill_ended_early", f"the drill ended in {phase} and never came back")


def _unusable(run: Run, judged: Judged | None) -> list[Finding]:
    found = [Finding(Verdict.INVALID, "evidence_input", str(problem)) for problem in run.problems]
    if judged is None:
        found.append(Finding(Verdict.INVALID, "judge_missing", "there is no judgement of the ledger"))
    elif judged.self_test.get("passed") is not True:
        text = "the detector did not report exactly the losses that were planted"
        found.append(Finding(Verdict.INVALID, BROKEN_DETECTOR, text))
    return found


def _injection(drill: Drill, judged: Judged | None) -> list[Finding]:
    injection = drill.get("injection")
    marked = judged is not None and judged.mark("inject_sent") is not None
    if injection is None or not (injection.get("sent") or marked):
        return [Finding(Verdict.INVALID, "fault_not_injected", "no record says that a fault was injected")]
    found = []
    seen = judged is not None and judged.effect.get("confirmed_seconds") is not None
    if injection.get("confirmed") is None and not seen:
        text = f"no independent probe saw the fault take effect on {injection['target']}"
        found.append(Finding(Verdict.INVALID, "effect_unknown", text))
    packets = injection.get("fin_rst_seen")
    if packets is None and drill["fault"] in POWER_LOSSES:
        text = f"nobody watched the wire for a farewell of {injection['target']}: it may have been shut down"
        found.append(Finding(Verdict.INVALID, "wire_not_watched", text))
    if packets:
        text = (
            f"{packets} FIN or RST from {injection['target']} after the cut: not what a power loss looks like"
        )
        found.append(Finding(Verdict.INVALID, "not_a_power_loss", text, packets, 0))
    return found


def _clocks(clocks: Clocks | None) -> list[Finding]:
    if clocks is None:
        return []
    found = []
    budget = clocks.get("budget_seconds")
    for host, clock in sorted(clocks["hosts"].items()):
        if clock.get("stepped"):
            text = f"the clock of {host} was stepped during the drill"
            found.append(Finding(Verdict.INVALID, "clock_stepped", text))
        offsets = [clock.get("offset_seconds_before"), clock.get("offset_seconds_after")]
        worst = max((abs(o) for o in offsets if o is not None), default=None)
        if worst is None and host != "controller":
            text = f"the clock of {host} could not be read, before or after"
            found.append(Finding(Verdict.INVALID, "clock_unknown", text, None, budget))
        bound = clock.get("error_bound_seconds")
        if worst is not None and budget is not None and worst <= budget < (bound or 0):
            text = f"the clock of {host} may have been off by {bound:g} s, says chrony; the budget is {budget:g} s"
            found.append(Finding(Verdict.INVALID, "clock_uncertain", text, bound, budget))
        if worst is not None and budget is not None and worst > budget:
            text = f"the clock of {host} was off by {worst:g} s; the budget is {budget:g} s"
            found.append(Finding(Verdict.INVALID, "clock_offset", text, worst, budget))
    return found


def _frame(drill: Drill) -> list[Finding]:
    """Findings about the frame of the experiment: place of the prober, approval, steady states."""
    found = []
    scope = drill.get("scope") or {}
    zone = scope.get("prober_failure_zone")
    hit = {t["failure_zone"]: t["name"] for t in scope.get("targets", []) if t.get("failure_zone")}
    if zone in hit:
        text = f"the prober stood in {zone}, the failure zone of {hit[zone]}: its silence proves nothing"
        found.append(Finding(Verdict.INVALID, "prober_in_failed_zone", text, zone))
    approved = (drill.get("authorisation") or {}).get("plan_sha256")
    plan = (drill.get("tool") or {}).get("plan_sha256")
    if approved and plan and approved != plan:
        text = "the approval is bound to another plan than the one that ran"
        found.append(Finding(Verdict.INVALID, "approval_of_another_plan", text, plan, approved))
    if drill.get("control") is None:
        text = "there was no run without a fault to compare with"
        found.append(Finding(Verdict.INVALID, "no_control_run", text))
    states = drill.get("steady_state") or {}
    for when, broken in (("before", Verdict.INVALID), ("after", Verdict.FAIL)):
        health = (states.get(when) or {}).get("health", "UNKNOWN")
        if health != "HEALTHY":
            verdict = Verdict.INVALID if health == "UNKNOWN" else broken
            text = f"the system was {health} {when} the drill"
            found.append(Finding(verdict, f"not_steady_{when}", text, health, "HEALTHY"))
    return found


def _residue(drill: Drill, residue: Residue | None) -> list[Finding]:
    if residue is None:
        return [Finding(Verdict.INVALID, "residue_unknown", "nobody looked for what the fault left behind")]
    wanted = {target["name"] for target in (drill.get("scope") or {}).get("targets", [])}
    blind = {host for host, look in residue["hosts"].items() if not look["looked"]}
    blind |= wanted - residue["hosts"].keys()
    blind |= {item["host"] for item in residue["items"] if item["kind"] == COULD_NOT_LOOK}
    found = []
    if blind:
        text = f"could not look for residue on {', '.join(sorted(blind))}"
        found.append(Finding(Verdict.INVALID, "residue_unknown", text))
    left = residue_items(residue)
    for item in left:
        text = f"{item['host']}: {item['kind']} left behind: {item['detail']}"
        found.append(Finding(Verdict.FAIL, "residue_left", text))
    for key, what in (
        ("redundancy", "full redundancy was not restored"),
        ("backups_valid", "backups are not valid"),
    ):
        state = residue.get(key)
        if isinstance(state, dict) and state["health"] != "HEALTHY":
            verdict = Verdict.INVALID if state["health"] == "UNKNOWN" else Verdict.FAIL
            text = f"{what}: {state.get('detail') or state['health']}"
            found.append(
                Finding(verdict, f"{key}_{state['health'].lower()}", text, state["health"], "HEALTHY")
            )
    return found


def residue_items(residue: Residue) -> list[dict[str, Any]]:
    """What was really left behind, without the places where nobody could look."""
    return [item for item in residue["items"] if item["kind"] != COULD_NOT_LOOK]


def _targets(targets: Mapping[str, Mapping[str, Any]], judged: Judged | None) -> list[Finding]:
    if not targets:
        text = "the drill named no target, so nothing could be met"
        return [Finding(Verdict.INVALID, "no_targets", text)]
    found = []
    for name, row in targets.items():
        unit = " s" if row["unit"] == "s" else ""
        limit = row["limit"]
        if row["met"] is None:
            found.append(Finding(Verdict.INVALID, "target_unknown", f"{name} was not measured", None, limit))
        elif not row["met"] and row["worst"] is None:
            # The ledger says it better where it is about the writes themselves.
            if judged is None or name != "rto_client_seconds":
                text = f"{name}: not reached while the drill looked; the target is {limit:g}{unit}"
                found.append(Finding(Verdict.FAIL, "target_missed", text, None, limit))
        elif not row["met"]:
            text = f"{name} is at worst {row['worst']:g}{unit}; the target is {limit:g}{unit}"
            code = TARGET_CODES.get(name, "target_missed")
            found.append(Finding(Verdict.FAIL, code, text, row["worst"], limit))
    return found
