# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole cluster on a loopback interface of its own: PostgreSQL, etcd, power control, witnesses and the failover guard.

Everything lives in a network namespace that is made for it, so that a host can really fall silent (packets are dropped)
and a route can really be set, and neither is felt by anybody else on this machine.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from diting.core.gate_policy import DEFAULT_POLICY
from diting.guards.etcd import encode
from diting.lab import instance as lab
from support.etcd_cluster import EtcdCluster
from support.guard_daemon import Daemon
from support.guard_process import environment
from support.own_network import routes
from support.servers import PG_BIN, checked, free_port, own, wait_until
from support.wal_cluster import Cluster

HOLDS = any(b"fence" in path.read_bytes() for path in Path(lab.__file__).parent.glob("power*.py"))
"""Whether this tree's power control keeps a fenced host off by itself."""
DAEMON = Path(__file__).with_name("power_daemon.py")
ADDRESSES = {"pg1": "127.0.0.11", "pg2": "127.0.0.12", "pg3": "127.0.0.13"}
NAMES = ",".join(
    ["IP:127.0.0.1", "DNS:localhost", "DNS:ops1"] + [f"DNS:{n},IP:{a}" for n, a in ADDRESSES.items()]
)
PREFIX, OWN = "/service/test/", "/diting/failover/test/"


