# SPDX-License-Identifier: GPL-3.0-or-later
"""Fencing agents are made and tried in peace: what is wrong with one is known before it is wanted."""

from __future__ import annotations

import asyncio

import pytest

from diting.core.failover_view import Power
from diting.core.fence import Order, Outcome, Reading
from diting.guards import fence_agents
from diting.guards.failover import FailoverGuard
from diting.guards.failover_config import FailoverConfig
from diting.guards.fence_agents import FenceAgents
from diting.guards.runtime.ports import Ports
from diting.hostio.fencing import FencingError
from support import virtual_time

OPTIONS = {"url": "https://10.0.0.9:7443", "ca_file": "/etc/x/ca.pem", "credentials_file": "/etc/x/env"}


def config(agent="power", members=None, **options):
    members = members or {"pg1": {}, "pg2": {}, "pg3": {}}
    return FailoverConfig.model_validate(
        {
            "owner": "ops1",
            "members": {
                name: {"address": f"10.0.0.{name[-1]}", "witness": f"https://{name}:7444", "agent": given}
                for name, given in members.items()
            },
            "etcd": {"endpoints": ["https://10.0.0.8:2379"]},
            "fencing": {"agent": agent, "options": options},
        }
    )


class Fake:
    """Remembers who was asked what; answers what ``says`` holds for its host."""

    made: list[str]
    says: dict[str, object]
    calls: list[tuple[str, str, object]]

    def __init__(self, host, **options):
        Fake.made.append(host)
        self.host, self.incident_id, self.options = host, None, options
        if isinstance(Fake.says.get(host), FencingError):
            raise Fake.says[host]

    def off(self, seconds):
        Fake.calls.append(("off", self.host, self.incident_id))
        return Order(Outcome.DONE, 0.0, 0.0)

    def state(self, seconds):
        Fake.calls.append(("state", self.host, self.incident_id))
        power = Fake.says.get(self.host, Power.ON)
        return Reading(power, 0.0, 0.0, f"it is {power.value}")


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    Fake.made, Fake.says, Fake.calls = [], {}, []
    monkeypatch.setattr(fence_agents, "make_agent", lambda _name, options: Fake(**options))


def looked_after(seconds=1.0, settings=None, between=None):
    """The agents after they were looked after for so long; no time passes."""

    async def run():
        loop = asyncio.get_running_loop()
        agents = FenceAgents(settings or config(**OPTIONS), loop, lambda: None)
        # Here every call is made at once; on a host each has a thread.
        agents.in_thread = lambda _pool, call: _at_once(call)
        task = asyncio.create_task(agents.look_after())
        await asyncio.sleep(seconds)
        if between is not None:
            between()
            await asyncio.sleep(400)
        task.cancel()
        agents.close()
        return agents

    async def _at_once(call):
        return call()

    return virtual_time.run(run())


def words(agents):
    return {view.name: (view.power, view.words) for view in agents.views}


def test_every_agent_is_made_and_asked_at_the_start():
    found = words(looked_after())
    assert found == dict.fromkeys(("pg1", "pg2", "pg3"), (Power.ON, ""))
    assert Fake.calls == [("state", name, None) for name in ("pg1", "pg2", "pg3")]


def test_an_agent_that_cannot_be_made_or_does_not_know_is_named():
    Fake.says = {"pg2": FencingError("agent ec2: needs boto3"), "pg3": Power.UNKNOWN}
    found = words(looked_after())
    assert found["pg1"] == (Power.ON, "")
    assert found["pg2"] == (Power.UNKNOWN, "agent ec2: needs boto3")
    assert found["pg3"] == (Power.UNKNOWN, "it is unknown")


def test_they_are_asked_every_few_minutes_and_sooner_while_something_is_wrong():
    looked_after(fence_agents.EVERY_SECONDS * 2 + 1)
    assert len(Fake.calls) == 9
    Fake.calls.clear()
    Fake.says = {"pg3": Power.UNKNOWN}
    agents = looked_after(fence_agents.AGAIN_SECONDS * 2 + 1, between=Fake.says.clear)
    assert words(agents)["pg3"] == (Power.ON, "")


def test_what_was_wrong_may_lie_in_the_agent_so_that_is_made_anew():
    Fake.says = {"pg3": Power.UNKNOWN}
    looked_after(fence_agents.AGAIN_SECONDS + 1)
    # One for looks and one for orders.
    assert Fake.made.count("pg3") == 4
    assert Fake.made.count("pg1") == 2


def test_a_look_never_stands_in_the_way_of_a_fence():
    """Each has an agent and a thread of its own: a cloud that hangs in the one does not hold up the other."""
    agents = FenceAgents(config(**OPTIONS), asyncio.new_event_loop(), lambda: None)
    looking, ordering = agents.agent("pg1", looks=True), agents.agent("pg1", "incident-7")
    assert looking is not ordering
    assert ordering.incident_id == "incident-7"
    assert agents.agent("pg1", "incident-8") is ordering
    assert ordering.incident_id == "incident-8"
    assert agents.pool("pg1", looks=True) is not agents.pool("pg1")
    assert agents.pool("pg1") is not agents.pool("pg2")


def test_an_agent_is_made_anew_when_a_file_of_it_has_changed(tmp_path):
    """A token that was renewed since: the one in memory would be refused when it matters."""
    token = tmp_path / "token"
    token.write_text("old")
    settings = config(**{**OPTIONS, "credentials_file": str(token)})
    agents = FenceAgents(settings, asyncio.new_event_loop(), lambda: None)
    first = agents.agent("pg1")
    assert agents.agent("pg1") is first
    token.unlink()
    token.write_text("newer")
    assert agents.agent("pg1") is not first


@pytest.mark.parametrize(
    ("agent", "options", "members", "problem"),
    [
        ("power", {**OPTIONS, "colour": "red"}, {}, "unknown option colour"),
        ("power", {"url": "https://x"}, {}, "missing option ca_file"),
        ("ec2", {"region": "eu-1"}, {}, "missing option instance_id"),
        ("ec2", {"region": "eu-1"}, {"pg1": {"instance_id": "i-1"}}, "pg2: missing option instance_id"),
        ("ec2_network", {"region": "eu-1", "instance_id": "i-1"}, {}, "missing option isolation_group"),
        ("ecs_network", {"region": "cn-1", "instance_id": "i-1", "x": "y"}, {}, "unknown option x"),
    ],
)
def test_options_that_cannot_work_are_found_with_the_configuration(agent, options, members, problem):
    members = {name: members.get(name, {}) for name in ("pg1", "pg2", "pg3")}
    settings = config(agent, members, **options)
    with pytest.raises(ValueError, match=problem):
        FailoverGuard(settings, Ports()).policy(settings)


def test_options_that_can_work_are_fine_and_open_nothing():
    for agent, options in (
        ("power", OPTIONS),
        ("ec2", {"region": "eu-1", "instance_id": "i-1", "credentials_file": "/nowhere"}),
        (
            "ecs_network",
            {"region": "x", "instance_id": "i", "isolation_group": "g", "record_directory": "/x"},
        ),
    ):
        settings = config(agent, **options)
        assert FailoverGuard(settings, Ports()).policy(settings)
    assert Fake.made == []
