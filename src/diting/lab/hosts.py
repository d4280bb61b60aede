# SPDX-License-Identifier: GPL-3.0-or-later
"""Power of the lab's hosts: what power control does when it is told to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from diting.lab.booting import yield_for_a_while
from diting.lab.podman import Podman, PodmanError, Power, init_of, look, power_state, processes_of

if TYPE_CHECKING:
    from diting.lab.instance import Instance

SWITCH_DEADLINE_SECONDS = 30.0
CUT_DEADLINE_SECONDS = 2.0
SIOCSIFFLAGS = 0x8914  # linux/sockios.h
IFF_UP = 0x1


class Hosts(Protocol):
    """What power control needs of a hypervisor."""

    def state(self, host: str) -> tuple[Power, str]:
        """Look now; for UNKNOWN the text says why nobody could tell."""
        ...

    def on(self, host: str) -> bool:
        """Bring the host to ON; False when it was. Raises ``PodmanError`` when it does not get there."""
        ...

    def off(self, host: str) -> bool:
        """Bring the host to OFF at once, without a shutdown; same return and error as ``on``."""
        ...


def peer_of(inner: Path, outer: Path = Path("/sys/class/net")) -> str | None:
    """The link in ``outer`` that is the other end of ``inner`` (a link's folder in another network's sysfs)."""
    try:
        index, peer = ((inner / name).read_text().strip() for name in ("ifindex", "iflink"))
        if index == peer:
            return None  # no pair, or one that cannot be told from none
        for entry in outer.iterdir():
            numbers = ((entry / name).read_text().strip() for name in ("ifindex", "iflink"))
            if tuple(numbers) == (peer, index):
                return entry.name
    except OSError:  # a link went while we looked, or its network cannot be read
        return None
    return None


def link_of(pid: int) -> str | None:
    """The machine's end of a container's veth pair, by the init process; None when it has none."""
    if pid <= 0:
        return None
    if (found := peer_of(Path(f"/proc/{pid}/root/sys/class/net/eth0"))) is not None:
        return found
    try:
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-o", "link", "show", "dev", "eth0"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return None
    index = done.stdout.partition("@if")[2].partition(":")[0]
    for entry in Path("/sys/class/net").iterdir():
        try:
            if (entry / "ifindex").read_text().strip() == index:
                return entry.name
        except OSError:  # the link went while we looked
            continue
    return None


def link_is_up(link: str) -> bool:
    """Whether a link of this machine is administratively up; a link that is gone is not."""
    try:
        return bool(int(Path(f"/sys/class/net/{link}/flags").read_text(), 16) & IFF_UP)
    except OSError:
        return False


def set_link(link: str, *, up: bool) -> None:
    """Switch a link by ioctl: starting a program for it would cost a busy machine milliseconds.

    Raises ``OSError`` when the kernel refuses.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = int(Path(f"/sys/class/net/{link}/flags").read_text(), 16) & 0xFFFF
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", link.encode(), flags))


class PodmanHosts:
    """Hosts as containers."""

    def __init__(self, instance: Instance, podman: Podman) -> None:
        self._instance = instance
        self._podman = podman

    def state(self, host: str) -> tuple[Power, str]:
        """State of the host's container, from podman and the kernel.

        That no process of it is left is the kernel's word alone, so podman is not asked for it.
        """
        identity = self._podman.identity(self._instance.container(host))
        if identity is not None:
            with contextlib.suppress(OSError):
                if not processes_of(identity):
                    return Power.OFF, ""
        return power_state(self._podman, self._instance, host)

    def on(self, host: str) -> bool:
        """Start the container; one that runs gets its link back, should a fault have cut it."""
        name = self._instance.container(host)
        state, _ = self.state(host)
        if state is Power.ON:
            return self._link_up(name)
        deadline = time.monotonic() + SWITCH_DEADLINE_SECONDS
        while True:
            try:
                self._podman.record_lost_end(self._podman.inspect(name))
                # What a killed host leaves behind (its mounts, its network namespace with the link
                # a fault has cut) would be taken over by the new start.
                self._podman.run("container", "cleanup", name)
                self._podman.run("start", name)
            except (PodmanError, OSError) as error:
                problem = str(error)
            else:
                state, problem = self.state(host)
                if state is Power.ON:
                    if (identity := self._podman.identity(name)) is not None:
                        yield_for_a_while(identity)
                    self._link_up(name)
                    return True
            if time.monotonic() >= deadline:
                raise PodmanError(f"not on within {SWITCH_DEADLINE_SECONDS:g} s: {problem or state.value}")
            time.sleep(0.1)

    def off(self, host: str) -> bool:
        """Kill the container's processes, as the loss of power would.

        The link goes first: what has no power says goodbye to nobody, and a client that got a FIN for
        each socket would notice sooner than it ever will.
        """
        name = self._instance.container(host)
        identity = self._podman.identity(name)
        cut = None if identity is None else self._cut(identity)
        if cut is not None:
            return cut
        state, _, container = look(self._podman, self._instance, host)
        if state is Power.OFF:
            return False
        link = link_of(container.pid) if container else None
        if link is not None:
            with contextlib.suppress(OSError):  # killed all the same, should the link be gone by now
                set_link(link, up=False)
        deadline = time.monotonic() + SWITCH_DEADLINE_SECONDS
        problem = ""
        while True:
            try:
                self._podman.run("kill", "--signal", "KILL", name)
            except PodmanError as error:
                problem = str(error)
            state, why = self.state(host)
            if state is Power.OFF:
                return True
            if time.monotonic() >= deadline:
                raise PodmanError(
                    f"not off within {SWITCH_DEADLINE_SECONDS:g} s: {why or problem or state.value}"
                )
            time.sleep(0.05)

    @staticmethod
    def _cut(identity: str) -> bool | None:
        """As :meth:`off`, without starting a program; None when that is not enough."""
        try:
            processes = processes_of(identity)
            if not processes:
                return False
            if (init := init_of(processes)) is None:
                return None
            handle = os.pidfd_open(init)  # from here on the number cannot come to mean another process
        except OSError:
            return None
        try:
            if init not in processes_of(identity):
                return None
            if (link := link_of(init)) is not None:
                with contextlib.suppress(OSError):  # killed all the same, should the link be gone by now
                    set_link(link, up=False)
            # The kernel kills the rest of a PID namespace with its init.
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            deadline = time.monotonic() + CUT_DEADLINE_SECONDS
            # The init is gone only after them; looking through all processes meanwhile would slow them down.
            select.select([handle], [], [], CUT_DEADLINE_SECONDS)
            while processes_of(identity):
                if time.monotonic() >= deadline:
                    return None
                time.sleep(0.002)
        except OSError:
            return None
        finally:
            os.close(handle)
        return True

    def _link_up(self, name: str) -> bool:
        link = link_of(self._podman.inspect(name).pid)
        if link is None:
            raise PodmanError(f"{name} runs and its network link cannot be found")
        if link_is_up(link):
            return False
        try:
            set_link(link, up=True)
        except OSError as error:
            raise PodmanError(f"link {link} of {name}: {error}") from error
        return True
