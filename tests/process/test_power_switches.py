# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Power control that misbehaves on purpose, and the hold on a fenced host, with the real daemon."""

from __future__ import annotations

import json
import threading
import time

import pytest

from diting.cli.main import main
from diting.lab.power_client import PowerClient, PowerClientError
from support.power_lab import Lab, certificate, power  # noqa: F401
from support.servers import wait_until

pytestmark = pytest.mark.process


def off(lab: Lab, host: str = "pg1", **more: object) -> dict:
    return lab.client.off(host, "test", "inc-1", revert_after_seconds=None, **more)


class TestSwitches:
    def test_a_lie_says_off_does_nothing_and_outlives_kill_9(self, power: Lab):
        power.client.set_switches("pg1", lie=True)
        assert power.client.host("pg1")["state"] == "on"
        assert off(power)["state"] == "off"
        assert power.state("pg1") == "on"
        power.kill()
        power.start()
        assert power.client.host("pg1")["state"] == "off"
        assert power.client.hosts()[0]["state"] == "off"
        assert "power_off_lied_about" in power.events()
        assert "power_off_done" not in power.events()

    def test_a_lie_ends_with_a_power_on_or_with_the_switch(self, power: Lab):
        power.client.set_switches("pg1", lie=True)
        off(power)
        assert power.client.on("pg1", "test")["state"] == "on"
        off(power)
        power.client.clear_switches("pg1")
        assert power.client.host("pg1")["state"] == "on"

    def test_a_hang_answers_nothing_and_does_nothing(self, power: Lab):
        power.client.set_switches("pg1", hang_seconds=60)
        impatient = PowerClient.for_instance(power.instance, timeout_seconds=0.5)
        for ask in (
            lambda: impatient.host("pg1"),
            lambda: impatient.on("pg1", "test"),
            lambda: impatient.off("pg1", "test", revert_after_seconds=None),
        ):
            with pytest.raises(PowerClientError) as caught:
                ask()
            assert caught.value.status is None
        assert power.state("pg1") == "on"
        assert power.client.host("pg2")["state"] == "on"
        assert power.client.timers("pg1") == []  # what a drill's own safety net asks

    def test_a_hang_that_ends_is_a_refusal_and_still_nothing_was_done(self, power: Lab):
        power.client.set_switches("pg1", hang_seconds=0.4)
        started = time.monotonic()
        with pytest.raises(PowerClientError, match="nothing was done") as caught:
            off(power)
        assert caught.value.status == 504
        assert time.monotonic() - started >= 0.4
        assert power.state("pg1") == "on"

    def test_a_promised_power_on_comes_through_a_hang(self, power: Lab):
        off(power)
        power.client.set_switches("pg1", hang_seconds=60)
        power.client.add_timer("pg1", 0.5, "limit")
        wait_until("the host is on", lambda: power.state("pg1") == "on")

    def test_unknown_is_said_while_orders_are_carried_out(self, power: Lab):
        power.client.set_switches("pg1", unknown=True)
        answer = off(power)
        assert answer["state"] == "unknown"
        assert answer["why"]
        assert power.state("pg1") == "off"
        assert power.client.host("pg1")["state"] == "unknown"

    @pytest.mark.alone
    def test_latency_is_the_hosts_own(self, power: Lab):
        power.client.set_switches("pg1", latency_seconds=0.6)
        started = time.monotonic()
        off(power, "pg2")
        assert time.monotonic() - started < 0.6
        started = time.monotonic()
        off(power)
        assert time.monotonic() - started >= 0.6

    def test_switches_end_by_themselves_and_are_not_in_the_description(self, power: Lab):
        power.client.set_switches("pg1", unknown=True, for_seconds=0.5)
        assert "switches" not in power.client.host("pg1")
        assert power.client.switches("pg1")["until"]
        wait_until("the switch has ended", lambda: power.client.host("pg1")["state"] == "on")
        assert power.client.switches("pg1")["unknown"] is False

    def test_everybody_is_put_back_at_once(self, power: Lab):
        for host in ("pg1", "pg2"):
            power.client.set_switches(host, unknown=True)
        power.client.clear_switches()
        assert [host["state"] for host in power.client.hosts()] == ["on", "on"]

    @pytest.mark.parametrize(
        "body",
        [{"lie": "yes"}, {"hang_seconds": -1}, {"latency_seconds": "1"}, {"lies": True}, {"for_seconds": 0}],
    )
    def test_a_wrong_switch_is_refused(self, power: Lab, body):
        status, text = power.raw("PUT", "/v1/hosts/pg1/switches", json.dumps(body))
        assert (status, bool(json.loads(text)["error"])) == (400, True)
        assert power.client.switches("pg1")["until"] is None


