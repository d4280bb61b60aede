# SPDX-License-Identifier: GPL-3.0-or-later
"""``diting schedule``: real processes, a real lock, files on a disk; only systemd's word of timers is played."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.servers import wait_until

pytestmark = pytest.mark.process

JOB = {"calendar": "daily", "maximum_age_seconds": 3600, "deadline_seconds": 30}
EXIT_NOT_RUN, EXIT_LATE, EXIT_NO_PROGRAM, EXIT_USAGE = 75, 124, 127, 64


class Host:
    """A table of jobs, and a ``systemctl`` that says which timers run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.state.mkdir()
        self.metrics = root / "metrics" / "diting_schedule.prom"
        self.timers: list[dict[str, object]] = []
        programs = root / "bin"
        programs.mkdir()
        listed = programs / "systemctl"
        listed.write_text(
            f'#!/bin/sh\n[ -e "{root}/broken" ] && {{ echo "no bus" >&2; exit 1; }}\ncat "{root}/timers"\n'
        )
        listed.chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}

    def write(self, *jobs: dict[str, object], **table: object) -> None:
        found = {
            "directory": str(self.root),
            "state_dir": str(self.state),
            "metrics_file": str(self.metrics),
            "lock_seconds": 0.5,
            "jobs": [{**JOB, **job} for job in jobs],
        }
        (self.root / "schedule.json").write_text(json.dumps({**found, **table}))
        self.timers = [
            {"unit": f"diting-job-{job['name']}.timer", "next": (time.time() + 600) * 1e6, "activates": "x"}
            for job in jobs
            if job.get("calendar", "daily")
        ]

    def command(self, *words: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "diting.cli.main",
            "schedule",
            *words,
            "--config",
            str(self.root / "schedule.json"),
        ]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        (self.root / "timers").write_text(json.dumps(self.timers))
        return subprocess.run(
            self.command(*words),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command("run", name), env=self.environment, stderr=subprocess.PIPE, text=True
        )

    def kept(self, name: str) -> dict[str, object]:
        found = json.loads((self.state / f"{name}.json").read_text())
        assert isinstance(found, dict)
        return found

    def standing(self, name: str) -> str:
        return {row["name"]: row["standing"] for row in json.loads(self.run("list", "--json").stdout)}[name]

    def figures(self) -> dict[str, float]:
        assert self.run("look").returncode == 0
        lines = [line for line in self.metrics.read_text().splitlines() if not line.startswith("#")]
        return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines)}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_job_that_ended_well_is_fine_and_says_so_everywhere(host):
    host.write({"name": "well", "command": ["/bin/sh", "-c", "pwd"]})
    assert host.standing("well") == "due"
    begun = time.time()
    done = host.run("run", "well")
    assert (done.returncode, done.stdout.strip()) == (0, str(host.root))
    assert host.standing("well") == "fine"
    assert host.run("list").returncode == 0
    figures = host.figures()
    assert begun <= figures['diting_schedule_last_success_timestamp_seconds{name="well"}'] <= time.time()
    assert figures['diting_schedule_due_timestamp_seconds{name="well"}'] == pytest.approx(
        time.time() + 3600, abs=60
    )
    assert figures['diting_schedule_failed{name="well"}'] == 0
    assert figures["diting_schedule_looked_timestamp_seconds"] == pytest.approx(time.time(), abs=60)


def test_a_job_that_failed_keeps_what_an_earlier_run_proved(host):
    host.write({"name": "job", "command": ["/bin/sh", "-c", "exit $(cat status)"]})
    (host.root / "status").write_text("0")
    assert host.run("run", "job").returncode == 0
    proven = host.kept("job")["succeeded"]
    (host.root / "status").write_text("3")
    assert host.run("run", "job").returncode == 3
    assert host.kept("job")["succeeded"] == proven
    done = host.run("list")
    assert (done.returncode, "FAILED" in done.stdout, "status 3" in done.stdout) == (1, True, True)
    assert host.figures()['diting_schedule_failed{name="job"}'] == 1


