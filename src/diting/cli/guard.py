# SPDX-License-Identifier: GPL-3.0-or-later
"""``diting guard``: run a guard, check its configuration, look at it, replay its journal, pause it."""

from __future__ import annotations

import json
import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.verdict import EXIT_USAGE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from ..guards.runtime.config import Loaded

EXIT_PROBLEM = 1
"""Something could not be read or done, or a check found trouble."""

CONFIG_DIRECTORY = Path("/etc/diting/guards")
_SUFFIXES = (".json", ".yml", ".yaml")


def add_parser(sub: Any) -> None:
    """Register ``guard`` and its actions."""
    parser: argparse.ArgumentParser = sub.add_parser(
        "guard",
        help="resident daemons: run, check-config, status, replay, pause",
        description="Exit status: 0 well, 1 trouble found or not done, 64 wrong usage, 78 unusable configuration (run).",
    )
    parser.add_argument(
        "--config-dir",
        type=Path,
        default=CONFIG_DIRECTORY,
        metavar="DIR",
        help="where a NAME's file is looked for",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    run = actions.add_parser("run", help="run a guard in the foreground, as its unit does")
    run.add_argument("config", metavar="NAME|FILE", help="its configuration")
    run.set_defaults(func=_run)

    check = actions.add_parser("check-config", help="say everything that is wrong with configurations")
    check.add_argument("config", metavar="NAME|FILE", nargs="+")
    check.set_defaults(func=_check)

    status = actions.add_parser("status", help="what the guards of this host are doing")
    status.add_argument("config", metavar="NAME|FILE", nargs="*", help="all by default")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(func=_status)

    replay = actions.add_parser(
        "replay", help="make recorded decisions again; name the first line and field that differ"
    )
    replay.add_argument("journal", type=Path, metavar="JOURNAL", nargs="+")
    replay.add_argument("--json", action="store_true", help="for programs")
    replay.set_defaults(func=_replay)

    pause = actions.add_parser("pause", help="keep a guard's hands off for a while; it ends by itself")
    pause.add_argument("config", metavar="NAME|FILE")
    length = pause.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, metavar="N", help="at most a day")
    length.add_argument("--end", action="store_true", help="end a pause before its time")
    pause.add_argument("--reason", default="", help="why; it is kept in the guard's journal")
    pause.add_argument("--by", default=None, metavar="NAME", help="the login name by default")
    pause.set_defaults(func=_pause)


def _fail(message: object) -> int:
    print(f"diting guard: {message}", file=sys.stderr)
    return EXIT_PROBLEM


def _file_of(args: argparse.Namespace, word: str) -> Path:
    """A file as it is; a name as its file in the configuration directory."""
    if "/" in word or word.endswith(_SUFFIXES):
        return Path(word)
    candidates = [args.config_dir / f"{word}{suffix}" for suffix in _SUFFIXES]
    found: Path = next((path for path in candidates if path.exists()), candidates[0])
    return found


def _load(args: argparse.Namespace, word: str) -> Loaded:
    from ..guards.runtime import config

    return config.load(_file_of(args, word))


