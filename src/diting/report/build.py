# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn a run directory into a sealed report: canonical JSON first, then the pages made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.journal import canonical_json
from . import chain, inputs, sections
from .experiment import case_of
from .judged import Judged, from_document
from .timeline import spans
from .verdict import compare_targets, decide

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA_VERSION = 1
HISTORY = 20
"""At most so many earlier runs of the same experiment are listed beside this one."""

REPEAT_KEYS = ("rto_client_seconds", "rto_fault_seconds", "rpo_count", "full_redundancy_seconds")


class SealedError(ValueError):
    """The run already has a sealed report, and its inputs would now give another one."""


def _judgement(run: inputs.Run) -> Judged | None:
    if run.judge is None:
        return None
    try:
        return from_document(run.judge)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"is not a judgement of the ledger: {type(error).__name__}: {error}"
        run.problems.append(inputs.Problem("judge.json", "", problem))
        return None


def _figures(drill: dict[str, Any], judged: Judged | None) -> dict[str, float | None]:
    """Every figure a target may bound. Times come from the worse path, counts from all paths together."""
    totals: dict[str, Any] = judged.totals if judged else {}
    head = judged.head if judged else None
    figures: dict[str, float | None] = {
        "rto_client_seconds": totals.get("rto_client_seconds"),
        "rto_fault_seconds": head.rto_fault_seconds if head else None,
        "resolution_seconds": totals.get("resolution_seconds"),
        "rpo_time_seconds": totals.get("rpo_time_seconds"),
        "full_redundancy_seconds": None,
        **{key: totals.get(key) for key in ("rpo_count", "acked", "lost", "ghost", "duplicate")},
    }
    # Of one path only where somebody bounds it: in ``paths`` each of them stands anyway.
    for name, path in judged.paths.items() if judged else ():
        if (key := path_figure(name)) in drill.get("targets", {}):
            figures[key] = path.rto_client_seconds
    return figures | dict(drill.get("figures", {}))


def path_figure(path: str) -> str:
    """Name of the figure that is the client's RTO on one path."""
    return f"rto_client_{path}_seconds"


def assemble(
    run: inputs.Run,
    previous_sha256: str | None,
    earlier: Sequence[dict[str, Any]],
    files: list[dict[str, Any]],
) -> dict[str, Any]:
    """The whole report as data, sealed. The same inputs always give the same bytes.

    ``earlier`` are the sealed reports before this one, oldest first; ``files`` the artefacts.
    """
    gaps = sections.Gaps()
    drill = run.drill
    judged = _judgement(run)
    figures = _figures(dict(drill), judged)
    resolutions: dict[str, float | None] = dict(drill.get("figure_resolutions", {}))
    for name in ("rto_client_seconds", "rto_fault_seconds", "rpo_time_seconds"):
        resolutions[name] = figures["resolution_seconds"]
    for name, path in judged.paths.items() if judged else ():
        if path_figure(name) in figures:
            resolutions[path_figure(name)] = path.resolution_seconds
    targets = compare_targets(drill, figures, resolutions, judged is not None and judged.not_recovered)
    verdict, findings = decide(run, judged, targets)
    for key, value in figures.items():
        gaps.keep(key, value, "nothing in the run's records says it")
    timeline, parts = sections.timeline(run, judged, gaps)
    preset = drill.get("preset") or {}
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict.value,
        "reasons": [finding.as_dict() for finding in findings],
        "level": drill["level"],
        "fault": drill["fault"],
        "started_at": drill["started_at"],
        "ended_at": gaps.keep("ended_at", drill.get("ended_at"), "the drill did not reach its end"),
        **figures,
        "targets": targets,
        "timeline": timeline,
        "residue": sections.residue(run, gaps),
        "components": drill.get("components", {}),
        "paths": {n: sections.path_summary(p) for n, p in judged.paths.items()} if judged else {},
        "preset": gaps.keep("preset", preset.get("name"), "the drill named no preset"),
        "compare": gaps.keep(
            "compare", drill.get("compare"), "no second configuration was measured in this run"
        ),
        "preset_detail": preset or None,
        "headline_path": judged.headline if judged else None,
        "figure_resolutions": resolutions,
        "split": parts,
        "split_spans": spans(timeline, judged.head.recovered_at if judged and judged.head else None),
        "header": sections.header(drill, gaps),
        **sections.given(drill, gaps),
        "data": sections.data(judged, run, gaps),
        "cluster": {"before": run.cluster_before, "after": run.cluster_after},
        "cleanup": sections.cleanup(run, gaps),
        "validity": sections.validity(drill),
        "series": gaps.keep("series", sections.series(judged), "there is no judgement of the ledger"),
        "artefacts": files,
        "previous_sha256": previous_sha256,
    }
    report["repeats"] = _repeats(report, earlier)
    report["not_measured"] = dict(sorted(gaps.reasons.items()))
    report["sha256"] = chain.seal_of(report)
    return report