def test_a_job_nobody_ran_in_time_is_overdue(host):
    host.write({"name": "job", "command": ["/bin/true"]})
    assert host.run("run", "job").returncode == 0
    kept = host.kept("job")
    (host.state / "job.json").write_text(json.dumps({**kept, "succeeded": kept["succeeded"] - 4000}))
    done = host.run("list")
    assert (done.returncode, "OVERDUE" in done.stdout) == (1, True)
    assert host.figures()['diting_schedule_due_timestamp_seconds{name="job"}'] < time.time()


def test_a_new_job_is_overdue_some_time_after_it_was_first_seen(host):
    host.write({"name": "job", "command": ["/bin/true"]})
    first = host.figures()['diting_schedule_due_timestamp_seconds{name="job"}']
    time_of_second_look = host.figures()['diting_schedule_due_timestamp_seconds{name="job"}']
    assert time_of_second_look == first


def test_a_timer_that_does_not_run_is_said(host):
    host.write(
        {"name": "job", "command": ["/bin/true"]},
        {"name": "by-hand", "command": ["/bin/true"], "calendar": ""},
    )
    for name in ("job", "by-hand"):
        assert host.run("run", name).returncode == 0
    host.timers = [{"unit": "diting-job-job.timer", "next": None, "activates": "x"}]
    assert (host.standing("job"), host.standing("by-hand")) == ("unscheduled", "fine")
    host.timers = []
    figures = host.figures()
    assert figures['diting_schedule_unscheduled{name="job"}'] == 1
    assert figures['diting_schedule_unscheduled{name="by-hand"}'] == 0


def test_one_job_at_a_time(host):
    host.write(
        {"name": "long", "command": ["/bin/sh", "-c", "touch begun; sleep 60"]},
        {"name": "short", "command": ["/bin/true"]},
    )
    process = host.start("long")
    try:
        wait_until("the long job has begun", (host.root / "begun").exists)
        assert host.standing("long") == "running"
        done = host.run("run", "short")
        assert (done.returncode, "another job was under way" in done.stderr) == (EXIT_NOT_RUN, True)
        assert host.standing("short") == "failed"
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, "signal 15" in said) == (143, True)
    assert (host.kept("long")["status"], host.standing("long")) == (143, "failed")


def test_the_same_job_is_not_run_beside_itself(host):
    host.write({"name": "long", "command": ["/bin/sh", "-c", "touch begun; sleep 60"]})
    process = host.start("long")
    try:
        wait_until("the job has begun", (host.root / "begun").exists)
        before = host.kept("long")
        done = host.run("run", "long")
        assert (done.returncode, "long is under way already" in done.stderr) == (EXIT_NOT_RUN, True)
        assert host.kept("long") == before, "what is known of it is the first run's to write"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_a_job_that_waits_for_another_is_at_work_and_can_be_stopped(host):
    host.write(
        {"name": "long", "command": ["/bin/sh", "-c", "touch begun; sleep 60"]},
        {"name": "cut-off", "command": ["/bin/true"]},
        {"name": "short", "command": ["/bin/true"]},
        lock_seconds=60,
    )
    (host.state / "cut-off.json").write_text(
        json.dumps(
            {
                "name": "cut-off",
                "since": 1.0,
                "begun": 2.0,
                "ended": None,
                "status": None,
                "succeeded": time.time(),
            }
        )
    )
    first = host.start("long")
    second = None
    try:
        wait_until("the long job has begun", (host.root / "begun").exists)
        second = host.start("short")
        # systemd names no next time for its timer meanwhile.
        host.timers = [timer for timer in host.timers if "short" not in str(timer["unit"])]
        wait_until("the short one waits", lambda: host.standing("short") == "running")
        assert host.standing("cut-off") == "failed", (
            "a job that was cut off does not run because another one does"
        )
    finally:
        for process in (second, first):
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=30)
    _, said = second.communicate(timeout=30)
    first.communicate(timeout=30)
    assert (second.returncode, "while it waited" in said) == (143, True)
    assert host.kept("short")["status"] == 143


