# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a guard together from its configuration and run it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import signal
import socket
from typing import TYPE_CHECKING, Any

from structlog import contextvars

from ... import __version__
from ...core.guard import problems
from ...core.guard_journal import Recorder
from ...core.journal import JournalError
from ...core.plain import PlainError, to_plain
from ...hostio.systemd import notify
from .decisions import DecisionJournal
from .log import make_logger
from .loop import Runner
from .metrics import Metrics
from .notify import Notifier
from .parts import Parts
from .pauses import PauseWatch
from .ports import Ports
from .store import Store, StoreError

if TYPE_CHECKING:
    from .config import Loaded
    from .guard import Guard

EXIT_TROUBLE = 1
EXIT_CONFIG = 78
"""BSD ``EX_CONFIG``: starting again will not help; the unit does not try."""

_CLOSE_SECONDS = 1.0


def run(loaded: Loaded) -> int:
    """Run a guard in the foreground; the exit status."""
    faults = problems(loaded.guard.machine)
    if faults:
        raise AssertionError(f"guard {loaded.guard.machine.name}: {'; '.join(faults)}")
    return asyncio.run(_main(loaded, Ports()))


def assemble(loaded: Loaded, ports: Ports) -> Parts:
    """All parts of a guard, nothing opened yet."""
    document, run_id = loaded.document, secrets.token_hex(8)
    machine = loaded.guard.machine
    guard = loaded.guard(document.settings, ports)
    log = make_logger(document.runtime.log_level, ports.clock, guard=document.title, run_id=run_id)
    store = Store(document.state_dir, document.run_dir, document.title)
    policy = guard.policy(document.settings)
    metrics = Metrics(document.title, machine)
    recorder = Recorder(
        machine.name, run_id, to_plain(policy), __version__, document.runtime.recent_observations
    )
    host = socket.gethostname()
    return Parts(
        guard=guard,
        document=document,
        policy=policy,
        ports=ports,
        store=store,
        journal=DecisionJournal(document.state_dir, document.title, recorder, ports.clock, document.runtime),
        notifier=Notifier(
            document.state_dir / "spool", document.runtime.alertmanager, ports.clock, log, metrics.notified
        ),
        pauses=PauseWatch(store, ports.clock, log),
        metrics=metrics,
        log=log,
        run_id=run_id,
        version=__version__,
        labels={"guard": document.title, "instance": host, "source": "diting_guard"},
    )


async def _main(loaded: Loaded, ports: Ports) -> int:
    stop, reasons = asyncio.Event(), list[str]()
    loop = asyncio.get_running_loop()

    def ask(number: signal.Signals) -> None:
        reasons.append(number.name)
        stop.set()
        parts.guard.wake_at_once()

    parts = assemble(loaded, ports)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    contextvars.clear_contextvars()
    async with contextlib.AsyncExitStack() as stack:
        try:
            runner = await _open(parts, stack)
        except (OSError, StoreError, PlainError, JournalError) as error:
            parts.log.error("cannot start", error=str(error))
            return EXIT_TROUBLE
        # Everything made so far lives as long as the process: not looked at again, memory stays shared.
        gc.collect()
        gc.freeze()
        await runner.run(stop)
        notify("STOPPING=1")
        await runner.end(reasons[0] if reasons else "stopped")
    return 0


async def _open(parts: Parts, stack: contextlib.AsyncExitStack) -> Runner:
    parts.store.open()
    stack.callback(parts.store.close)
    stack.callback(parts.journal.close)
    saved = parts.store.load()
    parts.notifier.open()
    runner = Runner(parts, notify)
    settings = parts.document.runtime.metrics
    if settings is not None:
        port = await parts.metrics.serve(settings)
        stack.callback(parts.metrics.close)
        parts.log.info("metrics", address=settings.address, port=port, tls=settings.tls is not None)
    runner.begin(saved)
    stack.push_async_callback(_in_time, parts.guard)
    await parts.guard.start()
    sender = asyncio.create_task(parts.notifier.run())
    stack.push_async_callback(_cancel, sender)
    return runner


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _in_time(guard: Guard[Any, Any, Any, Any]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await guard.close()
