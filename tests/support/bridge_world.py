# SPDX-License-Identifier: GPL-3.0-or-later
"""Three hosts on a bridge in network namespaces of their own; what they reach before, in and after a cut.

Run as: unshare --net python bridge_world.py LAB_HOME; prints one JSON object. Nothing of the machine's own
network is touched: the bridge, the rules and the hosts live and die with this process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from diting.lab import instance as lab
from diting.lab import partition

PROBE = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=0.7)
except ConnectionRefusedError:
    print("answers")
except TimeoutError:
    print("silence")
except OSError as error:
    print(f"local error {error}")
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class World:
    def __init__(self, home: Path) -> None:
        self.instance = lab.load(home)
        self.hosts = {}
        ip("link", "add", "br0", "type", "bridge")
        ip("link", "set", "br0", "up")
        for number, (name, address) in enumerate(self.instance.hosts.items()):
            child = subprocess.Popen(["unshare", "--net", "sleep", "60"])
            self.hosts[name] = child
            deadline = time.monotonic() + 5
            here = Path("/proc/self/ns/net").readlink()
            while Path(f"/proc/{child.pid}/ns/net").readlink() == here:
                assert time.monotonic() < deadline, "no namespace in time"
                time.sleep(0.01)
            ip("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", str(child.pid))
            ip("link", "set", f"v{number}", "master", "br0", "up")
            self.run(name, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            self.run(name, "ip", "link", "set", "eth0", "up")

    def run(self, name: str, *words: str) -> str:
        command = ["nsenter", f"--net=/proc/{self.hosts[name].pid}/ns/net", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def reach(self, source: str, target: str) -> str:
        return self.run(source, sys.executable, "-c", PROBE, str(self.instance.hosts[target]))

    def views(self) -> dict[str, str]:
        pairs = [("pg1", "pg2"), ("pg2", "pg1"), ("pg1", "client1"), ("client1", "pg1"), ("client1", "pg2")]
        return {f"{source}->{target}": self.reach(source, target) for source, target in pairs}

    def close(self) -> None:
        for child in self.hosts.values():
            child.kill()
            child.wait()


def main() -> None:
    world = World(Path(sys.argv[1]))
    told: dict[str, object] = {}
    try:
        told["before"] = world.views()
        told["record"] = partition.cut(world.instance, "pg1", ["pg2"], 20, "inc-1")
        told["cut"] = world.views()
        for name in ("pg1", "pg2"):
            world.run(name, "ip", "neighbour", "flush", "dev", "eth0")
        world.reach("pg1", "pg2")
        address = str(world.instance.hosts["pg2"])
        told["neighbour"] = world.run("pg1", "ip", "neighbour", "show", "to", address)
        try:
            partition.cut(world.instance, "pg1", ["client1"], 5, None)
        except partition.PartitionError as refused:
            told["twice"] = str(refused)
        told["healed"] = partition.heal(world.instance, "pg1")
        told["after"] = world.views()
        told["again"] = partition.heal(world.instance)
        partition.cut(world.instance, "pg1", ["pg2", "client1"], 8, None)
        told["cut_all"] = world.views()
        deadline = time.monotonic() + 20
        while partition.pairs_cut(world.instance):
            assert time.monotonic() < deadline, "the kernel did not end the cut"
            time.sleep(0.1)
        told["expired"] = world.views()
    finally:
        world.close()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