def test_a_job_that_takes_too_long_ends_with_all_that_it_began(host):
    host.write(
        {
            "name": "job",
            "command": ["/bin/sh", "-c", "sleep 61 & echo $! > child; wait"],
            "deadline_seconds": 1,
        }
    )
    done = host.run("run", "job")
    assert (done.returncode, "deadline_seconds, 1 s" in done.stderr) == (EXIT_LATE, True)
    stat = Path(f"/proc/{(host.root / 'child').read_text().strip()}/stat")
    # What was ended may wait for whoever collects it.
    wait_until("its child ends", lambda: not stat.exists() or " Z " in stat.read_text())


def test_a_run_that_was_killed_is_cut_off_and_not_running(host):
    host.write({"name": "job", "command": ["/bin/sh", "-c", "echo $$ > shell; exec sleep 62"]})
    process = host.start("job")
    shell = host.root / "shell"
    wait_until("it has begun", lambda: shell.exists() and shell.read_text().endswith("\n"))
    process.kill()
    os.kill(int(shell.read_text()), signal.SIGKILL)
    process.communicate(timeout=30)
    done = host.run("list")
    assert (done.returncode, "cut off" in done.stdout) == (1, True)
    assert host.figures()['diting_schedule_failed{name="job"}'] == 1


def test_a_command_that_is_not_there_is_named(host):
    host.write({"name": "job", "command": ["/nowhere/ansible-playbook", "x"]})
    done = host.run("run", "job")
    assert (done.returncode, "/nowhere/ansible-playbook: No such file" in done.stderr) == (
        EXIT_NO_PROGRAM,
        True,
    )
    assert host.kept("job")["status"] == EXIT_NO_PROGRAM


def test_what_cannot_be_read_is_not_called_never_run(host):
    host.write({"name": "job", "command": ["/bin/true"]})
    (host.state / "job.json").write_text("{}")
    for words in (("list",), ("look",)):
        done = host.run(*words)
        assert (done.returncode, "job.json" in done.stderr, host.metrics.exists()) == (2, True, False)
    done = host.run("run", "job")
    assert (done.returncode, "job.json" in done.stderr) == (1, True)


def test_nobody_could_look_is_not_fine(host):
    host.write({"name": "job", "command": ["/bin/true"]})
    (host.root / "broken").touch()
    done = host.run("list")
    assert (done.returncode, "no bus" in done.stderr) == (2, True)


def test_a_disk_that_is_full_makes_no_proof(host):
    """What nobody can read later was not proven: the run ends badly though its command ended well."""
    host.write({"name": "job", "command": ["/bin/sh", "-c", "rm -rf state && touch state"]})
    done = host.run("run", "job")
    assert (done.returncode, "state/job.json" in done.stderr) == (1, True)


def test_everything_wrong_with_the_table_is_said_at_once(host):
    host.write(
        {
            "name": "Not Good",
            "command": [],
            "maximum_age_seconds": 0,
            "deadline_seconds": -1,
            "reminder_seconds": -1,
            "x": 1,
        },
        lock_seconds=-1,
        directory="here",
        more=1,
    )
    done = host.run("list")
    assert done.returncode == EXIT_USAGE
    fields = [
        "jobs.0.name",
        "jobs.0.command",
        "jobs.0.maximum_age",
        "jobs.0.deadline",
        "jobs.0.reminder",
        "jobs.0.x",
    ]
    for field in [*fields, "lock_seconds", "directory", "more"]:
        assert field in done.stderr, field
    host.write({"name": "a", "command": ["x"]}, {"name": "a", "command": ["x"]})
    assert "found more than one a" in host.run("list").stderr


def test_a_job_that_is_not_in_the_table_is_refused(host):
    host.write({"name": "a", "command": ["/bin/true"]})
    done = host.run("run", "b")
    assert (done.returncode, "found 'b', wanted one of a" in done.stderr) == (EXIT_USAGE, True)
