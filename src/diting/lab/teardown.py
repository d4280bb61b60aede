# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove a lab, whatever state it is in, and prove that nothing of it is left.

``python -m diting.lab.teardown --lab-home DIR`` reads the lab's description as JSON from standard input (a half-made
or half-removed lab may have none on disk) and prints ``{"changed": bool, "done": [...]}``. Exit
status 1 when something is still there, with its name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diting.lab import instance as lab
from diting.lab import network, power_service
from diting.lab.podman import Podman, PodmanError, processes_of

if TYPE_CHECKING:
    from diting.lab.instance import Instance

GONE_DEADLINE_SECONDS = 10.0


class TeardownError(Exception):
    """Something could not be removed, or is still there."""


def own_containers(instance: Instance, listed: list[dict[str, Any]]) -> list[str]:
    """Ids of the lab's containers in podman's list, by label, or by name where a start was cut short."""
    names = {instance.container(host) for host in instance.hosts}
    return [
        item["Id"]
        for item in listed
        if (item.get("Labels") or {}).get("diting.lab") == instance.name
        or names & set(item.get("Names") or [])
    ]


def _mounts_under(path: Path) -> list[str]:
    """Mount points at or below ``path``, the deepest first."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        target = line.split()[1].encode().decode("unicode_escape")
        if target == str(path) or target.startswith(f"{path}/"):
            found.append(target)
    return sorted(found, key=len, reverse=True)


def ssh_clients(sockets: str) -> list[int]:
    """Processes named ssh in the output of ``ss -p``: shared connections outlive the playbooks."""
    return sorted({int(pid) for pid in re.findall(r'\("ssh",pid=(\d+),', sockets)})


def _ssh_connections(instance: Instance) -> list[int]:
    listing = subprocess.run(
        ["ss", "--no-header", "--tcp", "--numeric", "--processes", "dst", str(instance.subnet)],
        capture_output=True,
        text=True,
        check=True,
    )
    return ssh_clients(listing.stdout)


def _remove_tree(path: Path, done: list[str]) -> None:
    for mount in _mounts_under(path):
        subprocess.run(["umount", mount], check=False, capture_output=True)
    if left := _mounts_under(path):
        raise TeardownError(f"still mounted: {', '.join(left)}")
    if path.exists():
        shutil.rmtree(path)
        done.append(f"removed {path}")


def _wait_gone(identities: list[str]) -> None:
    deadline = time.monotonic() + GONE_DEADLINE_SECONDS
    while left := [pid for identity in identities for pid in processes_of(identity)]:
        if time.monotonic() >= deadline:
            raise TeardownError(f"processes of removed hosts still run: {left}")
        time.sleep(0.05)


def _remove_hosts(instance: Instance, run_dir: Path, done: list[str]) -> None:
    """Hosts, network and files; what several labs share goes with the last of them."""
    podman = Podman(instance.podman_home)
    listed: list[dict[str, Any]] = []
    if (instance.podman_home / "containers.conf").exists():
        listed = json.loads(podman.run("ps", "--all", "--external", "--format", "json") or "[]")
        own = own_containers(instance, listed)
        if own:
            podman.run("rm", "--force", "--volumes", "--time", "0", *own, timeout=180)
            _wait_gone(own)
            done.append(f"removed {len(own)} hosts")
        listed = json.loads(podman.run("ps", "--all", "--external", "--format", "json") or "[]")
        if left := own_containers(instance, listed):
            raise TeardownError(f"containers still there: {left}")
    done += network.remove(instance)
    definition = instance.podman_home / "networks" / f"{instance.network}.json"
    if definition.exists():
        definition.unlink()
        done.append(f"removed network {instance.network}")
    _remove_tree(instance.home, done)
    others = [path for path in instance.home.parent.glob("*/lab.json") if path.parent != instance.home]
    if not listed and not others:
        # The last lab takes podman's storage with it; the base image stays in the cache, as a tar.
        if (instance.podman_home / "storage.conf").exists():
            with contextlib.suppress(
                PodmanError
            ):  # a broken store cannot list its images; it goes in any case
                podman.run("image", "rm", "--all", "--force")
        _remove_tree(run_dir, done)
        _remove_tree(instance.podman_home, done)


def teardown(instance: Instance, run_dir: Path) -> list[str]:
    """Remove the lab and return what was done for it."""
    done: list[str] = []
    # First, so that no timer powers a host on while it is being removed.
    if power_service.stop(instance):
        done.append("stopped power control")
    for pid in _ssh_connections(instance):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            done.append(f"closed SSH connection {pid}")
    with lab.shared(instance):
        _remove_hosts(instance, run_dir, done)
    return done


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m diting.lab.teardown", description="Remove a lab.")
    parser.add_argument("--lab-home", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True, help="podman's state under /run")
    args = parser.parse_args(argv)
    try:
        done = teardown(lab.parse(json.load(sys.stdin), args.lab_home), args.run_dir)
    except (
        lab.InstanceError,
        network.NetworkError,
        PodmanError,
        TeardownError,
        OSError,
        ValueError,
    ) as error:
        parser.exit(1, f"the lab is not gone: {error}\n")
    sys.stdout.write(json.dumps({"changed": bool(done), "done": done}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
