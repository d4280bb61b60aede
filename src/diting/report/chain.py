# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain of evidence: reports in the order they were sealed, each bound by hash to the one before.

``chain.jsonl`` is a journal of ours with one record per report. It adds what the links inside the
reports cannot say: which report was the last one, and what the rendered pages looked like.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.journal import JournalError, sha256_of
from ..hostio.journal import JournalFile
from .inputs import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHAIN = "chain.jsonl"
SEALED = "sealed"
RENDERED = ("report.html", "report.md")
OUTPUTS = frozenset({"report.json", *RENDERED})
BLOCK = 1 << 20


class ChainError(ValueError):
    """The chain cannot be continued; the message names the first broken link."""


@dataclass(frozen=True)
class Broken:
    """The first link that does not hold: which drill, which file, and what is wrong with it."""

    run: str
    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.run}/{self.file}: {self.problem}"


@dataclass(frozen=True)
class Verified:
    """Outcome of :func:`verify`. ``unsealed`` lists run directories that never got a report."""

    reports: int
    head: str | None
    broken: Broken | None
    unsealed: list[str] = field(default_factory=list)


@contextlib.contextmanager
def locked(evidence: Path) -> Iterator[None]:
    """Hold the evidence directory for one writer. Waits for another one to finish."""
    with (evidence / ".chain.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks: a ledger may be large."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def artefacts(directory: Path) -> list[dict[str, Any]]:
    """Every file of a run but the report itself: ``{path, bytes, sha256}``, by path.

    Raises ChainError for a symbolic link: evidence that lies elsewhere can change unseen.
    """
    found = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise ChainError(f"{path} is a symbolic link; evidence is kept as files")
        if path.is_file() and name not in OUTPUTS:
            found.append({"path": name, "bytes": path.stat().st_size, "sha256": sha256_file(path)})
    return found


def seal_of(report: dict[str, Any]) -> str:
    """The value of ``sha256`` that belongs to ``report``: over its canonical JSON without that key."""
    return sha256_of({key: value for key, value in report.items() if key != "sha256"})


def records(evidence: Path) -> list[dict[str, Any]]:
    """What was sealed, in order. Raises ChainError where the journal of the chain is broken."""
    try:
        found = _journal(evidence).records()
    except (JournalError, OSError) as error:
        raise ChainError(str(error)) from error
    return [record for record in found if record["event"] == SEALED]


def append(evidence: Path, run: str, report_sha256: str, previous_sha256: str | None) -> None:
    """Seal ``run`` into the chain: durable when this returns. The caller holds :func:`locked`."""
    fields = {
        "run": run,
        "report_sha256": report_sha256,
        "previous_sha256": previous_sha256,
        "files": {name: sha256_file(evidence / run / name) for name in RENDERED},
    }
    _journal(evidence).append(SEALED, fields)


def verify(evidence: Path, expected_head: str | None = None) -> Verified:
    """Follow the chain from the first report and stop at the first broken link.

    ``expected_head`` is a report's ``sha256`` kept elsewhere: with it, a chain whose newest reports
    were removed, or that was written anew, is found out as well.
    """
    directories = sorted(p.name for p in evidence.iterdir() if p.is_dir() and not p.is_symlink())
    whole = _journal(evidence).verify()
    if not whole.ok:
        return Verified(0, None, Broken(evidence.name, CHAIN, f"line {whole.line}: {whole.problem}"))
    sealed = records(evidence)
    previous: str | None = None
    for count, record in enumerate(sealed):
        broken = _broken_link(evidence, record, previous)
        if broken:
            return Verified(count, previous, broken)
        previous = record["report_sha256"]
    known = {record["run"] for record in sealed}
    for name in directories:
        if name not in known and (evidence / name / "report.json").exists():
            broken = Broken(
                name, "report.json", f"is not in {CHAIN}: added by hand, or its record was removed"
            )
            return Verified(len(sealed), previous, broken)
    if expected_head and expected_head not in {record["report_sha256"] for record in sealed}:
        text = f"report {expected_head} once existed and is not in the chain: cut off or rewritten"
        return Verified(len(sealed), previous, Broken(evidence.name, CHAIN, text))
    unsealed = [n for n in directories if n not in known and (evidence / n / "drill.json").exists()]
    return Verified(len(sealed), previous, None, unsealed)


def _journal(evidence: Path) -> JournalFile:
    return JournalFile(evidence / CHAIN, "report")


def _broken_link(evidence: Path, record: dict[str, Any], previous: str | None) -> Broken | None:
    run = str(record["run"])
    directory = evidence / run
    try:
        report = read_json(directory / "report.json")
    except FileNotFoundError:
        what = "report.json" if directory.is_dir() else ""
        return Broken(run, what, "is missing")
    except (OSError, ValueError) as error:
        return Broken(run, "report.json", f"cannot be read: {error}")
    if not isinstance(report, dict) or seal_of(report) != report.get("sha256"):
        return Broken(run, "report.json", "was edited: its sha256 does not match its content")
    if report["sha256"] != record["report_sha256"]:
        return Broken(run, "report.json", "is not the report that was sealed: rewritten")
    if report.get("previous_sha256") != previous or record["previous_sha256"] != previous:
        return Broken(
            run,
            "report.json",
            f"follows {report.get('previous_sha256')}, but the report before is {previous}",
        )
    for name, digest in record["files"].items():
        broken = _changed(directory, name, digest, run)
        if broken:
            return broken
    return _artefacts(directory, report, run)


def _artefacts(directory: Path, report: dict[str, Any], run: str) -> Broken | None:
    listed = {entry["path"]: entry["sha256"] for entry in report.get("artefacts", [])}
    for name, digest in listed.items():
        broken = _changed(directory, name, digest, run)
        if broken:
            return broken
    try:
        extra = sorted({entry["path"] for entry in artefacts(directory)} - listed.keys())
    except ChainError as error:
        return Broken(run, "", str(error))
    return Broken(run, extra[0], "was added after the report was sealed") if extra else None


def _changed(directory: Path, name: str, digest: str, run: str) -> Broken | None:
    try:
        found = sha256_file(directory / name)
    except FileNotFoundError:
        return Broken(run, name, "is missing")
    except OSError as error:
        return Broken(run, name, f"cannot be read: {error.strerror}")
    return None if found == digest else Broken(run, name, "was changed after the report was sealed")
