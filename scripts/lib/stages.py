# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages of ``scripts/test``: run them, say what each did, end with one line of counts.

A lint tool, a sanity test, a molecule scenario and a drill count as one each; tests run by pytest
count one by one. What this machine cannot run is counted as skipped and named with the reason; a
stage is never left out silently.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pytest_stage import pytest_stage
from side_by_side import Job, side_by_side
from tally import BIN, ROOT, Tally, call

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_USAGE = 64
EXIT_INTERRUPTED = 130
SCENARIOS_AT_ONCE = 3


def lint() -> Tally:
    """Every linter over the whole tree."""
    tally = Tally()
    shells = sorted(str(path.relative_to(ROOT)) for path in shell_scripts())
    tools: list[tuple[str, list[str]]] = [
        ("ruff check", ["ruff", "check", "."]),
        ("ruff format", ["ruff", "format", "--check", "."]),
        ("mypy --strict", ["mypy"]),
        ("yamllint", ["yamllint", "--strict", "."]),
        ("ansible-lint", ["ansible-lint"]),
        ("shellcheck", ["shellcheck", "--external-sources", *shells]),
        ("pip check", ["pip", "check"]),
    ]
    for name, argv in tools:
        if shutil.which(argv[0], path=f"{BIN}{os.pathsep}{os.environ['PATH']}") is None:
            tally.skip(name, f"{argv[0]} is not installed")
            continue
        started = time.monotonic()
        status = call(argv, limit_seconds=300, quiet=True)
        tally.add(name, status == 0, time.monotonic() - started)
    return tally


def shell_scripts() -> list[Path]:
    """Files of the tree that a shell runs: ``*.sh``, and those with a shell's name in the first line."""
    found = []
    for folder in ("scripts", ".ci", "roles", "tools", "playbooks"):
        for path in (ROOT / folder).rglob("*"):
            if not path.is_file() or path.suffix in (".py", ".j2", ".yml", ".json"):
                continue
            with path.open("rb") as file:
                first = file.readline(80)
            if path.suffix == ".sh" or (first.startswith(b"#!") and b"sh" in first.split(b"/")[-1]):
                found.append(path)
    return found


def sanity() -> Tally:
    """``ansible-test sanity`` in a staged copy."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import sanity as sanity_tests  # noqa: PLC0415 - a sibling, found beside this file

    tally = Tally()
    for name, result in sanity_tests.run(ROOT).items():
        if result in (sanity_tests.OK, sanity_tests.FAIL):
            tally.add(name, result == sanity_tests.OK)
        else:
            tally.skip(name, result)
    return tally


def no_containers() -> str | None:
    """Why this machine cannot run lab hosts, or None."""
    if os.geteuid() != 0:
        return "lab hosts need root (containers with systemd)"
    if shutil.which("podman") is None:
        return "podman is not installed"
    if (
        subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False).returncode
        != 0
    ):
        return "this machine allows no new namespaces (unshare --mount --net failed)"
    return None


def molecule() -> Tally:
    """One scenario per kind of host, several at a time: they share no host, no network and no address."""
    scenarios = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
    if reason := no_containers():
        tally = Tally()
        for name in scenarios:
            tally.skip(f"molecule {name}", reason)
        return tally
    jobs = [
        Job(
            f"molecule {name}",
            ["molecule", "test", "-s", name, "--no-command-borders"],
            # A scenario that failed half-way keeps its hosts; the next run wants a clean start.
            ["molecule", "destroy", "-s", name],
            limit_seconds=1500,
        )
        for name in scenarios
    ]
    return side_by_side(jobs, at_once=min(SCENARIOS_AT_ONCE, os.cpu_count() or 1))


def lab() -> Tally:
    """Bring labs up and down, break them in between."""
    if reason := no_containers():
        tally = Tally()
        tally.skip("tests/lab", reason)
        return tally
    return pytest_stage("tests/lab", limit_seconds=1500)()


LIMIT = '{"drill_rto_guarded_limit_seconds": {"host_off": {"default": {"haproxy": 60.0, "dsn": 60.0}}}}'
DRILLS_SHORT = (("host_off", (LIMIT,)),)
"""The main job, once, on whatever machine: a limit, not the bar. Where others take a third of two processors, commits that outlast
a second while the fenced host boots start the RTO's clock again (36 s, of which 3 were silence)."""

DRILLS_ALL = (
    ("host_off", ()),
    ("host_off", ("drill_compare=true",)),
    ("host_off", ("drill_store_down=true",)),
    ("host_off", ("drill_etcd_leader=on_target",)),
    ("host_off", ('{"drill_power_switches": ["--unknown", "--for", "60"]}',)),
    ("host_off", ('{"drill_power_switches": ["--latency", "8"], "drill_fence_latency_seconds": 8}',)),
    ("guard_off", ()),
    ("postgres_kill", ()),
    ("switchover", ()),
    ("switchover", ("drill_store_down=true",)),
    ("postgres_hang", ()),
    ("postgres_hang", ("drill_hang_patroni=true",)),
    ("partition", ()),
    ("partition", ("drill_partition_clients=true",)),
    ("partition", ('{"drill_power_switches": ["--lie"]}',)),
    ("dcs_loss", ()),
    ("disk_full", ()),
    ("replica_off", ()),
)

