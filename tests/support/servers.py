# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests that start servers on this machine share: patience, a port, a certificate, PostgreSQL's programs."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PG_BIN = Path("/usr/lib/postgresql/15/bin")
_GIVEN: set[int] = set()


def wait_until(what: str, ready: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What ``ready`` returns once that is true; ``what`` it stands for is what the failure names."""
    end = time.monotonic() + seconds
    while not (found := ready()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return found


def free_port() -> int:
    """A TCP port that nobody has right now, and that this process has not been given before.

    Below the range from which the kernel takes ports for outgoing connections: one of those would have it by the time
    the server binds.
    """
    while True:
        port = random.randrange(10240, 32768)
        if port in _GIVEN:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            _GIVEN.add(port)
            return port


def self_signed(key: Path, certificate: Path, name: str, alternative: str = "IP:127.0.0.1") -> None:
    """A new key, and a certificate for two days that it signed itself."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-noenc", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )


def require_postgres() -> None:
    """Skip the test on a machine that cannot run a PostgreSQL server."""
    if not (PG_BIN / "initdb").exists():
        pytest.skip(f"PostgreSQL 15 server binaries are not installed: {PG_BIN}/initdb is missing")
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("user postgres does not exist")
    if os.geteuid() != 0:
        pytest.skip("only root can start PostgreSQL as user postgres")


def own(path: Path) -> None:
    """Give a file or folder to postgres."""
    shutil.chown(path, "postgres", "postgres")


def as_postgres(*command: Any, cwd: Path, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    """Run a command as postgres. A server that it leaves behind must log to a file: a pipe would stay open."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "LC_ALL": "C.UTF-8"},
        user="postgres",
        group="postgres",
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def checked(*command: Any, cwd: Path, timeout: float = 90) -> str:
    """Stdout of a command that has to succeed as postgres."""
    done = as_postgres(*command, cwd=cwd, timeout=timeout)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout
