#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List backups and what can be recovered to from each."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_info
short_description: List the backups of an archive of WAL-G and what can be recovered to from each
version_added: 0.3.0
author: Diting DR contributors (@diting-dr)
description:
  - Asks the store itself and not C(wal-g backup-list), which in v0.2.19 says "No backups found" with a wrong key and exits 0.
  - A window runs from the moment at which a backup is consistent to the end of the last WAL segment before a gap, along the
    newest timeline that the backup can reach.
  - Names and sizes are looked at, and no content; M(diting.dr.backup_verify) judges, and only a restore proves.
  - The task fails when the store could not be asked. An archive that is empty is an answer.
options:
  timeline:
    description: Only the windows of backups that lead to this timeline, along it, and not along the newest one that each can reach.
    type: int
extends_documentation_fragment:
  - diting.dr.attributes
  - diting.dr.attributes.info_module
  - diting.dr.archive
"""

EXAMPLES = r"""
- name: See how far back the cluster can be recovered
  diting.dr.backup_info:
  register: archive

- name: Say it
  ansible.builtin.debug:
    msg: "{{ archive.windows | map(attribute='begin_time') | first | default('no backup') }}"
"""

RETURN = r"""
backups:
  description:
    - Finished backups, oldest first by the time they finished. Sizes are bytes, LSNs as PostgreSQL prints them, times UTC.
  returned: success
  type: list
  elements: dict
  sample:
    - name: base_000000010000000000000006
      timeline: 1
      start_time: "2026-11-22T08:24:42Z"
      finish_time: "2026-11-22T08:24:46Z"
      start_lsn: 0/6000028
      finish_lsn: 0/6002728
      pg_version: 150020
      system_identifier: "7710908455821836243"
      hostname: pg1
      is_permanent: false
      delta_from: null
      uncompressed_size: 31264498
      compressed_size: 9036105
      stored_size: 9036105
windows:
  description:
    - For each backup, or with O(timeline) each that leads to it, in the same order, what can be recovered to. C(missing) are the first thousand of the
      segments that are not there although a later one, or the backup, needs them; C(end_lsn) is null when the backup cannot be recovered at all.
  returned: success
  type: list
  elements: dict
  sample:
    - backup: base_000000010000000000000006
      timeline: 1
      recoverable: true
      begin_lsn: 0/6002728
      begin_time: "2026-11-22T08:24:46Z"
      end_lsn: 0/9000000
      missing: []
      missing_count: 0
leaves:
  description:
    - Timelines that no other one came from, newest first. More than one means that somebody's recovery once went another way; which of them
      is production's nobody can tell from the archive.
  returned: success
  type: list
  elements: int
  sample: [1]
wal:
  description: Unbroken runs of whole segments, for each timeline.
  returned: success
  type: list
  elements: dict
  sample:
    - {timeline: 1, first: "000000010000000000000001", last: "000000010000000000000008", count: 8}
wal_size:
  description: Bytes that WAL takes in the store.
  returned: success
  type: int
unfinished:
  description: Backups without a sentinel, under way or broken off, each with the bytes it takes and when its newest object was written.
  returned: success
  type: list
  elements: dict
  sample: []
unreadable:
  description: Objects whose content does not say what it should, with the reason. What belongs to them is missing above.
  returned: success
  type: dict
  sample: {}
"""

import typing as t
from datetime import UTC, datetime

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils._archive import ARCHIVE_OPTIONS, look_from
from ansible_collections.diting.dr.plugins.module_utils.core.backup_catalog import (
    Backup,
    Catalog,
    moment,
    segment_runs,
)
from ansible_collections.diting.dr.plugins.module_utils.core.wal_names import lsn_text
from ansible_collections.diting.dr.plugins.module_utils.hostio.archive_store import ArchiveError


def plain(backup: Backup) -> dict[str, t.Any]:
    """A backup as the module returns it."""
    return {
        "name": backup.name,
        "timeline": backup.timeline,
        "start_time": moment(backup.start_time),
        "finish_time": moment(backup.finish_time),
        "start_lsn": lsn_text(backup.start_lsn),
        "finish_lsn": lsn_text(backup.finish_lsn),
        "pg_version": backup.pg_version,
        "system_identifier": backup.system_identifier,
        "hostname": backup.hostname,
        "is_permanent": backup.is_permanent,
        "delta_from": backup.delta_from,
        "uncompressed_size": backup.uncompressed_size,
        "compressed_size": backup.compressed_size,
        "stored_size": backup.stored_size,
    }


def result_of(found: Catalog, timeline: int | None = None) -> dict[str, t.Any]:
    """What the module returns of a catalog."""
    led = [one for one in found.backups if timeline is None or found.reaches(one, timeline)]
    return {
        "changed": False,
        "backups": [plain(backup) for backup in found.backups],
        "windows": [found.window(backup, timeline).as_dict() for backup in led],
        "leaves": list(found.leaves),
        "wal": segment_runs(found),
        "wal_size": found.wal_size,
        "unfinished": [
            {"name": i.name, "size": i.size, "modified": moment(datetime.fromtimestamp(i.modified, UTC))}
            for i in found.unfinished
        ],
        "unreadable": dict(found.unreadable),
    }


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={**ARCHIVE_OPTIONS, "timeline": {"type": "int"}}, supports_check_mode=True
    )
    try:
        result = result_of(look_from(module.params).catalog, module.params["timeline"])
    except ArchiveError as error:
        module.fail_json(msg=f"could_not_look: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
