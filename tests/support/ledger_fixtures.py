# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the prober tests; a test file imports the ones it uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ledger_server import Programs, Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A running server of the test file's own."""
    server = Server.create()
    yield server
    server.destroy()


@pytest.fixture
def programs(server: Server, tmp_path: Path) -> Iterator[Programs]:
    """The ledger's commands, and a table without rows."""
    programs = Programs(server, tmp_path)
    programs.diting("ledger", "prepare", "--config", programs.config("prepare"))
    with server.admin() as conn:
        conn.execute("TRUNCATE diting_ledger.ops")
    yield programs
    programs.cleanup()