def _run(args: argparse.Namespace) -> int:
    from ..guards.runtime.config import ConfigError

    try:
        loaded = _load(args, args.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 78
    # After the check: a wrong configuration is told before anything heavy is loaded.
    from ..guards.runtime import daemon

    return daemon.run(loaded)


def _check(args: argparse.Namespace) -> int:
    from ..guards.runtime.config import ConfigError

    status = 0
    for word in args.config:
        try:
            document = _load(args, word).document
        except ConfigError as error:
            print(error, file=sys.stderr)
            count = len(error.problems)
            print(f"{error.source}: {count} problem{'s' if count > 1 else ''}", file=sys.stderr)
            status = EXIT_PROBLEM
        else:
            print(f"{_file_of(args, word)}: guard {document.guard}, named {document.title}")
    return status


def _all_files(args: argparse.Namespace) -> list[str]:
    if not args.config_dir.is_dir():
        return []
    return sorted(str(path) for path in args.config_dir.iterdir() if path.suffix in _SUFFIXES)


def _status(args: argparse.Namespace) -> int:
    words = args.config or _all_files(args)
    if not words:
        return _fail(f"{args.config_dir}: no guard is configured on this host")
    found = [_status_of(args, word) for word in words]
    if args.json:
        print(json.dumps(found, indent=1, sort_keys=True))
    else:
        print("\n\n".join("\n".join(status_lines(item)) for item in found))
    return 0 if all(item["verdict"] == "ok" for item in found) else EXIT_PROBLEM


def _status_of(args: argparse.Namespace, word: str) -> dict[str, Any]:
    from ..guards.runtime import status
    from ..guards.runtime.config import ConfigError
    from ..guards.runtime.ports import SystemClock
    from ..guards.runtime.store import Store, StoreError

    try:
        document = _load(args, word).document
        found = Store(document.state_dir, document.run_dir, document.title).read_status()
    except (ConfigError, StoreError) as error:
        return {"guard": word, "verdict": "unknown", "why": str(error)}
    verdict, why = status.verdict(found, SystemClock())
    said = {"verdict": verdict, "why": why, "hindrances": status.hindrances(found)}
    return {**(found or {"guard": document.title, "kind": document.guard}), **said}


def status_lines(item: dict[str, Any]) -> list[str]:
    """One guard's status as an operator reads it, trouble first."""
    from ..core.guard_words import cut
    from ..guards.runtime.status import described

    lines = [f"{item['guard']:<10}{item['verdict'].upper()}{': ' + item['why'] if item['why'] else ''}"]
    if "phase" not in item:
        return lines
    lines.append(
        f"  state       {item['phase']}, cycle {item['cycle']} at {item['updated_at']}, pid {item['pid']}"
    )
    if item["pause"]:
        pause = item["pause"]
        lines.append(f"  paused      until {pause['until_utc']} by {pause['by']} ({pause['reason']})")
    if item["incident_id"]:
        lines.append(f"  incident    {item['incident_id']}")
    lines += [f"  {label:<11} {words}" for label, words in (described(item) if item["observation"] else ())]
    lines += [
        f"  last did    {cut(action['name'] + ' ' + json.dumps(action['args'], sort_keys=True))}"
        for action in item["last_actions"]
    ]
    waiting = item["alerts_waiting"]
    firing = ", ".join(item["alerts_firing"]) or "none"
    late = f"; {waiting} that no receiver knows of yet" if waiting else ""
    lines.append(f"  alerts      firing: {firing}{late}")
    lines.append(f"  journal     {item['journal']}")
    return lines


def _replay(args: argparse.Namespace) -> int:
    from ..core import guard_replay

    reports: list[dict[str, Any]] = []
    for path in args.journal:
        try:
            with path.open(encoding="utf-8", errors="replace") as stream:
                kind = _kind_in(stream)
            machine = _machine(kind)
            with path.open(encoding="utf-8", errors="replace") as stream:
                report = guard_replay.replay(_whole_lines(stream), machine)
        except OSError as error:
            return _fail(f"{path}: {error.strerror}")
        except LookupError as error:
            return _fail(f"{path}: {error.args[0]}")
        reports.append({"journal": str(path), "guard": kind, **report.as_dict()})
        if args.json:
            continue
        if report.ok:
            counts = f"{report.cycles} cycles in {report.segments} segments, {report.actions} actions"
            print(f"{path}: identical: {counts} (records {report.first_seq} to {report.last_seq})")
        else:
            why = str(report.difference) if report.difference else "no decision in it, so nothing is proven"
            print(f"{path}: {why}", file=sys.stderr)
    if args.json:
        print(json.dumps(reports, indent=1, sort_keys=True))
    return 0 if all(report["ok"] for report in reports) else EXIT_PROBLEM


def _whole_lines(stream: Any) -> Iterator[str]:
    """Lines that were finished: what follows the last newline was never acknowledged to anybody."""
    return (line[:-1] for line in stream if line.endswith("\n"))


def _kind_in(stream: Any) -> str:
    """The kind of guard that wrote a journal, from its first segment. Raises LookupError."""
    for line in _whole_lines(stream):
        try:
            record = json.loads(line)
            if record["event"] == "segment":
                return str(record["guard"])
        except (ValueError, KeyError, TypeError):
            # The replay will say what is wrong with this line.
            continue
    raise LookupError("no segment in it: not the journal of a guard, or nothing was decided yet")


def _machine(kind: str) -> Any:
    from ..guards.runtime import registry

    try:
        return registry.load(kind).machine
    except KeyError:
        raise LookupError(f"written by a guard {kind!r}, which this release does not have") from None


def _pause(args: argparse.Namespace) -> int:
    from ..guards.runtime.config import ConfigError
    from ..guards.runtime.ports import SystemClock
    from ..guards.runtime.store import Store, begin_pause

    if not args.end and not args.reason.strip():
        print("diting guard pause: --reason is missing: say why, it is kept", file=sys.stderr)
        return EXIT_USAGE
    try:
        document = _load(args, args.config).document
    except ConfigError as error:
        return _fail(error)
    store = Store(document.state_dir, document.run_dir, document.title)
    try:
        if args.end:
            store.pause_file.unlink(missing_ok=True)
            print(f"{document.title}: not paused")
            return 0
        by = args.by or os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
        pause = begin_pause(store, SystemClock(), minutes=args.minutes, by=by, reason=args.reason)
    except ValueError as error:
        print(f"diting guard pause: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}")
    print(f"{document.title}: paused until {pause.until_utc:%Y-%m-%d %H:%M:%S} UTC; it ends by itself")
    return 0
