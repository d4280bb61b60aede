# SPDX-License-Identifier: GPL-3.0-or-later
"""A small file system of its own for each database host's data, so that it can be full.

``python -m diting.lab.pgdata ensure|new --lab-home DIR [--host NAME ...]`` prints ``{"changed": bool, "done": [...]}``.
It is a sparse image on the machine's disk, mounted here and bound into the host: it survives a loss of
power as a disk does, and what fills it does not fill the machine. ``new`` begins with an empty one, as a
new machine does; ``ensure`` mounts what is there, after a reboot say.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from diting.lab import instance as lab

if TYPE_CHECKING:
    from collections.abc import Iterable

    from diting.lab.instance import Instance


class PgdataError(Exception):
    """A file system could not be made or mounted; the message has the command and its words."""


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PgdataError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise PgdataError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


def image_of(instance: Instance, host: str) -> Path:
    """The file that holds a host's file system."""
    return instance.home / "hosts" / host / "pgdata.img"


def mount_point(instance: Instance, host: str) -> Path:
    """Where the machine mounts it, to be bound into the host."""
    return instance.home / "hosts" / host / "pgdata"


def is_mounted(point: Path) -> bool:
    """Whether something is mounted at ``point`` in this process's sight."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return str(point) in {line.split()[4].encode().decode("unicode_escape") for line in lines}


def _make(image: Path, mebibytes: int) -> None:
    partial = image.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with partial.open("wb") as file:
        file.truncate(mebibytes << 20)
    # Nothing is kept back for root: "full" is to be full for PostgreSQL at the size that was asked for.
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-L", "pgdata", str(partial))
    partial.replace(image)


def _mount(image: Path, point: Path) -> None:
    point.mkdir(mode=0o755, exist_ok=True)
    # Direct: a commit is flushed through one page cache and not through two.
    device = _run("losetup", "--find", "--show", "--direct-io=on", str(image))
    try:
        _run("mount", "-t", "ext4", "-o", "noatime", device, str(point))
    finally:
        # While it is mounted this only means that the device goes with the mount.
        _run("losetup", "--detach", device)


def ensure(instance: Instance, hosts: Iterable[str]) -> list[str]:
    """Make the images that are missing and mount what is not mounted; says what was done."""
    done = []
    for host in hosts:
        image, point = image_of(instance, host), mount_point(instance, host)
        if is_mounted(point):
            continue
        if not image.exists():
            _make(image, instance.pgdata_mib)
            done.append(f"made {image}")
        _mount(image, point)
        done.append(f"mounted {point}")
    return done


def new(instance: Instance, hosts: Iterable[str]) -> list[str]:
    """Begin anew with an empty file system for each host; a host that runs keeps its old one until it ends."""
    for host in hosts:
        point = mount_point(instance, host)
        if is_mounted(point):
            _run("umount", str(point))
        image_of(instance, host).unlink(missing_ok=True)
    return ensure(instance, hosts)


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m diting.lab.pgdata", description="File systems of the database hosts."
    )
    parser.add_argument("action", choices=("ensure", "new"))
    parser.add_argument("--lab-home", type=Path, required=True)
    parser.add_argument("--host", action="append", help="database hosts only; all of them by default")
    args = parser.parse_args(argv)
    try:
        instance = lab.load(args.lab_home)
        wanted = instance.database_hosts if args.host is None else tuple(args.host)
        hosts = [host for host in wanted if host in instance.database_hosts and instance.pgdata_mib]
        done = ensure(instance, hosts) if args.action == "ensure" else new(instance, hosts)
    except (lab.InstanceError, PgdataError, OSError) as error:
        parser.exit(1, f"{error}\nlab_pgdata_mib: 0 does without, and without the fault disk_full\n")
    sys.stdout.write(json.dumps({"changed": bool(done), "done": done}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