class Rest(BaseHTTPRequestHandler):
    """Patroni's page, as far as a probe looks at it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format, *args):  # noqa: A002 - the base class's name
        pass


class Place:
    """The cluster. ``pg1`` leads; ``pg2`` and ``pg3`` are its standbys and have witnesses."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.chmod(0o755)
        self.stack = contextlib.ExitStack()
        (root / "etcd").mkdir()
        self.etcd = EtcdCluster(root / "etcd", 1, names=NAMES, first="pg9")
        self.stack.callback(self.etcd.stop)
        self.client = self.etcd.client()
        self.tls = {
            "ca": str(root / "etcd/ca.crt"),
            "certificate": str(root / "etcd/host.crt"),
            "key": str(root / "etcd/host.key"),
        }
        self._postgres()
        self.rest_port = free_port()
        self._rest()
        self._power()
        self.witness_port = free_port()
        self.witnesses = {name: self._witness(name) for name in ("pg2", "pg3")}
        self.proxy_socket = root / "haproxy.sock"
        self.told: list[str] = []
        self.gate = root / "gate"
        self.gate.mkdir()
        self.policy = root / "policy.json"
        self.policy.write_text(json.dumps(DEFAULT_POLICY))
        self.daemons: list[Daemon] = [*self.witnesses.values()]
        self.lease = 0
        self.numbers = itertools.count()

    def _postgres(self) -> None:
        self.port = free_port()
        self.postgres: dict[str, Cluster] = {}
        for name, address in ADDRESSES.items():
            folder = self.root / name
            folder.mkdir()
            own(folder)
            if name == "pg1":
                cluster = Cluster.create(folder / "data")
            else:
                cluster = Cluster(folder / "data")
                source = f"host={self.root}/pg1 port={self.port} user=postgres"
                checked(
                    PG_BIN / "pg_basebackup",
                    "-d",
                    source,
                    "-D",
                    folder / "data",
                    "-R",
                    "-c",
                    "fast",
                    cwd=folder,
                )
            cluster.port = self.port
            cluster.configure(
                listen_addresses=address,
                unix_socket_directories=str(folder),
                archive_mode="off",
                wal_receiver_status_interval="1",
            )
            self.postgres[name] = cluster
            self.stack.callback(cluster.destroy)
            cluster.start()
            if name == "pg1":
                cluster.sql("create role diting_guard login; grant pg_read_all_stats to diting_guard")
                with (folder / "data/pg_hba.conf").open("a") as handle:
                    handle.write("host all diting_guard 127.0.0.0/8 trust\n")
                cluster.sql("select pg_reload_conf()")

    def _rest(self) -> None:
        server = ThreadingHTTPServer((ADDRESSES["pg1"], self.rest_port), Rest)
        server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls["certificate"], self.tls["key"])
        # Each connection shakes hands in its own thread: one whose packets are dropped meanwhile would hold up all, and the end.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        self.stack.callback(server.server_close)
        self.stack.callback(server.shutdown)

    def _power(self) -> None:
        home = self.root / "lab"
        self.hosts = home / "fake"
        self.hosts.mkdir(parents=True)
        (home / "power").mkdir()
        shutil.copy(self.tls["key"], home / "power/key.pem")
        shutil.copy(self.tls["certificate"], home / "power/cert.pem")
        (home / "power/token").write_text("secret-token\n")
        self.token = self.root / "power.env"
        self.token.write_text("DITING_POWER_TOKEN=secret-token\n")
        self.token.chmod(0o600)
        hosts = json.dumps(ADDRESSES)
        (home / "lab.json").write_text(
            '{"name": "test", "subnet": "127.0.0.0/8", "gateway": "127.0.0.1", "bridge": "none",'
            f' "hosts": {hosts}, "podman_home": "{home}/podman", "power_port": {free_port()}}}'
        )
        self.power_url = lab.load(home).power_url
        self.power: subprocess.Popen[bytes] | None = None
        self.stack.callback(self.stop_power)
        self.start_power()

    def start_power(self) -> None:
        for name in ADDRESSES:
            (self.hosts / name).write_text("on")
        self.power = subprocess.Popen(
            [sys.executable, str(DAEMON), str(self.hosts.parent), str(self.hosts)], env=environment()
        )
        address = self.power_url.removeprefix("https://").partition(":")
        port = int(address[2].partition("/")[0])
        wait_until("power control listens", lambda: _listens(address[0], port))

    def stop_power(self) -> None:
        if self.power is not None:
            self.power.kill()
            self.power.wait()
            self.power = None

    def _witness(self, name: str) -> Daemon:
        settings = {
            "member": name,
            "members": ADDRESSES,
            "listen": {"address": ADDRESSES[name], "port": self.witness_port},
            "clients": ["ops1"],
            "local_host": str(self.root / name),
            "local_interval_seconds": 0.3,
            "space_paths": [str(self.root)],
            "min_free_bytes": 1,
            **self._asking(),
        }
        return Daemon(self.root / f"witness-{name}", "witness", settings)

    def _asking(self) -> dict[str, Any]:
        return {
            "identity": self.tls,
            "account": {"sslmode": "disable", "port": self.port},
            "rest": {"port": self.rest_port},
            "pace": {"tcp_timeout_seconds": 0.1, "quick_timeout_seconds": 0.1, "slow_interval_seconds": 0.5},
        }

    def guard(self, name: str = "ops1", **changes: Any) -> Daemon:
        """A failover guard, not yet started."""
        limits = {
            "confirm_seconds": 0.3,
            "hang_seconds": 1.5,
            "fence_max_per_window": 30,
            "comeback_seconds": 60.0,
            "return_after_seconds": 0.5,
        }
        members = {n: {"address": a} for n, a in ADDRESSES.items()}
        for witness in self.witnesses:
            members[witness]["witness"] = f"https://{ADDRESSES[witness]}:{self.witness_port}"
        settings = {
            "armed": True,
            "owner": name,
            "members": members,
            "etcd": {"endpoints": self.etcd.clients, "prefix": PREFIX, "own_prefix": OWN, "lock_seconds": 5},
            "fencing": {
                "agent": "power",
                "hold": HOLDS,
                "options": {
                    "url": self.power_url,
                    "ca_file": self.tls["ca"],
                    "credentials_file": str(self.token),
                },
            },
            "proxies": [{"name": "client1", "socket": str(self.proxy_socket)}],
            "gate_dir": str(self.gate),
            "gate_policy_file": str(self.policy),
            **self._asking(),
            **changes,
        }
        settings["limits"] = {**limits, **changes.get("limits", {})}
        daemon = Daemon(self.root / f"guard-{next(self.numbers)}", "failover", settings)
        self.daemons.append(daemon)
        return daemon

    def lead(self, member: str = "pg1", ttl: int = 120) -> None:
        """What Patroni would write for ``member``."""
        self.lease = int(self.client.call("/v3/lease/grant", {"TTL": str(ttl)}, 5)["ID"])
        others = ",".join(n for n in ADDRESSES if n != member)
        self.put("leader", member, self.lease)
        self.put("sync", json.dumps({"leader": member, "sync_standby": others}))
        self.put("config", json.dumps({"ttl": 30}))

    def put(self, key: str, value: str, lease: int = 0) -> None:
        body = {"key": encode(PREFIX + key), "value": encode(value), "lease": str(lease)}
        self.client.call("/v3/kv/put", body, 5)

    def leader(self) -> str | None:
        seen = self.client.read_cluster(PREFIX, test_key=f"{OWN}t", test_value="x", deadline_seconds=5)
        return None if seen.leader is None else seen.leader.value

    def cut(self) -> None:
        """pg1 falls silent: every packet to and from it is dropped where it arrives."""
        rules = (
            "add table inet cut; add chain inet cut input { type filter hook input priority 0; };"
            " add rule inet cut input ip daddr 127.0.0.11 drop; add rule inet cut input ip saddr 127.0.0.11 drop"
        )
        subprocess.run(["nft", rules], check=True)

    def mend(self) -> None:
        subprocess.run(["nft", "delete table inet cut"], check=False, stderr=subprocess.DEVNULL)

    def signal_primary(self, number: int) -> None:
        """Send a signal to the postmaster of pg1 and to all its children."""
        master = self.postgres["pg1"].postmaster_pid()
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        for pid in [master, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def serve_proxy(self) -> None:
        """A HAProxy's runtime socket, as far as it is spoken to; :attr:`told` remembers."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.proxy_socket))
        listener.listen()
        listener.settimeout(60)

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as peer:
                        self.told += peer.recv(4096).decode().strip().split("; ")
                        peer.sendall(b"\n\n\n\n")

        threading.Thread(target=answer, daemon=True).start()
        self.stack.callback(listener.close)

    def calm(self) -> None:
        """Everything back to where a test begins."""
        for daemon in [d for d in self.daemons if d.guard == "failover"]:
            daemon.kill()
            self.daemons.remove(daemon)
        self.mend()
        self.signal_primary(signal.SIGCONT)
        if routes():
            for witness in self.witnesses.values():
                witness.kill()
        body = {"key": encode(OWN), "range_end": encode(OWN[:-1] + "0")}
        self.client.call("/v3/kv/deleterange", body, 5)
        for path in self.gate.iterdir():
            path.unlink()
        self.told.clear()
        self.stop_power()
        for path in (self.hosts.parent / "power").glob("*"):
            if path.name not in ("key.pem", "cert.pem", "token"):
                path.unlink() if path.is_file() else shutil.rmtree(path)
        self.start_power()
        self.lead()
        for daemon in self.witnesses.values():
            if daemon.process is None:
                daemon.start()
        wait_until("nobody is cut off", lambda: not routes())

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.kill()
        self.stack.close()


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
