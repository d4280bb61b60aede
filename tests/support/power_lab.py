# SPDX-License-Identifier: GPL-3.0-or-later
"""Power control as a real daemon on loopback over hosts that are files, and fixtures that start it."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diting.lab import instance as lab
from diting.lab.power_client import PowerClient, PowerClientError
from support.servers import free_port, self_signed, wait_until

TOKEN = "secret-token"
DAEMON = Path(__file__).with_name("power_daemon.py")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificate")
    self_signed(directory / "key.pem", directory / "cert.pem", "test")
    return directory


class Lab:
    def __init__(self, home: Path, certificate: Path) -> None:
        self.home = home
        self.hosts = home / "fake"
        self.hosts.mkdir()
        self.power = home / "power"
        self.power.mkdir()
        for name in ("key.pem", "cert.pem"):
            (self.power / name).write_bytes((certificate / name).read_bytes())
        (self.power / "token").write_text(f"{TOKEN}\n")
        self.process: subprocess.Popen[str] | None = None
        self.description: dict[str, Any] = {
            "name": "test",
            "subnet": "127.0.0.0/8",
            "gateway": "127.0.0.1",
            "bridge": "none",
            "hosts": {"pg1": "127.0.0.11", "pg2": "127.0.0.12"},
            "podman_home": str(home / "podman"),
            "power_port": free_port(),
        }
        self.describe()
        for host in ("pg1", "pg2"):
            self.set(host, "on")

    def describe(self, **changes: Any) -> None:
        self.description.update(changes)
        (self.home / "lab.json").write_text(json.dumps(self.description))
        self.instance = lab.load(self.home)
        self.client = PowerClient.for_instance(self.instance, timeout_seconds=10)

    def set(self, host: str, state: str) -> None:
        (self.hosts / host).write_text(state)

    def state(self, host: str) -> str:
        return (self.hosts / host).read_text()

    def start(self, hold_seconds: float | None = None) -> None:
        more = {} if hold_seconds is None else {"TEST_HOLD_SECONDS": str(hold_seconds)}
        self.process = subprocess.Popen(
            [sys.executable, str(DAEMON), str(self.home), str(self.hosts)],
            env={**os.environ, "PYTHONPATH": str(Path(lab.__file__).parents[2]), **more},
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until("power control answers", self.answers)

    def answers(self) -> bool:
        assert self.process is None or self.process.poll() is None, self.process.stderr.read()
        try:
            self.client.daemon()
        except PowerClientError:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.process = None

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.power / "journal.jsonl").read_text().splitlines()]

    def events(self) -> list[str]:
        return [record["event"] for record in self.journal()]

    def raw(
        self,
        method: str,
        path: str,
        body: str | None = None,
        token: str | None = "secret-token",  # noqa: S107
    ) -> tuple[int, str]:
        context = ssl.create_default_context(cafile=str(self.power / "cert.pem"))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.instance.power_port, context=context, timeout=10
        )
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text


@pytest.fixture
def power(tmp_path: Path, certificate: Path) -> Iterator[Lab]:
    found = Lab(tmp_path, certificate)
    found.start()
    yield found
    if found.process is not None:
        found.kill()
