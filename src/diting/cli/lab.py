# SPDX-License-Identifier: GPL-3.0-or-later
"""``diting lab``: look at the lab's hosts, reach them, and switch their power."""

from __future__ import annotations

import argparse
import json
import os
import sys
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.verdict import EXIT_USAGE
from ..lab import instance as lab

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_PROBLEM = 1
"""Something could not be done, or could not be looked at."""


def add_parser(sub: Any) -> None:
    """Register ``lab`` and its actions."""
    parser: argparse.ArgumentParser = sub.add_parser(
        "lab",
        help="look at the lab's hosts, reach them, and switch their power",
        description="Exit status: 0 done, 1 not done or not well, 64 wrong usage.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    status = _action(actions, "status", "hosts with their power, SSH and services", _status)
    status.add_argument("--json", action="store_true", help="for programs")

    shell = _action(actions, "ssh", "a shell on a host, or one command", _ssh)
    shell.add_argument("host")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="with its own options")

    _action(actions, "dsn", "connection string of the database (no secret in it)", _dsn)

    gone = _action(actions, "lose", "lose hosts with all that is on them; lab up makes new ones", _lose)
    gone.add_argument("hosts", nargs="+", metavar="HOST")

    power = actions.add_parser("power", help="ask and order power control")
    orders = power.add_subparsers(dest="order", metavar="ORDER", required=True)
    show = _action(orders, "status", "state of one host, or of all", _power_status)
    show.add_argument("host", nargs="?")
    for name, text, function in (
        ("on", "power a host on", _power_on),
        ("off", "cut a host's power at once", _power_off),
        ("timer", "have a host powered on later, whatever becomes of the caller", _power_timer),
        ("cancel", "take a timer back", _power_cancel),
        (
            "settle",
            "keep an incident's promise to power on, and say whether a timer did so first",
            _power_settle,
        ),
    ):
        order = _action(orders, name, text, function)
        order.add_argument("host")
        if name == "cancel":
            order.add_argument("timer_id", metavar="TIMER")
            continue
        if name == "settle":
            order.add_argument("--incident", metavar="ID", required=True)
            continue
        order.add_argument("--reason", default="by hand", metavar="TEXT")
        order.add_argument("--incident", metavar="ID")
        if name == "off":
            order.add_argument("--fence", action="store_true", help="hold it off until the fence is released")
            limit = order.add_mutually_exclusive_group(required=True)
            limit.add_argument(
                "--revert-after", type=_seconds, metavar="SECONDS", help="power it on again then"
            )
            limit.add_argument("--for-good", action="store_true", help="nobody powers it on by itself")
        if name == "timer":
            order.add_argument("--after", type=_seconds, required=True, metavar="SECONDS")

    release = _action(
        orders, "release", "end the hold of a fenced host: its leader key is gone", _power_release
    )
    release.add_argument("host")
    release.add_argument("--reason", default="by hand", metavar="TEXT")
    release.add_argument("--incident", metavar="ID")
    release.add_argument("--leader", metavar="MEMBER", help="who holds the leader key now; nobody by default")

    misbehave = _action(orders, "switch", "make power control misbehave about a host", _power_switch)
    misbehave.add_argument("host")
    misbehave.add_argument("--lie", action="store_true", help='answer "off" and do nothing')
    misbehave.add_argument(
        "--hang", type=_seconds, default=0.0, metavar="SECONDS", help="say nothing so long"
    )
    misbehave.add_argument("--unknown", action="store_true", help='carry orders out and say "unknown"')
    misbehave.add_argument("--latency", type=_seconds, metavar="SECONDS", help="take so long for an order")
    misbehave.add_argument(
        "--for", dest="for_seconds", type=_seconds, metavar="SECONDS", help="ends by itself"
    )

    normal = _action(orders, "normal", "put switches back: of one host, or of all", _power_normal)
    normal.add_argument("host", nargs="?")

    loss = _action(actions, "power-loss", "inject a loss of power; wants a power-on timer first", _power_loss)
    loss.add_argument("host")
    loss.add_argument("--incident", metavar="ID")

    split = _action(actions, "partition", "cut a host off from others; ends by itself", _partition)
    split.add_argument("host")
    split.add_argument(
        "--from", dest="others", required=True, metavar="HOST,HOST", help="who loses sight of it"
    )
    split.add_argument("--limit", type=int, required=True, metavar="SECONDS", help="the kernel ends it then")
    split.add_argument("--incident", metavar="ID")

    heal = _action(actions, "heal", "take back the partitions of a host, or all", _heal)
    heal.add_argument("host", nargs="?")

    watch = _action(actions, "fin-watch", "watch the bridge for a FIN or RST from a host", _fin_watch)
    watch.add_argument("host")
    watch.add_argument("--seconds", type=_seconds, required=True, help="it ends by itself then")
    watch.add_argument("--output", type=Path, metavar="FILE", help="JSON lines; standard output by default")

    rooms = _action(actions, "alerts", "what the lab's chat rooms were told; exit 1 when nothing", _alerts)
    rooms.add_argument(
        "--name", metavar="ALERT", action="append", default=[], help="only of this alert; may be given again"
    )
    rooms.add_argument("--instance", metavar="HOST", action="append", default=[], help="only about this host")
    rooms.add_argument("--status", choices=("firing", "resolved"))
    rooms.add_argument("--since", default="", metavar="UTC", help="not before, as in 2026-11-22T03:04:05Z")
    rooms.add_argument(
        "--wait", type=_seconds, default=0.0, metavar="SECONDS", help="until there is one, at most"
    )


