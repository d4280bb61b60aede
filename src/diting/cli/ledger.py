# SPDX-License-Identifier: GPL-3.0-or-later
"""``diting ledger``: prober, marks, watcher, reader and judge of acknowledged writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.verdict import EXIT_USAGE

if TYPE_CHECKING:
    import argparse

EXIT_FAILED = 1
EXIT_NOT_SEEN = 2


def add_parser(sub: Any) -> None:
    """Register the subcommand and its actions."""
    parser = sub.add_parser("ledger", help="count acknowledged writes: prober, watcher, judge")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    prepare = actions.add_parser("prepare", help="create the table the prober writes to")
    prepare.add_argument("--config", type=Path, required=True, help="prober configuration")
    prepare.add_argument("--keep-days", type=float, default=7.0, help="delete rows of older runs (default 7)")
    prepare.set_defaults(func=_prepare)

    run = actions.add_parser("run", help="probe one client path until SIGTERM or the deadline")
    run.add_argument("--config", type=Path, required=True, help="prober configuration")
    run.set_defaults(func=_run)

    check = actions.add_parser("check-config", help="check configurations and change nothing")
    check.add_argument("--kind", choices=("prober", "watch"), default="prober")
    check.add_argument("files", type=Path, nargs="+", metavar="FILE")
    check.set_defaults(func=_check_config)

    mark = actions.add_parser("mark", help="append a labelled moment of this host's clock")
    mark.add_argument("--file", type=Path, required=True, help="marks file, created if needed")
    mark.add_argument("--label", required=True, help="for example inject_sent")
    mark.add_argument("--data", help="JSON object kept with the mark")
    mark.add_argument("--mono-ns", type=int, help="a moment already measured, instead of now")
    mark.set_defaults(func=_mark)

    watch = actions.add_parser("watch", help="watch targets and log when each goes down and up")
    watch.add_argument("--config", type=Path, required=True, help="watcher configuration")
    watch.set_defaults(func=_watch)

    seen = actions.add_parser("seen", help="wait until the watcher saw targets change; exit 2 if not")
    seen.add_argument("--watch", type=Path, required=True, help="the watcher's file")
    seen.add_argument("--marks", type=Path, required=True, help="the marks file")
    seen.add_argument("--since-mark", required=True, metavar="LABEL", help="only changes after this mark")
    seen.add_argument("--targets", required=True, help="comma-separated; all of them must be seen")
    seen.add_argument("--states", required=True, help="comma-separated, for example down,http_503")
    seen.add_argument("--timeout-seconds", type=float, default=20.0)
    seen.set_defaults(func=_seen)

    read = actions.add_parser("read", help="list the operations one server holds")
    read.add_argument("--config", type=Path, required=True, help="prober configuration")
    read.add_argument("--run-id", required=True)
    read.add_argument("--host", required=True, help="one of connection.hosts")
    read.add_argument("--wait-lsn", help="wait until this replica has replayed so far")
    read.add_argument("--after", type=Path, help="wait for the position in this earlier read's file")
    read.add_argument("--timeout-seconds", type=float, default=60.0)
    read.add_argument("--out", type=Path, help="write here instead of to stdout")
    read.set_defaults(func=_read)

    judge = actions.add_parser("judge", help="compare what was acknowledged with what is there")
    judge.add_argument("--run-dir", type=Path, required=True)
    judge.add_argument("--out", type=Path, help="default: judge.json in the run directory")
    judge.set_defaults(func=_judge)


def _config_failure(error: Any) -> int:
    for problem in error.problems:
        print(f"{error.source}: {problem}", file=sys.stderr)
    return EXIT_USAGE


def _prepare(args: argparse.Namespace) -> int:
    from ..ledger.config import load_prober
    from ..ledger.fields import ConfigError
    from ..ledger.reader import ReadError, prepare

    try:
        prepare(load_prober(args.config), keep_days=args.keep_days)
    except ConfigError as error:
        return _config_failure(error)
    except ReadError as error:
        print(f"diting ledger prepare: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _run(args: argparse.Namespace) -> int:
    import asyncio

    from ..ledger.config import load_prober
    from ..ledger.fields import ConfigError
    from ..ledger.prober import Prober, ProberError

    try:
        config = load_prober(args.config)
    except ConfigError as error:
        return _config_failure(error)

    async def probe() -> dict[str, Any]:
        return await Prober(config).run(lambda ready: print(json.dumps(ready), flush=True))

    try:
        footer = asyncio.run(probe())
    except FileExistsError:
        print(
            f"diting ledger run: {config.ledger_file} exists; a ledger is never continued,"
            " use a new run_id and output_dir",
            file=sys.stderr,
        )
        return EXIT_USAGE
    except (ProberError, OSError) as error:
        print(f"diting ledger run: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(json.dumps(footer), flush=True)
    return 0


def _check_config(args: argparse.Namespace) -> int:
    from ..ledger.config import load_prober, load_watch
    from ..ledger.fields import ConfigError

    status = 0
    for file in args.files:
        try:
            (load_prober if args.kind == "prober" else load_watch)(file)
        except ConfigError as error:
            status = _config_failure(error)
    return status


def _mark(args: argparse.Namespace) -> int:
    from ..ledger.marks import write_mark

    try:
        data = json.loads(args.data) if args.data else None
    except ValueError as error:
        print(f"diting ledger mark: --data is not JSON: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(json.dumps(write_mark(args.file, args.label, data, args.mono_ns)))
    return 0


def _watch(args: argparse.Namespace) -> int:
    import asyncio

    from ..ledger.config import load_watch
    from ..ledger.fields import ConfigError
    from ..ledger.watch import Watcher

    try:
        config = load_watch(args.config)
    except ConfigError as error:
        return _config_failure(error)

    async def look() -> None:
        await Watcher(config).run(lambda: print("ready", flush=True))

    asyncio.run(look())
    return 0


def _seen(args: argparse.Namespace) -> int:
    from ..ledger.seen import mark_ns, wait_for_effect

    since = mark_ns(args.marks, args.since_mark)
    if since is None:
        print(f"diting ledger seen: {args.marks}: no mark {args.since_mark!r}", file=sys.stderr)
        return EXIT_USAGE
    found = wait_for_effect(
        args.watch, args.targets.split(","), args.states.split(","), since, args.timeout_seconds
    )
    if found is None:
        print(f"diting ledger seen: {args.targets} not seen {args.states} in time", file=sys.stderr)
        return EXIT_NOT_SEEN
    print(json.dumps({"target": found["target"], "confirmed_ns": found["confirmed_ns"]}))
    return 0


def _read(args: argparse.Namespace) -> int:
    from ..ledger.config import load_prober
    from ..ledger.fields import ConfigError
    from ..ledger.reader import ReadError, read

    try:
        found = read(
            load_prober(args.config),
            run_id=args.run_id,
            host=args.host,
            wait_lsn=args.wait_lsn or _position(args.after),
            timeout_seconds=args.timeout_seconds,
        )
    except ConfigError as error:
        return _config_failure(error)
    except ReadError as error:
        print(f"diting ledger read: {error}", file=sys.stderr)
        return EXIT_FAILED
    text = json.dumps(found) + "\n"
    if args.out is None:
        sys.stdout.write(text)
    else:
        args.out.write_text(text, encoding="utf-8")
    return 0


def _position(earlier: Path | None) -> str | None:
    """The position at which another server was read; that server's own read waits for nothing."""
    from ..ledger.reader import ReadError

    if earlier is None:
        return None
    try:
        return str(json.loads(earlier.read_text(encoding="utf-8"))["lsn"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(f"--after: {earlier} is not the output of an earlier read: {error!r}") from error


def _judge(args: argparse.Namespace) -> int:
    from ..ledger.fields import ConfigError
    from ..ledger.rundir import judge_run

    try:
        result = judge_run(args.run_dir)
    except ConfigError as error:
        return _config_failure(error)
    out = args.out or args.run_dir / "judge.json"
    out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps({"verdict": result["verdict"], "out": str(out)}))
    return 0
