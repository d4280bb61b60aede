# SPDX-License-Identifier: GPL-3.0-or-later
"""A fault is on record and its end is armed before anything breaks; and only what is named is broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import yaml

from ansible_collections.diting.dr.plugins.module_utils import _fault
from ansible_collections.diting.dr.plugins.module_utils._fault import FaultError, FaultStore
from ansible_collections.diting.dr.plugins.modules import fault as module
from diting.core.faults import CATALOGUE


class Runner:
    """Stands in for systemd: remembers what was asked, answers with ``code``."""

    def __init__(self, code=0):
        self.code = code
        self.asked = []

    def __call__(self, argv):
        self.asked.append(argv)
        return self.code, "", "no bus" if self.code else ""


def test_a_record_survives_and_is_found_again(tmp_path):
    store = FaultStore(str(tmp_path / "faults"), Runner())
    store.write("f-1", {"name": "postgres_kill"})
    assert FaultStore(str(tmp_path / "faults")).records() == [
        {"name": "postgres_kill", "fault_id": "f-1", "state": "injected"}
    ]
    assert store.forget("f-1")
    assert store.records() == []
    assert not store.forget("f-1")


def test_an_expired_record_says_so_and_a_garbled_one_is_still_a_record(tmp_path):
    (tmp_path / "old-1.expired").write_text('{"name": "x"}')
    (tmp_path / "bad-1.json").write_text("{")
    states = {record["fault_id"]: record["state"] for record in FaultStore(str(tmp_path)).records()}
    assert states == {"old-1": "expired", "bad-1": "injected"}


def test_the_revert_is_armed_with_its_limit_and_sets_the_record_aside(tmp_path):
    runner = Runner()
    FaultStore(str(tmp_path), runner).arm_revert("f-1", 60, "systemctl start patroni.service")
    (argv,) = runner.asked
    assert "--on-active=60s" in argv
    assert argv[-1].startswith("systemctl start patroni.service; mv ")
    assert argv[-1].endswith("f-1.expired")


def test_what_cannot_be_armed_is_not_injected(tmp_path):
    with pytest.raises(FaultError, match="nothing was injected: no bus"):
        FaultStore(str(tmp_path), Runner(code=1)).arm_revert("f-1", 60, "true")


def test_a_stale_or_foreign_pid_file_kills_nobody(tmp_path):
    pid_file = tmp_path / "postmaster.pid"
    with pytest.raises(FaultError, match="does not name a running postmaster"):
        _fault.read_postmaster_pid(str(tmp_path))
    pid_file.write_text(f"{2**22 + 7}\n")
    with pytest.raises(FaultError, match="does not run"):
        _fault.read_postmaster_pid(str(tmp_path))
    pid_file.write_text(f"{os.getpid()}\n")
    with pytest.raises(FaultError, match="not postgres; nothing was killed"):
        _fault.read_postmaster_pid(str(tmp_path))


def test_a_kill_is_confirmed_by_the_kernel():
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        stamps = _fault.kill_and_confirm(child.pid)
    finally:
        child.wait()
    assert child.returncode == -signal.SIGKILL
    assert stamps["sent_mono_ns"] <= stamps["gone_mono_ns"]


def test_a_stopped_process_is_seen_and_a_command_that_fails_is_not_clean(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        scan = _fault.look_around("here", FaultStore(str(tmp_path), Runner(code=1)))
    finally:
        child.kill()
        child.wait()
    assert any(f"({child.pid})" in process for process in scan.stopped)
    assert scan.units is None
    assert scan.routes is None


def parameters(**changes):
    spec = {name: option.get("default") for name, option in module.argument_spec().items()}
    return {**spec, "name": "unit_stop", "fault_id": "f-1", "target": "pg1", "unit": "x.service", **changes}


@pytest.fixture
def planned(monkeypatch, tmp_path):
    """A plan whose act looks at what was there before it: (store, list of what it saw)."""
    seen = []
    runner = Runner()
    store = FaultStore(str(tmp_path), runner)

    def act():
        seen.append((store.records(), list(runner.asked)))
        return {"stamps": {}, "injected": {}}

    plan = module.Plan({"detail": 7}, "take it back", act)
    monkeypatch.setitem(module.PLANS, "unit_stop", lambda _params: plan)
    return store, seen


def test_the_record_and_its_own_revert_are_there_before_anything_breaks(planned):
    store, seen = planned
    module.inject(parameters(limit_seconds=60), store)
    ((records, asked),) = seen
    assert (records[0]["revert_command"], records[0]["detail"], records[0]["limit_seconds"]) == (
        "take it back",
        7,
        60,
    )
    assert "--on-active=60s" in asked[0]
    assert asked[0][-1].startswith("take it back; mv ")


def test_without_a_revert_nothing_breaks_and_nothing_stays_on_record(planned):
    store, seen = planned
    store.run.code = 1
    with pytest.raises(FaultError, match="nothing was injected"):
        module.inject(parameters(), store)
    assert (seen, store.records()) == ([], [])


def test_each_record_is_reverted_by_its_own_command(tmp_path, monkeypatch):
    store = FaultStore(str(tmp_path), Runner())
    store.write("own-1", {"revert_command": "mine"})
    store.write("old-1", {})
    (tmp_path / "gone-1.expired").write_text('{"revert_command": "never"}')
    ran = []
    monkeypatch.setattr(module, "run_command", lambda argv: (ran.append(argv[-1]), (0, "", ""))[1])
    module.revert(store, store.records(), "given")
    assert sorted(ran) == ["given", "mine"]
    assert store.records() == []


def test_every_fault_of_the_module_is_in_the_catalogue_and_documented():
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]["name"]["choices"]
    assert documented == module.NAMES
    assert set(module.NAMES) <= set(CATALOGUE)


def test_a_power_loss_without_its_end_registered_is_not_injected(monkeypatch):
    ran = []
    monkeypatch.setattr(module, "run_command", lambda argv: (ran.append(argv), (1, "", "no"))[1])
    with pytest.raises(FaultError, match="so nothing was cut: no"):
        module.inject(parameters(name="host_off", limit_command=["limit"], inject_command=["cut"]), None)
    assert ran == [["limit"]]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((1, "", "refused"), "could not be cut"),
        ((0, "[]", ""), "no JSON object"),
        ((0, "{}", ""), "reverts_at"),
    ],
)
def test_a_partition_says_when_it_ends_or_is_no_success(monkeypatch, answer, why):
    monkeypatch.setattr(module, "run_command", lambda _argv: answer)
    with pytest.raises(FaultError, match=why):
        module.inject(parameters(name="partition", inject_command=["cut"]), None)