class TestFenceHold:
    def test_a_fenced_host_is_not_switched_on_until_released_and_then_comes_back(self, power: Lab):
        answer = off(power, fence=True)
        assert answer["state"] == "off"
        assert answer["hold"]["incident_id"] == "inc-1"
        assert len(answer["timers"]) == 1
        with pytest.raises(PowerClientError, match="leader key was not released") as caught:
            power.client.on("pg1", "impatient")
        assert caught.value.status == 409
        power.client.add_timer("pg1", 0.2, "the drill's limit")
        time.sleep(1.0)  # the timer is due and must not get through
        assert power.state("pg1") == "off"
        power.client.release("pg1", "key deleted", "inc-1", leader="pg2")
        wait_until("the host is on", lambda: power.state("pg1") == "on")
        wait_until("no timer is left", lambda: power.client.timers("pg1") == [])
        assert "hold" not in power.client.host("pg1")
        events = power.events()
        assert events.index("fence_held") < events.index("power_off_requested")

    def test_a_host_that_holds_the_key_itself_is_not_released(self, power: Lab):
        off(power, fence=True)
        with pytest.raises(PowerClientError, match="still holds the leader key") as caught:
            power.client.release("pg1", "test", leader="pg1")
        assert caught.value.status == 409
        assert power.client.host("pg1")["hold"]

    def test_release_of_nobody_is_refused(self, power: Lab):
        with pytest.raises(PowerClientError) as caught:
            power.client.release("pg1", "test", leader=None)
        assert caught.value.status == 404

    def test_a_release_may_wait(self, power: Lab):
        off(power, fence=True)
        power.client.release("pg1", "test", leader=None, after_seconds=3600)
        assert power.state("pg1") == "off"
        assert power.client.on("pg1", "now after all")["state"] == "on"

    def test_an_order_under_way_loses_against_the_fence(self, power: Lab):
        off(power)
        power.client.set_switches("pg1", latency_seconds=1.0)
        failures: list[PowerClientError] = []

        def switch_on() -> None:
            try:
                power.client.on("pg1", "a moment too early")
            except PowerClientError as error:
                failures.append(error)

        order = threading.Thread(target=switch_on)
        order.start()
        wait_until("the order is under way", lambda: "power_on_requested" in power.events())
        off(power, fence=True)
        order.join(timeout=20)
        assert [error.status for error in failures] == [409]
        assert power.state("pg1") == "off"

    def test_nobody_releases_and_it_comes_back_by_itself_after_kill_9(self, power: Lab):
        power.kill()
        power.start(hold_seconds=1.5)
        off(power, fence=True)
        power.kill()
        time.sleep(1.6)  # it comes due while nobody is there
        assert power.state("pg1") == "off"
        power.start()
        wait_until("the host is on", lambda: power.state("pg1") == "on")
        wait_until("no timer is left", lambda: power.client.timers("pg1") == [])
        assert "hold" not in power.client.host("pg1")

    def test_what_ends_a_hold_is_nobody_elses_to_take_back(self, power: Lab, capsys):
        timer = off(power, fence=True)["timers"][0]
        with pytest.raises(PowerClientError, match="ends the hold of a fence") as caught:
            power.client.remove_timer("pg1", timer["id"])
        assert caught.value.status == 409
        words = ["lab", "power", "settle", "pg1", "--incident", "inc-1", "--lab-home", str(power.home)]
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["cancelled"] == []
        assert [found["id"] for found in power.client.timers("pg1")] == [timer["id"]]

    def test_settling_a_drill_leaves_a_fenced_host_to_what_ends_its_hold(self, power: Lab, capsys):
        limit = power.client.off("pg1", "drill", "inc-1", revert_after_seconds=3600)["timer_id"]
        hold = off(power, fence=True)["hold"]
        words = ["lab", "power", "settle", "pg1", "--incident", "inc-1", "--lab-home", str(power.home)]
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["cancelled"] == [limit]
        assert power.state("pg1") == "off"
        described = power.client.host("pg1")
        assert described["hold"] == hold
        assert [timer["ends_hold"] for timer in described["timers"]] == [True]

    def test_a_second_fence_does_not_prolong_the_first(self, power: Lab):
        first = off(power, fence=True)["hold"]
        assert off(power, fence=True)["hold"] == first
        assert len(power.client.timers("pg1")) == 1

    def test_an_unreadable_hold_is_not_no_hold(self, power: Lab):
        power.kill()
        (power.power / "holds.json").write_text('{"pg1": {"since": 1}}')
        with pytest.raises(AssertionError, match="unreadable"):
            power.start()


def test_the_command_line_does_all_of_it(power: Lab, capsys):
    def run(*words: str) -> int:
        return main(["lab", "power", words[0], "--lab-home", str(power.home), *words[1:]])

    assert run("switch", "pg1", "--unknown", "--for", "600") == 0
    assert json.loads(capsys.readouterr().out)["unknown"] is True
    assert run("status", "pg1") == 1
    assert run("normal") == 0
    assert run("off", "pg1", "--for-good", "--fence") == 0
    assert run("on", "pg1") == 1
    assert "stays off" in capsys.readouterr().err
    assert run("release", "pg1", "--leader", "pg2") == 0
    wait_until("the host is on", lambda: power.state("pg1") == "on")
