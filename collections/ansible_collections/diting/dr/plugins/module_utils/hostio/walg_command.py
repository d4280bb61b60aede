# SPDX-License-Identifier: GPL-3.0-or-later
"""Run WAL-G for what only WAL-G does to an archive: mark a backup, delete what lies before one."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

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

    def run(self, *words: str) -> str:
        """Both of its outputs, in which it says what it does. Raises WalgError."""
        argv = [self.program, "--config", self.settings_file, *words]
        # Nothing from the caller's environment is taken for a setting.
        environment = {"PATH": os.defpath, "HOME": "/"}
        rights = {"user": self.user, "group": self.user, "extra_groups": []} if os.geteuid() == 0 else {}
        try:
            done = subprocess.run(
                argv,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                timeout=self.seconds,
                check=False,
                cwd="/",
                env=environment,
                **rights,  # type: ignore[call-overload]
            )
        except (OSError, LookupError, subprocess.TimeoutExpired) as error:
            raise WalgError(f"{' '.join(argv)}: {error}") from error
        if done.returncode != 0:
            said = done.stdout[-_SAID:].strip()
            raise WalgError(f"{' '.join(argv)}: exit {done.returncode}: {said}")
        return str(done.stdout)

    def mark_permanent(self, backup: str) -> None:
        """Keep it whatever is deleted, with the WAL from its start to its end, and what it is a delta upon. Raises WalgError."""
        self.run("backup-mark", backup)

    def delete_before(self, backup: str, *, confirm: bool) -> str:
        """All that lies before this full backup by the order of names; without ``confirm`` it only says what. Raises WalgError."""
        return self.run("delete", "before", backup, *(["--confirm"] if confirm else []))
