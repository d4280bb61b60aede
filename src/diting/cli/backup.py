# SPDX-License-Identifier: GPL-3.0-or-later
"""``diting backup``: what the backup timer of a database host runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.verdict import EXIT_USAGE

if TYPE_CHECKING:
    import argparse

CONFIG = Path("/etc/diting/backup/schedule.json")


def add_parser(sub: Any) -> None:
    """Register the subcommand and its actions."""
    parser: argparse.ArgumentParser = sub.add_parser(
        "backup",
        help="scheduled backups: run, check-config",
        description="Exit status: 0 well, or not this member's turn; 1 failed; 2 nobody could say; 64 unusable settings.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = actions.add_parser("run", help="take a backup if it is this member's turn")
    run.add_argument("--config", type=Path, default=CONFIG, help="settings (default %(default)s)")
    run.set_defaults(func=_run)
    check = actions.add_parser("check-config", help="say everything that is wrong with the settings")
    check.add_argument("config", type=Path, nargs="?", default=CONFIG)
    check.set_defaults(func=_check)


def _run(args: argparse.Namespace) -> int:
    from ..backup.config import load
    from ..backup.run import run
    from ..guards.runtime.settings import ConfigError

    try:
        result = run(load(args.config))
    except ConfigError as error:
        print(f"diting backup run: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(json.dumps(result.facts, sort_keys=True))
    return result.status


def _check(args: argparse.Namespace) -> int:
    from ..backup.config import load
    from ..guards.runtime.settings import ConfigError

    try:
        load(args.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    return 0
