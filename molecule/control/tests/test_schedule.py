# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs by a calendar on a real systemd: timers, what a run leaves behind, and what verify makes of it."""

from __future__ import annotations

import json

import pytest

from support.lab_host import has_to_run, modes, playbook, run, unit, verify_while
from support.servers import wait_until

FIGURES = "/var/lib/prometheus/node-exporter/diting_schedule.prom"


def standing(host):
    return {
        row["name"]: row["standing"] for row in json.loads(host.run("diting schedule list --json").stdout)
    }


def figures(host):
    lines = [line for line in run(host, f"cat {FIGURES}").splitlines() if not line.startswith("#")]
    return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines)}


@pytest.mark.parametrize("name", ["diting-job-well.timer", "diting-schedule-look.timer"])
def test_timer_runs_and_starts_at_boot(host, name):
    has_to_run(host, name)


def test_a_job_that_people_begin_has_no_timer(host):
    assert run(host, "ls /etc/systemd/system/").split().count("diting-job-by-hand.timer") == 0


def test_files_have_exactly_these_owners_and_modes(host):
    wanted = {
        "/etc/diting/schedule.env": "600 root:root",
        "/etc/diting/schedule.json": "644 root:root",
        "/etc/systemd/system/diting-job@.service": "644 root:root",
        "/var/lib/diting/schedule": "755 root:root",
    }
    assert modes(host, *wanted) == wanted


def test_somebody_looks_without_being_asked(host):
    looked = figures(host)["diting_schedule_looked_timestamp_seconds"]
    wait_until(
        "a second look", lambda: figures(host)["diting_schedule_looked_timestamp_seconds"] > looked, 90
    )


def test_a_run_of_the_unit_counts(host):
    run(host, "systemctl start diting-job@well.service")
    assert standing(host)["well"] == "fine"
    assert unit(host, "diting-job@well.service", "Result") == {"Result": "success"}
    run(host, "systemctl start diting-schedule-look.service")
    found = figures(host)
    assert found['diting_schedule_failed{name="well"}'] == 0
    assert (
        found['diting_schedule_begins_timestamp_seconds{name="well"}']
        > found["diting_schedule_looked_timestamp_seconds"]
    )


def test_verify_names_a_job_that_failed(host):
    done = verify_while(
        host,
        "echo 3 > /run/by-hand; diting schedule run by-hand; test $? -eq 3",
        mended="echo 0 > /run/by-hand; diting schedule run by-hand",
    )
    assert done.returncode != 0
    assert "by-hand failed: the last run ended with status 3" in done.stdout
    assert standing(host)["by-hand"] == "fine"


def test_verify_names_a_timer_that_was_stopped(host):
    done = verify_while(
        host, "systemctl stop diting-job-well.timer", mended="systemctl start diting-job-well.timer"
    )
    assert done.returncode != 0
    assert "well unscheduled" in done.stdout


def test_a_job_that_has_gone_from_the_table_is_started_no_more(host):
    other = [{"name": "other", "command": ["/bin/true"], "calendar": "yearly", "maximum_age_seconds": 60}]
    done = playbook(
        "converge.yml", "--tags", "drill_schedule", "--extra-vars", json.dumps({"drill_schedule_jobs": other})
    )
    try:
        assert done.returncode == 0, done.stdout[-3000:]
        assert run(host, "ls /etc/systemd/system | grep diting-job-").split() == ["diting-job-other.timer"]
        assert set(standing(host)) == {"other"}
    finally:
        done = playbook("converge.yml", "--tags", "drill_schedule")
    assert done.returncode == 0, done.stdout[-3000:]
    has_to_run(host, "diting-job-well.timer")
