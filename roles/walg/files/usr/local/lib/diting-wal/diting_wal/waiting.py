# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits to be archived on this host, as figures for Prometheus.

By the marks that PostgreSQL leaves in its data directory and not by SQL, so that it is known of a server that is stopped, hangs
or takes no more connections, too. "Could not look" is a figure of its own, and beside it there is none that says that nothing waits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from typing import NamedTuple

PROGRAM = "diting-wal archive-metrics"
EXIT_WELL, EXIT_UNKNOWN = 0, 2
READY = ".ready"
"""End of the mark of a file that waits: a segment, a history, the label of a backup."""
_AHEAD_SECONDS = 2.0
"""A mark that is younger than now by more than this is of another clock."""
_FIXES = {
    errno.ENOENT: (
        "none while this member is copied anew; else role walg with the right walg_archive_data_directory"
    ),
    errno.EACCES: "run it as root, or as the owner of the data directory",
}


class LookError(Exception):
    """Nobody knows what waits; the message says where, what was found and wanted, and what to do."""


class Waiting(NamedTuple):
    """Files that wait to be archived."""

    files: int
    size: int
    """Bytes in all."""
    oldest: float
    """Seconds that the oldest has waited; 0 when none does."""
    ahead: str
    """A mark from the future, if there is one: how long that file has waited nobody knows, and it is not in ``oldest``."""


def look(data_dir: str) -> Waiting:
    """Look at the marks. Raises LookError."""
    wal = os.path.join(data_dir, "pg_wal")
    folder = os.path.join(wal, "archive_status")
    marked: dict[str, float] = {}
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(handle) as entries:
                for entry in entries:
                    # One that goes away meanwhile has been archived.
                    with contextlib.suppress(FileNotFoundError):
                        if entry.name.endswith(READY):
                            marked[entry.name] = entry.stat(follow_symlinks=False).st_mtime
            # All of them may have gone because the data directory was moved away or removed, and then nothing was archived.
            if not os.path.samestat(os.fstat(handle), os.stat(folder)):
                raise LookError(
                    f"{folder}: found another directory than a moment ago; wanted one. Fix: none, look again"
                )
        finally:
            os.close(handle)
        size = sum(_size(os.path.join(wal, name.removesuffix(READY))) for name in marked)
    except OSError as error:
        raise LookError(_words(error, data_dir, wal, folder)) from error
    now = time.time()
    ahead = min((name for name, since in marked.items() if since > now + _AHEAD_SECONDS), default="")
    oldest = min((since for since in marked.values() if since <= now), default=now)
    return Waiting(len(marked), size, now - oldest, ahead and os.path.join(folder, ahead))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        # Archived and removed meanwhile.
        return 0


def _words(error: OSError, *places: str) -> str:
    """What is wrong, by the first of the places that cannot be looked at."""
    where = places[-1]
    for place in places:
        try:
            os.stat(place)
        except OSError as found:
            where, error = place, found
            break
    fix = _FIXES.get(error.errno or 0, "see the file system (journalctl -k)")
    return f"{where}: found {error.strerror or error}; wanted {places[-1]} with the marks of what waits. Fix: {fix}"


def figures(cluster: str, waiting: Waiting | None, looked: float) -> str:
    """In Prometheus's text format. ``looked`` is the time of the look; ``waiting`` is None when nobody could look."""
    known = waiting is not None and not waiting.ahead
    rows: list[tuple[str, str, float]] = [
        ("could_not_look", "1 if the last look at what waits to be archived failed.", not known)
    ]
    if known:
        # Left out otherwise, so that it gets old: a rule goes by that.
        rows.append(("looked_timestamp_seconds", "Time of the last look that did not fail.", looked))
    if waiting is not None:
        rows += [
            ("waiting_files", "Files that waited to be archived at that look.", waiting.files),
            ("waiting_bytes", "Their size.", waiting.size),
            (
                "oldest_waiting_seconds",
                "How long the oldest had waited at that look; 0 when none did.",
                waiting.oldest,
            ),
        ]
    label = cluster.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    text = []
    for name, words, value in rows:
        text += [
            f"# HELP diting_archive_{name} {words}",
            f"# TYPE diting_archive_{name} gauge",
            f'diting_archive_{name}{{cluster="{label}"}} {value:.15g}',
        ]
    return "\n".join(text) + "\n"


def write(path: str, text: str) -> None:
    """For everybody to read, put in place in one step. Raises OSError.

    Not flushed to the disk: after a crash of the machine it is written anew before anybody reads it.
    """
    # The collector reads what ends in .prom.
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8") as handle:
            os.fchmod(handle.fileno(), 0o644)
            handle.write(text)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def run(cluster: str, data_dir: str, path: str) -> int:
    """Look, and write the figures; returns the exit code. What went wrong is said on stderr."""
    problems = []
    waiting = None
    try:
        waiting = look(data_dir)
        if waiting.ahead:
            problems.append(
                f"{waiting.ahead}: found a time to come; wanted one that was. Fix: the clock of this host"
            )
    except LookError as error:
        problems.append(str(error))
    try:
        write(path, figures(cluster, waiting, time.time()))
    except OSError as error:
        problems.append(
            f"{path}: found {error.strerror or error}; wanted the figures of archiving in it. "
            "Fix: room on the disk, and the directory of role walg"
        )
    for problem in problems:
        print(f"{PROGRAM}: {problem}", file=sys.stderr)
    return EXIT_UNKNOWN if problems else EXIT_WELL
