# SPDX-License-Identifier: GPL-3.0-or-later
"""What verify makes of etcd's snapshots: missing, old, or not yet due."""

from __future__ import annotations

import os
import time

import pytest

from support.stand_in import Hosts

pytestmark = pytest.mark.process

SYSTEMCTL = """case "$1 $2" in
"show etcd-snapshot.service") echo success ;;
"is-active etcd-snapshot.timer") echo {timer} ;;
"show etcd.service") echo {since} ;;
esac"""


def member(hosts: Hosts, name: str, *, up: float | None, age: float | None, timer: str = "active") -> None:
    """A member that came up ``up`` seconds ago (None: it did not), its newest snapshot ``age`` seconds old."""
    since = 0 if up is None else int((time.monotonic() - up) * 1e6)
    place = hosts.root / "snapshots" / name
    place.mkdir(parents=True)
    if age is not None:
        (place / "etcd-20260101T000000Z.db").touch()
        os.utime(place / "etcd-20260101T000000Z.db", (time.time() - age,) * 2)
    (place / "etcd-20260101T010000Z.db.partial").touch()  # what a snapshot that broke off leaves
    programs = {"systemctl": SYSTEMCTL.format(timer=timer, since=since), "etcdctl": "exit 1"}
    hosts.add(name, programs, etcd_backup_dir=str(place))


def test_a_snapshot_that_should_be_there_and_is_not_is_told(tmp_path):
    hosts = Hosts(tmp_path)
    # A limit above the machine's own uptime would make every member new.
    long, limit = time.monotonic() - 1, (time.monotonic() - 1) / 2
    member(hosts, "fresh", up=1, age=None)
    member(hosts, "back_again", up=60, age=10 * limit)
    member(hosts, "stale", up=long, age=2 * limit)
    member(hosts, "never", up=long, age=None)
    member(hosts, "down", up=None, age=None)
    member(hosts, "no_timer", up=long, age=limit / 2, timer="inactive")
    found = hosts.findings("etcd", etcd_hosts=list(hosts.hosts), etcd_backup_max_age_seconds=int(limit))
    told = {name for name, detail in found.items() if "etcd snapshots: none in" in detail}
    assert told == {"stale", "never", "down"}, found
    assert {name for name, detail in found.items() if "the timer is 'inactive'" in detail} == {"no_timer"}
    assert "the last one ended" not in "".join(found.values())
