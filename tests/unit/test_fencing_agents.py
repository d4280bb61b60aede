# SPDX-License-Identifier: GPL-3.0-or-later
"""Fencing agents against APIs that answer, refuse, stay silent and lie by halves."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from diting.core.fence import Outcome, Power, judge
from diting.hostio.fencing import FencingError, make_agent
from diting.hostio.fencing.base import credentials, read_until
from diting.lab.ecs_api import ApiError, EcsApi, Group, Instance, server

SECRETS = {
    "ec2": {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "very-secret"},
    "ecs": {"ALIBABA_CLOUD_ACCESS_KEY_ID": "key", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "very-secret"},
}


@pytest.fixture
def secret_file(tmp_path):
    def make(cloud):
        path = tmp_path / f"{cloud}.env"
        path.write_text("# keys\n" + "".join(f"{name}={value}\n" for name, value in SECRETS[cloud].items()))
        path.chmod(0o600)
        return str(path)

    return make


@pytest.fixture
def silent():
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# --- ECS, against the stand-in ---------------------------------------------------------------------


@pytest.fixture
def api():
    api = EcsApi("key", "very-secret")
    api.instances["i-1"] = Instance("i-1", interfaces={"eni-a": ["sg-db", "sg-ops"], "eni-b": ["sg-store"]})
    api.groups["sg-none"] = Group("sg-none")
    listener = server(api, ("127.0.0.1", 0))
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    api.url = f"http://127.0.0.1:{listener.server_port}"
    yield api
    if api.hang is not None:
        api.hang.set()
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def ecs(api, secret_file, tmp_path):
    def make(kind="ecs", **options):
        common = {
            "instance_id": "i-1",
            "region": "cn-shanghai",
            "endpoint_url": api.url,
            "credentials_file": secret_file("ecs"),
        }
        if kind == "ecs_network":
            common |= {"isolation_group": "sg-none", "record_directory": str(tmp_path / "records")}
        return make_agent(kind, {**common, **options})

    return make


def test_ecs_stopping_is_not_off(api, ecs):
    api.stop_seconds = 0.5
    agent = ecs()
    order = agent.off(5)
    assert (order.outcome, order.answered_at >= order.asked_at) == (Outcome.DONE, True)
    assert agent.state(5).power is Power.ON
    readings = read_until(agent, Power.OFF, 5, 5)
    assert readings[-1].power is Power.OFF
    assert judge(Power.OFF, order, readings).proven


def test_ecs_a_host_that_is_stopped_already_is_fenced(api, ecs):
    api.instances["i-1"].status = "Stopped"
    order = ecs().off(5)
    assert order.outcome is Outcome.DONE
    assert "nothing to do" in order.words


def test_ecs_starts_again(api, ecs):
    api.instances["i-1"].status = "Stopped"
    assert ecs().on(5).outcome is Outcome.DONE
    assert ecs().state(5).power is Power.ON


def test_ecs_refusals_are_clear_and_failures_are_not(api, ecs):
    api.fail["StopInstance"] = ApiError(403, "Forbidden.RAM", "User not authorized.")
    order = ecs().off(5)
    assert order.outcome is Outcome.FAILED
    assert "Forbidden.RAM" in order.words
    for error in (
        ApiError(503, "ServiceUnavailable", "later"),
        ApiError(400, "Throttling.User", "slow down"),
    ):
        api.fail["StopInstance"] = api.fail["DescribeInstances"] = error
        assert ecs().off(5).outcome is Outcome.UNKNOWN
        assert ecs().state(5).power is Power.UNKNOWN
    api.fail.clear()
    api.instances.clear()
    assert ecs().off(5).outcome is Outcome.FAILED
    assert ecs().state(5).power is Power.UNKNOWN


def test_ecs_an_order_is_sent_once(api, ecs):
    api.fail["StopInstance"] = ApiError(503, "ServiceUnavailable", "later")
    ecs().off(5)
    assert api.asked.count("StopInstance") == 1


def test_ecs_a_wrong_secret_is_refused_and_nothing_secret_is_said(api, ecs, tmp_path, caplog, capfd):
    path = tmp_path / "wrong.env"
    names = ("ACCESS_KEY_ID=key", "ACCESS_KEY_SECRET=not-this-one", "SECURITY_TOKEN=token-of-a-session")
    path.write_text("".join(f"ALIBABA_CLOUD_{name}\n" for name in names))
    path.chmod(0o600)
    order = ecs(credentials_file=str(path)).off(5)
    assert order.outcome is Outcome.FAILED
    assert "SignatureDoesNotMatch" in order.words
    said = order.words + caplog.text + "".join(capfd.readouterr())
    assert "not-this-one" not in said
    assert "token-of-a-session" not in said


def test_ecs_silence_ends_at_the_deadline(api, ecs):
    api.hang = threading.Event()
    begin = time.monotonic()
    assert ecs().off(0.3).outcome is Outcome.UNKNOWN
    reading = ecs().state(0.3)
    assert reading.power is Power.UNKNOWN
    assert "no answer within 0.3 s" in reading.words
    assert time.monotonic() - begin < 2


def test_ecs_network_isolates_every_interface_and_brings_the_groups_back(api, ecs, tmp_path):
    agent = ecs("ecs_network")
    assert agent.state(5).power is Power.ON
    assert agent.off(5).outcome is Outcome.DONE
    assert agent.state(5).power is Power.OFF
    assert api.instances["i-1"].interfaces == {"eni-a": ["sg-none"], "eni-b": ["sg-none"]}
    assert agent.off(5).outcome is Outcome.DONE  # again: the record of the first time is kept
    assert agent.on(5).outcome is Outcome.DONE
    assert api.instances["i-1"].interfaces == {"eni-a": ["sg-db", "sg-ops"], "eni-b": ["sg-store"]}
    assert list((tmp_path / "records").iterdir()) == []
    assert agent.on(5).outcome is Outcome.DONE


def test_ecs_network_one_interface_left_is_on(api, ecs):
    agent = ecs("ecs_network")
    agent.off(5)
    api.instances["i-1"].interfaces["eni-b"] = ["sg-none", "sg-store"]
    reading = agent.state(5)
    assert reading.power is Power.ON
    assert "eni-b carries sg-none, sg-store" in reading.words
    api.instances["i-1"].interfaces = {}
    assert agent.state(5).power is Power.UNKNOWN


ACCEPT = {"Policy": "Accept", "Direction": "ingress", "IpProtocol": "TCP", "DestCidrIp": ""}
SHUT = {"Policy": "Drop", "Direction": "egress", "IpProtocol": "ALL", "DestCidrIp": "0.0.0.0/0"}
SHUT6 = {**SHUT, "DestCidrIp": "", "Ipv6DestCidrIp": "::/0"}


@pytest.mark.parametrize(
    ("group", "fit"),
    [
        (Group("sg-none"), True),
        (Group("sg-none", rules=[ACCEPT]), False),
        (Group("sg-none", "normal", "Drop"), False),
        (Group("sg-none", "normal", "Accept", [SHUT, SHUT6]), False),
        (Group("sg-none", "normal", "Drop", [SHUT]), False),
        (Group("sg-none", "normal", "Drop", [SHUT, SHUT6]), True),
        (Group("sg-none", "normal", "Drop", [SHUT, SHUT6, ACCEPT]), False),
        (Group("sg-none", "else"), False),
    ],
    ids=str,
)
def test_ecs_network_only_a_group_that_lets_nothing_through_will_do(api, ecs, group, fit):
    api.groups["sg-none"] = group
    before = json.dumps(api.instances["i-1"].interfaces)
    order = ecs("ecs_network").off(5)
    assert order.outcome is (Outcome.DONE if fit else Outcome.FAILED)
    if not fit:
        assert json.dumps(api.instances["i-1"].interfaces) == before
        # And a rule that is added after the swap makes the read-back say so.
        api.instances["i-1"].interfaces = {"eni-a": ["sg-none"]}
        assert ecs("ecs_network").state(5).power is Power.ON


def test_ecs_network_without_its_record_restores_nothing(api, ecs, tmp_path):
    agent = ecs("ecs_network")
    agent.off(5)
    next((tmp_path / "records").iterdir()).unlink()
    order = agent.on(5)
    assert order.outcome is Outcome.FAILED
    assert "nothing is on record" in order.words


# --- EC2, against moto -----------------------------------------------------------------------------


@pytest.fixture
def cloud(monkeypatch):
    moto = pytest.importorskip("moto", reason="moto is not installed; see requirements.in")
    boto3 = pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        yield boto3.client("ec2", region_name="eu-central-1")


@pytest.fixture
def ec2(cloud, secret_file, tmp_path):
    cloud.instance_id = cloud.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)["Instances"][0][
        "InstanceId"
    ]

    def make(kind="ec2", **options):
        common = {
            "instance_id": cloud.instance_id,
            "region": "eu-central-1",
            "credentials_file": secret_file("ec2"),
        }
        if kind == "ec2_network":
            common |= {"isolation_group": cloud.group, "record_directory": str(tmp_path / "records")}
        return make_agent(kind, {**common, **options})

    vpc = cloud.describe_instances()["Reservations"][0]["Instances"][0]["VpcId"]
    cloud.group = cloud.create_security_group(GroupName="none", Description="no rules", VpcId=vpc)["GroupId"]
    cloud.revoke_security_group_egress(
        GroupId=cloud.group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    )
    return make


def test_ec2_stops_by_force_and_reads_back(ec2, cloud):
    agent = ec2()
    assert agent.state(10).power is Power.ON
    order = agent.off(10)
    assert order.outcome is Outcome.DONE
    readings = read_until(agent, Power.OFF, 5, 5)
    assert judge(Power.OFF, order, readings).proven
    assert agent.off(10).outcome is Outcome.DONE
    assert agent.on(10).outcome is Outcome.DONE
    assert read_until(agent, Power.ON, 5, 5)[-1].power is Power.ON


def test_ec2_an_instance_that_does_not_exist_is_no_stopped_one(ec2):
    agent = ec2(instance_id="i-0123456789abcdef0")
    order = agent.off(10)
    assert order.outcome is Outcome.FAILED
    assert "InvalidInstanceID" in order.words
    assert agent.state(10).power is Power.UNKNOWN


def test_ec2_network_isolates_and_brings_back(ec2, cloud, tmp_path):
    agent = ec2("ec2_network")
    before = agent._interfaces()
    assert agent.state(10).power is Power.ON
    assert agent.off(10).outcome is Outcome.DONE
    reading = agent.state(10)
    assert reading.power is Power.OFF, reading.words
    assert agent.off(10).outcome is Outcome.DONE
    assert agent.on(10).outcome is Outcome.DONE
    assert agent._interfaces() == before
    assert list((tmp_path / "records").iterdir()) == []


def test_ec2_network_refuses_a_group_with_rules(ec2, cloud):
    cloud.authorize_security_group_ingress(
        GroupId=cloud.group,
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
        ],
    )
    order = ec2("ec2_network").off(10)
    assert order.outcome is Outcome.FAILED
    assert "in tcp" in order.words


def test_ec2_silence_ends_at_the_deadline(silent, secret_file):
    pytest.importorskip("boto3")
    agent = make_agent(
        "ec2",
        {
            "instance_id": "i-1",
            "region": "eu-central-1",
            "endpoint_url": f"http://127.0.0.1:{silent}",
            "credentials_file": secret_file("ec2"),
        },
    )
    assert agent.off(0.4).outcome is Outcome.UNKNOWN
    assert agent.state(0.4).power is Power.UNKNOWN


# --- options and credentials -----------------------------------------------------------------------


def test_credentials_that_others_may_read_are_not_read(tmp_path):
    path = tmp_path / "keys.env"
    path.write_text("A='one two'\nB=three\nC=no\n")
    path.chmod(0o640)
    assert credentials(str(path), ["A", "B", "D"]) == {"A": "one two", "B": "three"}
    path.chmod(0o644)
    with pytest.raises(FencingError, match="want 0600 or 0640"):
        credentials(str(path), ["A"])
    path.chmod(0o600)
    path.write_text("A=hunter2\nhunter2\n")
    with pytest.raises(FencingError, match="line 2 is not NAME=value") as caught:
        credentials(str(path), ["A"])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("laser", {}, "want one of power"),
        ("power", {"host": "pg1"}, "missing"),
        ("power", {"host": "pg1", "url": "http://x", "ca_file": "/dev/null"}, "want https"),
        ("ecs", {"instance_id": "i-1", "region": "x", "endpoint_url": "http://ecs.example"}, "want https"),
        ("ecs", {"instance_id": "i-1", "region": "x"}, "holds neither"),
        ("ec2", {"instance_id": "i-1", "region": "x", "credentials_file": "/nowhere"}, "/nowhere"),
    ],
    ids=str,
)
def test_options_that_cannot_work_say_so_before_anything_is_asked(name, options, words, monkeypatch):
    for secrets in SECRETS.values():
        for variable in secrets:
            monkeypatch.delenv(variable, raising=False)
    with pytest.raises(FencingError, match=words):
        make_agent(name, options)
