# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill is before it breaks anything: its name, its plan, and who holds the floor.

Pure. Times are UTC text as journals write it; a drill's durations come from the ledger's clock.
"""

from __future__ import annotations

import datetime
import enum
import re
from dataclasses import asdict, dataclass
from typing import Any

DRILL_ID = re.compile(r"^\d{8}T\d{6}Z-l[1-5]-[a-z0-9_]+$")
"""``<UTC time>-<level>-<fault>``: also the name of the evidence directory."""


def drill_id(started: datetime.datetime, level: str, fault: str) -> str:
    """Name of the drill that started at ``started`` (aware, any zone)."""
    name = f"{started.astimezone(datetime.UTC):%Y%m%dT%H%M%SZ}-{level}-{fault}"
    if not DRILL_ID.match(name):
        msg = f"level {level!r} and fault {fault!r} do not make a drill's name"
        raise ValueError(msg)
    return name


@dataclass(frozen=True)
class Owner:
    """The process that runs a drill, named so that nobody can take another for it.

    A process id alone is reused; together with the machine's boot id and the start time in clock
    ticks it is not.
    """

    hostname: str
    boot_id: str
    pid: int
    pid_start: int


@dataclass(frozen=True)
class Holder:
    """The floor: at most one drill of an estate holds it. ``deadline`` is UTC text.

    Whoever closes a drill that was cut off has nothing but this to find its traces by.
    """

    drill_id: str
    owner: Owner
    deadline: str
    run_dir: str
    fault: str
    target: str
    incident_id: str = ""
    timings: str = ""
    """Preset whose timings the cluster runs by for the length of the drill; empty for none."""
    power_switches: bool = False
    """Whether power control was told to misbehave."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the file on the control host."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Holder:
        """Read it back; ``ValueError`` names what is wrong with the file."""
        try:
            owner = Owner(**data["owner"])
            return cls(**{**data, "owner": owner})
        except (TypeError, KeyError) as problem:
            msg = f"the drill lock is not readable as one: {problem!r}"
            raise ValueError(msg) from None


class Floor(enum.Enum):
    """Who has the floor. UNCERTAIN refuses like HELD: an unanswered question is not a yes."""

    FREE = "free"
    HELD = "held"
    ABORTED = "aborted"
    UNCERTAIN = "uncertain"


def judge_floor(
    holder: Holder | None, here: Owner, *, alive: bool | None, now: datetime.datetime
) -> tuple[Floor, str]:
    """Who has the floor, and the sentence to tell the operator.

    ``alive`` is whether the holder's process runs on *this* machine; it only counts when the holder
    is of this machine and this boot. For a holder elsewhere the deadline decides.
    """
    if holder is None:
        return Floor.FREE, "no drill is open"
    what = f"drill {holder.drill_id} ({holder.fault} on {holder.target})"
    owner = holder.owner
    by = f"controller {owner.hostname}, process {owner.pid}"
    if owner.hostname == here.hostname:
        if owner.boot_id != here.boot_id:
            return Floor.ABORTED, f"{what} was cut off when its {by} was restarted"
        if alive is False:
            return Floor.ABORTED, f"{what} was cut off: its {by} is gone"
        if alive:
            return Floor.HELD, f"{what} is running under {by}; wait for it or end it with Ctrl-C there"
    deadline = datetime.datetime.fromisoformat(holder.deadline)
    if now > deadline:
        return Floor.ABORTED, f"{what} under {by} has passed its deadline {holder.deadline}"
    return (
        Floor.UNCERTAIN,
        f"{what} under {by} cannot be asked from here; it may be running until {holder.deadline}",
    )
