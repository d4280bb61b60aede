# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Power control as a real daemon on loopback, over hosts that are files."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diting.cli.main import main
from diting.lab import instance as lab
from diting.lab import power_service
from diting.lab.power_client import PowerClient, PowerClientError
from support.power_lab import DAEMON, Lab, certificate, power  # noqa: F401
from support.servers import self_signed, wait_until

pytestmark = pytest.mark.process


def test_a_request_without_the_token_is_refused_and_does_nothing(power: Lab):
    body = json.dumps({"reason": "x", "incident_id": None, "revert_after_seconds": None})
    for token in (None, "", "secret-toke", "secret-token2"):
        assert power.raw("POST", "/v1/hosts/pg1/off", body, token)[0] == 401
    assert power.raw("GET", "/v1/hosts", None, None)[0] == 401
    assert power.state("pg1") == "on"
    assert power.events() == ["power_control_started"]


def test_states_are_what_is_seen_now_not_what_was_done(power: Lab):
    power.client.off("pg1", "test", revert_after_seconds=None)
    assert power.client.host("pg1")["state"] == "off"
    power.set("pg1", "on")  # somebody else switched it on
    assert power.client.host("pg1")["state"] == "on"
    power.set("pg1", "rubbish")
    seen = power.client.host("pg1")
    assert seen["state"] == "unknown"
    assert "rubbish" in seen["why"]
    assert [host["state"] for host in power.client.hosts()] == ["unknown", "on"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/hosts/pg1/off", {"reason": "x", "incident_id": None}, 400),
        ("/v1/hosts/pg1/off", {"reason": "x", "incident_id": None, "revert_after_seconds": 0}, 400),
        ("/v1/hosts/pg1/off", {"reason": "x", "incident_id": None, "revert_after_seconds": True}, 400),
        ("/v1/hosts/pg1/off", {"reason": "", "incident_id": None, "revert_after_seconds": None}, 400),
        ("/v1/hosts/pg1/on", {"reason": "x", "incident_id": None, "force": True}, 400),
        ("/v1/hosts/pg9/on", {"reason": "x", "incident_id": None}, 404),
        (
            "/v1/hosts/pg1/timers",
            {"action": "off", "after_seconds": 1, "reason": "x", "incident_id": None},
            400,
        ),
        ("/v1/hosts/pg1/reboot", {}, 404),
        ("/v1/hosts/pg1/on", [], 400),
    ],
)
def test_a_wrong_request_is_refused_and_does_nothing(power: Lab, path, body, status):
    found, text = power.raw("POST", path, json.dumps(body))
    assert (found, bool(json.loads(text)["error"])) == (status, True)
    assert power.state("pg1") == "on"


def test_rubbish_and_too_much_are_refused(power: Lab):
    assert power.raw("POST", "/v1/hosts/pg1/on", "{rubbish")[0] == 400
    for _ in range(20):  # an answer sent before the body was read resets the connection, now and then
        assert power.raw("POST", "/v1/hosts/pg1/on", " " * 20000)[0] == 400
        assert power.raw("POST", "/v1/hosts/pg1/on", " " * 20000, token="wrong")[0] == 401
    assert power.client.daemon()["lab"] == "test"


def test_off_with_a_limit_comes_back_by_itself(power: Lab):
    answer = power.client.off("pg1", "drill", "inc-1", revert_after_seconds=1)
    assert answer["state"] == "off"
    assert [timer["id"] for timer in answer["timers"]] == [answer["timer_id"]]
    wait_until("the host is on", lambda: power.state("pg1") == "on")
    wait_until("no timer is left", lambda: power.client.host("pg1")["timers"] == [])
    events = power.events()
    assert events.index("timer_set") < events.index("power_off_requested")
    assert events[-3:] == ["timer_due", "power_on_requested", "power_on_done"]
    assert {r["incident_id"] for r in power.journal() if r["event"].startswith("power_on")} == {"inc-1"}


def test_settling_an_incident_takes_its_timers_back_and_says_what_fired(power: Lab, capsys):
    def settle(incident: str) -> dict[str, Any]:
        words = ["lab", "power", "settle", "pg1", "--incident", incident, "--lab-home", str(power.home)]
        assert main(words) == 0
        told = json.loads(capsys.readouterr().out)
        assert told.pop("powered_on_ns") == ordered_on()
        return told

    def ordered_on() -> list[int]:
        return [r["mono_ns"] for r in power.journal() if r["event"] == "power_on_requested"]

    mine = power.client.add_timer("pg1", 3600, "limit", "inc-1")
    other = power.client.add_timer("pg1", 3600, "limit", "inc-2")
    assert settle("inc-1") == {"host": "pg1", "cancelled": [mine["id"]], "fired": []}
    assert [timer["id"] for timer in power.client.host("pg1")["timers"]] == [other["id"]]
    due = power.client.add_timer("pg1", 0.1, "limit", "inc-1")
    wait_until("it fired", lambda: len(power.client.host("pg1")["timers"]) == 1)
    assert settle("inc-1") == {"host": "pg1", "cancelled": [], "fired": [due["id"]]}


