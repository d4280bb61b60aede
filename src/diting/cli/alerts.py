# SPDX-License-Identifier: GPL-3.0-or-later
"""``diting alerts``: the alert relay, which hands alerts to chat rooms and is the alerting's dead man's switch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.verdict import EXIT_USAGE

if TYPE_CHECKING:
    import argparse

CONFIG = Path("/etc/diting/alerts/relay.json")
EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: systemd need not try again."""


def add_parser(sub: Any) -> None:
    """Register the subcommand and its actions."""
    parser: argparse.ArgumentParser = sub.add_parser(
        "alerts",
        help="the alert relay: relay, check-config, try",
        description="Exit status: 0 well; 1 a receiver did not take it; 64 wrong usage; 78 unusable settings.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text, function in (
        ("relay", "run the relay", _relay),
        ("check-config", "say everything that is wrong with the settings", _check),
        ("try", "send one message that says it is a try to each receiver, and say who took it", _try),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument(
            "config", type=Path, nargs="?", default=CONFIG, help="settings (default %(default)s)"
        )
        if name == "try":
            action.add_argument(
                "--receiver", action="append", default=[], help="only this one; may be given again"
            )
        action.set_defaults(func=function)


def _load(args: argparse.Namespace) -> Any:
    from ..alerts.settings import load
    from ..guards.runtime.settings import ConfigError

    try:
        return load(args.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(EXIT_CONFIG) from None


def _relay(args: argparse.Namespace) -> int:
    from ..alerts.server import run

    settings = _load(args)
    try:
        return run(settings)
    except OSError as error:
        print(f"diting alerts relay: {error}", file=sys.stderr)
        return 1


def _check(args: argparse.Namespace) -> int:
    _load(args)
    return 0


def _try(args: argparse.Namespace) -> int:
    from ..alerts.deliver import deliver
    from ..alerts.messages import notification

    settings = _load(args)
    known = {receiver.name: receiver for receiver in settings.receivers}
    if strangers := sorted(set(args.receiver) - set(known)):
        print(
            f"diting alerts try: --receiver: found {', '.join(strangers)}, wanted any of {', '.join(known)}",
            file=sys.stderr,
        )
        return EXIT_USAGE
    labels = {"alertname": "DitingTry", "severity": "info"}
    summary = "Somebody tries whether messages arrive here. Nothing is wrong."
    alert = {
        "status": "firing",
        "labels": labels,
        "annotations": {"summary": summary},
        "fingerprint": "diting-try",
    }
    told = notification({"version": "4", "status": "firing", "alerts": [alert], "truncatedAlerts": 0})
    failed = False
    for name in args.receiver or known:
        why = deliver(known[name], told, settings.timeout_seconds)
        failed = failed or why is not None
        print(f"{name}: {'taken' if why is None else why}")
    return int(failed)
