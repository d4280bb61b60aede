#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep in an archive what its tiers want, and delete what is beyond all of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_retention
short_description: Keep in an archive what its tiers want, and delete what is beyond all of them
version_added: 0.3.0
author: Diting DR contributors (@diting-dr)
description:
  - Decides by the times at which backups finished, never by WAL-G's own listing, what is beyond every tier; shows that as a plan; and with
    O(apply) marks the monthly backups as permanent and has WAL-G delete what lies before the oldest backup that is wanted.
  - Deletes only through WAL-G. Before that it asks WAL-G what it would delete, and refuses when anything is among it that a backup needs which is
    to stay. Afterwards it looks whether all of that is still there.
  - WAL-G v0.2.19 deletes no backup alone. What a tier would thin out among younger ones is kept, and said in RV(lines).
  - Deletes nothing while the first moment that is wanted is not covered, while fewer than O(minimum_full) good full backups would be left, or while
    none would be left that a restore test has proven.
extends_documentation_fragment:
  - diting.dr.attributes
  - diting.dr.archive
options:
  apply:
    description: Whether to carry the plan out. Without it only the plan is shown.
    type: bool
    default: false
  wal_seconds:
    description: Any moment of so long ago can be recovered to.
    type: float
    default: 604800
  snapshot_seconds:
    description: Each backup is wanted for so long.
    type: float
    default: 86400
  daily_seconds:
    description: One full backup a day is wanted for so long.
    type: float
    default: 604800
  monthly:
    description: Whether the first good full backup of each month is kept for ever.
    type: bool
    default: true
  minimum_full:
    description: Never leave fewer full backups that can be recovered.
    type: int
    default: 2
  unfinished_seconds:
    description: A backup without an end counts as being written until nothing was added to it for so long.
    type: float
    default: 86400
  program:
    description: WAL-G.
    type: path
    default: /usr/local/bin/wal-g
  user:
    description: System user that owns WAL-G's settings.
    type: str
    default: postgres
  seconds:
    description: Longest that one command of WAL-G may take.
    type: float
    default: 3600
  records_dir:
    description: Where M(diting.dr.restore_test) keeps its records. A backup that was found bad counts for nothing.
    type: path
    default: /var/lib/diting/restore-tests
attributes:
  check_mode:
    support: full
    details: Shows the plan, and what WAL-G would delete.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: See what is beyond every tier
  diting.dr.backup_retention:

- name: Have it deleted
  diting.dr.backup_retention:
    apply: true
    wal_seconds: 1209600
"""

RETURN = r"""
fates:
  description: Each backup, oldest first, with C(finished), C(size_bytes), C(action) (keep, mark or delete) and C(why).
  returned: success
  type: list
  elements: dict
cut:
  description: The backup before which all may go; null deletes nothing.
  returned: success
  type: str
why:
  description: Why that one, or none.
  returned: success
  type: str
marked:
  description: Backups that were, or would be, marked as permanent.
  returned: success
  type: list
  elements: str
deleted:
  description: C(backups), C(objects) and C(bytes) that were, or would be, deleted. What would be is known only once nothing is left to be marked.
  returned: success
  type: dict
lines:
  description: All of it in words.
  returned: success
  type: list
  elements: str
reason:
  description: Why nothing was touched, with code, message, observed and limit.
  returned: failure
  type: dict
"""

import typing as t
from datetime import UTC, datetime
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils._archive import ARCHIVE_OPTIONS, look_from
from ansible_collections.diting.dr.plugins.module_utils.core.restore_proof import of_system
from ansible_collections.diting.dr.plugins.module_utils.core.retention import (
    Policy,
    RetentionPlan,
    check_dry_run,
    plan,
    proofs_of,
    would_delete,
)
from ansible_collections.diting.dr.plugins.module_utils.core.verdict import Reason
from ansible_collections.diting.dr.plugins.module_utils.hostio import restore_records
from ansible_collections.diting.dr.plugins.module_utils.hostio.archive_store import ArchiveError
from ansible_collections.diting.dr.plugins.module_utils.hostio.restore_records import RecordsError
from ansible_collections.diting.dr.plugins.module_utils.hostio.walg_command import Walg, WalgError

if t.TYPE_CHECKING:
    from ansible_collections.diting.dr.plugins.module_utils.hostio.archive_store import Look

_TIERS: dict[str, dict[str, t.Any]] = {
    "wal_seconds": {"type": "float", "default": 604800},
    "snapshot_seconds": {"type": "float", "default": 86400},
    "daily_seconds": {"type": "float", "default": 604800},
    "monthly": {"type": "bool", "default": True},
    "minimum_full": {"type": "int", "default": 2},
    "unfinished_seconds": {"type": "float", "default": 86400},
}


class Refused(Exception):  # noqa: N818 - it is no error of anybody's: nothing is deleted, and that is said
    """Nothing more is done; ``reason`` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


