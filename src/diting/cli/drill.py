# SPDX-License-Identifier: GPL-3.0-or-later
"""``diting drill``: run a drill in the lab from start to verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add_parser(sub: Any) -> None:
    """Register ``drill``."""
    parser: argparse.ArgumentParser = sub.add_parser(
        "drill",
        help="bring the lab up, run a drill, print the verdict",
        description="Exit status: 0 PASS, 1 FAIL, 2 INVALID, 3 ABORTED, 64 wrong usage.",
    )
    parser.add_argument("level", nargs="?", default="l4", help="fault level, l4 by default")
    parser.add_argument(
        "-e",
        "--extra-vars",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="handed to every playbook, for example -e drill_fault=postgres_kill",
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run the drill N times")
    parser.add_argument(
        "--no-converge", action="store_true", help="the lab is up and converged: go straight to the drill"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from ..drill import runner

    request = runner.Request(
        level=args.level.lower(),
        extra=tuple(args.extra_vars),
        repeat=args.repeat,
        converge=not args.no_converge,
    )
    return runner.run(Path.cwd(), runner.lab_home(), request)
