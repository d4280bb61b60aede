# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace for one test module: packets can be dropped and routes set without anybody else feeling it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def own_network():
    """This thread, and what it starts, in a network of its own; skips where that is not allowed."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nft"):
        pytest.skip("needs root, ip and nft for a network namespace of its own")
    with Path("/proc/thread-self/ns/net").open() as before:
        if LIBC.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            assert LIBC.setns(before.fileno(), CLONE_NEWNET) == 0


def routes() -> list[str]:
    """Addresses that this network's kernel calls unreachable."""
    done = subprocess.run(["ip", "route", "show", "proto", "213"], capture_output=True, text=True, check=True)
    return [line.split()[1] for line in done.stdout.splitlines()]
