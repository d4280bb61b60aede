# SPDX-License-Identifier: GPL-3.0-or-later
"""How the power of a host is judged, and what power control and power loss insist on."""

from __future__ import annotations

import json
import stat

import pytest

from diting.lab import podman, powerloss, records, teardown
from diting.lab.instance import parse
from diting.lab.podman import Power
from diting.lab.power_client import PowerClientError

LAB = {
    "name": "test",
    "subnet": "10.89.99.0/24",
    "gateway": "10.89.99.1",
    "bridge": "dtest",
    "hosts": {"pg1": "10.89.99.11"},
    "podman_home": "/nowhere",
}


@pytest.mark.parametrize(
    ("status", "init", "processes", "wanted"),
    [
        ("running", 10, [10, 11], Power.ON),
        ("running", 10, [], Power.OFF),  # podman has not noticed yet; the kernel has
        ("exited", 0, [], Power.OFF),
        ("created", 0, [], Power.OFF),
        ("exited", 0, [11], Power.UNKNOWN),
        ("running", 10, [11], Power.UNKNOWN),
        ("paused", 10, [10, 11], Power.UNKNOWN),
        ("stopping", 10, [10], Power.UNKNOWN),
    ],
)
def test_off_is_only_what_the_kernel_shows_empty(status, init, processes, wanted):
    assert podman.judge_power(status, init, processes) is wanted


def fake_proc(root, pid, cgroup, state="S"):
    (root / str(pid)).mkdir()
    (root / str(pid) / "cgroup").write_text(f"0::/libpod_parent/libpod-{cgroup}/init.scope\n")
    (root / str(pid) / "stat").write_text(f"{pid} (a) name) {state} 1 1")


def test_processes_are_found_by_control_group_and_zombies_are_dead(tmp_path):
    fake_proc(tmp_path, 5, "aaa")
    fake_proc(tmp_path, 6, "aaa", "Z")
    fake_proc(tmp_path, 7, "bbb")
    (tmp_path / "8").mkdir()  # ended between listing and reading
    (tmp_path / "meminfo").write_text("")
    assert podman.processes_of("aaa", tmp_path) == [5]


def fake_podman(directory, script):
    path = directory / "podman"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return podman.Podman(directory, str(path))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'no such container' >&2; exit 125", "no such container"),
        ("echo rubbish", "unreadable"),
        ("echo '[]'", "unreadable"),
        ('echo \'[{"Id": "x", "Name": "y", "State": {}}]\'', "unreadable"),
        ("sleep 30", "no answer within"),
    ],
)
def test_could_not_look_is_unknown_and_says_why(tmp_path, monkeypatch, script, why):
    monkeypatch.setattr(podman, "LOOK_TIMEOUT_SECONDS", 0.5)
    state, text = podman.power_state(fake_podman(tmp_path, script), parse(LAB, tmp_path), "pg1")
    assert state is Power.UNKNOWN
    assert why in text


def test_a_stopped_host_has_no_monitor_and_is_off(tmp_path):
    # As podman 4.3 prints it: without ConmonPid.
    state = '{"Status": "exited", "Running": false, "Pid": 0, "ExitCode": 137}'
    fake = fake_podman(tmp_path, f'echo \'[{{"Id": "c0ffee-of-nobody", "Name": "y", "State": {state}}}]\'')
    assert podman.power_state(fake, parse(LAB, tmp_path), "pg1") == (Power.OFF, "")


@pytest.mark.parametrize(
    ("status", "monitor", "processes", "told"),
    [
        ("running", 71, [], True),
        ("stopping", 71, [], True),
        ("running", 70, [], False),  # conmon lives and will say it itself
        ("running", 71, [5], False),
        ("exited", 0, [], False),
    ],
)
def test_only_a_host_without_processes_and_monitor_is_recorded_as_dead(
    tmp_path, monkeypatch, status, monitor, processes, told
):
    (tmp_path / "containers.conf").write_text(f'[engine]\ntmp_dir = "{tmp_path}"\n')
    (tmp_path / "exits").mkdir()
    monkeypatch.setattr(podman, "processes_of", lambda _identity: processes)
    monkeypatch.setattr(podman, "is_monitor", lambda container: container.monitor == 70)
    host = podman.Container("c0ffee", "lab-pg1", status, 0, monitor)
    assert podman.Podman(tmp_path).record_lost_end(host) is told
    assert [path.read_text() for path in (tmp_path / "exits").iterdir()] == (["137"] if told else [])


def test_a_monitor_is_known_by_the_container_it_watches(tmp_path):
    (tmp_path / "70").mkdir()
    (tmp_path / "70/cmdline").write_text("conmon\0-c\0c0ffee\0")
    (tmp_path / "71").mkdir()
    (tmp_path / "71/cmdline").write_text("another\0program\0")
    known = [
        podman.is_monitor(podman.Container("c0ffee", "x", "running", 0, pid), tmp_path)
        for pid in (0, 70, 71, 72)
    ]
    assert known == [False, True, False, False]


def test_without_podman_nobody_can_look(tmp_path):
    state, text = podman.power_state(
        podman.Podman(tmp_path, str(tmp_path / "none")), parse(LAB, tmp_path), "pg1"
    )
    assert state is Power.UNKNOWN
    assert "cannot be run" in text


class Client:
    def __init__(self, timers):
        self.found = timers

    def timers(self, _name):
        if self.found is None:
            raise PowerClientError("power control cannot be asked")
        return self.found


