# SPDX-License-Identifier: GPL-3.0-or-later
"""The control host's side of one witness: a connection that is kept, a look that waits for news, an order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from .runtime.ports import Clock

_LIMIT_BYTES = 65536
_PREPARE_SECONDS = 1.0
_TRUSTED_SECONDS = 2.0
"""A line that has been quiet for longer is opened anew: a host that lost power meanwhile said goodbye to nobody."""
_AHEAD_SECONDS = 2.0
_SLEW = 0.01
_ERRORS = (
    OSError,
    TimeoutError,
    EOFError,
    asyncio.LimitOverrunError,
    ValueError,
    IndexError,
)


class WitnessError(Exception):
    """No answer, or none that can be read."""


class Line:
    """One connection to one witness, opened when it is needed."""

    def __init__(self, url: str, context: Callable[[], ssl.SSLContext], now: Callable[[], float]) -> None:
        self._now = now
        self._good_at = 0.0
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 7444
        self._context = context
        self._kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    def is_lost(self) -> bool:
        """Whether the kept connection was closed by the other end, which it does with idle ones."""
        return self._kept is not None and (self._kept[0].at_eof() or self._kept[1].transport.is_closing())

    def is_open(self) -> bool:
        """Whether there is a connection that a question could go by at once, and that was good a moment ago."""
        return (
            self._kept is not None and not self.is_lost() and self._now() - self._good_at <= _TRUSTED_SECONDS
        )

    async def open(self, seconds: float) -> None:
        """Have a connection before it is needed. Raises :class:`WitnessError`."""
        try:
            async with asyncio.timeout(seconds), self._turn:
                if not self.is_open():
                    self.drop()
                await self._connected()
        except _ERRORS as error:
            self.drop()
            raise WitnessError(f"{self._host}: {str(error) or type(error).__name__}") from error

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer. Raises :class:`WitnessError`; the connection is given up then."""
        try:
            async with asyncio.timeout(seconds), self._turn:
                return await self._ask(method, path, body)
        except _ERRORS as error:
            self.drop()
            raise WitnessError(f"{self._host}: {str(error) or type(error).__name__}") from error
        except BaseException:
            self.drop()
            raise

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, dict[str, Any]]:
        reader, writer = await self._connected()
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode("ascii") + data)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(answer.partition("\r\ncontent-length:")[2].partition("\r\n")[0])
        if not 0 <= length <= _LIMIT_BYTES:
            raise ValueError("the answer is too long")
        found = json.loads(await reader.readexactly(length))
        if not isinstance(found, dict):
            raise ValueError("the answer is no object")  # noqa: TRY004 - one kind for one kind of trouble
        self._good_at = self._now()
        return int(answer.split(" ", 2)[1]), found

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.is_lost():
            self.drop()  # before anything is sent: an order must never be sent twice to find that out
        if self._kept is None:
            self._kept = await asyncio.open_connection(
                self._host, self._port, ssl=self._context(), limit=_LIMIT_BYTES
            )
            self._good_at = self._now()
        return self._kept

    def drop(self) -> None:
        """Abort the connection."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[1].transport.abort()


class Ahead:
    """How far this host's monotonic clock is ahead of a witness's, as the quickest answer of late shows it.

    Without it the same old sign of life would look newer in a slow answer than in a quick one, and newer than a read-back
    that came after it.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()
        self._run: object = None

    def latest(self, view: Mapping[str, Any], answered_at: float) -> float:
        """The latest moment at which ``view`` can have been put together: when it came, or earlier."""
        theirs = view.get("now")
        if not isinstance(theirs, float):
            return answered_at
        if view.get("run") != self._run:
            self._run = view.get("run")
            self._seen.clear()
        self._seen.append((answered_at, answered_at - theirs))
        while self._seen[0][0] < answered_at - _AHEAD_SECONDS:
            self._seen.popleft()
        # Clocks that are being slewed drift apart meanwhile.
        ahead = min(lead + (answered_at - at) * _SLEW for at, lead in self._seen)
        return min(answered_at, theirs + ahead)


