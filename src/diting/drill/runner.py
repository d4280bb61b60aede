# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``scripts/drill`` does: lab up, converge or verify, the drill, the verdict.

Every step is a playbook that can be run by hand as well; this is the order and the face of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ..core.faults import CATALOGUE, fault_named
from ..core.verdict import EXIT_USAGE, Verdict
from ..report import summary
from . import compare
from .converged import converging, inventory_hosts, is_converged, tree_hash
from .progress import PlaybookRun, Progress, TerminatedError, run_playbook
from .table import table

PLAYBOOKS = {"l4": "playbooks/drill/l4_database_failure.yml"}
"""Level -> the playbook that drills it."""


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    level: str
    extra: tuple[str, ...] = ()
    repeat: int = 1
    inventory: Path = Path("inventories/lab")
    converge: bool = True


@dataclass
class Controller:
    """The machine that runs the playbooks. ``root`` is the checkout, ``home`` the lab's state."""

    root: Path
    home: Path
    request: Request
    progress: Progress = field(default_factory=Progress)

    @property
    def bin(self) -> Path:
        """Where the controller's tools are: beside the running interpreter."""
        return Path(sys.executable).parent

    def extra_arguments(self) -> list[str]:
        """The operator's ``-e`` options, handed to every playbook alike."""
        return [word for value in self.request.extra for word in ("-e", value)]

    def play(self, playbook: str, *extra: str, undisturbed: bool = False) -> PlaybookRun:
        """Run one playbook against the inventory; its log lies in ``<home>/logs``."""
        logs = self.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{Path(playbook).stem}.log"
        log.unlink(missing_ok=True)
        argv = [str(self.bin / "ansible-playbook"), "-i", str(self.request.inventory), playbook]
        argv += [*self.extra_arguments(), *extra]
        run = run_playbook(argv, cwd=self.root, log=log, progress=self.progress, undisturbed=undisturbed)
        if run.status != 0:
            self.progress.say(f"{playbook} failed (exit {run.status}); whole output: {log}")
            for failure in run.failures:
                self.progress.say(f"  {failure}")
        return run


def variables(extra: tuple[str, ...]) -> dict[str, str]:
    """``key=value`` pairs among the ``-e`` options; JSON and ``@file`` forms are left to Ansible."""
    pairs = {}
    for value in extra:
        if value.startswith(("{", "[", "@")):
            continue
        for word in shlex.split(value):
            name, sep, text = word.partition("=")
            if sep:
                pairs[name] = text
    return pairs


def check_request(request: Request) -> str | None:
    """What is wrong with the request, or None."""
    if request.level not in PLAYBOOKS:
        return f"level is {request.level!r}; drills exist for: {', '.join(PLAYBOOKS)}"
    fault = variables(request.extra).get("drill_fault")
    if fault is not None:
        try:
            known = fault_named(fault, companions=False)
        except ValueError as problem:
            return str(problem)
        if known.level != request.level:
            return f"drill_fault is {fault!r}, a fault of {known.level}; wanted one of {request.level}: " + (
                ", ".join(f.name for f in CATALOGUE.values() if f.level == request.level and not f.companion)
            )
    if request.repeat < 1:
        return f"--repeat is {request.repeat}; wanted 1 or more"
    return None


def prepare(controller: Controller) -> bool:
    """Bring the lab up and make it what the tree says; a warm lab is only verified."""
    if controller.play("playbooks/lab/up.yml").status != 0:
        return False
    root = controller.root
    wanted = tree_hash(root, converging(controller.request.extra, root))
    hosts = inventory_hosts(controller.bin / "ansible-inventory", controller.request.inventory, root)
    if is_converged(hosts, controller.home, wanted):
        controller.progress.say("the hosts are what the tree says: verify only")
        run = controller.play("playbooks/operate/verify.yml")
        if run.status == 0:
            return True
        controller.progress.say("verify found trouble: converging again")
    run = controller.play("playbooks/site.yml", "-e", f"converge_stamp={wanted}")
    controller.progress.say(f"converged: {run.tasks} tasks in {run.seconds:.0f} s")
    return run.status == 0


REPORT_LINE = re.compile(r"\b(?:PASS|FAIL|INVALID|ABORTED): (?P<directory>/\S+)/report\.html")
"""What the last task of a drill says: its verdict, and where its evidence lies."""


