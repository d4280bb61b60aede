# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""The agent ``power`` against power control as a real daemon, and against one that misbehaves."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from diting.core.fence import Outcome, Power, judge
from diting.hostio.fencing import FencingError, make_agent
from diting.hostio.fencing.base import read_until
from diting.lab import instance as lab
from support.power_lab import Lab, certificate, power  # noqa: F401
from support.servers import free_port, wait_until

pytestmark = pytest.mark.process


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "power.env"
    path.write_text("DITING_POWER_TOKEN=secret-token\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def hosts(power: Lab) -> Path:
    """Power control over hosts that are files; their folder."""
    return power.hosts


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


class Lines(BaseHTTPRequestHandler):
    """Counts its connections; says goodbye after so many answers on one, or in the middle of the next."""

    protocol_version = "HTTP/1.1"
    lines: ClassVar[list] = []
    leaves_after: ClassVar[list] = [99]

    def setup(self):
        super().setup()
        self.answers = 0
        self.lines.append([])

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.lines[-1].append(self.command)
        text = b'{"name": "pg1", "state": "off"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.answers += 1
        self.close_connection = self.answers >= self.leaves_after[0]

    do_POST = do_GET  # noqa: N815 - names that http.server calls

    def log_message(self, format, *args):  # noqa: A002 - the base class's name
        pass


def test_the_read_back_goes_by_the_line_of_the_order_and_no_order_by_an_old_one(agent, certificate):
    """A handshake less when it counts; but an order that finds its line dead could not know whether it was heard."""
    Lines.lines.clear()
    Lines.leaves_after[0] = 99
    with serving(Lines, certificate) as url:
        switch = agent(url=url)
        switch.off(5)
        assert [switch.state(5).power for _ in range(2)] == [Power.OFF, Power.OFF]
        assert Lines.lines == [["POST", "GET", "GET"]]
        switch.off(5)
        assert Lines.lines[1:] == [["POST"]]
        switch.close()


def test_a_read_back_finds_a_line_that_was_closed_and_opens_another(agent, certificate):
    Lines.lines.clear()
    Lines.leaves_after[0] = 1
    with serving(Lines, certificate) as url:
        switch = agent(url=url)
        assert switch.off(5).outcome is Outcome.DONE
        assert [switch.state(5).power for _ in range(2)] == [Power.OFF, Power.OFF]
        assert Lines.lines == [["POST"], ["GET"], ["GET"]]
        switch.close()


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


def test_what_power_control_holds_is_released_by_the_agent_that_knows_who_leads(agent, power: Lab):
    """The protocol of the hold, each side with the other and not with a stand-in."""
    switch = agent(hold=True)
    order = switch.off(5)
    readings = read_until(switch, Power.OFF, 5, 5)
    assert judge(Power.OFF, order, readings).proven
    assert readings[-1].evidence["hold"]["incident_id"] == "inc-1"
    # A stranger, one who does not know who leads, and one who says that the dead host does.
    for refused in (agent().on(5), switch.on(5), switch.on(5, leader="pg1")):
        assert (refused.outcome, "409" in refused.words) == (Outcome.FAILED, True)
    assert power.state("pg1") == "off"
    assert power.client.host("pg1")["hold"]
    assert switch.on(5, leader="pg2").outcome is Outcome.DONE
    wait_until("the released host is on", lambda: switch.state(5).power is Power.ON)
    released = [record for record in power.journal() if record["event"] == "fence_released"]
    assert [(record["leader"], record["incident_id"]) for record in released] == [("pg2", "inc-1")]
    assert switch.on(5, leader="pg2").outcome is Outcome.DONE  # nothing is held any more: a plain "on"


def test_a_held_host_that_nobody_released_comes_back_and_is_not_fenced_by_an_on(agent, power: Lab):
    power.kill()
    power.start(hold_seconds=1.0)
    switch = agent(hold=True)
    assert switch.off(5).outcome is Outcome.DONE
    assert switch.on(5).outcome is Outcome.FAILED
    wait_until("the hold is over", lambda: switch.on(5).outcome is Outcome.DONE)
    wait_until("the host is on", lambda: switch.state(5).power is Power.ON)
    assert "hold" not in power.client.host("pg1")
    assert "fence_released" not in power.events()


@pytest.mark.parametrize(
    ("switches", "outcome", "seen"),
    [
        ({"lie": True}, Outcome.DONE, Power.OFF),
        ({"unknown": True}, Outcome.DONE, Power.UNKNOWN),
        ({"hang_seconds": 60}, Outcome.UNKNOWN, Power.UNKNOWN),
        ({"hang_seconds": 0.2}, Outcome.UNKNOWN, Power.UNKNOWN),
    ],
    ids=["lie", "unknown", "hang", "refusal after a hang"],
)
def test_what_the_agent_makes_of_a_power_control_that_misbehaves(agent, power: Lab, switches, outcome, seen):
    power.client.set_switches("pg1", **switches)
    switch = agent(hold=True)
    assert switch.off(1).outcome is outcome
    assert switch.state(1).power is seen
    assert power.state("pg1") == ("off" if "unknown" in switches else "on")


@pytest.mark.alone
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