def _repeats(report: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Contents 2: every run of the same experiment so far, and the worst; never a mean alone."""
    same = [
        r
        for r in earlier
        if all(r[k] == report[k] for k in ("level", "fault")) and case_of(r) == case_of(report)
    ]
    runs = [
        {
            "drill_id": r["header"]["drill_id"],
            "verdict": r["verdict"],
            **{key: r.get(key) for key in REPEAT_KEYS},
        }
        for r in [*same[-HISTORY:], report]
    ]
    counted = [r for r in runs if r["verdict"] in {"PASS", "FAIL"}]
    worst = {}
    for key in REPEAT_KEYS:
        values = [r[key] for r in counted]
        # A run without the figure may be the worst of all: writes that never came back have no RTO.
        worst[key] = max(values) if values and None not in values else None
    return {"n": len(counted), "runs": runs, "worst": worst}


def build(directory: Path) -> dict[str, Any]:
    """Build, render and seal the report of one run; point ``latest`` at it. Returns the report.

    Raises:
        EvidenceInputError: ``drill.json`` is unusable.
        ChainError: the evidence before this run no longer holds, so nothing is added to it.
        SealedError: this run is sealed already and its files were changed since.
    """
    from .index import write as write_index
    from .render import html, markdown

    directory = directory.resolve()
    evidence = directory.parent
    with chain.locked(evidence):
        sealed = chain.records(evidence)
        names = [record["run"] for record in sealed]
        again = directory.name in names
        before = sealed[: names.index(directory.name)] if again else sealed
        previous = before[-1]["report_sha256"] if before else None
        earlier = [_sealed_report(evidence, record) for record in before]
        report = assemble(inputs.load_run(directory), previous, earlier, chain.artefacts(directory))
        if again:
            if report["sha256"] != sealed[names.index(directory.name)]["report_sha256"]:
                raise SealedError(f"{directory.name} is sealed, and its files now say something else")
            return report
        inputs.write_durably(directory / "report.json", canonical_json(report) + "\n")
        inputs.write_durably(directory / "report.html", html(report))
        inputs.write_durably(directory / "report.md", markdown(report))
        chain.append(evidence, directory.name, report["sha256"], previous)
        _point_latest(evidence, directory.name)
        write_index(evidence)
    return report


def _sealed_report(evidence: Path, record: dict[str, Any]) -> dict[str, Any]:
    path = evidence / record["run"] / "report.json"
    try:
        report = inputs.read_json(path)
    except (OSError, ValueError) as error:
        raise chain.ChainError(f"{path}: {error}") from error
    if not isinstance(report, dict) or chain.seal_of(report) != record["report_sha256"]:
        raise chain.ChainError(f"{path} is not the report that was sealed; see diting report verify-evidence")
    return report


def _point_latest(evidence: Path, name: str) -> None:
    link = evidence / ".latest.new"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(evidence / "latest")
