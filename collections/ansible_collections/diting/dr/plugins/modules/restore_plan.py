#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what taking a cluster back to a moment would mean."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_plan
short_description: Say what taking a cluster back to a moment would mean
version_added: 0.3.0
author: Diting DR contributors (@diting-dr)
description:
  - Reads the archive and says from which backup, along which timeline, a cluster can be taken back to a moment, how much has to be
    fetched, how long that takes by the restores that were proven (M(diting.dr.restore_test)), and what is given up by it.
  - Changes nothing. RV(plan) is what a person's approval is bound to; it does not change from one look to the next unless something does
    that decides what the cluster will contain.
  - Fails when there is no such plan, with the reason, such as a moment before the first backup, or WAL that is missing.
extends_documentation_fragment:
  - diting.dr.attributes
  - diting.dr.attributes.info_module
  - diting.dr.archive
options:
  type:
    description: How the moment is named.
    type: str
    choices: [time, lsn, name, xid]
    required: true
  value:
    description: The moment; a time with its zone, an LSN, the name of a restore point, or a transaction's number without its epoch.
    type: str
    required: true
  inclusive:
    description: Whether the moment itself is still part of what comes back; V(false) is the last moment before it. Of no effect on a name.
    type: bool
    default: true
  cluster:
    description: Name of the cluster.
    type: str
    default: main
  seed:
    description: The member on which the copy is made.
    type: str
    required: true
  points:
    description: Recorded points, as M(diting.dr.recovery_point) returns them; a name is looked for among them.
    type: list
    elements: dict
    default: []
  place:
    description: Where the moment is in the WAL, as C(lsn), C(timeline) and C(time), for a transaction that M(diting.dr.drop_log) has written
      down. The backup need not be named then.
    type: dict
  backup:
    description: The backup to begin with, instead of the newest one before the moment. Needed where nobody can tell which that is, as
      for a transaction.
    type: str
    default: ""
  timeline:
    description: The timeline to follow, instead of the newest one.
    type: int
  records_dir:
    description: Where the records of restore tests are, for the forecast.
    type: path
    default: /var/lib/diting/restore-tests
  wait_seconds:
    description: How long to wait until the moment is archived.
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: See what going back to just before three would mean
  diting.dr.restore_plan:
    type: time
    value: "2026-11-22 03:00:00+00:00"
    inclusive: false
    seed: pg2
"""

RETURN = r"""
plan:
  description: What an approval is bound to.
  returned: success
  type: dict
plan_sha256:
  description: Hash of RV(plan), as an approval names it.
  returned: success
  type: str
lines:
  description: The plan in words, with what is given up.
  returned: success
  type: list
  elements: str
backup_start_lsn:
  description: Where the backup begins, in bytes from LSN 0.
  returned: success
  type: int
size_bytes:
  description: Bytes that the copy takes, without its WAL.
  returned: success
  type: int
expected_seconds:
  description: How long the copy takes by the restores that were proven; null when none was.
  returned: success
  type: float
reason:
  description: Why there is no plan, with code, message, observed and limit.
  returned: failure
  type: dict
"""

import time
import typing as t
from datetime import UTC, datetime
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils._archive import ARCHIVE_OPTIONS, look_from
from ansible_collections.diting.dr.plugins.module_utils.core.approval import plan_sha256
from ansible_collections.diting.dr.plugins.module_utils.core.restore_plan import (
    KINDS,
    Place,
    RestorePlan,
    Target,
    TargetError,
    plan,
    read_target,
)
from ansible_collections.diting.dr.plugins.module_utils.core.restore_proof import Point, PointError
from ansible_collections.diting.dr.plugins.module_utils.core.verdict import Reason
from ansible_collections.diting.dr.plugins.module_utils.core.wal_names import parse_lsn
from ansible_collections.diting.dr.plugins.module_utils.hostio import restore_records
from ansible_collections.diting.dr.plugins.module_utils.hostio.archive_store import ArchiveError
from ansible_collections.diting.dr.plugins.module_utils.hostio.restore_records import RecordsError

_AGAIN_SECONDS = 2.0


def place_of(plain: t.Mapping[str, t.Any]) -> Place:
    """From plain values. Raises TargetError."""
    try:
        return Place(parse_lsn(plain["lsn"]), int(plain["timeline"]), datetime.fromisoformat(plain["time"]))
    except (KeyError, TypeError, ValueError) as error:
        raise TargetError(f"place: found {plain!r}, wanted lsn, timeline and time ({error!r})") from error


def planned(params: t.Mapping[str, t.Any], target: Target) -> RestorePlan | Reason:
    """The plan, as soon as the archive reaches the moment. Raises ArchiveError, PointError, RecordsError, TargetError."""
    points = [Point.read(point) for point in params["points"]]
    records = restore_records.read(Path(params["records_dir"]))
    place = place_of(params["place"]) if params["place"] else None
    end = time.monotonic() + params["wait_seconds"]
    while True:
        found = plan(
            look_from(params).catalog,
            target,
            cluster=params["cluster"],
            seed=params["seed"],
            now=datetime.now(UTC),
            points=points,
            records=records,
            place=place,
            backup=params["backup"],
            timeline=params["timeline"],
        )
        waits = isinstance(found, Reason) and found.code == "target_not_archived"
        if not waits or time.monotonic() > end:
            return found
        time.sleep(_AGAIN_SECONDS)


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **ARCHIVE_OPTIONS,
            "type": {"type": "str", "choices": list(KINDS), "required": True},
            "value": {"type": "str", "required": True},
            "inclusive": {"type": "bool", "default": True},
            "cluster": {"type": "str", "default": "main"},
            "seed": {"type": "str", "required": True},
            "points": {"type": "list", "elements": "dict", "default": []},
            "place": {"type": "dict"},
            "backup": {"type": "str", "default": ""},
            "timeline": {"type": "int"},
            "records_dir": {"type": "path", "default": "/var/lib/diting/restore-tests"},
            "wait_seconds": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        target = read_target(params["type"], params["value"], inclusive=params["inclusive"])
        found = planned(params, target)
    except (TargetError, ArchiveError, PointError, RecordsError) as error:
        module.fail_json(msg=f"restore_plan: {error}")
    if isinstance(found, Reason):
        module.fail_json(msg=f"restore_plan: {found.code}: {found.message}", reason=found.as_dict())
    module.exit_json(
        changed=False,
        plan=found.approved,
        plan_sha256=plan_sha256(found.approved),
        lines=found.lines(),
        backup_start_lsn=found.backup.start_lsn,
        size_bytes=found.size_bytes,
        expected_seconds=found.expected.seconds,
    )


if __name__ == "__main__":
    main()
