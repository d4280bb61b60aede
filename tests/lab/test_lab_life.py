# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of two hosts brought up, broken in every way that was thought of, repaired, and removed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diting.lab import image, network, power_service, view
from diting.lab import instance as lab
from diting.lab.hosts import link_is_up, link_of
from diting.lab.podman import Podman, is_monitor, processes_of
from diting.lab.power_client import PowerClient, PowerClientError
from support.servers import wait_until
from support.tree import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="containers with systemd need root"),
]
SUBNET = "10.89.86"
BRIDGE = "dtlife"
NAME = "life-test"


class Lab:
    """A lab under a home of its own, so that "nothing is left" can be shown."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "labs"
        self.home = self.root / NAME
        self.inventory = directory / "hosts.json"
        ssh = (
            f"-o UserKnownHostsFile={self.home}/ssh/known_hosts -o GlobalKnownHostsFile=/dev/null "
            "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -o ServerAliveInterval=2 -o ServerAliveCountMax=2"
        )
        variables = {
            "lab_name": NAME,
            "lab_subnet": f"{SUBNET}.0/24",
            "lab_gateway": f"{SUBNET}.1",
            "lab_bridge": BRIDGE,
            "lab_home": str(self.home),
            "lab_power_token": "token-of-a-test",
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": f"{self.home}/ssh/id_ed25519",
            "ansible_ssh_common_args": ssh,
        }
        hosts = {"one": {"ansible_host": f"{SUBNET}.11"}, "two": {"ansible_host": f"{SUBNET}.12"}}
        self.inventory.write_text(
            json.dumps({"all": {"vars": variables, "children": {"lab_hosts": {"hosts": hosts}}}})
        )

    def play(self, name: str) -> dict[str, Any]:
        """Run a playbook and return its statistics; a failure shows its output."""
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible-playbook"),
                "-i",
                str(self.inventory),
                f"playbooks/lab/{name}.yml",
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
                "LC_ALL": "C.UTF-8",
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        start = ("\n" + done.stdout).index("\n{\n")  # other callbacks print around it
        stats: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout, start)[0]["stats"]
        return stats

    def up(self) -> int:
        """Bring the lab up, show that it is, and return the number of changes."""
        stats = self.play("up")
        assert all(host["failures"] == 0 and host["unreachable"] == 0 for host in stats.values())
        self.instance = lab.load(self.home)
        self.client = PowerClient.for_instance(self.instance)
        self.podman = Podman(self.instance.podman_home)
        rows = view.look(self.instance)
        assert [(row["power"], row["ssh"], row["failed"]) for row in rows] == [("on", "ok", [])] * 2
        return sum(host["changed"] for host in stats.values())

    def is_well(self) -> bool:
        """Whether a test may start without another up; what a failed test broke out of sight, up repairs."""
        try:
            self.client.daemon()
            return {(row["power"], row["ssh"]) for row in view.look(self.instance)} == {("on", "ok")}
        except (AttributeError, PowerClientError):
            return False

    def ssh(self, host: str, command: str) -> str:
        done = subprocess.run(
            view.ssh_command(self.instance, host, command),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    def leftovers(self) -> list[str]:
        """What a lab can leave on a machine, by looking at the machine."""

        def out(*command: str) -> str:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout

        marks = (str(self.root), f"{SUBNET}.", BRIDGE, NAME)
        places = {
            "links": out("ip", "-o", "address", "show") + out("ip", "-o", "link", "show"),
            "rules": out("nft", "list", "ruleset"),
            "mounts": Path("/proc/mounts").read_text(),
            "sockets": out("ss", "-Htan"),
        }
        found = [
            f"{place}: {line}"
            for place, text in places.items()
            for line in text.splitlines()
            if any(m in line for m in marks)
        ]
        found += [f"rules: {network.table_name(NAME)}"] if network.table_name(NAME) in places["rules"] else []
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_text() if entry.name.isdigit() else ""
            except OSError:
                continue
            if entry.name != str(os.getpid()) and any(mark in command for mark in (str(self.root), NAME)):
                found.append(f"process: {command!r}")
        found += [f"file: {path}" for path in self.root.glob("*")]
        return [line for line in found if "TIME-WAIT" not in line]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    found = Lab(tmp_path_factory.mktemp("lab"))
    try:
        yield found
    finally:
        found.play("down")


@pytest.fixture
def running(two: Lab) -> Lab:
    if not two.is_well():
        two.up()
    return two


def test_up_twice_in_a_row_changes_nothing(two):
    assert two.up() > 0
    assert two.up() == 0


def test_the_base_image_holds_a_minimal_debian_and_what_was_asked_for(running):
    installed = {}
    for row in running.ssh("one", "dpkg-query -W -f '${Package} ${Priority} ${Essential}\n'").splitlines():
        name, priority, essential = row.split()
        installed[name] = priority == "required" or essential == "yes"
    minimal = [name for name, base in installed.items() if base]
    # usrmerge and the archive's keys belong to every bootstrapped bookworm; usrmerge needs "perl:any", which
    # apt-cache does not follow.
    roots = [*minimal, *image.packages(), "apt", "usrmerge", "perl", "debian-archive-keyring"]
    left_out = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    command = [
        "apt-cache",
        "depends",
        "--recurse",
        "--installed",
        *(f"--no-{kind}" for kind in left_out),
        *roots,
    ]
    explained = {
        line for line in running.ssh("one", " ".join(command)).splitlines() if not line.startswith((" ", "<"))
    }
    assert set(installed) - explained == set()
    assert set(image.packages()) <= set(installed)
    for absent in ("iproute2", "curl", "sudo", "postgresql-common", "gcc", "python3-pip"):
        assert absent not in installed


def test_hosts_cannot_touch_the_machine(running):
    for command in (
        "echo 5 > /proc/sys/vm/swappiness",
        "date -s '+1 hour'",
        "echo never > /sys/kernel/mm/transparent_hugepage/enabled",
    ):
        with pytest.raises(subprocess.CalledProcessError):
            running.ssh("one", command)
    assert running.ssh("one", "ls /dev/watchdog /dev/mem /dev/kmsg 2>/dev/null; true") == ""


def test_only_downloads_leave_and_only_power_control_answers(running):
    probe = """python3 - <<'EOF'
import socket
for place in ("{gateway}:7443", "{gateway}:22", "169.254.169.254:80", "100.100.100.200:443", "192.0.2.1:25", "{peer}:22"):
    address, port = place.split(":")
    try:
        socket.create_connection((address, int(port)), timeout=1.5).close()
        print(place, "open")
    except OSError as error:
        print(place, "refused" if isinstance(error, ConnectionRefusedError) else "dropped")
EOF"""
    answers = dict(
        line.split()
        for line in running.ssh("one", probe.format(gateway=f"{SUBNET}.1", peer=f"{SUBNET}.12")).splitlines()
    )
    assert answers == {
        f"{SUBNET}.1:7443": "open",
        f"{SUBNET}.1:22": "dropped",
        "169.254.169.254:80": "dropped",
        "100.100.100.200:443": "dropped",
        "192.0.2.1:25": "dropped",
        f"{SUBNET}.12:22": "open",
    }


def test_a_loss_of_power_is_silent_and_ends_by_the_promised_timer(running, tmp_path):
    diting = [str(Path(sys.executable).parent / "diting"), "lab"]
    home = ["--lab-home", str(running.home)]
    refused = subprocess.run(
        [*diting, "power-loss", *home, "two"], capture_output=True, text=True, check=False
    )
    assert (refused.returncode, "nothing was cut" in refused.stderr) == (1, True)
    output = tmp_path / "fin.jsonl"
    watch = subprocess.Popen([*diting, "fin-watch", *home, "two", "--seconds", "8", "--output", str(output)])
    wait_until("it watches", lambda: output.exists() and output.read_text(), 60)
    with socket.create_connection((f"{SUBNET}.12", 22), timeout=5) as held:
        held.recv(100)
        timer = running.client.add_timer("two", 12, "test")
        done = subprocess.run(
            [*diting, "power-loss", *home, "two"], capture_output=True, text=True, check=True
        )
        record = json.loads(done.stdout.splitlines()[-1])
        assert record["timer"]["id"] == timer["id"]
        moments = [step["mono_ns"] for step in record["steps"]]
        assert [step["step"] for step in record["steps"]] == [
            "link_cut_sent",
            "link_cut",
            "killed",
            "no_process_left",
        ]
        assert moments == sorted(moments)
        assert running.client.host("two")["state"] == "off"
        assert processes_of(record["container_id"]) == []
        held.settimeout(1)
        with pytest.raises(TimeoutError):
            held.recv(1)
    watch.wait(timeout=30)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["watching", "ended"]
    wait_until("the timer switches it on", lambda: running.client.host("two")["state"] == "on", 60)
    wait_until("it takes logins", lambda: view.look(running.instance)[1]["ssh"] == "ok", 60)
    assert running.client.host("two")["timers"] == []
    # The journal of the life before is there to read.
    assert int(running.ssh("two", "journalctl --list-boots --no-pager | wc -l")) >= 2


def test_a_cut_link_alone_is_mended_by_power_on(running):
    pid = running.podman.inspect(running.instance.container("one")).pid
    link = link_of(pid)
    subprocess.run(["ip", "link", "set", link, "down"], check=True)
    assert not link_is_up(link)
    running.client.on("one", "test")
    assert link_is_up(link)


def test_up_replaces_a_dead_power_control(running):
    os.kill(power_service.holder(running.instance), signal.SIGKILL)
    assert running.up() == 1


def test_up_powers_stopped_hosts_on_through_power_control(running):
    running.client.off("one", "test", revert_after_seconds=None)
    running.podman.run("kill", running.instance.container("two"))
    wait_until("both are off", lambda: {host["state"] for host in running.client.hosts()} == {"off"}, 60)
    before = len((running.home / "power/journal.jsonl").read_text().splitlines())
    assert running.up() == 1
    events = [
        json.loads(line) for line in (running.home / "power/journal.jsonl").read_text().splitlines()[before:]
    ]
    assert {event["host"] for event in events if event["event"] == "power_on_done"} == {"one", "two"}


def test_up_starts_hosts_whose_every_process_was_killed_with_their_monitor(running):
    # What the end of a container or a session leaves behind: nobody told podman that its hosts are dead.
    for host in ("one", "two"):
        container = running.podman.inspect(running.instance.container(host))
        assert is_monitor(container)
        os.kill(container.monitor, signal.SIGKILL)
        for process in processes_of(container.identity):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        wait_until("nothing runs", lambda identity=container.identity: processes_of(identity) == [], 60)
        assert running.podman.inspect(running.instance.container(host)).status == "running"
    assert running.up() == 1
    assert {host["state"] for host in running.client.hosts()} == {"on"}


def test_up_makes_a_missing_host_again_and_leaves_the_others(running):
    running.ssh("one", "touch /root/kept")
    running.podman.run("rm", "--force", "--time", "0", running.instance.container("two"))
    assert running.up() > 0
    assert running.ssh("one", "ls /root/kept").strip() == "/root/kept"


def test_up_makes_a_host_of_another_make_again(running):
    name = running.instance.container("two")
    running.podman.run("rm", "--force", "--time", "0", name)
    tag = json.loads(running.podman.run("images", "--format", "json"))[0]["Names"][0]
    running.podman.run("create", "--name", name, "--label", f"diting.lab={NAME}", tag, "/bin/true")
    assert running.up() > 0


def test_up_mends_a_half_made_network(running):
    subprocess.run(["nft", "delete", "table", "inet", network.table_name(NAME)], check=True)
    subprocess.run(["ip", "link", "del", f"{BRIDGE}k"], check=True)
    (running.instance.podman_home / "networks" / f"{running.instance.network}.json").write_text("{}\n")
    assert running.up() == 2
    assert running.up() == 0


def test_up_puts_edited_rules_back(running):
    subprocess.run(
        ["nft", "insert", "rule", "inet", network.table_name(NAME), "outbound", "accept"], check=True
    )
    assert running.up() == 1
    rules = subprocess.run(
        ["nft", "list", "table", "inet", network.table_name(NAME)], capture_output=True, text=True, check=True
    )
    assert rules.stdout.partition("chain outbound {")[2].split("\n")[1].strip() != "accept"


def test_up_after_half_a_down(running):
    power_service.stop(running.instance)
    running.podman.run("rm", "--force", "--time", "0", running.instance.container("one"))
    subprocess.run(["ip", "link", "del", BRIDGE], check=True)
    subprocess.run(["nft", "delete", "table", "inet", network.table_name(NAME)], check=True)
    (running.home / "lab.json").unlink()
    assert running.up() > 0
    assert running.up() == 0


def test_down_leaves_nothing_also_from_a_broken_lab(running):
    os.kill(power_service.holder(running.instance), signal.SIGKILL)
    running.podman.run("kill", running.instance.container("two"))
    (running.home / "lab.json").unlink()
    running.play("down")
    assert running.leftovers() == []
    assert sum(host["changed"] for host in running.play("down").values()) == 0