def planned(params: t.Mapping[str, t.Any]) -> tuple[RetentionPlan, Look]:
    """The plan as of now. Raises ArchiveError, RecordsError, Refused."""
    policy = Policy(**{name: params[name] for name in _TIERS})
    look = look_from(params)
    systems = {backup.system_identifier for backup in look.catalog.backups}
    records = of_system(restore_records.read(Path(params["records_dir"])), systems)
    found = plan(look.catalog, look.objects, policy, datetime.now(UTC), proofs_of(records))
    if isinstance(found, Reason):
        raise Refused(found)
    return found, look


def named_by(walg: Walg, found: RetentionPlan) -> list[str]:
    """What WAL-G would delete for this plan. Raises Refused, WalgError."""
    if found.cut is None:
        return []
    names = would_delete(walg.delete_before(found.cut.name, confirm=False))
    wrong = check_dry_run(found, names)
    if wrong is not None:
        raise Refused(wrong)
    return names


def carry_out(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Plan, mark, delete, look again. Raises ArchiveError, RecordsError, Refused, WalgError."""
    walg = Walg(params["program"], params["settings_file"], params["user"], params["seconds"])
    found, look = planned(params)
    first, act = found, params["apply"] and not check_mode
    if act:
        for name in found.marks:
            walg.mark_permanent(name)
        if found.marks:
            found, look = planned(params)
            left = found.marks
            if left:
                words = f"WAL-G ended well, and {left[0]} is not permanent all the same"
                raise Refused(Reason("not_marked", words, len(left), 0))
    # As long as something is left to be marked, WAL-G would name that as well.
    names = [] if found.marks else named_by(walg, found)
    sizes = {item.name: item.size for item in look.objects}
    if act and names and found.cut is not None:
        walg.delete_before(found.cut.name, confirm=True)
        _still_there(found, look, look_from(params))
    gone = {
        "backups": [backup.name for backup in found.deleted],
        "objects": len(names),
        "bytes": sum(sizes.get(name, 0) for name in names),
    }
    return {
        "changed": bool(params["apply"] and (first.marks or names)),
        "fates": [fate.as_dict() for fate in first.fates],
        "cut": found.cut.name if found.cut else None,
        "why": found.why,
        "marked": list(first.marks),
        "deleted": gone,
        "lines": _words(first, gone, act=bool(act)),
    }


def _still_there(found: RetentionPlan, before: Look, after: Look) -> None:
    """Raises Refused when something is gone that had to stay."""
    now = {item.name for item in after.objects}
    lost = sorted(
        item.name for item in before.objects if item.name in found.must_stay and item.name not in now
    )
    if lost:
        words = f"{len(lost)} objects are gone that had to stay, such as {lost[0]}: look at the store's own log, and take a full backup now"
        raise Refused(Reason("lost", words, len(lost), 0))


def _words(found: RetentionPlan, gone: t.Mapping[str, t.Any], *, act: bool) -> list[str]:
    head = "Retention" if act else "Retention, as a plan: nothing was changed"
    did = "deleted" if act else "would be deleted"
    count = (
        f"  {did}: {len(gone['backups'])} backups, {gone['objects']} objects, {gone['bytes'] / 2**20:.1f} MiB"
    )
    if found.marks and not act:
        count = f"  to be marked first: {len(found.marks)}; then {len(found.deleted)} backups go, with WAL that nothing needs"
    return [head, *found.lines(), count]


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **ARCHIVE_OPTIONS,
            **_TIERS,
            "apply": {"type": "bool", "default": False},
            "program": {"type": "path", "default": "/usr/local/bin/wal-g"},
            "user": {"type": "str", "default": "postgres"},
            "seconds": {"type": "float", "default": 3600},
            "records_dir": {"type": "path", "default": "/var/lib/diting/restore-tests"},
        },
        supports_check_mode=True,
    )
    params = module.params
    for name, least in (
        ("minimum_full", 1),
        ("wal_seconds", 0),
        ("snapshot_seconds", 0),
        ("daily_seconds", 0),
    ):
        if params[name] < least:
            module.fail_json(msg=f"{name} is {params[name]}, wanted at least {least}")
    try:
        result = carry_out(params, module.check_mode)
    except (ArchiveError, RecordsError, WalgError) as error:
        module.fail_json(msg=f"backup_retention: {error}")
    except Refused as error:
        reason = error.reason
        module.fail_json(msg=f"backup_retention: {reason.code}: {reason.message}", reason=reason.as_dict())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
