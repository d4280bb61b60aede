# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where a drill's verdict is decided, from everything its run directory holds. Pure.

ABORTED before INVALID before FAIL before PASS: a drill that was cut short, or whose measurement
cannot be trusted, proves nothing about the system, so it must not read as a plain FAIL; its other
findings stay on the list all the same. PASS is what is left when nothing speaks against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .contract import Clocks, Drill, Injection, Residue
    from .inputs import Run
    from .judged import Judged

ORDER = (Verdict.ABORTED, Verdict.INVALID, Verdict.FAIL, Verdict.PASS)
COULD_NOT_LOOK = "could_not_look"


@dataclass(frozen=True)
class Finding:
    """One reason, with the verdict it forces on the drill."""

    verdict: Verdict
    code: str
    message: str
    observed: Any = None
    limit: Any = None

    def as_dict(self) -> dict[str, Any]:
        """The shape of ``reasons[]`` in ``report.json``."""
        return {
            "verdict": self.verdict.value,
            "code": self.code,
            "message": self.message,
            "observed": self.observed,
            "limit": self.limit,
        }


def decide(
    run: Run, judged: Judged | None, targets: Mapping[str, Mapping[str, Any]]
) -> tuple[Verdict, list[Finding]]:
    """Verdict and all reasons, the gravest first. ``targets`` as :func:`compare_targets` returns it."""
    findings = [_own(reason) for reason in run.drill.get("reasons", [])]
    if judged is not None:
        findings += judged.findings
    if run.drill["outcome"] == "aborted":
        # What a cut-short drill did not get to is no further news: only the cut is, and what was found.
        findings.append(_aborted(run.drill))
        findings += [f for f in _residue(run.drill, run.residue) if f.verdict is Verdict.FAIL]
    else:
        findings += _unusable(run, judged)
        findings += _injection(run.drill.get("injection"))
        findings += _clocks(run.drill.get("clocks"))
        findings += _frame(run.drill)
        findings += _residue(run.drill, run.residue)
        findings += _targets(targets)
    ranked = sorted(_once(findings), key=lambda finding: ORDER.index(finding.verdict))
    return (ranked[0].verdict if ranked else Verdict.PASS), ranked


def compare_targets(
    drill: Drill, measured: Mapping[str, float | None], resolutions: Mapping[str, float | None]
) -> dict[str, dict[str, Any]]:
    """Each target beside what was measured. The worst bound, value plus resolution, must keep the limit."""
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
            "met": None if worst is None else worst <= target["limit"],
        }
    return table


def _own(reason: Mapping[str, Any]) -> Finding:
    return Finding(
        Verdict(reason["verdict"]),
        reason["code"],
        reason["message"],
        reason.get("observed"),
        reason.get("limit"),
    )


def _once(findings: Iterable[Finding]) -> list[Finding]:
    """Drop repetitions: drill and ledger may both have seen the same trouble."""
    seen: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        seen.setdefault((finding.code, finding.message), finding)
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
    elif judged.self_test_ok is not True:
        what = "was not run" if judged.self_test_ok is None else "did not report exactly what was planted"
        found.append(Finding(Verdict.INVALID, "detector_self_test", f"the detector's self-test {what}"))
    return found


def _injection(injection: Injection | None) -> list[Finding]:
    if injection is None or injection.get("sent") is None:
        return [Finding(Verdict.INVALID, "fault_not_injected", "no record says that a fault was injected")]
    found = []
    if injection.get("confirmed") is None:
        text = f"no independent probe saw the fault take effect on {injection['target']}"
        found.append(Finding(Verdict.INVALID, "effect_not_seen", text))
    packets = injection.get("fin_rst_seen")
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


def _targets(targets: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    if not targets:
        text = "the drill named no target, so nothing could be met"
        return [Finding(Verdict.INVALID, "no_targets", text)]
    found = []
    for name, row in targets.items():
        unit = " s" if row["unit"] == "s" else ""
        if row["met"] is None:
            text = f"{name} was not measured"
            found.append(Finding(Verdict.INVALID, "target_unknown", text, None, row["limit"]))
        elif not row["met"]:
            text = f"{name} is at worst {row['worst']:g}{unit}; the target is {row['limit']:g}{unit}"
            found.append(Finding(Verdict.FAIL, "target_missed", text, row["worst"], row["limit"]))
    return found
