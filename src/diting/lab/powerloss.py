# SPDX-License-Identifier: GPL-3.0-or-later
"""Inject the loss of a host's power, as the rest of the world would see it.

This is the fault, not the recovery: it shares no path with power control's ``off``. The link goes first and
from the machine's side, so that nothing the dying host's kernel still says (a FIN for each socket)
gets out; then every process is killed at once. Power control is asked one thing only: whether the
power-on that ends the fault is already promised.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from diting.core.journal import utc_text_at
from diting.lab.hosts import link_is_up, link_of, set_link
from diting.lab.podman import Podman, PodmanError, Power, judge_power, processes_of
from diting.lab.power_client import PowerClient, PowerClientError
from diting.lab.records import append_journal

if TYPE_CHECKING:
    from diting.lab.instance import Instance

DEATH_DEADLINE_SECONDS = 5.0


class PowerLossError(Exception):
    """Nothing was cut, or what was cut did not die; the message says which."""


def stamp(step: str) -> dict[str, Any]:
    """A step with its moment: UTC for people, CLOCK_MONOTONIC nanoseconds for arithmetic."""
    return {"step": step, "mono_ns": time.monotonic_ns(), "ts": utc_text_at(time.time())}


def require_promise(client: PowerClient, host: str) -> dict[str, Any]:
    """The timer that will power the host on again, the latest due one.

    Raises ``PowerLossError`` when there is none or power control cannot be asked: a fault without a limit
    of its own is not injected.
    """
    try:
        timers = [timer for timer in client.timers(host) if timer["action"] == "on"]
    except PowerClientError as error:
        raise PowerLossError(f"refused, nothing was cut: {error}") from error
    if not timers:
        raise PowerLossError(
            f"refused, nothing was cut: power control has no timer that powers {host} on again; "
            f"set one first: diting lab power timer {host} --after SECONDS --reason TEXT"
        )
    found: dict[str, Any] = timers[-1]
    return found


def cut(instance: Instance, host: str, incident_id: str | None) -> dict[str, Any]:
    """Cut link and power of ``host`` and return the record, with a moment for each step.

    Raises ``PowerLossError``. When it says "refused", nothing was touched.
    """
    name = instance.container(host)
    timer = require_promise(PowerClient.for_instance(instance, timeout_seconds=10.0), host)
    try:
        container = Podman(instance.podman_home).inspect(name)
    except PodmanError as error:
        raise PowerLossError(f"refused, nothing was cut: {error}") from error
    processes = processes_of(container.identity)
    if judge_power(container.status, container.pid, processes) is not Power.ON:
        raise PowerLossError(f"refused, nothing was cut: {host} is not on (podman says {container.status})")
    link = link_of(container.pid)
    if link is None:
        raise PowerLossError(f"refused, nothing was cut: the machine's end of {host}'s link was not found")
    init = os.pidfd_open(container.pid)
    try:
        if container.pid not in processes_of(container.identity):
            raise PowerLossError(f"refused, nothing was cut: {host}'s init changed while we looked")
        steps = _cut(instance, host, link, init, container.identity)
    finally:
        os.close(init)
    record = {
        "host": host,
        "address": str(instance.hosts[host]),
        "incident_id": incident_id,
        "link": link,
        "container_id": container.identity,
        "processes_killed": len(processes),
        "timer": timer,
        "steps": steps,
        "off": True,
    }
    append_journal(instance.power_dir / "journal.jsonl", "power_loss", record, source="powerloss")
    return record


def _cut(instance: Instance, host: str, link: str, init: int, identity: str) -> list[dict[str, Any]]:
    intent = {"host": host, "link": link}
    append_journal(instance.power_dir / "journal.jsonl", "power_loss_intended", intent, source="powerloss")
    steps = [stamp("link_cut_sent")]
    try:
        set_link(link, up=False)
    except OSError as error:
        raise PowerLossError(f"refused, nothing was cut: link {link}: {error}") from error
    steps.append(stamp("link_cut"))
    # The kernel kills the rest of a PID namespace with its init: no process sees another one die.
    signal.pidfd_send_signal(init, signal.SIGKILL)
    steps.append(stamp("killed"))
    deadline = time.monotonic() + DEATH_DEADLINE_SECONDS
    while left := processes_of(identity):
        if time.monotonic() >= deadline:
            raise PowerLossError(
                f"{host} did not die within {DEATH_DEADLINE_SECONDS:g} s: processes {left[:10]}"
            )
        time.sleep(0.002)
    steps.append(stamp("no_process_left"))
    if link_is_up(link):
        raise PowerLossError(f"link {link} of {host} came up again during the cut")
    return steps
