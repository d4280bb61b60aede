# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose turn the next backup is, what kind it is, and what settings are refused."""

from __future__ import annotations

import importlib.util
import json
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from diting.backup.config import load
from diting.backup.run import metrics
from diting.core.backup_turn import whose_turn
from diting.guards.runtime.settings import ConfigError
from support.tree import ROOT

MIB = 2**20


def member(
    name: str, role: str = "replica", state: str = "streaming", lag: Any = 0, **more: Any
) -> dict[str, Any]:
    return {"name": name, "role": role, "state": state, **({} if role == "leader" else {"lag": lag}), **more}


LEADER = member("pg2", "leader", "running")


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        # One that no commit waits for, then a synchronous one, then the leader; of several the first by name.
        ([LEADER, member("pg3"), member("pg1", "sync_standby")], "pg3"),
        ([LEADER, member("pg3"), member("pg1")], "pg1"),
        ([LEADER, member("pg3", "sync_standby"), member("pg1", "quorum_standby")], "pg1"),
        ([LEADER], "pg2"),
        # Left out: what is down, lags, says nothing of its lag, or is not to be asked.
        ([LEADER, member("pg1", state="stopped"), member("pg3", "sync_standby")], "pg3"),
        ([LEADER, member("pg1", lag=65 * MIB), member("pg3", "sync_standby")], "pg3"),
        ([LEADER, member("pg1", lag="unknown"), member("pg3", "sync_standby")], "pg3"),
        ([LEADER, member("pg1", tags={"nobackup": True}), member("pg3", "sync_standby")], "pg3"),
        ([LEADER, member("pg1", lag=True)], "pg2"),
        # Nobody, or nobody knows.
        ([member("pg2", "leader", "stopped")], None),
        ([LEADER, member("pg1", "leader", "running")], None),
        ([], None),
    ],
)
def test_whose_turn_it_is(members, wanted):
    found = whose_turn(members, 64 * MIB)
    assert found.member == wanted
    assert whose_turn(reversed(members), 64 * MIB) == found


def test_who_was_left_out_is_told():
    found = whose_turn([LEADER, member("pg3", state="stopped"), member("pg1", lag=70 * MIB)], 64 * MIB)
    assert found.left_out == ("pg1: lags by 73400320 bytes, wanted at most 67108864", "pg3: is stopped")


def program() -> Any:
    """The program's module that decides the kind; on hosts it stands alone."""
    folder = ROOT / "roles/walg/files/usr/local/lib/diting-wal"
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("diting_wal.backup")
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize(
    ("names", "timeline", "kind"),
    [
        ([], 1, "full"),
        (["base_000000010000000000000002"], 1, "delta"),
        (["base_000000010000000000000002"], 2, "full"),
        (["base_000000010000000000000002"], None, "full"),
        # A delta, however young, is nothing to count the age from.
        (["base_000000010000000000000004_D_000000010000000000000002"], 1, "full"),
    ],
)
def test_a_full_backup_is_taken_where_a_delta_has_nothing_to_build_upon(names, timeline, kind):
    backup = program()
    known = [backup.Backup(name, "1", 150000, "2026-11-22T11:00:00.123456789Z") for name in names]
    now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC).timestamp()
    assert backup.kind_of_next(known, timeline, now, 7200) == kind
    assert backup.kind_of_next(known, timeline, now + 7200, 7200) == "full"


def settings(**changes: Any) -> dict[str, Any]:
    tls = {"ca": "/c", "certificate": "/d", "key": "/e"}
    made = {
        "cluster": "c",
        "member": "pg1",
        "patroni_url": "https://pg1:8008",
        "etcd_endpoints": ["https://pg1:2379"],
        "lock_key": "/diting/backup/c/lock",
        "tls": tls,
        "command": ["true"],
        "deadline_seconds": 60,
        "max_lag_bytes": 0,
        "state_file": "/s",
        "metrics_file": None,
    }
    return {**made, **changes}


def test_every_problem_of_the_settings_is_told_at_once(tmp_path):
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps(settings()))
    assert load(path).lock_ttl_seconds == 60
    path.write_text(
        json.dumps(settings(lock_key="nothing", etcd_endpoints=[], more=1, state_file="relative"))
    )
    with pytest.raises(ConfigError) as found:
        load(path)
    for name in ("lock_key", "etcd_endpoints", "more", "state_file"):
        assert f"{name}: " in str(found.value)
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "nothing.json")


def test_metrics_tell_a_run_from_a_success():
    text = metrics("c", {"ended": 20.0, "status": 1, "succeeded": 10.0})
    assert 'diting_backup_last_run_timestamp_seconds{cluster="c"} 20.0\n' in text
    assert 'diting_backup_last_exit_status{cluster="c"} 1\n' in text
    assert 'diting_backup_last_success_timestamp_seconds{cluster="c"} 10.0\n' in text
    assert "duration" not in text
