# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab on this machine, as ``lab/up.yml`` wrote it down in ``<lab home>/lab.json``."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_ROOT = Path("/var/lib/diting-lab")
DEFAULT_NAME = "diting"
# The keeper's two ends append one character each, and the kernel allows 15.
MAX_BRIDGE_NAME = 14
# Less does not hold an initialised cluster and its write-ahead log.
MINIMUM_PGDATA_MIB = 512


class InstanceError(Exception):
    """The lab's description is missing or wrong; the message names the place and the remedy."""


@dataclass(frozen=True)
class Instance:
    """Names, addresses and paths of one lab. ``latency_seconds`` delays each power action."""

    home: Path
    name: str
    subnet: ipaddress.IPv4Network
    gateway: ipaddress.IPv4Address
    bridge: str
    hosts: Mapping[str, ipaddress.IPv4Address]
    podman_home: Path
    power_port: int = 7443
    alert_port: int = 0
    """Where the lab's chat rooms listen; 0 for none."""
    latency_seconds: float = 0.0
    database_hosts: tuple[str, ...] = ()
    pgdata_mib: int = 0
    """Size of each database host's own file system for its data; 0 for none."""

    @property
    def network(self) -> str:
        """Name of the container network."""
        return f"diting-lab-{self.name}"

    def container(self, host: str) -> str:
        """Name of the container that plays ``host``; unknown hosts raise ``InstanceError``."""
        if host not in self.hosts:
            raise InstanceError(
                f"host {host!r} is not in the lab {self.name!r}: it has {', '.join(self.hosts)}"
            )
        return f"{self.name}-{host}"

    @property
    def power_url(self) -> str:
        """Address of power control."""
        return f"https://{self.gateway}:{self.power_port}"

    @property
    def power_dir(self) -> Path:
        """Power control's certificate, token, timers and journal."""
        return self.home / "power"

    @property
    def alerts_file(self) -> Path:
        """What the lab's chat rooms were told, a message a line of JSON."""
        return self.home / "alerts" / "received.jsonl"


def default_home(name: str = DEFAULT_NAME) -> Path:
    """Home of the lab ``name`` on this machine (``DITING_LAB_HOME`` moves all labs)."""
    return Path(os.environ.get("DITING_LAB_HOME") or DEFAULT_ROOT) / name


@contextmanager
def shared(instance: Instance) -> Iterator[None]:
    """Hold what the labs of one root share (podman's store) against a lab that comes or goes at the same time."""
    root = instance.home.parent
    if not root.is_dir():  # then nothing is there to be shared
        yield
        return
    # The folder itself is locked: it is never removed, and a lock that is removed is none.
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def load(home: Path) -> Instance:
    """Read ``lab.json`` under ``home``.

    Raises ``InstanceError`` naming every problem with its place in the file.
    """
    path = home / "lab.json"
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise InstanceError(f"no lab at {home}: {path} does not exist; run ./scripts/lab up") from None
    except (OSError, ValueError) as error:
        raise InstanceError(f"{path}: cannot be read: {error}; run ./scripts/lab up") from error
    return parse(data, home)


def parse(data: Any, home: Path) -> Instance:
    """Build an ``Instance`` from decoded JSON, reporting all problems at once."""
    problems: list[str] = []
    if not isinstance(data, dict):
        raise InstanceError("lab.json: /: want an object")

    def text(key: str) -> str:
        value = data.get(key)
        if not isinstance(value, str) or not value:
            problems.append(f"/{key}: want a non-empty string, found {value!r}")
            return ""
        return value

    def number(key: str, default: float) -> float:
        value = data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            problems.append(f"/{key}: want a number >= 0, found {value!r}")
            return default
        return float(value)

    name, bridge, podman_home = text("name"), text("bridge"), text("podman_home")
    if len(bridge) > MAX_BRIDGE_NAME:
        problems.append(f"/bridge: want at most {MAX_BRIDGE_NAME} characters, found {bridge!r}")
    subnet = ipaddress.IPv4Network("0.0.0.0/32")
    gateway = ipaddress.IPv4Address(0)
    hosts: dict[str, ipaddress.IPv4Address] = {}
    try:
        subnet = ipaddress.IPv4Network(text("subnet"))
        gateway = ipaddress.IPv4Address(text("gateway"))
        if gateway not in subnet:
            problems.append(f"/gateway: {gateway} is not in {subnet}")
    except ValueError as error:
        problems.append(f"/subnet, /gateway: {error}")
    raw = data.get("hosts")
    if not isinstance(raw, dict) or not raw:
        problems.append(f"/hosts: want an object of names to addresses, found {raw!r}")
        raw = {}
    for host, address in raw.items():
        try:
            hosts[host] = ipaddress.IPv4Address(address)
            if hosts[host] not in subnet:
                problems.append(f"/hosts/{host}: {address} is not in {subnet}")
        except ValueError:
            problems.append(f"/hosts/{host}: want an IPv4 address, found {address!r}")
    database = data.get("database_hosts", [])
    if not isinstance(database, list) or not set(database) <= set(hosts):
        problems.append(f"/database_hosts: want names from /hosts, found {database!r}")
        database = []
    port = number("power_port", 7443)
    alert_port = number("alert_port", 0)
    latency = number("latency_seconds", 0.0)
    pgdata_mib = number("pgdata_mib", 0)
    if 0 < pgdata_mib < MINIMUM_PGDATA_MIB:
        problems.append(f"/pgdata_mib: want 0, or at least {MINIMUM_PGDATA_MIB}, found {pgdata_mib:g}")
    if problems:
        raise InstanceError(f"{home / 'lab.json'}: " + "; ".join(problems))
    return Instance(
        home=home,
        name=name,
        subnet=subnet,
        gateway=gateway,
        bridge=bridge,
        hosts=hosts,
        podman_home=Path(podman_home),
        power_port=int(port),
        alert_port=int(alert_port),
        latency_seconds=latency,
        database_hosts=tuple(database),
        pgdata_mib=int(pgdata_mib),
    )
