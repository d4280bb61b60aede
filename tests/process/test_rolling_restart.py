# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is restarted, in which order, and what the gate hears: the playbook against members that only answer."""

from __future__ import annotations

import json
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.patroni_members import ADDRESSES, PatroniMembers
from support.stand_in import Hosts

pytestmark = pytest.mark.process

# systemd_service asks with "show", and takes LoadState and ActiveState from the answer.
SYSTEMCTL = """echo "$*" >> {log}
[ "$1" != show ] || printf 'LoadState=loaded\\nActiveState=active\\n'"""


class Estate(Hosts):
    """Three members, and a control host with the gate."""

    def __init__(self, root: Path, members: PatroniMembers) -> None:
        super().__init__(root)
        self.members = members
        self.log = root / "systemctl.log"
        self.log.touch()
        programs = {"systemctl": SYSTEMCTL.format(log=self.log), "psql": "true"}
        for name, address in ADDRESSES.items():
            self.add(name, programs, group="database", ansible_host=address)
        self.add("ops1", group="control")

    def mark(self, name: str) -> Path:
        """Where the role leaves its mark on one host; here all hosts are one, so each gets a path of its own."""
        return self.root / f"mark-{name}"

    def restart(self, *options: str) -> str:
        paths = {
            "__patroni_restart_marker": f"{self.root}/mark-{{{{ __patroni_restart_host | default(item | default(inventory_hostname)) }}}}",
            "__patroni_planned_stop_mark": f"{self.root}/planned-stop",
        }
        return self.operate("rolling_restart", "-e", json.dumps(paths), *options, **self.members.variables())

    @property
    def service_restarts(self) -> int:
        return self.log.read_text().count("restart patroni.service")


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Callable[..., Estate]]:
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("user postgres does not exist: the mark of a planned stop is its file")
    started: list[PatroniMembers] = []

    def start(**state: tuple[str, ...]) -> Estate:
        started.append(PatroniMembers(tmp_path, **state))
        return Estate(tmp_path, started[-1])

    yield start
    for members in started:
        members.close()


def test_what_is_due_is_restarted_the_leader_last_and_a_second_run_finds_nothing(estate):
    cluster = estate(pending=("pg1", "pg2"))
    cluster.mark("pg3").touch()
    printed = cluster.restart()
    assert cluster.status == 0, printed
    # pg3 by its service, which is no order to Patroni.
    assert cluster.members.orders == ["restart pg2", "switchover pg1", "restart pg1"]
    assert cluster.service_restarts == 1
    assert not cluster.mark("pg3").exists()
    assert cluster.outcomes == ["success"]
    assert not (cluster.root / "planned-stop").exists()

    printed = cluster.restart()
    assert cluster.status == 0, printed
    assert (len(cluster.members.orders), cluster.service_restarts) == (3, 1)
    assert cluster.outcomes == ["success", "success"]


def test_all_are_restarted_on_request(estate):
    cluster = estate()
    # As a person types it: a string, which no condition of ansible-core 2.19 takes for an answer.
    printed = cluster.restart("-e", "patroni_rolling_restart_all=true")
    assert cluster.status == 0, printed
    assert cluster.members.orders == ["restart pg2", "restart pg3", "switchover pg1", "restart pg1"]


def test_nothing_goes_on_after_a_restart_that_failed(estate):
    cluster = estate(pending=("pg1", "pg2", "pg3"))
    cluster.members.refuses.add("restart")
    printed = cluster.restart()
    assert cluster.status != 0, printed
    assert set(cluster.members.orders) == {"restart pg2"}
    assert cluster.outcomes == ["failed"]