class WitnessClient:
    """Keeps the newest view of one witness, and has it carry out orders. ``changed`` is called on news."""

    def __init__(
        self,
        name: str,
        url: str,
        context: Callable[[], ssl.SSLContext],
        wait_seconds: float,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self.target: str | None = None
        self.view: dict[str, Any] | None = None
        self.asked_at: float | None = None
        self.answered_at: float | None = None
        self.heard_at: float | None = None
        """The latest moment at which the view can have been put together; the ages in it count from there."""
        self.trouble = ""
        self._ahead = Ahead()
        self._clock = clock
        self._wait = wait_seconds
        self._changed = changed
        self._looks, self._orders = (Line(url, context, clock.monotonic) for _ in range(2))
        self._quick_until = self._probe_until = 0.0
        self._anew_until = 0.0
        self._anew = 0
        self._born = secrets.token_hex(4)
        self._quick = asyncio.Event()
        self._preparing: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Open the line for orders, should one be needed soon."""
        if not self._orders.is_open() and (self._preparing is None or self._preparing.done()):
            self._preparing = asyncio.create_task(self._prepare())

    async def _prepare(self) -> None:
        with contextlib.suppress(WitnessError):
            await self._orders.open(_PREPARE_SECONDS)

    def hurry(self, seconds: float, *, probes: bool) -> None:
        """Look again and again without waiting for news, for ``seconds``; with ``probes`` the witness probes quickly, too."""
        end = self._clock.monotonic() + seconds
        self._quick_until = max(self._quick_until, end)
        if probes:
            self._probe_until = max(self._probe_until, end)
        self._quick.set()

    def look_anew(self, seconds: float) -> None:
        """Have the witness drop what it has under way and look at once, quickly for ``seconds``."""
        self._anew += 1
        self._anew_until = self._clock.monotonic() + seconds
        self.hurry(seconds, probes=True)

    async def run(self) -> None:
        """Look without end."""
        while True:
            begun = self._clock.monotonic()
            left = self._quick_until - begun
            try:
                await self._look(left)
            except WitnessError as error:
                self._note_trouble(str(error))
                await self._pause(0.2)
            except Exception as error:  # noqa: BLE001 - a task that has ended would never look again
                self._note_trouble(f"{type(error).__name__}: {error}")
                await self._pause(0.2)
            else:
                # In a hurry no faster than the witness itself probes, with its answers still fresh.
                pause = 0.03 if left > 0 else 0.0
                await asyncio.sleep(max(pause, begun + 0.03 - self._clock.monotonic()))

    async def _pause(self, seconds: float) -> None:
        self._quick.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quick.wait()

    async def _look(self, quick_seconds: float) -> None:
        words = [f"target={self.target}"] if self.target else []
        probe_seconds = self._probe_until - self._clock.monotonic()
        if probe_seconds > 0:
            words.append(f"hurry={min(1.0, probe_seconds):.2f}")
            if self._clock.monotonic() < self._anew_until:
                words.append(f"anew={self._name_of_look()}")
        elif quick_seconds <= 0 and self.view is not None:
            words += [f"wait={self._wait}", f"seen={self.view.get('serial')}"]
        asked_at = self._clock.monotonic()
        status, view = await self._looks.ask("GET", f"/v1/view?{'&'.join(words)}", None, self._wait + 0.6)
        if status != 200:
            raise WitnessError(f"{self.name}: {status} {view.get('error')}")
        news = self.view is None or view.get("serial") != self.view.get("serial") or quick_seconds > 0
        self.view, self.asked_at, self.answered_at = view, asked_at, self._clock.monotonic()
        self.heard_at = self._ahead.latest(view, self.answered_at)
        self.trouble = ""
        if news:
            self._changed()

    def _name_of_look(self) -> str:
        # Unlike any that an earlier life of this host has asked for.
        return f"{self._born}-{self._anew}"

    def _note_trouble(self, words: str) -> None:
        if words != self.trouble:
            self.trouble = words
            self._changed()

    async def order(self, name: str, body: Mapping[str, Any], seconds: float) -> tuple[int, str]:
        """Status and words of an order. Raises :class:`WitnessError` when its end is not known.

        By a line that was good a moment ago, or by a new one: what is found out by sending could not be sent again.
        """
        begun = self._clock.monotonic()
        await self._orders.open(seconds)
        left = max(0.0, seconds - (self._clock.monotonic() - begun))
        status, answer = await self._orders.ask("POST", f"/v1/{name}", body, left)
        return status, str(answer.get("error", ""))

    def close(self) -> None:
        """Give the connections up."""
        if self._preparing is not None:
            self._preparing.cancel()
        self._looks.drop()
        self._orders.drop()
