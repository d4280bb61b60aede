# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as people see it: a table of hosts, a shell, a connection string."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from diting.lab.podman import Podman, power_state

if TYPE_CHECKING:
    from diting.lab.instance import Instance

SSH_TIMEOUT_SECONDS = 15.0
# What roles run, under the names of their units; those a host does not have are not shown.
UNITS = (
    "chrony",
    "etcd",
    "patroni",
    "versitygw",
    "haproxy",
    "diting-*",
)


class ViewError(Exception):
    """What was asked for is not there; the message says what to run."""


def ssh_command(instance: Instance, host: str, *command: str) -> list[str]:
    """Argument list of an SSH session with the lab's key and pinned host keys."""
    return [
        "ssh",
        *("-i", str(instance.home / "ssh" / "id_ed25519")),
        *("-o", f"UserKnownHostsFile={instance.home / 'ssh' / 'known_hosts'}"),
        *("-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"),
        *(
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=5",
            "-o",
            "LogLevel=ERROR",
        ),
        f"root@{instance.hosts[host]}",
        *(("--", *command) if command else ()),
    ]


def _services(instance: Instance, host: str) -> tuple[str, list[str], list[str]]:
    """SSH state, active units and failed units of one host."""
    listing = "systemctl list-units --all --plain --no-legend --no-pager --type=service"
    wanted = " ".join(f"'{unit}.service'" for unit in UNITS)
    script = f"{listing} {wanted}; echo ---; {listing} --state=failed"
    try:
        done = subprocess.run(
            ssh_command(instance, host, script),
            capture_output=True,
            text=True,
            timeout=SSH_TIMEOUT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return "no answer", [], []
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or ["failed"])[-1].rpartition(": ")[2], [], []
    ours, _, failed = done.stdout.partition("---")
    active = [
        words[0] for line in ours.splitlines() if len(words := line.split()) > 3 and words[2] == "active"
    ]
    broken = [line.split()[0] for line in failed.splitlines() if line.strip()]
    return (
        "ok",
        [unit.removesuffix(".service") for unit in active],
        [u.removesuffix(".service") for u in broken],
    )


def look(instance: Instance) -> list[dict[str, Any]]:
    """One row a host, from what podman, the kernel and the host itself say now."""
    podman = Podman(instance.podman_home)

    def row(host: str) -> dict[str, Any]:
        power, why = power_state(podman, instance, host)
        ssh, active, failed = _services(instance, host) if power.value == "on" else ("-", [], [])
        return {
            "host": host,
            "address": str(instance.hosts[host]),
            "power": power.value,
            "why": why,
            "ssh": ssh,
            "services": active,
            "failed": failed,
        }

    with ThreadPoolExecutor(max_workers=len(instance.hosts)) as pool:
        return list(pool.map(row, instance.hosts))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text; a failed unit is marked with an exclamation mark."""
    lines = [("HOST", "ADDRESS", "POWER", "SSH", "SERVICES")]
    for row in rows:
        services = [*row["services"], *(f"!{unit} failed" for unit in row["failed"])]
        lines.append(
            (row["host"], row["address"], row["power"], row["ssh"], ", ".join(services) or row["why"] or "-")
        )
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[4]]).rstrip()
        for line in lines
    )


def dsn(instance: Instance) -> str:
    """A libpq connection string to the primary, wherever it is.

    No secret is in it: it names a 0600 passfile and a client certificate. Raises ``ViewError`` when the
    files are not there yet.
    """
    directory = instance.home / "client"
    files = {
        "passfile": directory / "pgpass",
        "sslrootcert": directory / "ca.crt",
        "sslcert": directory / "diting_app.crt",
        "sslkey": directory / "diting_app.key",
    }
    missing = [str(path) for path in files.values() if not path.exists()]
    if missing or not instance.database_hosts:
        what = f"missing: {', '.join(missing)}" if missing else "the lab has no database hosts"
        raise ViewError(
            f"no connection string yet: {what}. The hosts are converged by: "
            "ansible-playbook -i inventories/lab playbooks/site.yml"
        )
    hosts = instance.database_hosts
    settings = {
        "host": ",".join(hosts),
        "hostaddr": ",".join(str(instance.hosts[host]) for host in hosts),
        "port": "5432",
        "dbname": "diting",
        "user": "diting_app",
        **{name: str(path) for name, path in files.items()},
        "sslmode": "verify-full",
        "target_session_attrs": "read-write",
        "connect_timeout": "2",
        # Milliseconds: a connection to a host that vanished ends after this, not after the kernel's 15 minutes.
        "tcp_user_timeout": "3000",
    }
    return " ".join(f"{name}={value}" for name, value in settings.items())
