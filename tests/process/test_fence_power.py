# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent ``power`` against power control as a real daemon, and against one that misbehaves."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from diting.core.fence import Outcome, Power, judge
from diting.hostio.fencing import FencingError, make_agent
from diting.hostio.fencing.base import read_until
from diting.lab import instance as lab
from diting.lab.power_client import PowerClient, PowerClientError
from support.servers import free_port, self_signed, wait_until

pytestmark = pytest.mark.process
DAEMON = Path(__file__).parents[1] / "support" / "power_daemon.py"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificate")
    self_signed(directory / "key.pem", directory / "cert.pem", "test")
    return directory


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "power.env"
    path.write_text("DITING_POWER_TOKEN=secret-token\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def hosts(tmp_path: Path, certificate: Path) -> Iterator[Path]:
    """Power control over hosts that are files; yields their folder."""
    home = tmp_path / "lab"
    hosts = home / "fake"
    hosts.mkdir(parents=True)
    (home / "power").mkdir()
    for name in ("key.pem", "cert.pem"):
        (home / "power" / name).write_bytes((certificate / name).read_bytes())
    (home / "power" / "token").write_text("secret-token\n")
    port = free_port()
    (home / "lab.json").write_text(
        '{"name": "test", "subnet": "127.0.0.0/8", "gateway": "127.0.0.1", "bridge": "none",'
        f' "hosts": {{"pg1": "127.0.0.11"}}, "podman_home": "{home}/podman", "power_port": {port}}}'
    )
    (hosts / "pg1").write_text("on")
    environment = {**os.environ, "PYTHONPATH": str(Path(lab.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, str(DAEMON), str(home), str(hosts)], env=environment)
    client = PowerClient.for_instance(lab.load(home), timeout_seconds=5)

    def answers() -> bool:
        try:
            return bool(client.daemon())
        except PowerClientError:
            return False

    wait_until("power control answers", answers)
    yield hosts
    process.kill()
    process.wait()


@pytest.fixture
def agent(hosts: Path, certificate: Path, token: Path):
    def make(**options):
        given = {
            "host": "pg1",
            "url": lab.load(hosts.parent).power_url,
            "ca_file": str(certificate / "cert.pem"),
            "credentials_file": str(token),
            "incident_id": "inc-1",
        }
        return make_agent("power", {**given, **options})

    return make


def test_off_and_on_with_a_read_back(agent, hosts):
    switch = agent()
    assert switch.state(5).power is Power.ON
    order = switch.off(5)
    readings = read_until(switch, Power.OFF, 5, 5)
    assert judge(Power.OFF, order, readings).proven
    assert (hosts / "pg1").read_text() == "off"
    assert readings[-1].evidence["name"] == "pg1"
    assert switch.on(5).outcome is Outcome.DONE
    assert switch.state(5).power is Power.ON


def test_what_power_control_cannot_tell_is_unknown(agent, hosts):
    (hosts / "pg1").write_text("rubbish")
    reading = agent().state(5)
    assert reading.power is Power.UNKNOWN
    assert "rubbish" in reading.words


def test_refusals_are_clear_and_failures_are_not(agent, hosts, tmp_path):
    assert agent(host="pg9").off(5).outcome is Outcome.FAILED
    assert agent(host="pg9").state(5).power is Power.UNKNOWN
    wrong = tmp_path / "wrong.env"
    wrong.write_text("DITING_POWER_TOKEN=not-it\n")
    wrong.chmod(0o600)
    order = agent(credentials_file=str(wrong)).off(5)
    assert (order.outcome, "not-it" in order.words) == (Outcome.FAILED, False)
    (hosts / "refuse").touch()
    assert agent().off(5).outcome is Outcome.UNKNOWN  # 503: halfway, perhaps
    assert (hosts / "pg1").read_text() == "on"


def test_nobody_there_is_never_off(agent):
    gone = agent(url=f"https://127.0.0.1:{free_port()}")
    assert gone.off(2).outcome is Outcome.UNKNOWN
    assert gone.state(2).power is Power.UNKNOWN


def test_a_certificate_of_somebody_else_is_not_asked(agent, tmp_path):
    with pytest.raises(FencingError, match="ca_file"):
        agent(ca_file=str(tmp_path / "none.pem"))
    stranger = agent(ca_file="/etc/ssl/certs/ca-certificates.crt")
    assert stranger.off(2).outcome is Outcome.UNKNOWN
    assert stranger.state(2).power is Power.UNKNOWN


class Dripping(BaseHTTPRequestHandler):
    """Answers a byte now and then: every single read is in time, the whole never is."""

    stop = threading.Event()

    def do_GET(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not self.stop.wait(0.05):
            self.wfile.write(b" ")

    do_POST = do_GET  # noqa: N815 - names that http.server calls

    def log_message(self, format, *args):  # noqa: A002 - the base class's name
        pass


class Holding(BaseHTTPRequestHandler):
    """A power control that keeps fenced hosts off; remembers what it was told."""

    told: ClassVar[list] = []
    held: ClassVar[set] = set()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        action = self.path.rsplit("/", 1)[-1]
        self.told.append((action, body))
        status = 200
        if action == "off" and body.get("fence"):
            self.held.add("pg1")
        elif action == "on" and self.held:
            status = 409
        elif action == "release":
            status = 404 if not self.held else 409 if body["leader"] == "pg1" else 200
            if status == 200:
                self.held.clear()
        text = json.dumps({"name": "pg1", "state": "off"} if status == 200 else {"error": "no"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format, *args):  # noqa: A002 - the base class's name
        pass


@contextlib.contextmanager
def serving(handler, certificate):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_host_that_is_held_comes_back_when_another_member_leads(agent, certificate):
    Holding.told.clear()
    Holding.held.clear()
    with serving(Holding, certificate) as url:
        assert agent(url=url).off(5).outcome is Outcome.DONE
        assert "fence" not in Holding.told[-1][1]
        switch = agent(url=url, hold=True)
        assert switch.off(5).outcome is Outcome.DONE
        assert Holding.told[-1][1]["fence"] is True
        assert agent(url=url).on(5).outcome is Outcome.FAILED  # not by anybody else
        assert switch.on(5).outcome is Outcome.FAILED  # nor by one who does not know who leads
        assert Holding.told[-1][0] == "on"
        assert switch.on(5, leader="pg1").outcome is Outcome.FAILED  # not while it holds the key itself
        assert switch.on(5, leader="pg2").outcome is Outcome.DONE
        assert Holding.told[-1][0] == "release"
        assert switch.on(5, leader="pg2").outcome is Outcome.DONE  # no longer held: a plain "on"
        assert [action for action, _body in Holding.told[-2:]] == ["release", "on"]


def test_an_answer_that_drips_ends_at_the_deadline(agent, certificate):
    Dripping.stop.clear()
    with serving(Dripping, certificate) as url:
        slow = agent(url=url)
        begin = time.monotonic()
        try:
            assert slow.state(0.5).power is Power.UNKNOWN
            assert slow.off(0.5).outcome is Outcome.UNKNOWN
            assert time.monotonic() - begin < 3
        finally:
            Dripping.stop.set()
