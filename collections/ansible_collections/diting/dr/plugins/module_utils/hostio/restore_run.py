# SPDX-License-Identifier: GPL-3.0-or-later
"""Have ``diting-wal`` carry out one restore, in a unit of its own where systemd runs, and read what it found."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MARGIN_SECONDS = 300
"""For stopping a server and removing files, beyond the limits of the phases."""
_SYSTEMD = Path("/run/systemd/system")


@dataclass(frozen=True)
class Work:
    """What ``diting-wal`` is to do. One that is ``fleeting`` gives way to everything else, and what it leaves is taken away."""

    action: str
    unit: str
    words: str
    fleeting: bool


PROOF = Work("prove", "diting-restore-test.service", "Restore test of diting.dr", fleeting=True)
COPY = Work("rebuild", "diting-restore.service", "Restore of diting.dr: the copy", fleeting=False)
PROMOTION = Work(
    "rebuild-promote", "diting-restore.service", "Restore of diting.dr: its promotion", fleeting=False
)


class RunError(Exception):
    """The restore did not begin, or nobody can say how it ended; the message says why."""


@dataclass(frozen=True)
class Runner:
    """``program`` is ``diting-wal`` with its options; it takes the rights of ``user``."""

    program: tuple[str, ...]
    user: str
    root: str
    work: Work = PROOF

    def run(self, request: Mapping[str, Any], limit_seconds: float) -> dict[str, Any]:
        """What was found, phase by phase. Raises RunError."""
        try:
            account = pwd.getpwnam(self.user)
        except KeyError as error:
            raise RunError(f"user {self.user} does not exist on this host") from error
        with tempfile.TemporaryDirectory(prefix="diting-restore-test-", dir=_runtime()) as name:
            place = Path(name)
            path, result = place / "request.json", place / "result.json"
            path.write_text(json.dumps(dict(request), sort_keys=True), encoding="utf-8")
            path.chmod(0o644)
            if os.geteuid() == 0:
                # Last: in a directory of theirs nothing is written by root.
                os.chown(place, account.pw_uid, account.pw_gid)
            words = [
                *self.program,
                "--user",
                self.user,
                self.work.action,
                "--request",
                str(path),
                "--result",
                str(result),
            ]
            done = self._call(words, limit_seconds + _MARGIN_SECONDS, place)
            said = " ".join((done.stderr + done.stdout).split())
            try:
                facts = json.loads(result.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise RunError(
                    f"the restore did not begin (exit {done.returncode}): {said or error}"
                ) from error
        if not isinstance(facts, dict):
            raise RunError("the restore left no facts")
        if (
            done.returncode != 0
            and facts.get("complete")
            and not any(p.get("status") == "failed" for p in facts["phases"])
        ):
            raise RunError(f"exit {done.returncode}, although no phase failed: {said}")
        return facts

    def _call(self, words: Sequence[str], limit: float, place: Path) -> subprocess.CompletedProcess[str]:
        argv = [*self._unit(limit, place), *words] if self._has_systemd() else list(words)
        try:
            return subprocess.run(
                argv, capture_output=True, text=True, timeout=limit + _MARGIN_SECONDS, check=False, cwd="/"
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"{argv[0]}: {error}") from error

    def _unit(self, limit: float, place: Path) -> list[str]:
        """A unit that outlives our own connection; one of a test gives way to everything else, and cleans up even when it is killed."""
        properties = {
            "Description": self.work.words,
            # The program ends its server itself; what is left of it is killed.
            "KillMode": "mixed",
            "TimeoutStopSec": "180",
            "RuntimeMaxSec": str(int(limit)),
            # Whatever the copy believes of its paths: a tablespace that is made while it recovers has production's own.
            "ProtectSystem": "strict",
            "ProtectHome": "yes",
            "PrivateTmp": "yes",
            "ReadWritePaths": f"{Path(self.root).parent} -/run/diting-wal {place}",
        }
        if self.work.fleeting:
            clean = " ".join([*self.program, "--user", self.user, "scratch-clean", self.root])
            properties |= {
                "Nice": "10",
                "CPUWeight": "20",
                "IOWeight": "20",
                "OOMScoreAdjust": "500",
                "ExecStopPost": clean,
            }
        words = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={self.work.unit}"]
        return [*words, *(f"--property={name}={value}" for name, value in properties.items())]

    def _has_systemd(self) -> bool:
        return os.geteuid() == 0 and _SYSTEMD.is_dir() and shutil.which("systemd-run") is not None


def _runtime() -> str | None:
    return "/run" if os.geteuid() == 0 else None
