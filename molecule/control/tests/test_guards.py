# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard ``clock`` under its unit: locked up, watched, back after a kill, gone when it is not listed."""

from __future__ import annotations

import json
import re
import time

import pytest

from support.lab_host import changes, playbook, run, unit

UNIT = "diting-guard-clock.service"
JOURNAL = "/var/lib/diting/guards/clock/journal.jsonl"


def wait_until_well(host, seconds=30):
    deadline = time.monotonic() + seconds
    while (done := host.run("diting guard status clock")).rc != 0:
        assert time.monotonic() < deadline, (
            f"{done.stdout}{done.stderr}{run(host, f'journalctl -u {UNIT} -n 30')}"
        )
        time.sleep(0.5)


def test_it_sees_chrony_and_trusts_the_clock(host):
    wait_until_well(host)
    (status,) = json.loads(run(host, "diting guard status --json clock"))
    assert status["phase"] == "trusted"
    assert status["observation"]["answer"] == "synchronised"


def test_it_is_locked_up(host):
    text = run(host, f"systemd-analyze security --no-pager {UNIT}")
    assert float(re.search(r"Overall exposure level for .*: ([0-9.]+)", text)[1]) <= 2.5
    state = unit(host, UNIT, "User", "CapabilityBoundingSet", "NoNewPrivileges")
    assert state == {"User": "_chrony", "CapabilityBoundingSet": "", "NoNewPrivileges": "yes"}


def test_it_is_small(host):
    pid = unit(host, UNIT, "MainPID")["MainPID"]
    rss_kilobytes = int(re.search(r"VmRSS:\s+(\d+)", run(host, f"cat /proc/{pid}/status"))[1])
    assert rss_kilobytes <= 60 * 1024


def test_it_comes_back_after_a_kill_and_decided_by_the_rules(host):
    before = unit(host, UNIT, "MainPID")["MainPID"]
    run(host, f"kill -9 {before}")
    deadline = time.monotonic() + 30
    while unit(host, UNIT, "MainPID", "ActiveState") in (
        {"MainPID": before, "ActiveState": "active"},
        {"MainPID": "0", "ActiveState": "activating"},
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    wait_until_well(host)
    assert "identical" in run(host, f"diting guard replay {JOURNAL}")


def test_metrics_say_what_it_saw(host):
    asked = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9601/metrics', timeout=5).read().decode())"
    text = run(host, f'python3 -c "{asked}"')
    assert 'diting_guard_state{guard="clock",state="trusted"} 1.0' in text
    assert 'diting_guard_clock_synchronised{guard="clock"} 1.0' in text


def test_a_wrong_setting_is_refused_and_the_one_in_force_stays(host):
    before = run(host, "sha256sum /etc/diting/guards/clock.json")
    wrong = {"guard_runtime_guards": [{"guard": "clock", "settings": {"limit_seconds": -1}}]}
    done = playbook("converge.yml", "--tags", "guard_runtime_configure", "--extra-vars", json.dumps(wrong))
    assert done.returncode != 0
    assert "settings.limit_seconds: found -1" in done.stdout
    assert run(host, "sha256sum /etc/diting/guards/clock.json") == before


@pytest.mark.parametrize(
    "guards",
    [
        [{"guard": "clock"}, {"guard": "clock"}],
        [{"guard": "clock", "name": "../clock"}],
    ],
    ids=["twice", "no name"],
)
def test_names_that_cannot_be_are_refused_before_anything_changes(guards):
    words = json.dumps({"guard_runtime_guards": guards})
    done = playbook("converge.yml", "--check", "--tags", "guard_runtime_configure", "--extra-vars", words)
    assert done.returncode != 0
    assert "guard_runtime_guards" in done.stdout
    assert changes(done) == []


def test_a_guard_that_is_not_listed_any_more_is_gone_and_its_journal_stays(host):
    none = json.dumps({"guard_runtime_guards": []})
    done = playbook("converge.yml", "--tags", "guard_runtime_configure", "--extra-vars", none)
    assert done.returncode == 0, done.stdout[-3000:]
    try:
        assert host.run(f"systemctl is-active {UNIT}").rc != 0
        assert host.run(f"test -e /etc/systemd/system/{UNIT} -o -e /etc/diting/guards/clock.json").rc != 0
        assert host.run(f"test -s {JOURNAL}").rc == 0
    finally:
        again = playbook("converge.yml", "--tags", "guard_runtime_configure")
    assert again.returncode == 0, again.stdout[-3000:]
    wait_until_well(host)
