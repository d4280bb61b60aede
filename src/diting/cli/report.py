# SPDX-License-Identifier: GPL-3.0-or-later
"""``diting report``: build, index and verify the evidence of drills."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

EXIT_BROKEN = 1
"""The evidence does not hold, or the report was refused."""

EXIT_DATA = 65
"""EX_DATAERR: the run directory cannot be understood. No verdict has this exit status."""


def add_parser(sub: Any) -> None:
    """Register the subcommand and its actions."""
    parser = sub.add_parser("report", help="build, index and verify the evidence of drills")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    build = actions.add_parser("build", help="make and seal the report of one run; prints the verdict")
    build.add_argument("--run-dir", type=Path, required=True, help="evidence/<UTC time>-<level>-<fault>")
    build.add_argument("--exit-code", action="store_true", help="exit with the verdict's code: 0, 1, 2 or 3")
    build.set_defaults(func=_build)

    check = actions.add_parser("check", help="check the input files of a run; changes nothing")
    check.add_argument("--run-dir", type=Path, required=True)
    check.set_defaults(func=_check)

    index = actions.add_parser("index", help="write index.html: all drills, trends, what has expired")
    index.add_argument("--evidence", type=Path, default=Path("evidence"))
    index.set_defaults(func=_index)

    verify = actions.add_parser("verify-evidence", help="follow the chain and name the first broken link")
    verify.add_argument("--evidence", type=Path, default=Path("evidence"))
    verify.add_argument(
        "--head", metavar="SHA256", help="a report's sha256 you kept elsewhere: it must be in the chain"
    )
    verify.set_defaults(func=_verify)

    schema = actions.add_parser("schema", help="print a published schema")
    schema.add_argument("name", choices=("report-1", "drill-1", "residue-1", "cluster-1", "timeline-1"))
    schema.set_defaults(func=_schema)


def _say(*words: object) -> None:
    print("diting report:", *words, file=sys.stderr)


def _build(args: argparse.Namespace) -> int:
    from ..core.journal import JournalError
    from ..core.verdict import Verdict
    from ..report.build import SealedError, build
    from ..report.chain import ChainError
    from ..report.inputs import EvidenceInputError

    try:
        report = build(args.run_dir)
    except EvidenceInputError as error:
        _say(error)
        return EXIT_DATA
    except (ChainError, SealedError, JournalError, OSError) as error:
        _say(error)
        return EXIT_BROKEN
    print(f"{report['verdict']} {args.run_dir / 'report.html'} {report['sha256']}")
    for reason in report["reasons"]:
        print(f"  {reason['verdict']} {reason['code']}: {reason['message']}")
    return Verdict(report["verdict"]).exit_code if args.exit_code else 0


def _check(args: argparse.Namespace) -> int:
    from ..report.inputs import EvidenceInputError, load_run

    try:
        problems = load_run(args.run_dir).problems
    except EvidenceInputError as error:
        _say(error)
        return EXIT_DATA
    for problem in problems:
        print(problem)
    return EXIT_DATA if problems else 0


def _index(args: argparse.Namespace) -> int:
    from ..report import index
    from ..report.chain import ChainError

    try:
        print(index.write(args.evidence))
    except (ChainError, OSError) as error:
        _say(error)
        return EXIT_BROKEN
    return 0


def _verify(args: argparse.Namespace) -> int:
    from ..report import chain

    if not args.evidence.is_dir():
        _say(f"there is no directory {args.evidence}; wanted: evidence of drills, ./scripts/drill makes it")
        return EXIT_DATA
    try:
        found = chain.verify(args.evidence, args.head)
    except OSError as error:
        _say(error)
        return EXIT_DATA
    for name in found.unsealed:
        print(f"note: {name} has no report: running, or never closed")
    if found.broken:
        print(f"BROKEN after {found.reports} good reports: {found.broken}")
        return EXIT_BROKEN
    print(f"{found.reports} reports, the chain holds; head {found.head or 'none'}")
    return 0


def _schema(args: argparse.Namespace) -> int:
    from ..report.inputs import schema

    print(json.dumps(schema(args.name), indent=2))
    return 0