def _action(
    actions: Any, name: str, text: str, function: Callable[[argparse.Namespace, lab.Instance], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("--lab-home", type=Path, default=lab.default_home(), metavar="DIR")
    parser.set_defaults(func=lambda args: _guarded(function, args))
    return parser


def _seconds(text: str) -> float:
    """A number above zero; the parser turns ``ValueError`` into a usage error."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _guarded(function: Callable[[argparse.Namespace, lab.Instance], int], args: argparse.Namespace) -> int:
    """Run an action; the errors it expects become one line each."""
    from ..lab.partition import PartitionError
    from ..lab.power_client import PowerClientError
    from ..lab.powerloss import PowerLossError
    from ..lab.view import ViewError

    try:
        instance = lab.load(args.lab_home)
        host = getattr(args, "host", None)
        if host is not None and host not in instance.hosts:
            print(f"no host {host!r} in this lab; there are {', '.join(instance.hosts)}", file=sys.stderr)
            return EXIT_USAGE
        return function(args, instance)
    except (lab.InstanceError, PartitionError, PowerClientError, PowerLossError, ViewError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"diting lab {args.action}: {error}", file=sys.stderr)
    return EXIT_PROBLEM


def _status(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab import view

    rows = view.look(instance)
    print(json.dumps(rows, indent=2) if args.json else view.table(rows))
    return (
        0
        if all(row["power"] == "on" and row["ssh"] == "ok" and not row["failed"] for row in rows)
        else EXIT_PROBLEM
    )


def _ssh(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab import view

    sys.stdout.flush()
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    command = view.ssh_command(instance, args.host, *words)
    os.execvp(command[0], command)  # noqa: S606 - the shell belongs to the person, not to us


def _dsn(_args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab import view

    print(view.dsn(instance))
    return 0


def _lose(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.lose import LoseError, lose

    try:
        there = lose(instance, args.hosts)
    except LoseError as error:
        print(f"diting lab lose: {error}", file=sys.stderr)
        return EXIT_PROBLEM
    print(f"lost with all that was on them: {', '.join(there) or 'none, they were not there'}")
    return 0


def _power_status(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.power_client import PowerClient

    client = PowerClient.for_instance(instance)
    found = [client.host(args.host)] if args.host else client.hosts()
    print(json.dumps(found[0] if args.host else found, indent=2))
    return 0 if all(host["state"] != "unknown" for host in found) else EXIT_PROBLEM


def _power_on(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.power_client import PowerClient

    print(json.dumps(PowerClient.for_instance(instance).on(args.host, args.reason, args.incident)))
    return 0


def _power_off(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.power_client import PowerClient

    client = PowerClient.for_instance(instance)
    answer = client.off(
        args.host, args.reason, args.incident, revert_after_seconds=args.revert_after, fence=args.fence
    )
    print(json.dumps(answer))
    return 0


def _power_release(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.power_client import PowerClient

    client = PowerClient.for_instance(instance)
    print(json.dumps(client.release(args.host, args.reason, args.incident, leader=args.leader)))
    return 0


def _power_switch(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.power_client import PowerClient

    client = PowerClient.for_instance(instance)
    found = client.set_switches(
        args.host,
        lie=args.lie,
        hang_seconds=args.hang,
        unknown=args.unknown,
        latency_seconds=args.latency,
        for_seconds=args.for_seconds,
    )
    print(json.dumps(found))
    return 0


def _power_normal(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.power_client import PowerClient

    PowerClient.for_instance(instance).clear_switches(args.host)
    return 0


def _power_timer(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.power_client import PowerClient

    print(
        json.dumps(
            PowerClient.for_instance(instance).add_timer(args.host, args.after, args.reason, args.incident)
        )
    )
    return 0


def _power_cancel(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.power_client import PowerClient

    PowerClient.for_instance(instance).remove_timer(args.host, args.timer_id)
    return 0


def _power_settle(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.power_client import PowerClient, PowerClientError
    from ..lab.records import powered_on, timers_fired

    client = PowerClient.for_instance(instance)
    # What ends the hold of a fence is the fence's business, whatever its incident.
    standing = client.timers(args.host)
    timers = [timer for timer in standing if not timer.get("ends_hold")]
    mine = [timer["id"] for timer in timers if timer["incident_id"] == args.incident]
    if mine and len(timers) == len(standing):
        # The promise is kept before it is taken back. On a host that runs this mends a link that was cut.
        client.on(args.host, "the fault is over", args.incident)
    for timer_id in mine:
        try:
            client.remove_timer(args.host, timer_id)
        except PowerClientError as error:
            if error.status != HTTPStatus.NOT_FOUND:  # it fired in between
                raise
    # Asked after the timers are gone: from here on none of them can fire unseen.
    journal = instance.power_dir / "journal.jsonl"
    fired = timers_fired(journal, args.host, args.incident)
    cancelled = [name for name in mine if name not in fired]
    told = {"host": args.host, "cancelled": cancelled, "fired": fired}
    print(json.dumps({**told, "powered_on_ns": powered_on(journal, args.host)}))
    return 0


def _power_loss(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.powerloss import cut

    print(json.dumps(cut(instance, args.host, args.incident), sort_keys=True))
    return 0


def _partition(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.partition import cut

    others = [name for name in args.others.split(",") if name]
    print(json.dumps(cut(instance, args.host, others, args.limit, args.incident), sort_keys=True))
    return 0


def _heal(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.partition import heal

    told = heal(instance, args.host)
    print(json.dumps(told))
    return EXIT_PROBLEM if args.host is None and told["left"] else 0


def _fin_watch(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.finwatch import watch

    address = instance.hosts[args.host]
    if args.output is None:
        watch(instance.bridge, address, args.seconds, sys.stdout)
        return 0
    with args.output.open("w", encoding="utf-8") as output:
        watch(instance.bridge, address, args.seconds, output)
    return 0


def _alerts(args: argparse.Namespace, instance: lab.Instance) -> int:
    from ..lab.alert_messages import received

    found = received(instance.alerts_file, args.name, args.instance, args.status, args.since, args.wait)
    for row in found:
        print(json.dumps(row, sort_keys=True))
    return 0 if found else EXIT_PROBLEM