def read_report(output: str) -> tuple[Path, dict[str, Any]] | None:
    """The report that a playbook's output names last; None when it names none or it cannot be read."""
    named = REPORT_LINE.findall(output)
    if not named:
        return None
    directory = Path(named[-1])
    try:
        return directory, json.loads((directory / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


ANSIBLE_INTERRUPTED = 99
"""Exit status of ``ansible-playbook`` after Ctrl-C."""


class DrillInterruptedError(Exception):
    """The operator ended a drill; it has been closed, or it says what is left to do."""


def abort(controller: Controller, reason: str) -> None:
    """Take the fault back and close the drill, if one is open; a second Ctrl-C does not interrupt that."""
    controller.progress.say(f"{reason}: closing what is open (Ctrl-C does not stop this)")
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        run = controller.play(
            "playbooks/drill/abort.yml", "-e", f"drill_abort_reason='{reason}'", undisturbed=True
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if found := read_report(run.output):
        print(table(found[1], found[0]), flush=True)
    if run.status != 0:
        controller.progress.say(
            "the drill could NOT be closed: run playbooks/drill/abort.yml, then operate/verify.yml"
        )


@dataclass(frozen=True)
class Outcome:
    """What one drill came to; ``report`` is None when it left none."""

    verdict: Verdict
    report: dict[str, Any] | None = None
    directory: Path | None = None


def drill_once(controller: Controller, *variables: str) -> Outcome:
    """Run the drill's playbook, with further variables, and read the verdict from the evidence it left."""
    try:
        extra = [word for value in variables for word in ("-e", value)]
        run = controller.play(PLAYBOOKS[controller.request.level], *extra)
    except KeyboardInterrupt:
        abort(controller, "interrupted by the operator")
        raise DrillInterruptedError from None
    found = read_report(run.output)
    if found is None:
        controller.progress.say("the drill left no report: nothing was proven")
        if run.status == ANSIBLE_INTERRUPTED:
            abort(controller, "interrupted by the operator")
            raise DrillInterruptedError
        abort(controller, "the playbook ended without closing the drill")
        return Outcome(Verdict.ABORTED)
    directory, report = found
    print(table(report, directory), flush=True)
    verdict = Verdict(report["verdict"])
    if verdict is Verdict.PASS and run.status != 0:
        controller.progress.say("the report says PASS but the playbook failed afterwards: not a PASS")
        verdict = Verdict.INVALID
    return Outcome(verdict, report, directory)


def drill_compared(controller: Controller) -> list[Outcome]:
    """The same fault with stock timings and no guard, then as configured with the first one's figures beside."""
    controller.progress.say("to compare: first with stock timings and without the guard")
    first = drill_once(controller, *compare.STOCK_VARIABLES)
    if first.report is None or first.directory is None or first.report["verdict"] not in compare.COUNTS:
        controller.progress.say("that one measured nothing, so there is nothing to compare with")
        return [first]
    controller.progress.say("and now as configured")
    return [first, drill_once(controller, f"drill_compare_with={first.directory.name}")]


def drill_all(controller: Controller) -> list[Outcome]:
    """Every drill that was asked for, and one page over them when it was more than one."""
    outcomes: list[Outcome] = []
    wanted = variables(controller.request.extra).get("drill_compare", "").lower() in {"true", "yes", "1"}
    try:
        for _ in range(controller.request.repeat):
            outcomes += drill_compared(controller) if wanted else [drill_once(controller)]
    finally:
        summarise(controller, outcomes, controller.request.repeat * (2 if wanted else 1))
    return outcomes


def summarise(controller: Controller, outcomes: list[Outcome], planned: int) -> None:
    """Say what several drills came to, how many of those that were planned, and where the page over them is."""
    found = [(outcome.report, outcome.directory) for outcome in outcomes if outcome.report]
    if planned < 2 or not outcomes:
        return
    verdicts = [outcome.verdict for outcome in outcomes]
    tally = ", ".join(f"{verdicts.count(v)} {v.value}" for v in Verdict if v in verdicts)
    count = f"{len(verdicts)}" if len(verdicts) == planned else f"only {len(verdicts)} of {planned}"
    print(f"  {count} drills: {tally}", flush=True)
    if len(found) < 2 or found[0][1] is None:
        return
    try:
        page = summary.write(found[0][1].parent, [report for report, _ in found if report])
    except (OSError, ValueError, KeyError) as problem:
        controller.progress.say(f"the page over these drills could not be written: {problem}")
        return
    print(f"  all of them: {page}", flush=True)


def _terminated(_number: int, _frame: object) -> NoReturn:
    raise TerminatedError


def run(root: Path, home: Path, request: Request) -> int:
    """The whole command; returns the exit status of ``scripts/drill``."""
    signal.signal(signal.SIGTERM, _terminated)
    if problem := check_request(request):
        print(f"scripts/drill: {problem}", file=sys.stderr)
        return EXIT_USAGE
    home.mkdir(mode=0o750, parents=True, exist_ok=True)
    controller = Controller(root=root, home=home, request=request)
    with (home / "drill.flock").open("w", encoding="ascii") as floor:
        try:
            fcntl.flock(floor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(
                "scripts/drill: refused: another ./scripts/drill is running on this machine "
                f"(it holds {home / 'drill.flock'}). Wait for it, or end it with Ctrl-C.",
                file=sys.stderr,
            )
            return Verdict.ABORTED.exit_code
        try:
            if request.converge and not prepare(controller):
                print("\n  ABORTED: the lab is not ready, nothing was injected\n", flush=True)
                return Verdict.ABORTED.exit_code
            outcomes = drill_all(controller)
        except DrillInterruptedError:
            return Verdict.ABORTED.exit_code
        except KeyboardInterrupt:
            print("\n  ABORTED: interrupted before the drill, nothing was injected\n", flush=True)
            return Verdict.ABORTED.exit_code
    return max(outcome.verdict.exit_code for outcome in outcomes)


def lab_home() -> Path:
    """State of the default lab: ``$DITING_LAB_HOME/diting``."""
    return Path(os.environ.get("DITING_LAB_HOME") or "/var/lib/diting-lab") / "diting"
