# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection.
"""Fill the file system that a data directory lies on, and no other one.

It must be a small file system of its own. Whatever could be a machine's own disk is refused: the root
file system, a directory of a larger one that was bound there, and anything above a size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
import time

from ansible_collections.diting.dr.plugins.module_utils._fault import FaultError

MOUNTS = pathlib.Path("/proc/self/mountinfo")
TMPFILES = pathlib.Path("/etc/tmpfiles.d")
FIRST_STEP_BYTES = 1 << 30
ROUNDS = 5
SMALLEST_STEP_BYTES = 4096
LEFT_BYTES = 65536
"""Less than this left for users counts as full: PostgreSQL asks for 8 KiB pages and 16 MiB segments."""


@dataclasses.dataclass(frozen=True)
class Mount:
    """A mounted file system. ``root`` is the directory of it that is mounted; "/" is all of it."""

    point: str
    root: str
    kind: str


def _plain(text: str) -> str:
    r"""Undo the octal escapes of mountinfo (``\040`` for a space)."""
    return text.encode().decode("unicode_escape")


def mount_of(directory: str, text: str) -> Mount:
    """The mount that ``directory`` lies on, from the lines of ``/proc/self/mountinfo``."""
    place = os.path.realpath(directory)
    best: Mount | None = None
    for line in text.splitlines():
        fields = line.split()
        point = _plain(fields[4])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= len(best.point)):
            best = Mount(point, _plain(fields[3]), fields[fields.index("-") + 1])
    if best is None:
        raise FaultError(f"{directory} lies on no file system that is mounted here")
    return best


def own_file_system(directory: str, maximum_bytes: int, mounts: pathlib.Path = MOUNTS) -> Mount:
    """The file system of ``directory``, if it may be filled.

    Raises ``FaultError`` naming what speaks against it.
    """
    if not pathlib.Path(directory).is_dir():
        raise FaultError(f"{directory} is no directory; nothing was filled")
    found = mount_of(directory, mounts.read_text(encoding="utf-8"))
    size = os.statvfs(found.point).f_blocks * os.statvfs(found.point).f_frsize
    against = None
    if found.point == "/":
        against = "it lies on the root file system"
    elif found.root != "/":
        against = f"{found.point} is only {found.root} of a file system that others use too"
    elif size > maximum_bytes:
        against = f"{found.point} has {size} bytes, at most {maximum_bytes} may be filled"
    if against:
        raise FaultError(
            f"{directory} needs a small file system of its own, and {against}; nothing was filled"
        )
    return found


def filler_of(mount: Mount, fault_id: str) -> str:
    """Path of the file that takes up the space."""
    return f"{mount.point}/diting-fault-{fault_id}.filler"


def boot_rule_of(fault_id: str, directory: pathlib.Path = TMPFILES) -> pathlib.Path:
    """Path of the rule that removes the filler at the next boot.

    A host may be fenced while it is full. The timer that frees it does not outlive that; this does.
    """
    return directory / f"diting-fault-{fault_id}.conf"


def free_command(filler: str, rule: pathlib.Path) -> str:
    """What takes it back."""
    return f"rm -f {filler} {rule}"


def _take(descriptor: int, taken: int) -> int:
    """Add all that is free to the file of ``taken`` bytes; its new size."""
    largest = FIRST_STEP_BYTES
    while largest >= SMALLEST_STEP_BYTES:
        # Half of what is left: asking for too much is undone by the kernel, and looks full meanwhile.
        free = os.fstatvfs(descriptor).f_bfree * os.fstatvfs(descriptor).f_frsize
        step = max(SMALLEST_STEP_BYTES, min(largest, free // 2 // SMALLEST_STEP_BYTES * SMALLEST_STEP_BYTES))
        try:
            os.posix_fallocate(descriptor, taken, step)
        except OSError as problem:
            if problem.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            largest = step // 2
        else:
            taken += step
    return taken


def fill(filler: str, rule: pathlib.Path) -> dict[str, object]:
    """Take all space of the filler's file system; returns stamps in ns and what is left, in bytes.

    Raises ``FaultError`` when space is left that nobody could take.
    """
    rule.parent.mkdir(parents=True, exist_ok=True)
    rule.write_text(f"r! {filler}\n", encoding="utf-8")
    sent = time.monotonic_ns()
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    taken = 0
    left = LEFT_BYTES
    try:
        for _round in range(ROUNDS):
            taken = _take(descriptor, taken)
            # What the kernel kept aside for writes to come is free again only now.
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
            state = os.fstatvfs(descriptor)
            left = state.f_bavail * state.f_frsize
            if left < LEFT_BYTES:
                break
    finally:
        os.close(descriptor)
    if left >= LEFT_BYTES:
        raise FaultError(f"{filler} took {taken} bytes and {left} are left; wanted less than {LEFT_BYTES}")
    stamps = {"sent_mono_ns": sent, "gone_mono_ns": time.monotonic_ns()}
    return {"stamps": stamps, "filler": filler, "filler_bytes": taken, "left_bytes": left}


def fillers(directory: pathlib.Path = TMPFILES) -> list[str]:
    """Fillers that a rule still names."""
    found = []
    for rule in sorted(directory.glob("diting-fault-*.conf")):
        with contextlib.suppress(OSError):
            found += [
                line.partition(" ")[2] for line in rule.read_text(encoding="utf-8").splitlines() if line
            ]
    return found
