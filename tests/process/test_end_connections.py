# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to one address are ended by the kernel itself, and no others. Real sockets on loopback."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from diting.guards.connections import end_connections

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="ending connections of a host takes CAP_NET_ADMIN"),
]


def pair(address):
    """Client and server end of one connection to ``address``."""
    with socket.create_server((address, 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=5)
        taken, _peer = server.accept()
    return client, taken


def test_who_waits_for_a_dead_host_waits_no_longer():
    dead, neighbour = pair("127.83.0.9"), pair("127.83.0.8")
    assert asyncio.run(end_connections("127.83.0.9")) == ""
    with pytest.raises(ConnectionAbortedError):
        dead[0].recv(1)
    neighbour[1].send(b"x")
    assert neighbour[0].recv(1) == b"x"
    for end in (*dead, *neighbour):
        end.close()


def test_of_one_port_only_and_never_those_of_the_host_with_itself():
    asked, own = pair("127.83.0.9"), pair("127.0.0.1")
    port = asked[1].getsockname()[1]
    assert asyncio.run(end_connections("127.83.0.9", port + 1)) == ""
    assert asyncio.run(end_connections(None, port)) == ""
    asked[1].send(b"x")
    assert asked[0].recv(1) == b"x"
    assert asyncio.run(end_connections("127.83.0.9", port)) == ""
    with pytest.raises(ConnectionAbortedError):
        asked[0].recv(1)
    own[1].send(b"x")
    assert own[0].recv(1) == b"x"
    for end in (*asked, *own):
        end.close()


def test_a_host_without_the_tool_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "ss" in asyncio.run(end_connections("127.83.0.9"))
