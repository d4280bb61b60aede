# SPDX-License-Identifier: GPL-3.0-or-later
"""Approvals bound to a plan: what was agreed to, by whom, until when. Pure.

An approval names the SHA-256 of the canonical JSON of one plan. If a single word of the plan
changes afterwards, the approval is for something else and does not count. Running out of time
never means yes.

An approval is a record, not a signature: it is as trustworthy as the account that hands it in.
Several approvers are a matter of the policy's ``approvals.required``; the gate takes a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from . import journal
from .verdict import Reason

_KEYS = frozenset({"plan_sha256", "issued_by", "issued_at", "expires_at"})


class ApprovalError(Exception):
    """An approval that cannot be read; the text names the key, the value found and the one wanted."""


@dataclass(frozen=True)
class Approval:
    """One person's (or, for a drill, one tool's) yes to exactly one plan. Times carry their zone."""

    plan_sha256: str
    issued_by: str
    issued_at: datetime
    expires_at: datetime

    def as_dict(self) -> dict[str, str]:
        """The JSON form, which :func:`parse_approval` reads."""
        return {
            "plan_sha256": self.plan_sha256,
            "issued_by": self.issued_by,
            "issued_at": journal.utc_text(self.issued_at),
            "expires_at": journal.utc_text(self.expires_at),
        }


def plan_sha256(plan: Mapping[str, Any]) -> str:
    """Hex SHA-256 that names this plan. Raises :class:`journal.JournalError` if it cannot be JSON."""
    return journal.sha256_of(plan)


def issue(plan: Mapping[str, Any], *, issued_by: str, issued_at: datetime, lifetime_seconds: int) -> Approval:
    """A fresh approval of ``plan``, valid for ``lifetime_seconds`` from ``issued_at``.

    Raises :class:`ApprovalError` for an empty plan: a yes to nothing in particular is no approval.
    """
    if not plan:
        raise ApprovalError("plan: found an empty one, wanted what is going to be done")
    return Approval(plan_sha256(plan), issued_by, issued_at, issued_at + timedelta(seconds=lifetime_seconds))


def parse_approval(data: object, path: str = "approval") -> Approval:
    """``data`` as an approval. Raises :class:`ApprovalError` with the path of what is wrong."""
    if not isinstance(data, Mapping):
        raise ApprovalError(f"{path}: found {type(data).__name__}, wanted an object")
    missing, unknown = sorted(_KEYS - data.keys()), sorted(str(k) for k in data.keys() - _KEYS)
    if missing or unknown:
        raise ApprovalError(f"{path}: missing keys {missing}, unknown keys {unknown}")
    for key in ("plan_sha256", "issued_by"):
        if not isinstance(data[key], str) or not data[key].strip():
            raise ApprovalError(f"{path}.{key}: found {data[key]!r}, wanted a text")
    times: dict[str, datetime] = {}
    for key in ("issued_at", "expires_at"):
        try:
            times[key] = journal.parse_utc(str(data[key]))
        except ValueError as error:
            raise ApprovalError(f"{path}.{key}: found {data[key]!r}, wanted a UTC time: {error}") from error
    return Approval(data["plan_sha256"], data["issued_by"].strip(), times["issued_at"], times["expires_at"])


def objection(
    approval: Approval,
    *,
    wanted_sha256: str,
    now: datetime,
    max_lifetime_seconds: int,
    clock_skew_seconds: int,
) -> Reason | None:
    """Why ``approval`` does not count for the plan ``wanted_sha256`` at ``now``; None if it does."""
    skew = timedelta(seconds=clock_skew_seconds)
    who = approval.issued_by
    if approval.plan_sha256 != wanted_sha256:
        return Reason(
            "approval_other_plan",
            f"the approval by {who} is for another plan: this one was changed, or was never approved",
            approval.plan_sha256,
            wanted_sha256,
        )
    if now >= approval.expires_at:
        return Reason(
            "approval_expired",
            f"the approval by {who} ended at {journal.utc_text(approval.expires_at)}; ask for a new one",
            journal.utc_text(now),
            journal.utc_text(approval.expires_at),
        )
    if approval.issued_at > now + skew:
        return Reason(
            "approval_from_future",
            f"the approval by {who} was issued at {journal.utc_text(approval.issued_at)}, which is"
            " still to come: check the clocks",
            journal.utc_text(approval.issued_at),
            journal.utc_text(now),
        )
    lifetime = (approval.expires_at - approval.issued_at).total_seconds()
    if lifetime > max_lifetime_seconds:
        return Reason(
            "approval_too_long",
            f"the approval by {who} is valid for {lifetime:.0f} s, the policy allows {max_lifetime_seconds} s",
            lifetime,
            max_lifetime_seconds,
        )
    return None


def covers(plan: Mapping[str, Any], scenario: str, target: str) -> bool:
    """Whether the plan itself says that it includes ``scenario`` on ``target``.

    Either ``plan["scenario"]`` and ``plan["target"]`` name them, or an entry of ``plan["covers"]``
    (a list of objects with the same two keys, patterns allowed) does. Without this a yes to one
    thing could be shown at the door for another.
    """
    entries: list[object] = [plan]
    extra = plan.get("covers", [])
    if isinstance(extra, list):
        entries += extra
    return any(
        isinstance(entry, Mapping)
        and isinstance(entry.get("scenario"), str)
        and isinstance(entry.get("target"), str)
        and fnmatchcase(scenario, entry["scenario"])
        and fnmatchcase(target, entry["target"])
        for entry in entries
    )


def approvers(approvals: Iterable[Approval], *, actor: str, required: int) -> frozenset[str]:
    """The distinct people among valid ``approvals`` whose yes counts.

    As soon as more than one is required the one who asks no longer counts: four eyes are two people.
    """
    people = {approval.issued_by for approval in approvals}
    return frozenset(people - {actor} if required > 1 else people)
