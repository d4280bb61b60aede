# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose is the archive? Two clusters in one prefix overwrite each other's objects, and neither can be recovered.

Asked once for each server and prefix since the machine was started, before the first file is archived: nothing of a cluster
that was pointed at another's prefix by mistake gets there.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

FILE = "owner"
SENTINEL = "_backup_stop_sentinel.json"
_ASK_SECONDS = 10.0
_MOST_NAMES = 100_000
_MOST_ASKED = 20
"""So many backups, the newest by name, are asked whose they are."""
_PREFIXES = ("WALG_S3_PREFIX", "WALG_FILE_PREFIX")


class OwnerError(Exception):
    """The prefix has backups of another cluster, or nobody could look; the message says which, and what to do."""


def refuse_foreign(walg: dict[str, Any], system: int | None, state_dir: str) -> None:
    """Unless that was asked before. Raises OwnerError.

    An archive without a backup belongs to nobody yet, and a server that does not say who it is cannot be told apart.
    """
    if system is None:
        return
    path = os.path.join(state_dir, FILE)
    mark = f"{system} {walg.get('AWS_ENDPOINT') or ''} {prefix_of(walg)}\n"
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as handle:
        if handle.read() == mark:
            return
    if not _is_ours(walg, system):
        return
    temporary = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError):
        with open(temporary, "w", encoding="utf-8") as handle:
            handle.write(mark)
        os.replace(temporary, path)


def _is_ours(walg: dict[str, Any], system: int) -> bool:
    """Whether a backup says so; False when none says anything. Refused only on the word of backups that are another's, and of none of ours.

    One that cannot be read (a metadata.json that is frozen, or of a WAL-G that did not write who it is) says nothing: it must not
    hold up what is archived now.
    """
    # Late: the usual call needs no HTTP client, and importing one costs as much as everything else.
    import json

    from . import store

    folder = f"{store.BACKUP_FOLDER}/"
    try:
        where = store.open_store(walg)
        names = where.names(folder, _MOST_NAMES, _ASK_SECONDS)
    except store.StoreError as error:
        raise OwnerError(str(error)) from error
    ends = sorted(
        name.removeprefix(folder).removesuffix(SENTINEL) for name in names if name.endswith(SENTINEL)
    )
    foreign = ("", "")
    for name in reversed(ends[-_MOST_ASKED:]):
        try:
            found = int(
                json.loads(where.read(f"{folder}{name}/metadata.json", _ASK_SECONDS))["system_identifier"]
            )
        except (store.StoreError, ValueError, KeyError, TypeError):
            continue
        if found == system:
            return True
        foreign = (name, str(found))
    if foreign[0]:
        raise OwnerError(words(walg, *foreign, str(system)))
    return False


def prefix_of(walg: dict[str, Any]) -> str:
    """Where these settings archive to."""
    return next((str(walg[name]) for name in _PREFIXES if walg.get(name)), "")


def words(walg: dict[str, Any], backup: str, found: str, system: str) -> str:
    """What is wrong, and what to do."""
    return (
        f"{prefix_of(walg)} has {backup} of database system {found}, and this one is {system}: give each cluster a prefix of its "
        "own (walg_prefix), or restore from that one"
    )
