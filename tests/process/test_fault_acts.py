# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fault module does to real processes, a real PostgreSQL and a real, full file system."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ansible_collections.diting.dr.plugins.module_utils import _fault_disk, _fault_hang
from ansible_collections.diting.dr.plugins.module_utils._fault import (
    FaultError,
    process_state,
    read_postmaster_pid,
)
from support.ledger_server import Server
from support.servers import wait_until

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]

FORKING = """
import os, signal, subprocess, sys, time
subprocess.Popen(["sleep", "600"])
print(os.getpid(), flush=True)
while True:
    subprocess.Popen(["sleep", "600"])
    time.sleep(0.01)
"""


@pytest.fixture
def forking() -> Iterator[int]:
    """A process that never ceases to fork, in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    yield int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_tree_that_forks_all_the_time_is_stopped_as_a_whole(forking):
    done = _fault_hang.stop_all(lambda: _fault_hang.tree_of(forking))
    tree = _fault_hang.tree_of(forking)
    assert len(tree) >= 2
    assert set(done["pids"]) == set(tree)
    assert {process_state(pid) for pid in tree} == {"T"}
    time.sleep(0.1)
    assert _fault_hang.tree_of(forking) == tree
    assert done["stamps"]["sent_mono_ns"] < done["stamps"]["gone_mono_ns"]


def test_what_cannot_be_stopped_in_time_is_said(monkeypatch, forking):
    monkeypatch.setattr(_fault_hang.os, "kill", lambda _pid, _signal: None)
    with pytest.raises(FaultError, match="still ran"):
        _fault_hang.stop_all(lambda: [forking], deadline_seconds=0.1)


def test_nothing_to_stop_is_no_success():
    with pytest.raises(FaultError, match="nothing to stop"):
        _fault_hang.stop_all(list)


def proc(root: Path, pid: str, cgroup: str) -> None:
    (root / pid).mkdir()
    (root / pid / "cgroup").write_text(cgroup)


def test_a_service_is_known_by_its_control_group_and_ones_own_is_refused(tmp_path):
    patroni = "12:cpu:/libpod/x\n1:name=systemd:/libpod/x/system.slice/patroni.service\n0::/libpod/x\n"
    proc(tmp_path, "10", patroni)
    proc(tmp_path, "11", patroni.replace("patroni.service", "patroni.service/child"))
    proc(tmp_path, "12", "0::/system.slice/etcd.service\n")
    proc(tmp_path, "13", "0::/user.slice/session-1.scope\n")
    proc(tmp_path, "self", "0::/system.slice/etcd.service\n")
    found = _fault_hang.service_of(10, tmp_path)
    assert found == "/libpod/x/system.slice/patroni.service"
    assert _fault_hang.members_of(found, tmp_path) == [10, 11]
    for pid in (12, 13, 99):
        with pytest.raises(FaultError, match="no service of its own"):
            _fault_hang.service_of(pid, tmp_path)


def test_a_hung_server_accepts_and_says_nothing_and_runs_on_afterwards():
    server = Server.create()
    try:
        pid = read_postmaster_pid(str(server.data))
        with server.admin() as kept:
            kept.execute("SELECT 1")
            _fault_hang.stop_all(lambda: _fault_hang.tree_of(pid))
            with pytest.raises(psycopg.OperationalError, match="timeout"):
                psycopg.connect(f"host=127.0.0.1 port={server.port} user=postgres connect_timeout=2")
            assert _fault_hang.continue_command(_fault_hang.owner_of(pid)).startswith("pkill -CONT -u ")
            for stopped in _fault_hang.tree_of(
                pid
            ):  # not by user: others of this user may be hung on purpose
                os.kill(stopped, signal.SIGCONT)
            wait_until("it answers again", lambda: server.value("SELECT 1") == 1)
            assert kept.execute("SELECT 2").fetchone() == (2,)
    finally:
        server.destroy()


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> dict:
    directory = tmp_path_factory.mktemp("disk")
    for part in [directory, *directory.parents]:
        if part.stat().st_uid == os.geteuid() and part != Path("/"):
            part.chmod(part.stat().st_mode | 0o111)  # PostgreSQL runs as another user
    script = ROOT / "tests" / "support" / "disk_world.py"
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, str(script), str(directory)],
        env={**os.environ, "PYTHONPATH": ":".join([*sys.path, str(ROOT / "tests")])},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("no right to mount")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_only_a_small_file_system_of_its_own_is_filled(full_disk):
    refused = full_disk["refused"]
    assert "it lies on the root file system" in refused["root"]
    assert "of a file system that others use too" in refused["part of another"]
    assert "may be filled" in refused["too large"]
    assert "is no directory" in refused["missing"]
    assert all("nothing was filled" in text for text in refused.values())


def test_a_full_disk_is_full_seen_and_freed(full_disk):
    filled = full_disk["filled"]
    assert filled["left_bytes"] < _fault_disk.LEFT_BYTES
    assert filled["filler_bytes"] > 1 << 20
    assert full_disk["fillers"] == [filled["filler"]]
    assert full_disk["states"] == ["up", "no_space", "up"]
    assert full_disk["left_behind"] == []


def test_the_innermost_mount_counts():
    text = (
        "1 0 0:1 / / rw - overlay overlay rw\n"
        "2 1 7:1 / /var/lib/postgresql/15 rw shared:1 - ext4 /dev/loop1 rw\n"
        "3 1 254:0 /srv/x\\040y /var/lib/postgresql rw - ext4 /dev/vda rw\n"
    )
    assert _fault_disk.mount_of("/var/lib/postgresql/15/main", text) == _fault_disk.Mount(
        "/var/lib/postgresql/15", "/", "ext4"
    )
    assert _fault_disk.mount_of("/var/lib/postgresql/16", text).root == "/srv/x y"
    assert _fault_disk.mount_of("/etc", text).point == "/"
