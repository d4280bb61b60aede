# SPDX-License-Identifier: GPL-3.0-or-later
"""Which member of a cluster takes the next backup, so that it costs clients least. Pure.

Every member asks the same question of the same view and comes to the same answer; a lock in etcd stands behind it for the
moments in which views differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LEADERS = frozenset({"leader", "master", "primary", "standby_leader"})
_LIVE = frozenset({"running", "streaming"})
_SYNCHRONOUS = frozenset({"sync_standby", "quorum_standby"})
TAG = "nobackup"
"""A member with this tag of Patroni is left out."""


@dataclass(frozen=True)
class Turn:
    """Who takes the backup, None when nobody can, and why it is the one. Names of those left out come with the reason."""

    member: str | None
    why: str
    left_out: tuple[str, ...]


def whose_turn(members: Iterable[Mapping[str, Any]], max_lag_bytes: int) -> Turn:
    """``members`` as Patroni's ``GET /cluster`` lists them.

    A standby that replicates asynchronously before a synchronous one, whose disk every commit waits for; the leader only when no
    standby can. Of several the first by name.
    """
    standbys: list[tuple[bool, str]] = []
    leaders: list[str] = []
    left_out: list[str] = []
    for member in members:
        name, role = str(member.get("name")), str(member.get("role"))
        problem = _problem(member, max_lag_bytes, role in LEADERS)
        if problem:
            left_out.append(f"{name}: {problem}")
        elif role in LEADERS:
            leaders.append(name)
        else:
            standbys.append((role in _SYNCHRONOUS, name))
    said = tuple(sorted(left_out))
    if standbys:
        synchronous, name = min(standbys)
        kind = "a synchronous standby; no other can" if synchronous else "a standby that no commit waits for"
        return Turn(name, kind, said)
    if len(leaders) == 1:
        return Turn(leaders[0], "the leader; no standby can", said)
    return Turn(None, f"no standby can, and {len(leaders)} members lead", said)


def _problem(member: Mapping[str, Any], max_lag_bytes: int, leads: bool) -> str | None:
    if (member.get("tags") or {}).get(TAG):
        return f"has the tag {TAG}"
    if member.get("state") not in _LIVE:
        return f"is {member.get('state')}"
    if leads:
        return None
    lag = member.get("lag")
    if not isinstance(lag, int) or isinstance(lag, bool):
        return f"lag is {lag}"
    return f"lags by {lag} bytes, wanted at most {max_lag_bytes}" if lag > max_lag_bytes else None
