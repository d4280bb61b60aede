# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller of a drill dies in every phase: the fault vanishes by itself, the next drill says so and cleans up.

Wants a lab that is up and converged (``./scripts/drill``).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.playbook import run_playbook

pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(os.geteuid() != 0, reason="a drill needs root"),
]
ROOT = Path(__file__).parents[2]
LAB_HOME = Path(os.environ.get("DITING_LAB_HOME") or "/var/lib/diting-lab") / "diting"
LIMIT_SECONDS = 60
SHORT = {
    "drill_control_seconds": 6,
    "drill_stability_seconds": 10,
    "drill_fault_limit_seconds": LIMIT_SECONDS,
}


def command(fault: str, *more: str) -> list[str]:
    values = [f"drill_fault={fault}", *(f"{name}={value}" for name, value in SHORT.items()), *more]
    return ["./scripts/drill", "l4", "--no-converge", *(word for value in values for word in ("-e", value))]


def run_drill(fault: str) -> tuple[int, str]:
    done = subprocess.run(command(fault), cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    return done.returncode, done.stdout + done.stderr


def is_healthy() -> bool:
    done = run_playbook("playbooks/operate/verify.yml", "-i", "inventories/lab", timeout=300)
    return done.returncode == 0


def power_losses() -> int:
    journal = LAB_HOME / "power/journal.jsonl"
    return journal.read_text().count('"event":"power_loss"') if journal.exists() else 0


def kill_in(phase: int, fault: str, seconds_later: float) -> None:
    """Start a drill and kill -9 its controller ``seconds_later`` after a phase began, or after the power was cut."""
    before = power_losses()
    drill = subprocess.Popen(
        command(fault),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert drill.stdout is not None
        printed = []
        for line in drill.stdout:
            printed.append(line)
            if f"Phase {phase}: " in line and "earlier drill" not in line:
                break
        else:
            pytest.fail(f"the drill ended before phase {phase}:\n{''.join(printed)}")
        if fault == "host_off":
            deadline = time.monotonic() + 60
            while power_losses() == before:
                assert time.monotonic() < deadline, "the power was not cut"
                time.sleep(0.05)
        time.sleep(seconds_later)
    finally:
        drill.kill()
        drill.wait(timeout=30)


def last_aborted() -> dict[str, object]:
    reports = [json.loads(path.read_text()) for path in sorted((ROOT / "evidence").glob("*/report.json"))]
    return [report for report in reports if report["verdict"] == "ABORTED"][-1]


@pytest.mark.parametrize(
    ("phase", "fault", "seconds_later"),
    [
        (3, "postgres_kill", 0.5),
        (4, "postgres_kill", 3),
        (5, "host_off", 2),
        (6, "host_off", 2),
        (7, "postgres_kill", 2),
        (8, "postgres_kill", 1),
        (9, "postgres_kill", 0.2),
    ],
)
def test_a_drill_that_is_cut_off_leaves_a_lab_that_heals_and_is_closed_by_the_next(
    phase, fault, seconds_later
):
    kill_in(phase, fault, seconds_later)
    deadline = time.monotonic() + LIMIT_SECONDS + 60  # the limit, and the start of a host
    while not is_healthy():
        assert time.monotonic() < deadline, "the lab did not heal by itself"
    status, printed = run_drill("postgres_kill")
    # INVALID is a busy machine, and so is a drill that only found the cluster slow; no other FAIL is, and no ABORTED.
    assert status in (0, 2) or re.findall(r"! (\w+):", printed) == ["slow_after_recovery"], printed
    if "an earlier drill was cut off" in printed:
        report = last_aborted()
        assert re.search(r"controller", json.dumps(report["reasons"])), report["reasons"]
        assert report["residue"] == []
    else:
        # It had freed the floor already: then its evidence is sealed.
        assert phase == 9
    assert is_healthy()


def test_a_drill_beside_another_is_refused():
    first = subprocess.Popen(
        command("postgres_kill"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert first.stdout is not None
        for line in first.stdout:
            if "Phase 3: " in line:
                break
        status, printed = run_drill("postgres_kill")
        assert (status, "another ./scripts/drill is running" in printed) == (3, True), printed
        # By its playbook, as a job template would: the floor on the control host refuses it too.
        beside = run_playbook("playbooks/drill/l4_database_failure.yml", "-i", "inventories/lab", timeout=300)
        assert beside.returncode != 0
        assert "is running under controller" in beside.stdout, beside.stdout[-2000:]
    finally:
        first.communicate(timeout=600)
    assert first.returncode in (0, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_drill_is_closed_before_it_leaves(number):
    drill = subprocess.Popen(
        command("postgres_kill"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads
    )
    assert drill.stdout is not None
    for line in drill.stdout:
        if "Phase 6: " in line:
            break
    # A terminal sends Ctrl-C to the whole group, a service manager SIGTERM to the command.
    send = os.killpg if number is signal.SIGINT else os.kill
    send(drill.pid, number)
    for line in drill.stdout:
        if "closing what is open" in line:
            break
    time.sleep(3)
    send(drill.pid, number)  # an impatient operator does not stop the closing
    rest, _ = drill.communicate(timeout=600)
    assert drill.returncode == 3, rest
    assert "ABORTED" in rest
    assert is_healthy()


def test_a_prober_in_the_failed_zone_proves_nothing():
    done = subprocess.run(
        command("postgres_kill", "failure_zone=one"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 2, done.stdout
    assert "prober_in_failed_zone" in done.stdout
