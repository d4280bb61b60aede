# SPDX-License-Identifier: GPL-3.0-or-later
"""A member that comes back without data, and what a run that was killed half-way leaves for the next one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.stand_in import Hosts

pytestmark = pytest.mark.process

# What etcdctl 3.4 answers: one entry per peer URL, names only after a start, no promotion before it caught up.
ETCDCTL = """exec {python} - "$@" <<'PY'
import json, pathlib, sys
state = pathlib.Path({state!r})
members = json.loads(state.read_text())
order, rest = sys.argv[2], sys.argv[3:]
if order == "list":
    print(json.dumps({{"members": members}}))
    sys.exit()
log = pathlib.Path({log!r})
log.write_text(log.read_text() + order + "\\n")
if order == "add":
    url = rest[rest.index("--peer-urls") + 1]
    if any(url in m["peerURLs"] for m in members):
        sys.exit("Error: etcdserver: Peer URLs already exists")
    members.append({{"ID": 12196921468367360490, "peerURLs": [url], "isLearner": "--learner" in rest}})
elif order == "remove":
    members = [m for m in members if "%x" % m["ID"] != rest[0]]
elif order == "promote":
    (member,) = [m for m in members if "%x" % m["ID"] == rest[0]]
    if "clientURLs" not in member or not member.pop("isLearner", False):
        sys.exit("Error: etcdserver: can only promote a learner member which is in sync with leader")
state.write_text(json.dumps(members))
PY"""
SYSTEMCTL = """case "$*" in
*show*) printf 'LoadState=loaded\\nActiveState=active\\n'; exit ;;
*restart*) ;;
*) exit ;;
esac
echo start >> {log}
exec {python} - <<'PY'
import json, pathlib
state = pathlib.Path({state!r})
members = json.loads(state.read_text())
for member in members:
    if member["peerURLs"] == ["https://pg3:2380"]:
        member |= {{"name": "pg3", "clientURLs": ["https://pg3:2379"]}}
state.write_text(json.dumps(members))
PY"""


def entry(name: str, number: int, /, **changes: Any) -> dict[str, Any]:
    """A member as ``etcdctl member list`` shows it; None takes a key away."""
    urls = {"peerURLs": [f"https://{name}:2380"], "clientURLs": [f"https://{name}:2379"]}
    found = {"ID": number, "name": name, **urls, **changes}
    return {key: value for key, value in found.items() if value is not None}


ADDED = entry("pg3", 3, name=None, clientURLs=None, isLearner=True)
STARTED = entry("pg3", 3, isLearner=True)


class Members(Hosts):
    """pg1 and pg2 with data, and pg3 as it was left behind."""

    def __init__(self, root: Path, left: list[dict[str, Any]], *, has_data: bool) -> None:
        super().__init__(root)
        self.state, self.log = root / "members.json", root / "orders"
        self.state.write_text(json.dumps([entry("pg1", 1), entry("pg2", 2), *left]))
        self.log.touch()
        names = {"python": sys.executable, "state": str(self.state), "log": str(self.log)}
        programs = {"etcdctl": ETCDCTL.format(**names), "systemctl": SYSTEMCTL.format(**names)}
        for name, there in (("pg1", True), ("pg2", True), ("pg3", has_data)):
            self.add(name, programs, __etcd_member_dir={"stat": {"exists": there}})

    def role(self, *options: str) -> list[str]:
        """What the role orders on pg3, in the order in which its main.yml comes to it."""
        before = len(self.log.read_text().split())
        entries = (
            ["promote"] if self.hosts["pg3"]["__etcd_member_dir"]["stat"]["exists"] else ["rejoin", "promote"]
        )
        tasks = [
            {"ansible.builtin.include_role": {"name": "diting.dr.etcd", "tasks_from": entry}}
            for entry in entries
        ]
        printed = self.play(tasks, "--limit", "pg3", *options, etcd_hosts=list(self.hosts))
        assert self.status == 0, printed
        # Facts that are given take the place of what preflight finds.
        self.hosts["pg3"]["__etcd_member_dir"] = {"stat": {"exists": True}}
        return self.log.read_text().split()[before:]

    @property
    def voters(self) -> set[str]:
        return {m["name"] for m in json.loads(self.state.read_text()) if not m.get("isLearner")}


@pytest.mark.parametrize(
    ("left", "has_data", "orders"),
    [
        ([entry("pg3", 3)], False, ["remove", "add", "start", "promote"]),
        ([], False, ["add", "start", "promote"]),
        ([ADDED], False, ["start", "promote"]),
        ([STARTED], True, ["promote"]),
        ([STARTED], False, ["remove", "add", "start", "promote"]),
        ([entry("pg3", 3)], True, []),
    ],
    ids=["wiped", "removed", "added", "started", "started and wiped", "whole"],
)
def test_a_member_has_its_vote_again_however_far_the_run_before_came(tmp_path, left, has_data, orders):
    members = Members(tmp_path, left, has_data=has_data)
    assert members.role() == orders
    assert members.voters == {"pg1", "pg2", "pg3"}
    assert members.role() == []


def test_a_check_run_promotes_nobody(tmp_path):
    members = Members(tmp_path, [STARTED], has_data=True)
    assert members.role("--check") == []
    assert members.voters == {"pg1", "pg2"}
