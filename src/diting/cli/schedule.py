# SPDX-License-Identifier: GPL-3.0-or-later
"""``diting schedule``: drills, restore tests and whatever else is done regularly."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.verdict import EXIT_USAGE

if TYPE_CHECKING:
    import argparse

CONFIG = Path("/etc/diting/schedule.json")
_EXIT_UNKNOWN = 2


def add_parser(sub: Any) -> None:
    """Register the subcommand and its actions."""
    parser: argparse.ArgumentParser = sub.add_parser(
        "schedule",
        help="what is done regularly: list, run, look, check-config",
        description=(
            "Exit status of list and look: 0 all is well, 1 something is overdue, failed or will not be started, 2 nobody could look; "
            "of run: the job's own, 75 another one was under way, 124 it took too long; of all: 64 unusable table."
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="how each job stands")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(func=_list)
    look = actions.add_parser("look", help="write the figures for Prometheus")
    look.set_defaults(func=_look)
    run = actions.add_parser("run", help="run a job now; it counts as if its timer had")
    run.add_argument("job", help="its name")
    run.set_defaults(func=_run)
    check = actions.add_parser("check-config", help="say everything that is wrong with the table")
    check.add_argument("file", type=Path, nargs="?", default=CONFIG)
    check.set_defaults(func=_check)
    for action in (listing, look, run):
        action.add_argument("--config", type=Path, default=CONFIG, help="the table (default %(default)s)")


def _list(args: argparse.Namespace) -> int:
    from ..guards.runtime.settings import ConfigError
    from ..schedule.config import load
    from ..schedule.table import LookError, as_data, as_text, look, worst

    try:
        found = look(load(args.config))
    except ConfigError as error:
        return _said(str(error), EXIT_USAGE)
    except LookError as error:
        return _said(str(error), _EXIT_UNKNOWN)
    print(json.dumps(as_data(found), sort_keys=True) if args.json else "\n".join(as_text(found)))
    return worst(found)


def _look(args: argparse.Namespace) -> int:
    from ..guards.runtime.settings import ConfigError
    from ..hostio.restore_records import RecordsError, write
    from ..schedule.config import load
    from ..schedule.table import LookError, as_metrics, look

    try:
        table = load(args.config)
        found = look(table, remember=True)
        if table.metrics_file is not None:
            write(table.metrics_file, as_metrics(found))
    except ConfigError as error:
        return _said(str(error), EXIT_USAGE)
    except (LookError, RecordsError) as error:
        return _said(str(error), _EXIT_UNKNOWN)
    # That a job is overdue is what the figures are for; this unit did its work.
    return 0


def _run(args: argparse.Namespace) -> int:
    from ..guards.runtime.settings import ConfigError
    from ..schedule.config import load
    from ..schedule.run import run

    try:
        table = load(args.config)
        outcome = run(table, table.job(args.job))
    except ConfigError as error:
        return _said(str(error), EXIT_USAGE)
    return _said(outcome.problem, outcome.status) if outcome.problem else outcome.status


def _check(args: argparse.Namespace) -> int:
    from ..guards.runtime.settings import ConfigError
    from ..schedule.config import load

    try:
        load(args.file)
    except ConfigError as error:
        return _said(str(error), EXIT_USAGE)
    return 0


def _said(problem: str, status: int) -> int:
    print(f"diting schedule: {problem}", file=sys.stderr)
    return status
