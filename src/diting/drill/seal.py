# SPDX-License-Identifier: GPL-3.0-or-later
"""Close a drill's run directory: evidence inputs from what was collected, judgement, report, index.

``python -m diting.drill.seal --run-dir DIR --evidence DIR`` prints one JSON line and exits with the
verdict's code; 65 when the directory cannot be understood.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.journal import utc_text
from ..core.verdict import Verdict
from ..ledger.fields import ConfigError
from ..ledger.rundir import judge_run
from ..ledger.seen import effect
from ..report import chain, index
from ..report.build import build
from ..report.inputs import EvidenceInputError, write_durably
from ..report.verdict import POWER_LOSSES
from . import alert_facts, compare, facts, guard_facts
from .converged import tree_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

EXIT_DATA = 65


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty when the file is not there."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return data if isinstance(data, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The readable lines of a JSON lines file; a torn last line is left out."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    lines = []
    for text in texts:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def write_json(path: Path, data: Any) -> None:
    """Durably, with sorted keys."""
    write_durably(path, json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """One object a line."""
    path.parent.mkdir(exist_ok=True)
    write_durably(path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))


def utc_now() -> str:
    """Now, as every record writes it."""
    return utc_text(datetime.now(UTC))


def git(root: Path, *words: str) -> str | None:
    """One line of git's answer, None outside a checkout."""
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def inventory_hash(sources: list[str]) -> str | None:
    """SHA-256 over the names and contents of the inventory's files; None for one that is not made of files."""
    digest = hashlib.sha256()
    if not sources:
        return None
    for source in map(Path, sources):
        files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        for path in files:
            if not path.is_file():
                return None
            name = path.relative_to(source) if source.is_dir() else Path(path.name)
            digest.update(f"{name}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def tool_section(root: Path, version: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """What ran: version, commit, and the hashes of plan, inventory and tree."""
    status = git(root, "status", "--porcelain")
    return {
        "version": version,
        "git_sha": git(root, "rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
        "plan_sha256": about.get("plan_sha256"),
        "inventory_sha256": inventory_hash([str(source) for source in about.get("inventory_sources") or []]),
        "tree_sha256": tree_hash(root, ()),
    }


def marks_of(ledger: Path) -> dict[str, dict[str, Any]]:
    """The last mark of each label, as an instant of the prober's clock."""
    return {
        str(mark["label"]): {"mono_ns": int(mark["mono_ns"]), "ts": str(mark["utc"])}
        for mark in read_lines(ledger / "marks.jsonl")
        if mark.get("k") == "mark"
    }


def write_inputs(run_dir: Path, root: Path, version: str) -> None:
    """Everything the report reads besides ``drill.json``'s first pages and the ledger's files."""
    collected = read_json(run_dir / "collected.json")
    drill = read_json(run_dir / "drill.json")
    about = collected.get("about") or {}
    ledger = run_dir / "ledger"
    marks = marks_of(ledger)
    watch = read_lines(ledger / "watch.jsonl")
    beside = read_lines(ledger / "watch-cut.jsonl")
    now = utc_now()
    for name in ("before", "after"):
        if seen := collected.get(name):
            etcd = collected.get("etcd") if name == "before" else None
            write_json(run_dir / f"cluster_{name}.json", facts.cluster(seen, now, etcd))
    if "scan" in collected:
        left = facts.residue(
            collected["scan"], collected.get("reverted") or [], collected.get("after") or {}, now
        )
        write_json(run_dir / "residue.json", left)
    host = str(about.get("prober_host", "prober"))
    cut_host = str((about.get("cut") or {}).get("watch_host", host))
    lines = facts.watch_timeline(watch, host) + facts.watch_timeline(beside, cut_host)
    write_json_lines(run_dir / "timeline.jsonl", lines)
    for log in sorted((run_dir / "logs").glob("*.service.log")):
        name, unit = log.name.split(".")[:2]
        lines = facts.log_timeline(log.read_text(encoding="utf-8", errors="replace"), name, unit)
        write_json_lines(run_dir / "timeline" / f"{name}.{unit}.jsonl", lines)
    for log in sorted((run_dir / "logs").glob("*.patroni.jsonl")):
        name = log.name.split(".")[0]
        lines = facts.role_timeline(read_lines(log), name, str(drill.get("started_at")))
        write_json_lines(run_dir / "timeline" / f"{name}.roles.jsonl", lines)
    for (name, guard), records in _guard_journals(run_dir / "logs").items():
        lines = guard_facts.guard_timeline(records, name, guard, str(drill.get("started_at")))
        write_json_lines(run_dir / "timeline" / f"{name}.{guard}.jsonl", lines)
    farewell = read_lines(run_dir / "logs" / "fin-watch.jsonl")
    drill.update(_sections(collected, about, marks, [*watch, *beside], drill, farewell))
    if (asked := collected.get("alerts")) and "inject_sent" in marks and drill.get("outcome") == "completed":
        _set_alerts(run_dir, drill, alert_facts.judge(asked, marks["inject_sent"], drill.get("clocks")))
    if about.get("survived") and drill.get("outcome") == "completed":
        told = facts.role_changes(collected.get("before") or {}, collected.get("after") or {})
        kept = [
            r for r in drill.get("reasons") or [] if r.get("code") not in {"role_changed", "role_unknown"}
        ]
        drill["reasons"] = kept + told
    drill["tool"] = tool_section(root, version, about)
    drill["ended_at"] = now
    write_json(run_dir / "drill.json", drill)
    if marks and about:
        write_json(ledger / "judge-input.json", _judge_input(about))


def _set_alerts(run_dir: Path, drill: dict[str, Any], told: dict[str, Any]) -> None:
    """Put into ``drill`` what became of its alert. One that did not come is a reason, and no target that nobody measured."""
    write_json_lines(run_dir / "timeline" / "alerts.jsonl", told["lines"])
    drill["figures"] = {**(drill.get("figures") or {}), **told["figures"]}
    drill["figure_resolutions"] = {
        **(drill.get("figure_resolutions") or {}),
        **dict.fromkeys(told["figures"], 0.0),
    }
    drill["reasons"] = [*(drill.get("reasons") or []), *told["reasons"]]
    if told["reasons"]:
        drill["targets"] = {
            name: target for name, target in drill["targets"].items() if name != alert_facts.FIGURE
        }


def _guard_journals(logs: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Records of each (host, guard); a journal that was moved aside meanwhile sorts before the one that goes on from it."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for log in sorted(logs.glob("*.journal*.jsonl")):
        name, guard = log.name.split(".")[:2]
        found.setdefault((name, guard), []).extend(read_lines(log))
    return found


def _sections(
    collected: dict[str, Any],
    about: dict[str, Any],
    marks: dict[str, dict[str, Any]],
    watch: list[dict[str, Any]],
    drill: dict[str, Any],
    farewell: list[dict[str, Any]],
) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for name in ("preset", "authorisation", "scope", "hypothesis", "targets", "safety", "not_tested"):
        if about.get(name) is not None:
            sections[name] = about[name]
    if "clocks_before" in collected:
        sections["clocks"] = facts.clocks(
            collected["clocks_before"],
            collected.get("clocks_after") or {},
            str(about.get("prober_host", "prober")),
            float(about.get("clock_budget_seconds", 0.05)),
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        )
    if collected.get("versions"):
        sections["components"] = facts.components(collected["versions"])
    states = {}
    for name in ("before", "after"):
        if collected.get(name):
            states[name] = facts.steady(
                collected[name], str(drill.get("started_at")) if name == "before" else utc_now()
            )
    if states:
        sections["steady_state"] = states
    if {"control_start", "control_end"} <= set(marks):
        start, end = marks["control_start"], marks["control_end"]
        seconds = (end["mono_ns"] - start["mono_ns"]) / 1e9
        sections["control"] = {"seconds": round(seconds, 3), "start": start, "end": end}
    if "inject_sent" in marks and drill.get("injection"):
        sent = marks["inject_sent"]
        last = effect(
            watch, about.get("effect_targets") or [], about.get("effect_states") or [], sent["mono_ns"]
        )
        confirmed = None if last is None else {"mono_ns": int(last["confirmed_ns"]), "ts": str(last["utc"])}
        injection = {**drill["injection"], "sent": sent, "confirmed": confirmed, "confirmed_by": None}
        if confirmed:
            injection["confirmed_by"] = (
                f"watcher on {(about.get('cut') or {}).get('watch_host') or about.get('prober_host')}:"
                f" {', '.join(about['effect_targets'])}"
            )
        if drill["fault"] in POWER_LOSSES:
            steps = {
                step["step"]: step["mono_ns"] for step in (collected.get("injected") or {}).get("steps", [])
            }
            on = (collected.get("settled") or {}).get("powered_on_ns") or []
            injection["fin_rst_seen"] = facts.farewells(farewell, steps.get("link_cut"), on)
        sections["injection"] = injection
        whole = facts.full_redundancy_ns(watch, list(about.get("database_hosts") or []), sent["mono_ns"])
        seconds_whole = None if whole is None else round((whole - sent["mono_ns"]) / 1e9, 3)
        sections["figures"] = {"full_redundancy_seconds": seconds_whole}
        sections["figure_resolutions"] = {"full_redundancy_seconds": 0.5}
    return sections


P99_LIMIT_SECONDS = STABLE_GAP_SECONDS = 0.5
"""Of a drill that was opened before they could be set."""


def _judge_input(about: dict[str, Any]) -> dict[str, Any]:
    targets = about.get("targets") or {}
    limit = (targets.get("rto_client_seconds") or {}).get("limit")
    lost = (targets.get("rpo_count") or {}).get("limit")
    data = {
        "max_lost": 0 if lost is None else int(lost),
        "run_id": about["drill_id"],
        "paths": about["paths"],
        "failed_zone": about["failed_zone"],
        "replicas": about["replicas"],
        "stability_seconds": about["stability_seconds"],
        "stable_gap_seconds": about.get("stable_gap_seconds", STABLE_GAP_SECONDS),
        "p99_limit_seconds": about.get("p99_limit_seconds", P99_LIMIT_SECONDS),
        "min_acked": about["min_acked"],
        "effect": {"target": about["effect_targets"][0], "states": about["effect_states"]},
    }
    if cut := about.get("cut"):
        data["cut"] = {key: cut[key] for key in ("path", "host", "seconds", "fenced")}
    return {**data, "rto_target_seconds": limit} if limit is not None else data


def set_beside(run_dir: Path, evidence: Path, judged: dict[str, Any]) -> None:
    """Put the figures of another drill of the same fault into ``compare``, if this one was asked to.

    Only a report that is sealed as it is counts. Why there is nothing to compare goes into the findings.
    """
    about = read_json(run_dir / "collected.json").get("about") or {}
    name = about.get("compare_with")
    if not name:
        return
    drill = read_json(run_dir / "drill.json")
    other = read_json(evidence / str(name) / "report.json")
    sealed = {record["run"]: record["report_sha256"] for record in chain.records(evidence)}
    if not other or sealed.get(name) != chain.seal_of(other):
        why: str | None = "its report is not there as it was sealed"
    else:
        why = compare.usable(other, str(drill["level"]), str(drill["fault"]))
    if why is None:
        drill["compare"] = compare.figures(other, judged)
    else:
        reason = {"verdict": "INVALID", "code": "compare_unusable", "message": f"{name}: {why}"}
        drill["reasons"] = [*(drill.get("reasons") or []), reason]
    write_json(run_dir / "drill.json", drill)


def not_before_recovery(run_dir: Path, judged: dict[str, Any]) -> None:
    """Redundancy is not full while clients cannot write, whatever the members' pages said in between."""
    drill = read_json(run_dir / "drill.json")
    whole = (drill.get("figures") or {}).get("full_redundancy_seconds")
    recovered = ((judged.get("headline") or {}).get("rto_fault_seconds") or {}).get("high")
    if whole is not None and recovered is not None and recovered > whole:
        drill["figures"]["full_redundancy_seconds"] = round(float(recovered), 3)
        write_json(run_dir / "drill.json", drill)


def seal(run_dir: Path, evidence: Path, root: Path, version: str) -> dict[str, Any]:
    """Write the inputs, judge, build the report and the index; returns the report.

    A run that is sealed already is left exactly as it is: closing it twice must not break its hashes.
    """
    if run_dir.resolve().name in {record["run"] for record in chain.records(evidence)}:
        return read_json(run_dir / "report.json")
    write_inputs(run_dir, root, version)
    ledger = run_dir / "ledger"
    if (ledger / "judge-input.json").is_file():
        try:
            judged = judge_run(ledger)
            write_json(run_dir / "judge.json", judged)
            not_before_recovery(run_dir, judged)
            set_beside(run_dir, evidence, judged)
        except ConfigError as error:
            drill = read_json(run_dir / "drill.json")
            reason = {"verdict": "INVALID", "code": "ledger_unusable", "message": str(error)[:500]}
            drill["reasons"] = [*(drill.get("reasons") or []), reason]
            write_json(run_dir / "drill.json", drill)
    report = build(run_dir)
    index.write(evidence)
    return report


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    from .. import __version__

    parser = argparse.ArgumentParser(prog="python -m diting.drill.seal")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--evidence", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        report = seal(args.run_dir, args.evidence, Path.cwd(), __version__)
    except (EvidenceInputError, OSError, ValueError) as error:
        print(f"{args.run_dir}: {error}", file=sys.stderr)
        return EXIT_DATA
    except Exception:  # noqa: BLE001 - Python would leave with 1, and 1 is the verdict FAIL
        traceback.print_exc()
        return EXIT_DATA
    print(json.dumps({"verdict": report["verdict"], "report": str(args.run_dir / "report.html")}))
    return Verdict(report["verdict"]).exit_code


if __name__ == "__main__":
    sys.exit(main())
