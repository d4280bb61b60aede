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
    none would be left that a restore test has proven. Only backups that lead to the newest timeline count.
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
  maximum_age_seconds:
    description: Nothing is deleted when the newest good backup is older, since nothing new may come, or the clock runs ahead.
    type: float
    default: 172800
  proof_wanted:
    description: Whether a backup has to be left that a restore test on this host has proven.
    type: bool
    default: true
  expected_backups:
    description: Refuse to delete any other backup than these, as an earlier plan named them.
    type: list
    elements: str
  lock_file:
    description: Held meanwhile; a restore test holds it as well, so that its backup is not deleted under it.
    type: path
    default: /run/diting-wal/prove.lock
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

import contextlib
import fcntl
import math
import os
import shutil
import typing as t
from datetime import UTC, datetime
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils._archive import ARCHIVE_OPTIONS, look_from
from ansible_collections.diting.dr.plugins.module_utils.core.restore_proof import of_system
from ansible_collections.diting.dr.plugins.module_utils.core.retention import plan
from ansible_collections.diting.dr.plugins.module_utils.core.retention_plan import (
    Policy,
    RetentionPlan,
    check_dry_run,
    proofs_of,
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
    "maximum_age_seconds": {"type": "float", "default": 172800},
    "proof_wanted": {"type": "bool", "default": True},
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
    said = look.settings.get("WALG_PG_WAL_SIZE")
    if said and said != str(params["wal_segment_bytes"] // 2**20):
        words = f"WALG_PG_WAL_SIZE is {said} MB, and wal_segment_bytes {params['wal_segment_bytes']}: set both to the cluster's"
        raise Refused(Reason("segments_differ", words, said, params["wal_segment_bytes"]))
    systems = {backup.system_identifier for backup in look.catalog.backups}
    records = of_system(restore_records.read(Path(params["records_dir"])), systems)
    found = plan(look.catalog, look.objects, policy, datetime.now(UTC), proofs_of(records, look.catalog))
    if isinstance(found, Reason):
        raise Refused(found)
    gone = {backup.name for backup in found.deleted}
    if params["expected_backups"] is not None and not gone <= set(params["expected_backups"]):
        more = sorted(gone - set(params["expected_backups"]))
        words = f"{more[0]} would be deleted too, which was not in the plan that was shown: show it again"
        raise Refused(Reason("plan_changed", words, sorted(gone), params["expected_backups"]))
    return found, look


def named_by(walg: Walg, found: RetentionPlan, look: Look) -> list[str]:
    """What WAL-G would delete for this plan. Raises Refused, WalgError."""
    if found.cut is None:
        return []
    names = walg.would_delete_before(found.cut.name)
    wrong = check_dry_run(found, names, [item.name for item in look.objects])
    if wrong is not None:
        raise Refused(wrong)
    return names


@contextlib.contextmanager
def alone(path: str, user: str) -> t.Iterator[None]:
    """Hold the lock of restore tests. Raises Refused when somebody else does."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise Refused(Reason("not_alone", f"lock_file: {path}: {error.strerror}", path)) from error
    try:
        if os.geteuid() == 0:
            # Whoever makes it first: a restore test takes it with the rights of that user.
            shutil.chown(path, user, user)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        words = f"a restore test, or another retention, is under way on this host ({path})"
        raise Refused(Reason("not_alone", words, path)) from error
    try:
        yield
    finally:
        os.close(handle)


def carry_out(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Plan, mark, delete, look again. Raises ArchiveError, RecordsError, Refused, WalgError."""
    if not params["apply"] or check_mode:
        return _carried_out(params, act=False)
    with alone(params["lock_file"], params["user"]):
        return _carried_out(params, act=True)


def _carried_out(params: t.Mapping[str, t.Any], *, act: bool) -> dict[str, t.Any]:
    walg = Walg(params["program"], params["settings_file"], params["user"], params["seconds"])
    found, look = planned(params)
    marks = found.marks
    if act and marks:
        for name in marks:
            walg.mark_permanent(name)
        expected = [backup.name for backup in found.deleted]
        found, look = planned({**params, "expected_backups": expected})
        if left := sorted(set(marks) & set(found.marks)):
            words = f"WAL-G ended well, and {left[0]} is not permanent all the same"
            raise Refused(Reason("not_marked", words, len(left), 0))
    # As long as something is left to be marked, WAL-G would name that as well.
    names = [] if found.marks else named_by(walg, found, look)
    sizes = {item.name: item.size for item in look.objects}
    if act and names and found.cut is not None:
        walg.delete_before(found.cut.name, names)
        _look_again(params, found, look, names)
    gone = {
        "backups": [backup.name for backup in found.deleted],
        "objects": len(names),
        "bytes": sum(sizes.get(name, 0) for name in names),
    }
    return {
        "changed": bool(params["apply"] and (marks or names)),
        "fates": [fate.as_dict() for fate in found.fates],
        "cut": found.cut.name if found.cut else None,
        "why": found.why,
        "marked": list(marks),
        "deleted": gone,
        "lines": _words(found, marks, gone, act=act),
    }


def _look_again(
    params: t.Mapping[str, t.Any], found: RetentionPlan, before: Look, names: t.Iterable[str]
) -> None:
    """Raises Refused when something is gone that had to stay, or still there that was to go: WAL-G's exit proves neither."""
    try:
        now = {item.name for item in look_from(params).objects}
    except ArchiveError as error:
        words = f"WAL-G has deleted by the plan, and nobody could look what is left: {error}"
        raise Refused(Reason("not_looked", words)) from error
    lost = sorted(
        item.name for item in before.objects if item.name in found.must_stay and item.name not in now
    )
    if lost:
        words = f"{len(lost)} objects are gone that had to stay, such as {lost[0]}: look at the store's own log, and take a full backup now"
        raise Refused(Reason("lost", words, len(lost), 0))
    if left := sorted(now & set(names)):
        words = f"WAL-G ended well, and {len(left)} objects are still there, such as {left[0]}: has its key the right to delete, or are they locked?"
        raise Refused(Reason("not_deleted", words, len(left), 0))


def _words(
    found: RetentionPlan, marks: t.Collection[str], gone: t.Mapping[str, t.Any], *, act: bool
) -> list[str]:
    head = "Retention" if act else "Retention, as a plan: nothing was changed"
    if found.marks:
        count = f"  to be marked first: {len(found.marks)}; then {len(found.deleted)} backups go, with WAL that nothing needs"
    else:
        did = f"{len(marks)} marked, deleted" if act else "would be deleted"
        count = f"  {did}: {len(gone['backups'])} backups, {gone['objects']} objects, {gone['bytes'] / 2**20:.1f} MiB"
    return [head, *found.lines(), count]


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **ARCHIVE_OPTIONS,
            **_TIERS,
            "apply": {"type": "bool", "default": False},
            "expected_backups": {"type": "list", "elements": "str"},
            "lock_file": {"type": "path", "default": "/run/diting-wal/prove.lock"},
            "program": {"type": "path", "default": "/usr/local/bin/wal-g"},
            "user": {"type": "str", "default": "postgres"},
            "seconds": {"type": "float", "default": 3600},
            "records_dir": {"type": "path", "default": "/var/lib/diting/restore-tests"},
        },
        supports_check_mode=True,
    )
    params = module.params
    for name in (name for name, option in _TIERS.items() if option["type"] != "bool"):
        least = 1 if name == "minimum_full" else 0
        if not least <= params[name] < math.inf:
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
