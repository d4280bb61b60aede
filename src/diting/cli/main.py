# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``diting``: one entry point, subcommands loaded only when they are asked for.

A host holds the dependencies of what it runs and no more (the prober's libpq is not on the control
host, the report's templates are not on the client), so a subcommand whose module cannot be imported
must neither slow down nor break the others.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING, NoReturn

from .. import __version__
from ..core.verdict import EXIT_USAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "gate": "the one door for every change of a live system: status, stop, pause, journal",
    "alerts": "alerts to chat rooms, and the dead man's switch: relay, check-config, try",
    "backup": "scheduled backups: run, check-config",
    "guard": "resident daemons: run, check-config, status, replay, pause",
    "ledger": "count acknowledged writes: prober, watcher, reader, judge",
    "schedule": "what is done regularly: list, run, look, check-config",
    "report": "build, index and verify the evidence of drills",
    "lab": "power control and power loss of lab hosts",
    "drill": "phases of a drill",
}
"""Subcommand -> one line of help. Each is the module ``diting.cli.<name>``."""

EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells report it."""

EXIT_PIPE = 141
"""Exit status when the reader of our output has gone: 128 + SIGPIPE."""


class UsageParser(argparse.ArgumentParser):
    """Parser that leaves with EX_USAGE: exit status 2 is a drill's INVALID and must stay that."""

    def error(self, message: str) -> NoReturn:
        """Print usage and the fault on stderr, exit 64."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def build_parser(command: str | None) -> UsageParser:
    """The whole parser, with only ``command`` (a key of COMMANDS) fully loaded.

    Raises:
        ImportError: the module of ``command``, or a dependency of it, is not installed here.
    """
    parser = UsageParser(prog="diting", description="Diting DR: recovery you can prove.")
    parser.add_argument("--version", action="version", version=f"diting {__version__}")
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        if name == command:
            importlib.import_module(f"diting.cli.{name}").add_parser(sub)
        else:
            sub.add_parser(name, help=text, add_help=False)
    return parser


def _command_of(argv: Sequence[str]) -> str | None:
    """The subcommand asked for: the first word that is no option."""
    word = next((arg for arg in argv if not arg.startswith("-")), None)
    return word if word in COMMANDS else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status (64 for wrong usage)."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = _command_of(words)
    try:
        parser = build_parser(command)
    except ImportError as error:
        print(
            f"diting {command}: not available on this host: {error}. "
            f"Install the package with the dependencies of '{command}' (role guard_runtime).",
            file=sys.stderr,
        )
        return EXIT_USAGE
    args = parser.parse_args(words)
    try:
        status = args.func(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone. Point stdout elsewhere, or the interpreter complains at exit.
        sys.stdout = sys.stderr
        return EXIT_PIPE
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main())
