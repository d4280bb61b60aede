# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as fenced: every kind of order with every kind of read-back, and what each API's words mean."""

from __future__ import annotations

import itertools

import pytest

from diting.core import fence
from diting.core.fence import Interface, Order, Outcome, Power, Reading, judge, judge_look


@pytest.mark.parametrize(
    ("outcome", "power", "early"),
    list(itertools.product(Outcome, Power, (False, True))),
    ids=str,
)
def test_only_a_done_order_and_a_later_off_are_proof(outcome, power, early):
    order = Order(outcome, 1.0, 2.0, "words")
    asked = 1.5 if early else 2.0
    judged = judge(Power.OFF, order, [Reading(Power.OFF, 0, 0), Reading(power, asked, asked + 0.1, "seen")])
    assert judged.proven is (outcome is Outcome.DONE and power is Power.OFF and not early)
    assert judged.power is power
    assert bool(judged.reasons) is not judged.proven


def test_no_read_back_is_no_proof():
    judged = judge(Power.OFF, Order(Outcome.DONE, 1, 2), [])
    assert not judged.proven
    assert judged.power is Power.UNKNOWN
    assert [reason.code for reason in judged.reasons] == ["no_read_back"]


def test_a_look_alone_needs_no_order():
    for power in (Power.ON, Power.OFF):
        assert judge_look(Reading(power, 1, 2)).proven
    unknown = judge_look(Reading(Power.UNKNOWN, 1, 2, "no answer"))
    assert not unknown.proven
    assert unknown.reasons[0].message == "the state is unknown: no answer"


@pytest.mark.parametrize(
    ("body", "power"),
    [
        ({"name": "pg1", "state": "off"}, Power.OFF),
        ({"name": "pg1", "state": "on"}, Power.ON),
        ({"name": "pg1", "state": "unknown", "why": "could not look"}, Power.UNKNOWN),
        ({"name": "pg1", "state": "OFF"}, Power.UNKNOWN),
        ({"name": "pg1", "state": ["off"]}, Power.UNKNOWN),
        ({"name": "pg1", "state": None}, Power.UNKNOWN),
        ({"name": "pg2", "state": "off"}, Power.UNKNOWN),
        ({"state": "off"}, Power.UNKNOWN),
        ([], Power.UNKNOWN),
        ("off", Power.UNKNOWN),
        (None, Power.UNKNOWN),
    ],
    ids=str,
)
def test_power_control(body, power):
    assert fence.read_power_control(body, "pg1")[0] is power


def ec2(*states, instance="i-1"):
    return {"Reservations": [{"Instances": [{"InstanceId": instance, "State": {"Name": s}} for s in states]}]}


@pytest.mark.parametrize(
    ("body", "power"),
    [
        (ec2("stopped"), Power.OFF),
        (ec2("terminated"), Power.OFF),
        (ec2("stopping"), Power.ON),
        (ec2("shutting-down"), Power.ON),
        (ec2("pending"), Power.ON),
        (ec2("running"), Power.ON),
        (ec2("resting"), Power.UNKNOWN),
        (ec2(), Power.UNKNOWN),
        (ec2("stopped", "running"), Power.UNKNOWN),
        (ec2("stopped", instance="i-2"), Power.UNKNOWN),
        ({"Reservations": []}, Power.UNKNOWN),
        ({"Reservations": None}, Power.UNKNOWN),
        ({}, Power.UNKNOWN),
        (None, Power.UNKNOWN),
    ],
    ids=str,
)
def test_ec2(body, power):
    assert fence.read_ec2(body, "i-1")[0] is power


def ecs(*states, instance="i-1"):
    return {"Instances": {"Instance": [{"InstanceId": instance, "Status": state} for state in states]}}


@pytest.mark.parametrize(
    ("body", "power"),
    [
        (ecs("Stopped"), Power.OFF),
        (ecs("Stopping"), Power.ON),
        (ecs("Starting"), Power.ON),
        (ecs("Running"), Power.ON),
        (ecs("stopped"), Power.UNKNOWN),
        (ecs(), Power.UNKNOWN),
        (ecs("Stopped", "Stopped"), Power.UNKNOWN),
        (ecs("Stopped", instance="i-2"), Power.UNKNOWN),
        ({"Code": "Forbidden"}, Power.UNKNOWN),
        (None, Power.UNKNOWN),
    ],
    ids=str,
)
def test_ecs(body, power):
    assert fence.read_ecs(body, "i-1")[0] is power


@pytest.mark.parametrize(
    ("interfaces", "rules", "power"),
    [
        ([Interface("a", ("none",))], [], Power.OFF),
        ([Interface("a", ("none",)), Interface("b", ("none",))], [], Power.OFF),
        ([Interface("a", ("none",)), Interface("b", ("db",))], [], Power.ON),
        ([Interface("a", ("db", "none"))], [], Power.ON),
        ([Interface("a", ())], [], Power.ON),
        ([Interface("a", ("none",))], ["in tcp"], Power.ON),
        ([], [], Power.UNKNOWN),
    ],
    ids=str,
)
def test_isolation(interfaces, rules, power):
    assert fence.read_isolation(interfaces, "none", rules)[0] is power


@pytest.mark.parametrize(
    "body",
    [None, {}, {"SecurityGroups": []}, {"SecurityGroups": [{"GroupId": "none", "IpPermissions": []}]}],
    ids=str,
)
def test_a_group_that_cannot_be_read_counts_as_open(body):
    assert fence.ec2_open_rules(body, "none")
    assert fence.ecs_open_rules(body, "none", "enterprise")
