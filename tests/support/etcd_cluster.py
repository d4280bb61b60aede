# SPDX-License-Identifier: GPL-3.0-or-later
"""Real etcd on loopback, with TLS and client certificates, as plain processes."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from diting.guards.etcd import Etcd, EtcdError
from diting.guards.etcd_transport import HttpsTransport
from support.servers import free_port, wait_until


@functools.cache
def etcd_program() -> Path:
    """The etcd of DITING_TEST_ETCD, else the one on the path; skips when neither is there."""
    named = os.environ.get("DITING_TEST_ETCD") or shutil.which("etcd")
    if not named:
        pytest.skip("etcd is not installed (Debian: etcd-server) and DITING_TEST_ETCD is not set")
    return Path(named)


def make_certificates(folder: Path, names: str = "IP:127.0.0.1,DNS:localhost") -> None:
    """A CA and one pair for everybody: etcd's gateway is a client of its own server."""
    run = functools.partial(subprocess.run, cwd=folder, check=True, capture_output=True)
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2"
    run(f"openssl req -x509 {curve} -subj /CN=ca -keyout ca.key -out ca.crt".split())
    run(f"openssl req {curve} -subj /CN=host -keyout host.key -out host.csr".split())
    (folder / "ext").write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
    sign = "openssl x509 -req -in host.csr -CA ca.crt -CAkey ca.key -days 2 -extfile ext -out host.crt"
    run(sign.split())


class EtcdCluster:
    """``size`` members that can be stopped and started one by one."""

    def __init__(
        self, folder: Path, size: int, *, names: str = "IP:127.0.0.1,DNS:localhost", first: str = "e0"
    ) -> None:
        self.folder = folder
        self.names = [first, *(f"e{number}" for number in range(1, size))]
        make_certificates(folder, names)
        self.clients = [f"https://127.0.0.1:{free_port()}" for _number in range(size)]
        self.peers = [f"https://127.0.0.1:{free_port()}" for _number in range(size)]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * size
        for number in range(size):
            self.start(number)
        self.transport = self.make_transport()
        wait_until("etcd leads", self.leads)

    def make_transport(self) -> HttpsTransport:
        return HttpsTransport(*(str(self.folder / name) for name in ("ca.crt", "host.crt", "host.key")))

    def client(self, **options) -> Etcd:
        return Etcd(self.clients, self.make_transport(), **options)

    def leads(self) -> bool:
        try:
            return Etcd(self.clients, self.transport).leader_id(1.0) is not None
        except EtcdError:
            return False

    def start(self, number: int) -> None:
        tls = {"cert-file": "host.crt", "key-file": "host.key", "trusted-ca-file": "ca.crt"}
        options = {
            "name": self.names[number],
            "data-dir": f"data{number}",
            "listen-client-urls": self.clients[number],
            "advertise-client-urls": self.clients[number],
            "listen-peer-urls": self.peers[number],
            "initial-advertise-peer-urls": self.peers[number],
            "initial-cluster": ",".join(f"{n}={url}" for n, url in zip(self.names, self.peers, strict=True)),
            "heartbeat-interval": "100",
            "election-timeout": "1000",
            "log-level": "error",
            **tls,
            **{f"peer-{name}": value for name, value in tls.items()},
        }
        words = ["nice", "-n", "19", str(etcd_program()), "--client-cert-auth", "--peer-client-cert-auth"]
        words += [f"--{name}={value}" for name, value in options.items()]
        with (self.folder / f"log{number}").open("ab") as log:
            self.processes[number] = subprocess.Popen(words, cwd=self.folder, stdout=log, stderr=log)

    def kill(self, number: int) -> None:
        process, self.processes[number] = self.processes[number], None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        for number in range(len(self.processes)):
            self.kill(number)


def cluster(size: int):
    """A cluster in a folder of its own, gone afterwards; for a fixture's ``yield from``."""
    etcd_program()
    with tempfile.TemporaryDirectory(prefix="detcd-", dir="/tmp") as name:
        made = EtcdCluster(Path(name), size)
        try:
            yield made
        finally:
            made.stop()