@pytest.mark.parametrize("timers", [None, [], [{"id": "1", "action": "off"}]])
def test_power_is_not_cut_without_the_promise_of_its_return(timers):
    with pytest.raises(powerloss.PowerLossError, match="refused, nothing was cut"):
        powerloss.require_promise(Client(timers), "pg1")


def test_the_promise_is_recorded():
    timer = {"id": "1", "action": "on"}
    assert powerloss.require_promise(Client([timer]), "pg1") == timer


def test_timers_come_in_order_and_survive_a_restart(tmp_path):
    clock = [1000.0]
    clocks = records.Clocks(lambda: clock[0], lambda: clock[0], "boot-1")
    store = records.TimerStore(tmp_path / "t.json", clocks)
    first = store.add("pg1", "on", 5, "x", None)
    second = store.add("pg1", "on", 1, "y", "inc")
    assert [t.id for t in store.of("pg1")] == [second.id, first.id]
    assert store.due() == []
    clock[0] = 1003.0
    assert [t.id for t in store.due()] == [second.id]
    assert store.seconds_to_next() == 0.0
    again = records.TimerStore(tmp_path / "t.json", clocks)
    assert again.of("pg1") == store.of("pg1")
    assert again.remove(second.id)
    assert not again.remove(second.id)
    assert again.seconds_to_next() == 2.0


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_step_of_the_wall_clock_neither_fires_a_timer_nor_puts_it_off(tmp_path, step):
    """The machine's clock is set by an hour; the host was promised its power for 60 s from then."""
    wall, mono = [1_000_000.0], [500.0]
    path = tmp_path / "t.json"
    clocks = records.Clocks(lambda: wall[0], lambda: mono[0], "boot-1")
    store = records.TimerStore(path, clocks)
    timer = store.add("pg1", "on", 60, "x", None)
    wall[0] += step
    for _life in range(2):
        assert store.due() == []
        assert store.seconds_to_next() == 60.0
        store = records.TimerStore(path, clocks)
    mono[0] += 60
    assert [found.id for found in store.due()] == [timer.id]


def test_after_a_reboot_a_timer_is_due_by_the_wall(tmp_path):
    path = tmp_path / "t.json"
    store = records.TimerStore(path, records.Clocks(lambda: 1_000_000.0, lambda: 500.0, "boot-1"))
    store.add("pg1", "on", 60, "x", None)
    rebooted = records.TimerStore(path, records.Clocks(lambda: 1_000_055.0, lambda: 9.0, "boot-2"))
    assert rebooted.seconds_to_next() == 5.0


def test_timers_of_an_earlier_release_are_read(tmp_path):
    path = tmp_path / "t.json"
    old = {"id": "1", "host": "pg1", "action": "on", "due_unix": 1005.0, "reason": "x", "incident_id": None}
    path.write_text(json.dumps([old]))
    store = records.TimerStore(path, records.Clocks(lambda: 1000.0, lambda: 7.0, "boot-1"))
    assert store.seconds_to_next() == 5.0


@pytest.mark.parametrize("text", ["", "{}rubbish", '[{"id": "1"}]', '[{"id": "1", "more": 2}]'])
def test_timers_that_cannot_be_read_are_not_no_timers(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ValueError, match="unreadable timers"):
        records.TimerStore(tmp_path / "t.json")


def test_journal_lines_are_canonical_and_private(tmp_path):
    path = tmp_path / "journal.jsonl"
    records.append_journal(path, "one", {"b": 1, "a": "ä"})
    records.append_journal(path, "two", {}, source="powerloss")
    lines = path.read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["one", "two"]
    assert all(
        line == json.dumps(json.loads(line), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        for line in lines
    )
    assert json.loads(lines[0])["ts"].endswith("Z")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_which_of_an_incidents_timers_fired_is_read_from_the_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    for host, timer, incident in (("pg1", "a", "inc-1"), ("pg2", "b", "inc-1"), ("pg1", "c", "inc-2")):
        records.append_journal(
            path, "timer_due", {"host": host, "timer": {"id": timer, "incident_id": incident}}
        )
    records.append_journal(path, "timer_set", {"host": "pg1", "timer": {"id": "d", "incident_id": "inc-1"}})
    with path.open("a") as stream:
        stream.write('{"event": "timer_d')  # one that is being written
    assert records.timers_fired(path, "pg1", "inc-1") == ["a"]
    assert records.timers_fired(path, "pg1", "inc-3") == []


def test_a_journal_that_cannot_be_read_is_not_an_empty_one(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text("rubbish\n{}\n")
    with pytest.raises(ValueError, match=r"journal\.jsonl:1: not JSON"):
        records.timers_fired(path, "pg1", "inc-1")


def test_a_labs_containers_are_known_by_label_or_name(tmp_path):
    listed = [
        {"Id": "1", "Labels": {"diting.lab": "test"}, "Names": ["test-gone-host"]},
        {"Id": "2", "Labels": None, "Names": ["test-pg1"]},
        {"Id": "3", "Labels": {"diting.lab": "test2"}, "Names": ["test2-pg1"]},
        {"Id": "4", "Labels": {}, "Names": None},
    ]
    assert teardown.own_containers(parse(LAB, tmp_path), listed) == ["1", "2"]


def test_only_ssh_is_closed():
    sockets = 'ESTAB 0 0 10.0.0.1:1 10.89.99.11:22 users:(("ssh",pid=12,fd=3))\nESTAB 0 0 a b users:(("psql",pid=13,fd=3))\n'
    assert teardown.ssh_clients(sockets) == [12]
