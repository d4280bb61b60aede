# SPDX-License-Identifier: GPL-3.0-or-later
"""From a figure that is too old to a chat room, through the real Prometheus, Alertmanager and relay; and what happens when one of them dies."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from support.authority import Authority
from support.guard_process import environment
from support.monitoring import alertmanager, program, write_config
from support.servers import free_port, wait_until

pytestmark = pytest.mark.process
LIMIT_SECONDS = 4.0


class Rooms:
    """Receivers on loopback: what they got, and whether they take it. ``hook`` speaks TLS."""

    def __init__(self, identity):
        self.got, self.refuse = [], set()
        rooms = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name = self.path.partition("?")[0].strip("/")
                answer = {"errcode": 310000} if name in rooms.refuse else {"errcode": 0}
                if name not in rooms.refuse:
                    rooms.got.append((name, body))
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*identity)
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self.server.server_port
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def texts(self, name):
        return [body["markdown"]["text"] for room, body in self.got if room == name]

    def alerts(self, name):
        return [
            (one["labels"]["alertname"], one["status"])
            for room, body in self.got
            if room == name
            for one in body["alerts"]
        ]


class Path:
    """Prometheus, Alertmanager, relay, and a page of figures."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = Authority(folder / "ca")
        self.identity = self.authority.make("ops1")
        self.rooms = Rooms(self.identity)
        self.ports = {name: free_port() for name in ("prometheus", "alertmanager", "relay")}
        self.processes = {}
        self.proof_age = 0.0
        self._page()
        url = f"https://localhost:{self.rooms.port}"
        ca = str(self.authority.file)
        room = {
            "name": "room",
            "kind": "dingtalk",
            "url": f"{url}/room?access_token=t",
            "secret": "SECx",
            "ca": ca,
        }
        hook = {"name": "hook", "kind": "webhook", "url": f"{url}/hook", "ca": ca}
        tls = {"ca": ca, "certificate": str(self.identity[0]), "key": str(self.identity[1])}
        relay = {
            "address": "127.0.0.1",
            "port": self.ports["relay"],
            **tls,
            "clients": ["ops1"],
            "receivers": [room, hook],
            "direct": ["room"],
            "heartbeats": [{"name": "ops1", "limit_seconds": LIMIT_SECONDS}],
            "retry_seconds": 1.0,
        }
        (folder / "relay.json").write_text(json.dumps(relay))
        severities = ["warning", "critical", "emergency"]
        write_config(
            folder / "config",
            inventory_hostname="localhost",
            alerting_tls_ca=ca,
            alerting_tls_cert=tls["certificate"],
            alerting_tls_key=tls["key"],
            alerting_prometheus_port=self.ports["prometheus"],
            alerting_alertmanager_port=self.ports["alertmanager"],
            alerting_receivers=[{**room, "severities": severities}, {**hook, "severities": severities}],
            alerting_relay_url=f"https://localhost:{self.ports['relay']}",
            alerting_heartbeat_name="ops1",
            alerting_heartbeat_seconds=2,
            alerting_group_wait_seconds=1,
            alerting_group_interval_seconds=2,
            alerting_scrape_interval_seconds=1,
            alerting_evaluation_interval_seconds=1,
            alerting_proof_max_age_seconds=1000,
            alerting_targets=[{"job": "node", "targets": [f"127.0.0.1:{self.page_port}"], "scheme": "http"}],
        )

    def _page(self):
        path = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                moment = time.time() - path.proof_age
                page = f'diting_backup_proven_restore_timestamp_seconds{{cluster="main"}} {moment}\n'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.page_port = server.server_port
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.page_server = server

    def start(self, name):
        config = self.folder / "config"
        listen = f"--web.listen-address=127.0.0.1:{self.ports.get(name)}"
        command = {
            "relay": [
                sys.executable,
                "-m",
                "diting.cli.main",
                "alerts",
                "relay",
                str(self.folder / "relay.json"),
            ],
            "alertmanager": alertmanager(
                f"--config.file={config}/alertmanager.yml",
                f"--storage.path={self.folder}/alertmanager",
                "--cluster.listen-address=",
                listen,
                f"--web.config.file={config}/web.yml",
            ),
            "prometheus": [
                program("prometheus"),
                f"--config.file={config}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/tsdb",
                "--rules.alert.resend-delay=1s",
                listen,
                f"--web.config.file={config}/web.yml",
            ],
        }[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment() if name == "relay" else dict(os.environ)
            )

    def kill(self, name):
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self):
        for name in list(self.processes):
            self.kill(name)
        for server in (self.rooms.server, self.page_server):
            server.shutdown()
            server.server_close()

    def ask(self, method, path, body=None, identity=None):
        context = ssl.create_default_context(cafile=str(self.authority.file))
        context.load_cert_chain(*(identity or self.identity))
        connection = http.client.HTTPSConnection(
            "localhost", self.ports["relay"], timeout=10, context=context
        )
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def status(self):
        try:
            return json.loads(self.ask("GET", "/v1/status")[1])
        except OSError:
            return None

    def hears(self):
        found = (self.status() or {"heartbeats": {"ops1": {"ever_heard": False, "silent": False}}})[
            "heartbeats"
        ]["ops1"]
        return found["ever_heard"] and not found["silent"]


