# SPDX-License-Identifier: GPL-3.0-or-later
"""The watch for a farewell, over real sockets on loopback."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from diting.lab import finwatch

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets need root")]
WATCHED = "127.0.0.77"


def talk(source: str, *, reset: bool) -> None:
    """One connection from ``source``, ended by it with a FIN or a RST."""
    with (
        socket.create_server((source, 0)) as server,
        socket.create_connection(server.getsockname(), source_address=("127.0.0.1", 0)) as client,
    ):
        peer, _ = server.accept()
        if reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            peer.sendall(b"bye")
        peer.close()
        with contextlib.suppress(ConnectionResetError):
            while client.recv(10):
                pass


def watched(action, seconds: float = 1.5) -> list[dict]:
    output = io.StringIO()
    thread = threading.Thread(
        target=finwatch.watch, args=("lo", ipaddress.IPv4Address(WATCHED), seconds, output)
    )
    thread.start()
    deadline = time.monotonic() + 5
    while "watching" not in output.getvalue():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    action()
    thread.join()
    return [json.loads(line) for line in output.getvalue().splitlines()]


@pytest.mark.parametrize(("reset", "kind"), [(False, "fin"), (True, "rst")])
def test_a_farewell_from_the_address_is_seen_with_its_moment(reset, kind):
    before = time.monotonic_ns()
    lines = watched(lambda: talk(WATCHED, reset=reset))
    seen = [line for line in lines if line["event"] == kind]
    assert seen
    assert all(line["source"].startswith(f"{WATCHED}:") for line in seen)
    assert all(before < line["mono_ns"] < time.monotonic_ns() for line in seen)
    assert lines[-1]["event"] == "ended"
    assert lines[-1]["seen"] >= 1
    assert lines[-1]["bridge_packets"] > 0


def test_farewells_of_others_and_talk_without_one_are_not_seen():
    def others() -> None:
        talk("127.0.0.78", reset=False)
        talk("127.0.0.78", reset=True)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind((WATCHED, 0))
            udp.sendto(
                bytes([0x05] * 60), ("127.0.0.1", 9)
            )  # the bytes of FIN and RST where TCP has its flags

    lines = watched(others)
    assert [line["event"] for line in lines] == ["watching", "ended"]
    assert lines[-1] | {"seen": 0, "dropped": 0, "why": "deadline"} == lines[-1]


def test_it_ends_by_itself_and_on_sigterm(tmp_path):
    code = (
        "import ipaddress, sys; from diting.lab.finwatch import watch;"
        "watch('lo', ipaddress.IPv4Address('127.0.0.77'), float(sys.argv[1]), open(sys.argv[2], 'w'))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(finwatch.__file__).parents[2])}
    for seconds, why in ((0.5, "deadline"), (60, "terminated")):
        output = tmp_path / why
        process = subprocess.Popen([sys.executable, "-c", code, str(seconds), str(output)], env=env)
        deadline = time.monotonic() + 10
        while not (output.exists() and output.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if why == "terminated":
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        assert json.loads(output.read_text().splitlines()[-1])["why"] == why


def test_a_watch_that_cannot_look_does_not_begin():
    with pytest.raises(OSError, match="nothere0"):
        finwatch.watch("nothere0", ipaddress.IPv4Address(WATCHED), 1, io.StringIO())
