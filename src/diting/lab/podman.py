# SPDX-License-Identifier: GPL-3.0-or-later
"""What podman and the kernel say about the lab's hosts, and the few orders given to them."""

from __future__ import annotations

import enum
import json
import os
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diting.lab.instance import Instance

LOOK_TIMEOUT_SECONDS = 10.0
ORDER_TIMEOUT_SECONDS = 60.0
KILLED_EXIT = 137
"""What conmon records for a container whose processes were killed: 128 + SIGKILL."""


class PodmanError(Exception):
    """Podman could not be run, did not answer in time or refused; the message has its words."""


class Power(enum.Enum):
    """State of a host. UNKNOWN: nobody could look, or what was seen contradicts itself."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Container:
    """One container as podman describes it. ``pid`` is 0 when it has no init process."""

    identity: str
    name: str
    status: str
    pid: int
    monitor: int = 0
    """Process id of conmon, which records how the container ended; 0 when podman names none."""


class Podman:
    """Podman with the lab's own configuration and storage, apart from the machine's."""

    def __init__(self, podman_home: Path, executable: str = "podman") -> None:
        self._executable = executable
        self._home = podman_home
        self._env = {
            **os.environ,
            "CONTAINERS_CONF": str(podman_home / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(podman_home / "storage.conf"),
            "LC_ALL": "C.UTF-8",
        }

    def run(self, *args: str, timeout: float = ORDER_TIMEOUT_SECONDS) -> str:
        """Run ``podman`` and return its output; any failure raises ``PodmanError``."""
        command = [self._executable, *args]
        try:
            done = subprocess.run(
                command, env=self._env, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise PodmanError(f"podman {args[0]}: no answer within {timeout:g} s") from None
        except OSError as error:
            raise PodmanError(f"podman cannot be run: {error}") from error
        if done.returncode != 0:
            raise PodmanError(f"podman {args[0]} failed ({done.returncode}): {done.stderr.strip()[-500:]}")
        return done.stdout

    def identity(self, name: str) -> str | None:
        """Id of the container of this name, from podman's storage as it is on disk now; None when that does not tell.

        A file instead of a program of a tenth of a second. A container that runs stands there: its record is written
        before it is started, and goes before its name can be given again.
        """
        try:
            storage = tomllib.loads((self._home / "storage.conf").read_text())["storage"]
            place = Path(storage["graphroot"]) / f"{storage['driver']}-containers" / "containers.json"
            found = [item["id"] for item in json.loads(place.read_text()) if name in item["names"]]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return str(found[0]) if len(found) == 1 and found[0] else None

    def inspect(self, name: str) -> Container:
        """Describe one container; a missing one raises ``PodmanError``."""
        out = self.run("container", "inspect", name, timeout=LOOK_TIMEOUT_SECONDS)
        try:
            data: Any = json.loads(out)[0]
            state = data["State"]
            return Container(
                data["Id"], data["Name"], state["Status"], int(state["Pid"]), int(state.get("ConmonPid", 0))
            )
        except (ValueError, LookupError, TypeError) as error:
            raise PodmanError(f"podman inspect {name}: unreadable answer: {error!r}") from error

    def record_lost_end(self, container: Container) -> bool:
        """Tell podman that a container is dead when nobody is left who would; True when it was told.

        conmon writes down how a container ended, and podman believes in "running" until then. When
        conmon was killed too (a killed session, no memory), that record never comes, and podman
        refuses to start, clean up or kill. The kernel's word is enough: no process of the container
        and no conmon. Raises ``OSError`` or ``PodmanError`` when that cannot be seen or written.
        """
        gone = not processes_of(container.identity) and not is_monitor(container)
        if container.status not in {"running", "stopping", "paused"} or not gone:
            return False
        settings = self._home / "containers.conf"
        try:
            exits = Path(tomllib.loads(settings.read_text())["engine"]["tmp_dir"]) / "exits"
        except (OSError, tomllib.TOMLDecodeError, LookupError, TypeError) as error:
            raise PodmanError(f"{settings}: engine.tmp_dir cannot be read: {error!r}") from error
        (exits / container.identity).write_text(str(KILLED_EXIT))
        return True


def processes_of(container_id: str, proc: Path = Path("/proc")) -> list[int]:
    """Processes of this machine, zombies aside, whose control group is the container's.

    The full container id in the path cannot belong to anything else. Raises ``OSError`` when
    ``/proc`` itself cannot be listed.
    """
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if container_id not in (entry / "cgroup").read_text():
                continue
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if state not in "ZX":
            found.append(int(entry.name))
    return sorted(found)


def init_of(processes: list[int], proc: Path = Path("/proc")) -> int | None:
    """The process among them that is the first of a numbering of its own; None when that cannot be told."""
    found = []
    for pid in processes:
        try:
            lines = (proc / str(pid) / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
        if len(numbers) == 2 and numbers[1] == "1":
            found.append(pid)
    return found[0] if len(found) == 1 else None


def is_monitor(container: Container, proc: Path = Path("/proc")) -> bool:
    """Whether the process that podman names as the container's conmon still is that."""
    if container.monitor <= 0:
        return False
    try:
        return container.identity in (proc / str(container.monitor) / "cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def judge_power(status: str, init_pid: int, processes: list[int]) -> Power:
    """State of a host from podman's word and the kernel's; where they differ the kernel decides.

    Processes with no init among them, or any other contradiction, is UNKNOWN, never OFF.
    """
    if not processes:
        return Power.OFF
    if status == "running" and init_pid in processes:
        return Power.ON
    return Power.UNKNOWN


def power_state(podman: Podman, instance: Instance, host: str) -> tuple[Power, str]:
    """Look at one host now. Returns the state and, for UNKNOWN, why nobody could tell."""
    state, why, _ = look(podman, instance, host)
    return state, why


def look(podman: Podman, instance: Instance, host: str) -> tuple[Power, str, Container | None]:
    """As ``power_state``, with the container as podman described it, None when podman could not be asked."""
    try:
        container = podman.inspect(instance.container(host))
        processes = processes_of(container.identity)
    except (PodmanError, OSError) as error:
        return Power.UNKNOWN, str(error), None
    state = judge_power(container.status, container.pid, processes)
    if state is Power.UNKNOWN:
        why = f"podman says {container.status} with init {container.pid}, the kernel shows {processes[:5]}"
        return state, why, container
    return state, "", container