@pytest.fixture
def path(tmp_path):
    made = Path(tmp_path)
    yield made
    made.close()


@pytest.fixture
def alive(path):
    for name in ("relay", "alertmanager", "prometheus"):
        path.start(name)
    wait_until("the relay hears from the alerting", path.hears, 60)
    path.rooms.got.clear()
    return path


def logs(path):
    return {name.name: name.read_text()[-2000:] for name in path.folder.glob("*.log")}


def test_a_proof_that_is_too_old_is_told_everywhere_and_taken_back(alive):
    rooms = alive.rooms
    alive.proof_age = 2000.0
    wait_until("both receivers have it", lambda: rooms.texts("room") and rooms.alerts("hook"), 60)
    assert ("DitingProofOld", "firing") in rooms.alerts("hook")
    text = next(text for text in rooms.texts("room") if "DitingProofOld" in text)
    assert text.startswith("[FIRING critical] DitingProofOld")
    assert "The last proven restore of main is 33m" in text
    assert "docs/runbooks/backups.md#2-prove-one-now" in text
    alive.proof_age = 0.0
    wait_until("it is over", lambda: ("DitingProofOld", "resolved") in rooms.alerts("hook"), 60)
    wait_until("in the room too", lambda: any("[RESOLVED" in text for text in rooms.texts("room")), 60)
    assert "DitingWatchdog" not in json.dumps(rooms.got)


def test_a_room_that_refuses_gets_it_when_it_does_not_any_more(alive):
    rooms = alive.rooms
    rooms.refuse = {"room"}
    alive.proof_age = 2000.0
    wait_until("the other has it", lambda: ("DitingProofOld", "firing") in rooms.alerts("hook"), 60)
    wait_until("it was refused", lambda: alive.status()["receivers"]["room"]["refused"] > 0, 60)
    assert "310000" in alive.status()["receivers"]["room"]["last_problem"]
    rooms.refuse = set()
    wait_until("the room has it", lambda: any("DitingProofOld" in text for text in rooms.texts("room")), 60)


@pytest.mark.parametrize("dead", ["alertmanager", "prometheus"])
def test_when_the_alerting_dies_people_are_told_and_when_it_is_back_too(alive, dead):
    rooms = alive.rooms
    alive.kill(dead)
    wait_until(
        "people are told", lambda: any("DitingAlertPathSilent" in text for text in rooms.texts("room")), 60
    )
    (text,) = rooms.texts("room")
    assert text.startswith("[FIRING emergency] DitingAlertPathSilent")
    assert "The alerting of ops1 has not been heard from" in text
    assert alive.status()["heartbeats"]["ops1"]["age_seconds"] > LIMIT_SECONDS
    alive.start(dead)
    wait_until(
        "that it is back", lambda: any("[RESOLVED emergency]" in text for text in rooms.texts("room")), 60
    )


def test_an_alerting_that_never_comes_is_silent_too(path):
    path.start("relay")
    wait_until("people are told", lambda: path.rooms.texts("room"), 30)
    assert "not once since" in path.rooms.texts("room")[0]


def test_the_relay_takes_from_its_clients_only_and_shows_itself_to_the_estate(path):
    path.start("relay")
    wait_until("the relay answers", path.status, 30)
    stranger = path.authority.make("pg1")
    beat = json.dumps({"version": "4", "alerts": [{"status": "firing", "labels": {}, "annotations": {}}]})
    assert path.ask("POST", "/v1/heartbeats/ops1", beat)[0] == 200
    assert path.ask("POST", "/v1/heartbeats/ops1", beat, stranger)[0] == 403
    assert path.ask("POST", "/v1/receivers/room", beat, stranger)[0] == 403
    assert path.rooms.got == []
    status, page = path.ask("GET", "/metrics", identity=stranger)
    assert status == 200
    assert 'diting_alert_relay_heartbeat_age_seconds{source="ops1"}' in page
    assert path.ask("POST", "/v1/heartbeats/nobody", beat)[0] == 404
    assert path.ask("POST", "/v1/receivers/nobody", beat)[0] == 404
    assert path.ask("POST", "/v1/else/room", beat)[0] == 404
    assert path.ask("POST", "/v1/receivers/room", "garbage")[0] == 400
    theirs = Authority(path.folder / "theirs").make("ops1")
    with pytest.raises(OSError):  # noqa: PT011 - an SSL alert or a reset, as the timing has it
        path.ask("GET", "/metrics", identity=theirs)


def test_settings_that_cannot_be_used_stop_it_with_all_that_is_wrong(path):
    file = path.folder / "relay.json"
    settings = json.loads(file.read_text())
    settings["receivers"][0]["kind"] = "telegram"
    settings["port"] = 70000
    file.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "diting.cli.main", "alerts", "check-config", str(file)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 78
    assert "receivers.0.kind" in done.stderr
    assert "port" in done.stderr
    assert "SECx" not in done.stderr


def test_a_try_says_who_took_it(path):
    path.rooms.refuse = {"room"}
    command = [sys.executable, "-m", "diting.cli.main", "alerts", "try", str(path.folder / "relay.json")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "room: HTTP 200, but refused" in done.stdout
    assert "hook: taken" in done.stdout
    assert [name for name, _ in path.rooms.alerts("hook")] == ["DitingTry"]
