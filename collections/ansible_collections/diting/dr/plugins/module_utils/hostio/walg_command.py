# SPDX-License-Identifier: GPL-3.0-or-later
"""Run WAL-G for what only WAL-G does to an archive: mark a backup, delete what lies before one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.retention_plan import would_delete

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_SAID = 2000


class WalgError(Exception):
    """WAL-G did not end well; the message has its last words."""


@dataclass(frozen=True)
class Walg:
    """``program`` with the settings of one archive, with the rights of ``user`` where this process may take them.

    seconds: longest that one command may take.
    """

    program: str
    settings_file: str
    user: str
    seconds: float

    def run(self, *words: str, halt: Callable[[str], bool] | None = None) -> str:
        """Both of its outputs, in which it says what it does; killed at the first line that ``halt`` is true of. Raises WalgError."""
        argv = [self.program, "--config", self.settings_file, *words]
        # Nothing from the caller's environment is taken for a setting.
        environment = {"PATH": os.defpath, "HOME": "/"}
        rights = {"user": self.user, "group": self.user, "extra_groups": []} if os.geteuid() == 0 else {}
        said: list[str] = []
        try:
            process = subprocess.Popen(
                argv,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                cwd="/",
                env=environment,
                start_new_session=True,
                **rights,  # type: ignore[call-overload]
            )
        except (OSError, LookupError) as error:
            raise WalgError(f"{' '.join(argv)}: {error}") from error
        fired = threading.Event()

        def end() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        def late_end() -> None:
            fired.set()
            end()

        late = threading.Timer(self.seconds, late_end)
        late.start()
        try:
            with process, process.stdout as lines:
                for line in lines:
                    said.append(line)
                    if halt is not None and halt(line):
                        end()
                        raise WalgError(
                            f"{' '.join(argv)}: ended by us, since it was about to do what nobody asked for: {line.strip()}"
                        )
        finally:
            late.cancel()
            if process.poll() is None:
                end()
        text = "".join(said)
        if process.returncode != 0:
            why = f"not done after {self.seconds:g} s" if fired.is_set() else f"exit {process.returncode}"
            raise WalgError(f"{' '.join(argv)}: {why}: {text[-_SAID:].strip()}")
        return text

    def mark_permanent(self, backup: str) -> None:
        """Keep it whatever is deleted, with the WAL from its start to its end, and what it is a delta upon. Raises WalgError."""
        self.run("backup-mark", backup)

    def would_delete_before(self, backup: str) -> list[str]:
        """Names of the objects that it would delete: all before this full backup by the order of names. Raises WalgError."""
        return would_delete(self.run("delete", "before", backup))

    def delete_before(self, backup: str, agreed: Collection[str]) -> None:
        """Delete them; WAL-G names each before it begins, and is ended at the first one that was not agreed upon. Raises WalgError.

        It works out anew what to delete: v0.2.19 takes a permanent backup for none when it cannot read its metadata at once.
        """
        self.run(
            "delete",
            "before",
            backup,
            "--confirm",
            halt=lambda line: not set(would_delete(line)) <= set(agreed),
        )
