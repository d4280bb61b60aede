# SPDX-License-Identifier: GPL-3.0-or-later
"""The module: what it says when the fence works, lies, hangs or cannot be asked; and that check mode orders nothing."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.diting.dr.plugins.module_utils.core.fence import Order, Outcome, Power, Reading
from ansible_collections.diting.dr.plugins.modules import fence as module

ARGUMENTS = {"agent": "power", "target": "pg1", "url": "https://127.0.0.1:1", "ca_file": "/dev/null"}


class Switch:
    """An agent over a variable, that obeys or does not."""

    def __init__(self, power=Power.ON, *, obeys=True, outcome=Outcome.DONE):
        self.power = power
        self.obeys = obeys
        self.outcome = outcome
        self.orders = []

    def off(self, deadline_seconds):
        return self._order(Power.OFF)

    def on(self, deadline_seconds, *, leader=None):
        return self._order(Power.ON)

    def _order(self, wanted):
        self.orders.append(wanted)
        now = time.monotonic()
        if self.obeys:
            self.power = wanted
        return Order(self.outcome, now, time.monotonic(), "a switch")

    def state(self, deadline_seconds):
        now = time.monotonic()
        return Reading(self.power, now, time.monotonic(), f"the switch is {self.power.value}", {"seen": True})


@pytest.fixture
def fence(monkeypatch, capsys):
    def call(switch, *, check=False, **arguments):
        monkeypatch.setattr(module, "agent_for", lambda _params: switch)
        given = {**ARGUMENTS, "read_back_seconds": 0.05, **arguments, "_ansible_check_mode": check}
        with patch_module_args(given), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_off_is_proven_and_the_second_time_nothing_changes(fence):
    switch = Switch()
    first = fence(switch, action="off")
    assert (first["changed"], first["proven"], first["state"]) == (True, True, "off")
    assert first["order"]["outcome"] == "done"
    assert first["msg"] == "pg1: off, proven by power"
    second = fence(switch, action="off")
    assert (second["changed"], second["proven"]) == (False, True)
    assert switch.orders == [Power.OFF] * 2


def test_check_mode_orders_nothing_and_tells_what_would_change(fence):
    switch = Switch()
    assert fence(switch, check=True, action="off")["changed"] is True
    assert fence(switch, check=True, action="on")["changed"] is False
    unknown = fence(Switch(Power.UNKNOWN), check=True, action="off")
    assert (unknown["changed"], unknown["proven"]) == (True, False)
    assert "failed" not in unknown
    assert switch.orders == []


@pytest.mark.parametrize(
    ("switch", "code"),
    [
        (Switch(obeys=False), "read_back_on"),
        (Switch(Power.UNKNOWN, obeys=False), "read_back_unknown"),
        (Switch(Power.OFF, outcome=Outcome.UNKNOWN), "order_unknown"),
        (Switch(Power.OFF, outcome=Outcome.FAILED), "order_failed"),
    ],
    ids=["stays on", "unknown", "order hangs", "order refused"],
)
def test_what_is_not_proven_fails_and_says_why(fence, switch, code):
    told = fence(switch, action="off")
    assert told["failed"] is True
    assert told["proven"] is False
    assert code in [reason["code"] for reason in told["reasons"]]
    assert "off is not proven by power" in told["msg"]
    calm = fence(switch, action="off", fail_on_unproven=False)
    assert (calm.get("failed"), calm["proven"]) == (None, False)


def test_looking_changes_nothing_and_unknown_is_a_failure_to_look(fence):
    for power in (Power.ON, Power.OFF):
        switch = Switch(power)
        told = fence(switch, action="state")
        assert (told["changed"], told["proven"], told["state"]) == (False, True, power.value)
        assert "order" not in told
        assert switch.orders == []
    told = fence(Switch(Power.UNKNOWN), action="state")
    assert (told["failed"], told["state"]) == (True, "unknown")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"action": "off", "agent": "ec2"}, "instance_id, region"),
        ({"action": "off", "agent": "ecs_network", "instance_id": "i", "region": "r"}, "isolation_group"),
        ({"action": "off", "order_seconds": 0}, "order_seconds: want seconds above 0"),
        ({"action": "melt"}, "value of action must be one of"),
    ],
    ids=str,
)
def test_wrong_options_say_what_is_wanted(fence, arguments, words):
    assert words in fence(Switch(), **arguments)["msg"]


def test_an_agent_that_cannot_be_made_is_a_failure(monkeypatch, capsys):
    monkeypatch.delenv("DITING_POWER_TOKEN", raising=False)
    with patch_module_args({**ARGUMENTS, "action": "off", "ca_file": "/nowhere"}), pytest.raises(SystemExit):
        module.main()
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] is True
    assert "pg1: ca_file /nowhere" in told["msg"]


def test_the_documentation_is_the_argument_spec():
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert documented.keys() == module.ARGUMENT_SPEC.keys()
    for name, option in module.ARGUMENT_SPEC.items():
        told = documented[name]
        for key in ("type", "choices", "default", "required"):
            assert told.get(key) == option.get(key), (name, key)


def test_no_option_takes_a_secret():
    assert not {
        name for name in module.ARGUMENT_SPEC if "secret" in name or "token" in name or "password" in name
    }
