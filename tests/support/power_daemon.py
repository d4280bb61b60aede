# SPDX-License-Identifier: GPL-3.0-or-later
"""Power control as a real process, over hosts that are files: ``<dir>/<host>`` holds on, off or anything else.

A file ``<dir>/refuse`` makes every order fail. TEST_HOLD_SECONDS shortens the hold of a fence.
Run as: python power_daemon.py LAB_HOME HOSTS_DIR
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from diting.lab import instance as lab
from diting.lab import power as power_control
from diting.lab import power_service
from diting.lab.podman import PodmanError, Power
from diting.lab.power import serve


class FileHosts:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def state(self, host: str) -> tuple[Power, str]:
        try:
            return Power((self.directory / host).read_text().strip()), ""
        except (OSError, ValueError) as error:
            return Power.UNKNOWN, str(error)

    def on(self, host: str) -> bool:
        return self._set(host, Power.ON)

    def off(self, host: str) -> bool:
        return self._set(host, Power.OFF)

    def _set(self, host: str, wanted: Power) -> bool:
        if (self.directory / "refuse").exists():
            raise PodmanError("the backend refuses")
        changed = self.state(host)[0] is not wanted
        (self.directory / host).write_text(wanted.value)
        return changed


if __name__ == "__main__":
    if "TEST_HOLD_SECONDS" in os.environ:
        power_control.HOLD_SECONDS = float(os.environ["TEST_HOLD_SECONDS"])
    instance = lab.load(Path(sys.argv[1]))
    lock = power_service.lock(instance)
    serve(instance, FileHosts(Path(sys.argv[2])), power_service.fingerprint(instance))