DRILL_INVALID, DRILL_TRIES = 2, 3


def drills(matrix: tuple[tuple[str, tuple[str, ...]], ...]) -> Callable[[], Tally]:
    """A stage that is a row of real drills; each must end PASS."""

    def stage() -> Tally:
        tally = Tally()
        reason = no_containers()
        for fault, extra in matrix:
            name = " ".join(("drill l4", fault, *extra))
            if reason:
                tally.skip(name, reason)
                continue
            options = [word for value in (f"drill_fault={fault}", *extra) for word in ("-e", value)]
            started = time.monotonic()
            for left in reversed(range(DRILL_TRIES)):
                status = call(["./scripts/drill", "l4", *options], limit_seconds=1800)
                if status != DRILL_INVALID or left == 0:
                    break
                # A busy machine made the prober late, which says nothing about the system. FAIL and ABORTED are answers.
                print(f"{name}: INVALID, measured once more", flush=True)
            tally.add(name, status == 0, time.monotonic() - started)
        return tally

    return stage


def faults() -> Tally:
    """Every drill, then the ones that are broken off."""
    tally = drills(DRILLS_ALL)()
    if reason := no_containers():
        tally.skip("tests/drills", reason)
        return tally
    tally.merge(pytest_stage("tests/drills", limit_seconds=7200)())
    return tally


@dataclass(frozen=True)
class Stage:
    """One stage: what it does in a line, how to run it, and whether it runs when none is named."""

    text: str
    run: Callable[[], Tally]
    default: bool = True


STAGES: dict[str, Stage] = {
    "lint": Stage("linters and types over the whole tree", lint),
    "unit": Stage(
        "unit, property and contract tests",
        pytest_stage(
            "tests/unit",
            "tests/property",
            "tests/contract",
            "collections/ansible_collections/diting/dr/tests/unit",
            limit_seconds=600,
            workers=2,
        ),
    ),
    "process": Stage(
        "real daemons on loopback, pages in a browser",
        pytest_stage("tests/process", "tests/browser", limit_seconds=1800, workers=2, timed_alone=True),
    ),
    "build": Stage(
        "the wheel and the collection, built and looked into", pytest_stage("tests/build", limit_seconds=300)
    ),
    "sanity": Stage("ansible-test sanity in a staged copy", sanity),
    "molecule": Stage("roles on real hosts, one scenario per kind of host", molecule),
    "lab": Stage("the lab itself: up, down, repair", lab),
    "e2e": Stage("one L4 drill from nothing to a verdict", drills(DRILLS_SHORT)),
    "faults": Stage(
        "the whole matrix of L4 drills, and drills cut off in every phase (long)", faults, default=False
    ),
}


class UsageParser(argparse.ArgumentParser):
    """Leaves with EX_USAGE, as every script of the project does."""

    def error(self, message: str) -> NoReturn:
        """Print usage and the fault, exit 64."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def parse(argv: list[str]) -> list[str]:
    """The stages asked for, in the order of STAGES."""
    lines = "\n".join(f"  {name:<10}{stage.text}" for name, stage in STAGES.items())
    parser = UsageParser(
        prog="scripts/test",
        description="Run the test stages; the last line counts them.",
        epilog=f"stages (all but 'faults' when none is named):\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", nargs="*", help="stages to run, see below")
    wanted = parser.parse_args(argv).stage
    if unknown := [name for name in wanted if name not in STAGES]:
        parser.error(f"unknown stage {unknown[0]!r}; stages are {', '.join(STAGES)}")
    return [name for name, stage in STAGES.items() if name in wanted or (not wanted and stage.default)]


def report(total: Tally, seconds: float) -> None:
    """Failures and skips by name, then the line that counts."""
    print(f"\n==> all stages done in {seconds:.0f} s")
    for note in total.notes:
        print(f"  {note}")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped", flush=True)


def main(argv: list[str]) -> int:
    """Run the stages; exit status 0 only if nothing failed."""
    names = parse(argv)
    total = Tally()
    begun = time.monotonic()
    try:
        for number, name in enumerate(names, start=1):
            stage = STAGES[name]
            print(f"\n==> {name} ({number} of {len(names)}): {stage.text}", flush=True)
            started = time.monotonic()
            tally = stage.run()
            total.merge(tally)
            print(
                f"<== {name}: {tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped "
                f"in {time.monotonic() - started:.0f} s",
                flush=True,
            )
    except KeyboardInterrupt:
        total.failed += 1
        total.notes.append("failed: interrupted")
        report(total, time.monotonic() - begun)
        return EXIT_INTERRUPTED
    report(total, time.monotonic() - begun)
    return 1 if total.failed else 0


def terminated(_number: int, _frame: object) -> NoReturn:
    """TERM is Ctrl-C: what was started has a session of its own, and would go on without us."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminated)
    sys.exit(main(sys.argv[1:]))
