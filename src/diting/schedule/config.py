# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of jobs, as role drill_schedule writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from ..core.calendar_judge import Wanted
from ..guards.runtime.settings import AbsolutePath, ConfigError, Strict, read_json

if TYPE_CHECKING:
    from pathlib import Path

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,39}$"
"""Part of the names of units and files."""


class Job(Strict):
    """One row. Times in seconds."""

    name: str = Field(pattern=NAME_PATTERN, description="Name of the job, in units, metrics and alerts")
    command: list[str] = Field(
        min_length=1, description="What is run, with its options; exit status 0 is well"
    )
    calendar: str = Field(
        "", description="When, as systemd's OnCalendar has it; empty for a job that people begin"
    )
    maximum_age_seconds: float = Field(gt=0, description="It is overdue when it last ended well longer ago")
    reminder_seconds: float = Field(
        0.0, ge=0, description="People are told so long before it begins; 0 does not"
    )
    deadline_seconds: float = Field(gt=0, description="Longest that a run may take")

    @property
    def wanted(self) -> Wanted:
        """The row as the judge reads it."""
        return Wanted(self.name, bool(self.calendar), self.maximum_age_seconds, self.reminder_seconds)


class Table(Strict):
    """All jobs of a host, and where what came of them is kept."""

    directory: AbsolutePath = Field(description="Working directory of every job")
    state_dir: AbsolutePath = Field(description="One file for each job")
    metrics_file: AbsolutePath | None = Field(
        None, description="For the textfile collector of the node exporter"
    )
    lock_seconds: float = Field(ge=0, description="How long a job waits for another one to end")
    jobs: list[Job] = Field(description="The rows")

    @field_validator("jobs")
    @classmethod
    def _once(cls, jobs: list[Job]) -> list[Job]:
        names = [job.name for job in jobs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each name once; found more than one {', '.join(twice)}")
        return jobs

    def job(self, name: str) -> Job:
        """The row of this name. Raises ConfigError."""
        for job in self.jobs:
            if job.name == name:
                return job
        raise ConfigError(
            f"job: found {name!r}, wanted one of {', '.join(job.name for job in self.jobs) or 'none'}"
        )


def load(path: Path) -> Table:
    """Read the table. Raises ConfigError."""
    return read_json(Table, path)
