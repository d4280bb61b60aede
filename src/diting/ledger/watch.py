# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher: an independent look at single services, to confirm that a fault took effect.

It shares nothing with the prober but the clock of the host. A target's state changes only on an
answer; each change carries its bracket: the start of the last probe that saw the old state, and the
end of the probe that saw the new one. A probe without an answer in its deadline is "down", because
for a client it is; the reason tells a refusal (proof that the host lives) from silence.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

from psycopg import OperationalError

from .clock import anchor, boot_id
from .daemon import Stop, notify, prioritise
from .session import ConnectError, connect, query
from .writer import encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import pq

    from .config import Target, WatchConfig

HEARTBEAT_SECONDS = 1.0
DISK_FULL = "53100"
"""SQLSTATE disk_full."""
SORT = b"SELECT count(*) FROM (SELECT g FROM generate_series(1, 20000) g ORDER BY g DESC OFFSET 0) AS sorted"


class Watcher:
    """All targets of one configuration, one file of JSON lines."""

    def __init__(self, config: WatchConfig) -> None:
        """Open the output for appending."""
        self._config = config
        config.output.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(config.output, flags, 0o640)
        self._states: dict[str, str] = {}
        self._all_seen = asyncio.Event()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Watch until a signal or the own deadline; ``on_ready``: each target was looked at once."""
        scheduling = prioritise()
        stop = Stop(self._config.max_duration_seconds)
        start = {"run_id": self._config.run_id, "boot_id": boot_id(), "scheduling": scheduling}
        self._write({"k": "watch_start", **start})
        tasks = [asyncio.create_task(self._watch(target)) for target in self._config.targets]
        tasks.append(asyncio.create_task(self._heartbeat()))
        try:
            await self._all_seen.wait()
            notify("READY=1")
            on_ready()
            reason = await stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        notify("STOPPING=1")
        self._write({"k": "watch_stop", "stop_reason": reason, "states": dict(self._states)})
        os.close(self._fd)

    def _write(self, record: dict[str, Any]) -> None:
        os.write(self._fd, encode({**anchor(), **record}))

    async def _heartbeat(self) -> None:
        """Silence in the file must mean a dead watcher, never a quiet system."""
        while True:
            self._write({"k": "heartbeat", "states": dict(self._states)})
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _watch(self, target: Target) -> None:
        probe = PROBES[target.kind](target)
        last_same_start: int | None = None
        while True:
            start = time.monotonic_ns()
            state, detail = await _look(probe, target.deadline_seconds)
            end = time.monotonic_ns()
            before = self._states.get(target.name)
            if state != before:
                self._states[target.name] = state
                self._write(
                    {
                        "k": "transition",
                        "target": target.name,
                        "from": before,
                        "to": state,
                        "last_seen_ns": last_same_start,
                        "probe_start_ns": start,
                        "confirmed_ns": end,
                        "detail": detail,
                    }
                )
            last_same_start = start
            if len(self._states) == len(self._config.targets):
                self._all_seen.set()
            spent = (end - start) / 1e9
            await asyncio.sleep(max(0.0, target.interval_seconds - spent))


async def _look(probe: Probe, deadline_seconds: float) -> tuple[str, str | None]:
    try:
        async with asyncio.timeout(deadline_seconds):
            return await probe.look(), None
    except TimeoutError:
        probe.reset()
        return "down", "timeout"
    except (OSError, OperationalError, ConnectError, ValueError, EOFError) as error:
        probe.reset()
        if isinstance(error, ConnectionRefusedError):
            return "down", "refused"
        return "down", " ".join(str(error).split())[:200] or type(error).__name__


class Probe:
    """One way to look. ``look`` returns a state or raises; ``reset`` drops a held connection."""

    def __init__(self, target: Target) -> None:
        """Keep the target."""
        self.target = target

    async def look(self) -> str:
        """Look once."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget what a failed look left behind."""


class TcpProbe(Probe):
    """A TCP connection is accepted; nothing is sent."""

    async def look(self) -> str:
        """Connect and close at once, without lingering in TIME_WAIT on a port probed often."""
        _, writer = await asyncio.open_connection(self.target.host, self.target.port)
        writer.transport.abort()
        return "up"


class HostProbe(TcpProbe):
    """The host's kernel answers, be it with a refusal: silence means the host or its link is gone."""

    async def look(self) -> str:
        """Connect to a port nobody listens on; a RST comes from a live kernel."""
        try:
            return await super().look()
        except ConnectionRefusedError:
            return "up"


class HttpsProbe(Probe):
    """A URL answers with the expected status; any other answer is the state ``http_<status>``."""

    def __init__(self, target: Target) -> None:
        """Load the certificates once."""
        super().__init__(target)
        parts = urllib.parse.urlsplit(target.url)
        self._host = parts.hostname or ""
        self._port = parts.port or 443
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._context = ssl.create_default_context(cafile=target.ca_file)
        if target.cert_file is not None:
            self._context.load_cert_chain(target.cert_file, target.key_file)

    async def look(self) -> str:
        """One GET on a new connection: the status line is the answer."""
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._context)
        try:
            request = f"GET {self._path} HTTP/1.0\r\nHost: {self._host}\r\n\r\n"
            writer.write(request.encode("ascii"))
            line = await reader.readline()
            status = int(line.split()[1])
        except IndexError:
            raise ValueError("no HTTP status line") from None
        finally:
            writer.transport.abort()
        return "up" if status == self.target.expect_status else f"http_{status}"


class PostgresProbe(Probe):
    """A session that is kept open says whether the server takes writes: up, readonly or down.

    For the timeline only. Recovery is what the prober's committed writes say.
    """

    def __init__(self, target: Target) -> None:
        """No session yet."""
        super().__init__(target)
        self._conn: pq.abc.PGconn | None = None

    async def look(self) -> str:
        """Ask the session, opening it first if needed."""
        session = await self._session({})
        rows = await query(session, lambda c: c.send_query(b"SHOW transaction_read_only"))
        return "readonly" if rows[0][0] == "on" else "up"

    async def _session(self, extra: dict[str, str]) -> pq.abc.PGconn:
        connection = self.target.connection
        if connection is None:
            raise ValueError("no connection configured")
        if self._conn is None:
            endpoint = connection.endpoints[0]
            address = endpoint.hostaddr or endpoint.host
            named = {"application_name": "diting-watcher", **extra}
            self._conn = await connect(connection.conninfo(endpoint, address, named))
        return self._conn

    def reset(self) -> None:
        """Close the session."""
        if self._conn is not None:
            self._conn.finish()
            self._conn = None


class SpaceProbe(PostgresProbe):
    """A sort too large for its memory needs room on the server's disk: up, no_space or down.

    It leaves nothing behind, needs no right, writes no WAL and works on a replica too.
    """

    async def look(self) -> str:
        """Sort once."""
        session = await self._session({"options": "-c work_mem=64kB"})
        try:
            await query(session, lambda c: c.send_query(SORT))
        except ConnectError as error:
            if str(error).startswith(DISK_FULL):
                return "no_space"
            raise
        return "up"


PROBES: dict[str, type[Probe]] = {
    "host": HostProbe,
    "tcp": TcpProbe,
    "https": HttpsProbe,
    "postgres": PostgresProbe,
    "space": SpaceProbe,
}
