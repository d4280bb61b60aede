# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a run directory: every file checked against its schema, every problem named by its place.

A drill takes minutes and hurts; its evidence must not be lost to one bad key. So only the few keys
that say *which* drill this was are indispensable. Any other section that breaks its schema is left
out and named, and the verdict cannot be PASS with a problem on the list.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

from ..hostio import files
from ..hostio.journal import JournalFile

if TYPE_CHECKING:
    from pathlib import Path

    from .contract import Cluster, Drill, Residue, TimelineLine

JOURNAL = "journal.jsonl"
CONTROLLER = "controller"
"""Name of the controller's clock in ``clocks.hosts``: it writes the drill's journal."""

INDISPENSABLE = frozenset({"schema_version", "drill_id", "level", "fault", "started_at", "outcome"})


class EvidenceInputError(ValueError):
    """The run directory cannot be understood at all; the message names file, place and problem."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one input file. ``path`` is a JSON pointer, or ``line N``."""

    file: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path or '/'}: {self.message}"


@dataclass(frozen=True)
class Run:
    """Everything a run directory holds. A file that is absent is None, and that is no problem yet."""

    directory: Path
    drill: Drill
    judge: dict[str, Any] | None
    residue: Residue | None
    cluster_before: Cluster | None
    cluster_after: Cluster | None
    timeline: list[TimelineLine] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """The published JSON schema called ``name``, for example ``drill-1``."""
    text = resources.files(__package__).joinpath("schema", f"{name}.json").read_text("utf-8")
    return cast("dict[str, Any]", json.loads(text))


@functools.cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema(name))


def check(name: str, document: object, file: str) -> list[Problem]:
    """All places where ``document`` breaks schema ``name``, in the order of their paths."""
    found = _validator(name).iter_errors(document)
    problems = [Problem(file, "".join(f"/{part}" for part in e.absolute_path), e.message) for e in found]
    return sorted(problems, key=lambda problem: problem.path)


def _no_constants(text: str) -> float:
    # NaN and Infinity are not JSON; a figure that was not measured is null.
    raise ValueError(f"{text} is not JSON; a figure that was not measured is null")


def read_json(path: Path) -> Any:
    """The parsed document. Raises OSError or ValueError."""
    return json.loads(path.read_text("utf-8"), parse_constant=_no_constants)


def load_drill(path: Path) -> tuple[Drill, list[Problem]]:
    """``drill.json`` with its broken sections left out, and the problems that cost them their place.

    Raises EvidenceInputError when the file, or a key that identifies the drill, is unusable.
    """
    try:
        document = read_json(path)
    except (OSError, ValueError) as error:
        raise EvidenceInputError(f"{path}: {error}") from error
    problems = check("drill-1", document, path.name)
    fatal = [p for p in problems if not p.path or p.path.split("/")[1] in INDISPENSABLE]
    fatal = [p for p in fatal if p.path or not _only_extra_keys(document)]
    if fatal:
        raise EvidenceInputError("\n".join(str(p) for p in fatal))
    known = schema("drill-1")["properties"]
    broken = {p.path.split("/")[1] for p in problems if p.path}
    kept = {key: value for key, value in document.items() if key in known and key not in broken}
    return cast("Drill", kept), problems


def _only_extra_keys(document: object) -> bool:
    """Is the top level sound but for keys nobody knows? Those are named, and cost nothing else."""
    return isinstance(document, dict) and document.keys() >= INDISPENSABLE


def write_drill(directory: Path, drill: Drill) -> None:
    """Write ``drill.json`` atomically and durably. Raises EvidenceInputError naming every problem.

    A drill calls this before it injects anything, so that a killed controller leaves a readable
    record, and again whenever it knows more.
    """
    problems = check("drill-1", drill, "drill.json")
    if problems:
        raise EvidenceInputError("\n".join(str(p) for p in problems))
    write_durably(
        directory / "drill.json", json.dumps(drill, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    )


def write_durably(path: Path, text: str) -> None:
    """Replace ``path`` with ``text``, which everybody may read; a crash leaves the old file or the new one."""
    files.write_atomic(path, text, mode=0o644)


def load_run(directory: Path) -> Run:
    """Read a run directory. Raises EvidenceInputError when ``drill.json`` is unusable."""
    drill, problems = load_drill(directory / "drill.json")
    if drill["drill_id"] != directory.resolve().name:
        named = f"{drill['drill_id']!r}, but the directory is called {directory.resolve().name!r}"
        problems.append(Problem("drill.json", "/drill_id", named))
    judge = _optional(directory / "judge.json", None, problems)
    timeline = _journal(directory, problems) + _timeline(directory, problems)
    return Run(
        directory=directory,
        drill=drill,
        judge=cast("dict[str, Any] | None", judge),
        residue=cast("Residue | None", _optional(directory / "residue.json", "residue-1", problems)),
        cluster_before=cast(
            "Cluster | None", _optional(directory / "cluster_before.json", "cluster-1", problems)
        ),
        cluster_after=cast(
            "Cluster | None", _optional(directory / "cluster_after.json", "cluster-1", problems)
        ),
        timeline=timeline,
        problems=problems,
    )


def _optional(path: Path, schema_name: str | None, problems: list[Problem]) -> object | None:
    try:
        document = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problems.append(Problem(path.name, "", str(error)))
        return None
    found = check(schema_name, document, path.name) if schema_name else []
    if not schema_name and not isinstance(document, dict):
        found = [Problem(path.name, "", "is not an object")]
    problems.extend(found)
    return None if found else cast("object", document)


def _journal(directory: Path, problems: list[Problem]) -> list[TimelineLine]:
    """The drill's own journal, which has to hold as a chain before anything in it is believed."""
    path = directory / JOURNAL
    if not path.exists():
        return []
    whole = JournalFile(path, "report").verify()
    # A killed controller may leave half a line; that is the ABORTED drill itself.
    if not whole.ok and "torn" not in (whole.problem or ""):
        problems.append(Problem(JOURNAL, f"line {whole.line}", whole.problem or "the chain is broken"))
    lines = _lines(JOURNAL, CONTROLLER, path.read_text("utf-8", "replace").splitlines(), problems)
    return lines if whole.ok else lines[: whole.records]


def _timeline(directory: Path, problems: list[Problem]) -> list[TimelineLine]:
    """All lines of ``timeline.jsonl`` and ``timeline/*.jsonl``; the host may come from the file's name."""
    files = [p for p in (directory / "timeline.jsonl",) if p.is_file()]
    files += sorted((directory / "timeline").glob("*.jsonl"))
    lines: list[TimelineLine] = []
    for path in files:
        host = path.name.split(".")[0] if path.parent.name == "timeline" else None
        name = path.relative_to(directory).as_posix()
        try:
            texts = path.read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            problems.append(Problem(name, "", str(error)))
            continue
        lines.extend(_lines(name, host, texts, problems))
    return lines


def _lines(name: str, host: str | None, texts: list[str], problems: list[Problem]) -> list[TimelineLine]:
    kept: list[TimelineLine] = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text, parse_constant=_no_constants)
        except ValueError as error:
            # A host that lost its power may leave half a line at the end of a journal: that is the
            # fault itself, not a flaw of the drill.
            if number < len(texts):
                problems.append(Problem(name, f"line {number}", str(error)))
            continue
        found = check("timeline-1", line, name)
        if found:
            problems.append(Problem(name, f"line {number}{found[0].path}", found[0].message))
            continue
        line.setdefault("host", host)
        line.setdefault("evidence", f"{name}:{number}")
        kept.append(cast("TimelineLine", line))
    return kept
