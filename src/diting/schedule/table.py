# SPDX-License-Identifier: GPL-3.0-or-later
"""How every job of the table stands: for people, for Prometheus, and for whoever asks by exit status."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.calendar_judge import Row, Seen, Standing, judge
from .run import held, lock_of
from .state import State, StateError, keep, read

if TYPE_CHECKING:
    from .config import Table

UNIT = "diting-job-{name}.timer"
_ASK_SECONDS = 20.0
_MICRO = 1_000_000


class LookError(Exception):
    """systemd or a job's file could not be read; the message says which."""


@dataclass(frozen=True)
class Found:
    """One job: its row, and what it was judged by."""

    row: Row
    seen: Seen


def look(table: Table, *, remember: bool = False) -> list[Found]:
    """Judge every job, in the order of the table. ``remember`` keeps when a new job was first seen. Raises LookError."""
    now = time.time()
    timers = _timers()
    found = []
    try:
        for job in table.jobs:
            with held(table.state_dir / lock_of(job.name)) as free:
                state = read(table.state_dir, job.name)
                if state is None:
                    state = State(name=job.name, since=now)
                    if remember and free:
                        keep(table.state_dir, state)
            seen = Seen(
                since=state.since,
                begun=state.begun,
                ended=state.ended,
                status=state.status,
                succeeded=state.succeeded,
                next_run=timers.get(UNIT.format(name=job.name)),
                running=not free,
            )
            found.append(Found(judge(job.wanted, seen, now), seen))
    except StateError as error:
        raise LookError(str(error)) from error
    return found


def _timers() -> dict[str, float]:
    """Next start of each timer of ours that is to start anything, in seconds since 1970."""
    command = ["systemctl", "list-timers", "--all", "--output=json", UNIT.format(name="*")]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        listed: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        return {str(one["unit"]): float(one["next"]) / _MICRO for one in listed if one["next"]}
    except subprocess.CalledProcessError as error:
        raise LookError(
            f"{' '.join(command)}: exit status {error.returncode}: {error.stderr.strip()}"
        ) from error
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        raise LookError(f"{' '.join(command)}: {error}") from error


def as_text(found: list[Found]) -> list[str]:
    """A table for a terminal, the words that matter first."""
    rows = [("JOB", "STANDING", "NEXT", "LAST WELL", "WHY")]
    rows += [
        (
            one.row.name,
            one.row.standing.value.upper(),
            _time(one.seen.next_run),
            _time(one.seen.succeeded),
            one.row.why,
        )
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([*(row[n].ljust(widths[n]) for n in range(4)), row[4]]) for row in rows]


def _time(moment: float | None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)) if moment else "-"


def as_data(found: list[Found]) -> list[dict[str, Any]]:
    """The same for programs; times in seconds since 1970."""
    return [
        {
            "name": one.row.name,
            "standing": one.row.standing.value,
            "why": one.row.why,
            "due": one.row.due,
            "next_run": one.seen.next_run,
            "last_success": one.seen.succeeded,
            "last_status": one.seen.status,
        }
        for one in found
    ]


def worst(found: list[Found]) -> int:
    """Exit status of a look: 1 when something is overdue, failed, or will not be started."""
    bad = (Standing.OVERDUE, Standing.FAILED, Standing.UNSCHEDULED)
    return int(any(one.row.standing in bad for one in found))


_FIGURES = (
    ("due_timestamp_seconds", "From this moment on the job is overdue.", lambda one: one.row.due),
    ("begins_timestamp_seconds", "When it begins, or has to be begun.", lambda one: one.row.begins),
    ("remind_timestamp_seconds", "From when on people are told that it begins.", lambda one: one.row.remind),
    (
        "last_success_timestamp_seconds",
        "End of the last run that ended well.",
        lambda one: one.seen.succeeded,
    ),
    ("last_run_timestamp_seconds", "Begin of the last run.", lambda one: one.seen.begun),
    (
        "failed",
        "1 when the last run ended badly or was cut off.",
        lambda one: (
            None if one.seen.begun is None else int(one.seen.cut_off or one.seen.status not in (None, 0))
        ),
    ),
    (
        "unscheduled",
        "1 when nothing will start it.",
        lambda one: int(one.row.standing is Standing.UNSCHEDULED),
    ),
)


def as_metrics(found: list[Found]) -> str:
    """In Prometheus's text format. The last figure says when somebody looked: the others are as old as that."""
    text = []
    for name, words, value in _FIGURES:
        text += [f"# HELP diting_schedule_{name} {words}", f"# TYPE diting_schedule_{name} gauge"]
        text += [
            f'diting_schedule_{name}{{name="{one.row.name}"}} {value(one)}'
            for one in found
            if value(one) is not None
        ]
    text += [
        "# HELP diting_schedule_looked_timestamp_seconds When the jobs were last looked at.",
        "# TYPE diting_schedule_looked_timestamp_seconds gauge",
        f"diting_schedule_looked_timestamp_seconds {time.time():.3f}",
    ]
    return "\n".join(text) + "\n"