def test_a_timer_outlives_kill_9(power: Lab):
    power.client.off("pg1", "drill", revert_after_seconds=3)
    later = power.client.add_timer("pg2", 3600, "much later")
    power.kill()
    time.sleep(3.2)  # the timer comes due while nobody is there
    assert power.state("pg1") == "off"
    power.start()
    wait_until("the host is on", lambda: power.state("pg1") == "on")
    assert [timer["id"] for timer in power.client.host("pg2")["timers"]] == [later["id"]]


def test_a_power_on_that_fails_is_tried_until_it_works(power: Lab):
    power.client.off("pg1", "drill", revert_after_seconds=1)
    (power.hosts / "refuse").touch()
    wait_until("it fails twice", lambda: power.events().count("power_on_failed") >= 2)
    assert len(power.client.host("pg1")["timers"]) == 1
    (power.hosts / "refuse").unlink()
    wait_until("the host is on", lambda: power.state("pg1") == "on")
    wait_until("no timer is left", lambda: power.client.host("pg1")["timers"] == [])


def test_an_order_that_fails_says_so(power: Lab):
    (power.hosts / "refuse").touch()
    with pytest.raises(PowerClientError, match="the backend refuses") as caught:
        power.client.off("pg1", "test", revert_after_seconds=None)
    assert caught.value.status == 503


def test_a_timer_can_be_taken_back_once(power: Lab):
    timer = power.client.add_timer("pg1", 1, "test")
    power.client.remove_timer("pg1", timer["id"])
    with pytest.raises(PowerClientError) as caught:
        power.client.remove_timer("pg1", timer["id"])
    assert caught.value.status == 404
    other = power.client.add_timer("pg2", 3600, "test")
    with pytest.raises(PowerClientError):
        power.client.remove_timer("pg1", other["id"])


def test_the_latency_of_an_order_is_what_was_set(power: Lab):
    power.kill()
    power.describe(latency_seconds=0.7)
    power.start()
    started = time.monotonic()
    power.client.off("pg1", "test", revert_after_seconds=None)
    assert time.monotonic() - started >= 0.7


@pytest.mark.alone
def test_a_silent_client_holds_nobody_up(power: Lab):
    with socket.create_connection(("127.0.0.1", power.instance.power_port)):
        started = time.monotonic()
        power.client.host("pg1")
        assert time.monotonic() - started < 5


def test_there_is_only_one(power: Lab):
    second = subprocess.run(
        [sys.executable, str(DAEMON), str(power.home), str(power.hosts)],
        env={**os.environ, "PYTHONPATH": str(Path(lab.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert "already runs" in second.stderr
    assert power.client.daemon()["lab"] == "test"


def test_unreadable_timers_are_not_no_timers(power: Lab):
    power.kill()
    (power.power / "timers.json").write_text('[{"id": "1"}]')
    with pytest.raises(AssertionError, match="unreadable timers"):
        power.start()


def test_sigterm_ends_it_soon_and_in_order(power: Lab):
    power.process.send_signal(signal.SIGTERM)
    assert power.process.wait(timeout=10) == 0
    assert power.events()[-1] == "power_control_stopped"
    power.process.communicate()
    power.process = None


def test_a_client_knows_the_certificate_it_wants(power: Lab, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    self_signed(other / "key.pem", other / "cert.pem", "other")
    client = PowerClient(power.instance.power_url, "secret-token", other / "cert.pem")
    with pytest.raises(PowerClientError, match="cannot be asked"):
        client.hosts()


class TestService:
    """Starting, replacing and stopping the daemon, as lab/up.yml and lab/down.yml do."""

    @pytest.fixture
    def idle(self, tmp_path: Path, certificate: Path) -> Iterator[Lab]:
        found = Lab(tmp_path, certificate)
        yield found
        power_service.stop(found.instance)

    def test_twice_is_once(self, idle):
        assert power_service.ensure(idle.instance) is True
        pid = power_service.holder(idle.instance)
        assert power_service.ensure(idle.instance) is False
        assert power_service.holder(idle.instance) == pid

    def test_a_killed_one_is_replaced(self, idle):
        power_service.ensure(idle.instance)
        first = power_service.holder(idle.instance)
        os.kill(first, signal.SIGKILL)
        wait_until("it is gone", lambda: power_service.holder(idle.instance) is None)
        assert power_service.ensure(idle.instance) is True
        assert power_service.holder(idle.instance) not in (None, first)

    def test_one_of_another_configuration_is_replaced(self, idle):
        power_service.ensure(idle.instance)
        first = power_service.holder(idle.instance)
        idle.describe(latency_seconds=0.1)
        assert power_service.ensure(idle.instance) is True
        assert power_service.holder(idle.instance) not in (None, first)

    def test_a_hung_one_is_replaced(self, idle, monkeypatch):
        monkeypatch.setattr(power_service, "STOP_DEADLINE_SECONDS", 1.0)
        power_service.ensure(idle.instance)
        first = power_service.holder(idle.instance)
        os.kill(first, signal.SIGSTOP)
        assert power_service.ensure(idle.instance) is True
        assert power_service.holder(idle.instance) not in (None, first)

    def test_stop_is_complete_and_repeatable(self, idle):
        power_service.ensure(idle.instance)
        assert power_service.stop(idle.instance) is True
        assert power_service.holder(idle.instance) is None
        assert power_service.stop(idle.instance) is False
