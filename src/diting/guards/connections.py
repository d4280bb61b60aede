# SPDX-License-Identifier: GPL-3.0-or-later
"""End some of this host's TCP connections, with iproute2's ``ss --kill``."""

from __future__ import annotations

import asyncio
import contextlib

_SECONDS = 2.0


async def end_connections(address: str | None, port: int | None = None) -> str:
    """Have the kernel abort the TCP connections of this host to ``address`` (or any that is not its own loopback), and to
    ``port`` (or any); what stood in the way, or "".

    A route alone only stops new ones: whoever waits for an answer of a host that has lost its power (Patroni for its etcd, up
    to a third of retry_timeout) goes on waiting. Only what is established: attempts to connect meet the route, and among them
    are the probes of this host, whose end must not look like an answer. Takes CAP_NET_ADMIN and a kernel with
    INET_DIAG_DESTROY; ``ss`` says nothing of one without.
    """
    # etcd's gateway talks to etcd itself over loopback, and has a pause before it does so again.
    to = ["not", "dst", "127.0.0.0/8"] if address is None else ["dst", address]
    if port is not None:
        to += ["and", "dport", "=", f":{port}"]
    try:
        process = await asyncio.create_subprocess_exec(
            "ss", "--kill", "--tcp", "--numeric", "--no-header", "state", "established", *to,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        return f"ss: {error}"
    try:
        async with asyncio.timeout(_SECONDS):
            _, told = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return f"ss: no end within {_SECONDS:g} s"
    words = told.decode("utf-8", "replace").strip()
    return f"ss: exit {process.returncode}: {words}" if process.returncode else ""
