# SPDX-License-Identifier: GPL-3.0-or-later
"""``diting gate``: look at the gate and move its levers, on the control host, with nothing else up."""

from __future__ import annotations

import json
import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import approval, gate, journal
from ..core.gate_state import Unreadable
from ..core.verdict import EXIT_USAGE
from ..hostio.gate_controls import Controls
from ..hostio.gate_store import GATE_DIRECTORY, POLICY_FILE, GateError, GateFiles
from ..hostio.journal import utc_now

if TYPE_CHECKING:
    import argparse

EXIT_PROBLEM = 1
"""Something could not be read or done, or a check found trouble."""


def login_name() -> str:
    """Who is at the keyboard: the one behind sudo, if there is one."""
    return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name


def add_parser(sub: Any) -> None:
    """Register ``gate`` and its actions."""
    parser: argparse.ArgumentParser = sub.add_parser(
        "gate",
        help="look at the gate and move its levers",
        description="Exit status: 0 done, 1 not done or trouble found, 64 wrong usage.",
    )
    parser.add_argument("--gate-dir", type=Path, default=GATE_DIRECTORY, metavar="DIR")
    parser.add_argument("--policy-file", type=Path, default=POLICY_FILE, metavar="FILE")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    status = actions.add_parser("status", help="lever, maintenance window, breakers, open runs, problems")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(func=_status)

    _control(actions, "stop", "pull the stop-all lever: nothing but undoing a fault begins", reason=False)
    _control(actions, "resume", "put the stop-all lever back")
    pause = _control(actions, "pause", "open a maintenance window; it ends by itself")
    pause.add_argument("--minutes", type=float, required=True, metavar="N")
    _control(actions, "unpause", "close the maintenance window before its time")
    reset = _control(actions, "reset", "close a breaker and forget the failures behind it")
    reset.add_argument("--scenario", required=True)
    reset.add_argument("--target", required=True)
    _control(actions, "rebuild-state", "derive state.json anew from the journal")
    _control(actions, "new-journal", "set a broken journal aside and begin a new one that names it")

    show = actions.add_parser("journal", help="print the newest records, oldest first")
    show.add_argument(
        "--tail", type=int, default=20, metavar="N", help="how many, 20 by default; 0 prints all"
    )
    show.add_argument("--incident", metavar="ID", help="only this incident")
    show.add_argument("--json", action="store_true", help="the records as they are")
    show.set_defaults(func=_journal)

    verify = actions.add_parser("verify-journal", help="follow the hash chain and name the first broken link")
    verify.set_defaults(func=_verify)

    check = actions.add_parser("check-policy", help="say everything that is wrong with a policy")
    check.add_argument("file", type=Path, nargs="?", help="the installed one by default")
    check.set_defaults(func=_check_policy)

    approve = actions.add_parser("approve", help="print an approval that is bound to a plan")
    approve.add_argument("--plan", type=Path, required=True, metavar="FILE", help="the plan as JSON")
    approve.add_argument("--minutes", type=float, default=15, metavar="N", help="valid for, 15 by default")
    approve.add_argument("--by", default=None, metavar="NAME", help="the login name by default")
    approve.set_defaults(func=_approve)


def _control(actions: Any, name: str, text: str, *, reason: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text)
    parser.add_argument("--reason", required=reason, default="", help="why; it is kept in the journal")
    parser.add_argument("--by", default=None, metavar="NAME", help="the login name by default")
    parser.set_defaults(func=_move)
    return parser


def _files(args: argparse.Namespace) -> GateFiles:
    return GateFiles(args.gate_dir, args.policy_file)


def _fail(message: object) -> int:
    print(f"diting gate: {message}", file=sys.stderr)
    return EXIT_PROBLEM


def _move(args: argparse.Namespace) -> int:
    controls = Controls(_files(args))
    names = {"minutes", "scenario", "target"} & vars(args).keys()
    options: dict[str, Any] = {name: getattr(args, name) for name in names}
    act = getattr(controls, args.action.replace("-", "_"))
    try:
        result = act(by=args.by or login_name(), reason=args.reason, **options)
    except GateError as error:
        return _fail(error)
    done = {
        "stop": "the stop-all lever is pulled: only what undoes a fault still runs",
        "resume": "the stop-all lever is back; what was refused meanwhile is not replayed",
        "pause": f"automation and drills wait until {result.get('until')}",
        "unpause": "the maintenance window is closed",
        "reset": "the breaker is closed and its failures are forgotten",
        "rebuild-state": "the state was derived anew from the journal",
        "new-journal": f"the broken journal is now {result.get('set_aside')}; a new one has begun",
    }[args.action]
    print(done if result["changed"] else "nothing to change")
    for note in result["notes"]:
        print(f"note: {note}")
    return 0


def _status(args: argparse.Namespace) -> int:
    status = Controls(_files(args)).status()
    if args.json:
        print(json.dumps(status, indent=1, sort_keys=True))
    else:
        print("\n".join(status_lines(status)))
    return EXIT_PROBLEM if status["problems"] else 0


def status_lines(status: dict[str, Any]) -> list[str]:
    """The status as an operator reads it, trouble first."""
    lines = [f"PROBLEM   {problem}" for problem in status["problems"]]
    lines.append(f"lever     {'PULLED: ' + status['lever'] if status['stopped'] else 'not pulled'}")
    pause = status["pause"]
    if pause:
        lines.append(f"window    PAUSED until {pause['until']} by {pause['by']} ({pause['reason']})")
    else:
        lines.append(f"window    {'cannot be read, counts as open' if status['paused'] else 'none'}")
    if status["open_breakers"] is None:
        lines.append("breakers  cannot be read: everything but undoing a fault is refused")
    else:
        lines.append(f"breakers  {len(status['open_breakers'])} open")
        for item in status["open_breakers"]:
            since = f"open since {item['opened_at']}, {len(item['failures'])} runs that did not help"
            lines.append(f"          {item['scenario']} on {item['target']}: {since}")
    for run in status["open_runs"] or []:
        since = f"allowed {run['allowed_at']}, outcome due {run['due_at']}"
        lines.append(f"open run  {run['scenario']} on {run['target']} ({run['incident_id']}): {since}")
    environment = status["environment"] or "any"
    lines.append(f"policy    {status['policy_sha256'] or 'cannot be read'} (environment: {environment})")
    lines.append(f"journal   {status['journal_records']} records")
    return lines


def record_line(record: dict[str, Any]) -> str:
    """One journal record on one line."""
    event = record["event"]
    if event == "decision":
        asked, decision = record["request"], record["decision"]
        text = f"{asked.get('scenario')} on {asked.get('target')} for {asked.get('actor')}: {decision['message']}"
    elif event == "outcome":
        text = f"{record['scenario']} on {record['target']}: {record['outcome']} {record['detail']}".rstrip()
    else:
        rest = {k: v for k, v in record.items() if k not in journal.RESERVED_KEYS and k != "memory"}
        text = " ".join(f"{key}={value}" for key, value in sorted(rest.items()))
    return f"{record['ts']} {event} {record.get('incident_id', '-')} {text}"


def _journal(args: argparse.Namespace) -> int:
    try:
        records = _files(args).journal.records()
    except (OSError, journal.JournalError) as error:
        return _fail(error)
    if args.incident:
        records = [record for record in records if record.get("incident_id") == args.incident]
    for record in records[-args.tail :] if args.tail > 0 else records:
        print(journal.canonical_json(record) if args.json else record_line(record))
    return 0


def _verify(args: argparse.Namespace) -> int:
    try:
        report = Controls(_files(args)).verify_journal()
    except OSError as error:
        return _fail(error)
    if report.ok:
        print(f"the chain holds: {report.records} records, head {report.head.sha256}")
        return 0
    return _fail(f"line {report.line}: {report.problem}")


def _check_policy(args: argparse.Namespace) -> int:
    path = args.file or args.policy_file
    try:
        policy = gate.parse_policy(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        return _fail(f"{path}: {error.strerror}")
    except ValueError as error:
        return _fail(f"{path}: not JSON: {error}")
    except gate.PolicyError as error:
        for problem in error.problems:
            print(f"{path}: {problem}", file=sys.stderr)
        return EXIT_PROBLEM
    print(
        f"{path}: {len(policy.rules)} rules, {len(policy.blacklist)} blacklist entries, sha256 {policy.sha256}"
    )
    return 0


def _approve(args: argparse.Namespace) -> int:
    try:
        plan = json.loads(args.plan.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return _fail(f"{args.plan}: {error}")
    policy = _files(args).policy()
    if isinstance(policy, Unreadable):
        limit = gate.DEFAULT_POLICY["approvals"]["max_lifetime_seconds"]
    else:
        limit = policy.approval_max_lifetime_seconds
    if not isinstance(plan, dict) or not 0 < args.minutes * 60 <= limit:
        print(
            f"diting gate: wanted a JSON object and more than 0, at most {limit / 60:g} minutes",
            file=sys.stderr,
        )
        return EXIT_USAGE
    try:
        yes = approval.issue(
            plan,
            issued_by=args.by or login_name(),
            issued_at=utc_now(),
            lifetime_seconds=int(args.minutes * 60),
        )
    except (approval.ApprovalError, journal.JournalError) as error:
        return _fail(error)
    print(json.dumps(yes.as_dict(), indent=1, sort_keys=True))
    return 0
