# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run cost: one line at its end, so that the bar of seconds per task is checked by looking."""

from __future__ import annotations

DOCUMENTATION = r"""
name: run_summary
type: aggregate
short_description: Print task count, hosts and seconds per task at the end of a run
version_added: 0.1.0
author:
  - Diting DR contributors (@diting-dr)
description:
  - Prints one line after the recap with the number of tasks that ran, the number of hosts,
    the wall time of the whole run and the wall time per task.
  - A task counts once per run, over all its hosts. Skipped tasks count, because they cost time as
    well; handlers count as tasks.
requirements:
  - Listed in C(callbacks_enabled) of C(ansible.cfg).
"""

EXAMPLES = r"""
example: |
  In ansible.cfg:
    [defaults]
    callbacks_enabled = diting.dr.run_summary
"""

import time
from typing import Any

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Counts starts of tasks; everything else is arithmetic at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "diting.dr.run_summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._started = time.monotonic()
        self._tasks = 0

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Start the clock when the first playbook is loaded, not when the plugin is."""
        del playbook
        self._started = time.monotonic()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Count a task."""
        del is_conditional
        # Imports and the like run inside the controller and never reach a host.
        if task.action not in ("meta", "ansible.builtin.meta"):
            self._tasks += 1

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Count a handler as a task."""
        del task
        self._tasks += 1

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print the line."""
        seconds = time.monotonic() - self._started
        changed = sum(stats.changed.values())
        per_task = seconds / self._tasks if self._tasks else 0.0
        self._display.display(
            f"run_summary: tasks={self._tasks} hosts={len(stats.processed)} changed={changed} "
            f"seconds={seconds:.1f} seconds_per_task={per_task:.2f}"
        )
