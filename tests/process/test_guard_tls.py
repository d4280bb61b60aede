# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics and alerts over TLS: who shows no certificate of ours reads nothing, who is not ours is told nothing."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from support.authority import Authority
from support.guard_process import FAR, Place
from support.servers import wait_until

pytestmark = pytest.mark.process


@pytest.fixture
def ours(tmp_path):
    return Authority(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path):
    return Authority(tmp_path / "theirs")


@pytest.fixture
def make_place(tmp_path):
    made = []

    def make(**runtime):
        made.append(Place(tmp_path, **runtime))
        return made[-1]

    yield make
    for place in made:
        place.close()


def test_metrics_are_for_those_with_a_certificate_of_ours(make_place, ours, theirs):
    certificate, key = ours.make("guard")
    tls = {"certificate": str(certificate), "key": str(key), "client_ca": str(ours.file)}
    place = make_place(metrics={"port": 0, "tls": tls})
    place.start()
    port = next(line["port"] for line in place.logged() if line["event"] == "metrics")

    def read(identity):
        context = ssl.create_default_context(cafile=str(ours.file))
        if identity:
            context.load_cert_chain(*identity)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()

    assert "diting_guard_info" in read(ours.make("prometheus"))
    for stranger in (None, theirs.make("prometheus")):
        with pytest.raises(OSError):  # noqa: PT011 - an SSL alert or a reset, as the timing has it
            read(stranger)


@pytest.mark.parametrize("good", [True, False], ids=["ours", "theirs"])
def test_alerts_go_to_a_receiver_of_our_authority_only(make_place, ours, theirs, good):
    got, refused = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    class Server(HTTPServer):
        def get_request(self):
            try:
                return super().get_request()
            except OSError as error:
                refused.append(error)
                raise

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ours.file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*(ours if good else theirs).make("receiver"))
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    certificate, key = ours.make("guard")
    place = make_place(
        alertmanager={
            "urls": [f"https://127.0.0.1:{server.server_address[1]}/prefix/"],
            "ca": str(ours.file),
            "certificate": str(certificate),
            "key": str(key),
            "retry_first_seconds": 0.05,
        }
    )
    try:
        place.start()
        place.says(FAR)
        wait_until("the receiver was asked, or refused twice", lambda: got or len(refused) > 1)
        assert [path for path, _ in got] == (["/prefix/api/v2/alerts"] if good else [])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
