#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge an archive of backups."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_verify
short_description: Judge an archive of WAL-G by what its store holds
version_added: 0.3.0
author: Diting DR contributors (@diting-dr)
description:
  - Asks the store itself. HEALTHY means that a backup which is young enough is there with every part, in all of the size that was
    written, that its WAL leads without a gap to the newest timeline, and that no other cluster has a backup in the same prefix.
  - What could not be looked at is UNKNOWN, never healthy; a wrong key and an empty store are two things.
  - Names and sizes are looked at, and with O(content) the objects themselves, by the ordinary programs for decryption,
    decompression and tar files and not by WAL-G, which in v0.2.19 hands out a truncated object with exit 0.
  - Whether anything can be restored from it, only a restore proves (M(diting.dr.restore_test)); how old the last such proof is, is
    judged with O(maximum_proof_age_seconds).
extends_documentation_fragment:
  - diting.dr.attributes
  - diting.dr.attributes.info_module
  - diting.dr.archive
options:
  maximum_age_seconds:
    description: The newest recoverable backup finished at most so long ago.
    type: float
    default: 90000
  minimum_backups:
    description: So many finished backups are wanted.
    type: int
    default: 1
  maximum_wal_age_seconds:
    description:
      - The newest WAL was written at most so long ago. Without it the age says nothing.
      - PostgreSQL archives a segment when it is full, or after C(archive_timeout) if anything was written; a cluster without any
        writes archives none.
    type: float
  maximum_unfinished_seconds:
    description: Objects of a backup without a sentinel are one that was broken off, once so old.
    type: float
    default: 86400
  system_identifier:
    description:
      - The cluster's, as C(pg_controldata) prints it. A backup of any other in the prefix is UNHEALTHY.
      - Without it, backups of two clusters in one prefix are found, and those of one wrong cluster are not.
    type: str
  content:
    description:
      - V(none) looks at names and sizes. V(all) reads every part of every backup and all WAL to the end, decrypts, decompresses, and
        reads tar files and WAL pages. V(sample) does so with the newest backup and O(content_sample) more objects.
      - What could not be read, or not in time, is UNKNOWN.
    type: str
    choices: [none, sample, all]
    default: none
  content_sample:
    description: So many objects beyond the newest backup are read with O(content=sample), drawn anew each time.
    type: int
    default: 20
  content_workers:
    description: So many objects are read at the same time. Each takes a process for every step, and a WAL segment in memory.
    type: int
    default: 2
  content_seconds:
    description: No object is begun after so long.
    type: float
    default: 3600
  maximum_proof_age_seconds:
    description: The last proven restore ended at most so long ago, by the records in O(records_dir). Without it nothing is asked of them.
    type: float
  records_dir:
    description: Where M(diting.dr.restore_test) keeps its records.
    type: path
    default: /var/lib/diting/restore-tests
  fail_on:
    description: Verdicts that make the task fail.
    type: list
    elements: str
    choices: [DEGRADED, UNHEALTHY, UNKNOWN]
    default: []
"""

EXAMPLES = r"""
- name: Fail unless there is a backup of today, whole and with its WAL
  diting.dr.backup_verify:
    maximum_age_seconds: 90000
    maximum_wal_age_seconds: 300
    system_identifier: "7710908455821836243"
    fail_on: [DEGRADED, UNHEALTHY, UNKNOWN]

- name: Once a day, read everything
  diting.dr.backup_verify:
    content: all
    fail_on: [DEGRADED, UNHEALTHY, UNKNOWN]
"""

RETURN = r"""
verdict:
  description: HEALTHY, DEGRADED, UNHEALTHY or UNKNOWN.
  returned: always
  type: str
reasons:
  description: Findings, worst first, each with code, message, observed and limit. Empty when healthy.
  returned: always
  type: list
  elements: dict
evidence:
  description: Number of backups, name and age of the newest one, age of the newest WAL, whose backups they are;
    with O(content), numbers of objects by what became of them, bytes and seconds. Empty when nobody could look.
  returned: always
  type: dict
"""

import random
import signal
import typing as t
from datetime import UTC, datetime
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils._archive import ARCHIVE_OPTIONS, look_from
from ansible_collections.diting.dr.plugins.module_utils.core.backup_content import to_read
from ansible_collections.diting.dr.plugins.module_utils.core.backup_judge import (
    Limits,
    could_not_look,
    judge,
)
from ansible_collections.diting.dr.plugins.module_utils.core.restore_proof import of_system, proof_findings
from ansible_collections.diting.dr.plugins.module_utils.core.verdict import Health, Judgement, Reason
from ansible_collections.diting.dr.plugins.module_utils.hostio import restore_records
from ansible_collections.diting.dr.plugins.module_utils.hostio.archive_content import ContentReader, readable
from ansible_collections.diting.dr.plugins.module_utils.hostio.archive_decode import (
    CannotDecodeError,
    Decoder,
)
from ansible_collections.diting.dr.plugins.module_utils.hostio.archive_store import ArchiveError, Look


def system_of(params: t.Mapping[str, t.Any], found: Look) -> int | None:
    """The cluster whose WAL it has to be: the one that is named, or the one whose backups they are."""
    known = {backup.system_identifier for backup in found.catalog.backups}
    name = params["system_identifier"] or (known.pop() if len(known) == 1 else "")
    return int(name) if name.isdigit() else None


def stop(signum: int, _frame: object) -> t.NoReturn:
    """End as after a fault, so that a key which was unpacked is taken away."""
    raise SystemExit(128 + signum)


def look(params: t.Mapping[str, t.Any]) -> Judgement:
    """Read the archive and judge it."""
    try:
        found = look_from(params)
    except ArchiveError as error:
        return could_not_look(str(error))
    content = None
    if params["content"] != "none":
        sample = params["content_sample"] if params["content"] == "sample" else None
        wanted = to_read(found.catalog, readable(found.objects), sample, random.SystemRandom())
        try:
            with Decoder(found.settings) as decoder:
                size, workers = params["wal_segment_bytes"], params["content_workers"]
                seconds, system = params["content_seconds"], system_of(params, found)
                reader = ContentReader(found.archive, decoder, size, workers, seconds, system)
                content = reader.read(wanted)
        except CannotDecodeError as error:
            return could_not_look(str(error))
    now = datetime.now(UTC)
    proofs: list[tuple[Health, Reason]] = []
    if params["maximum_proof_age_seconds"] is not None:
        try:
            systems = {backup.system_identifier for backup in found.catalog.backups}
            records = of_system(restore_records.read(Path(params["records_dir"])), systems)
            names = [backup.name for backup in found.catalog.backups]
            proofs = proof_findings(records, params["maximum_proof_age_seconds"], now, names)
        except restore_records.RecordsError as error:
            proofs = [(Health.UNKNOWN, Reason("records_unreadable", str(error)))]
    limits = Limits(
        max_age_seconds=params["maximum_age_seconds"],
        min_backups=params["minimum_backups"],
        max_wal_age_seconds=params["maximum_wal_age_seconds"],
        max_unfinished_seconds=params["maximum_unfinished_seconds"],
        system_identifier=params["system_identifier"],
    )
    return judge(found.catalog, limits, now, content, proofs)


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **ARCHIVE_OPTIONS,
            "maximum_age_seconds": {"type": "float", "default": 90000},
            "minimum_backups": {"type": "int", "default": 1},
            "maximum_wal_age_seconds": {"type": "float"},
            "maximum_unfinished_seconds": {"type": "float", "default": 86400},
            "system_identifier": {"type": "str"},
            "content": {"type": "str", "choices": ["none", "sample", "all"], "default": "none"},
            "content_sample": {"type": "int", "default": 20},
            "content_workers": {"type": "int", "default": 2},
            "content_seconds": {"type": "float", "default": 3600},
            "maximum_proof_age_seconds": {"type": "float"},
            "records_dir": {"type": "path", "default": "/var/lib/diting/restore-tests"},
            "fail_on": {
                "type": "list",
                "elements": "str",
                "choices": [health.value for health in Health if health is not Health.HEALTHY],
                "default": [],
            },
        },
        supports_check_mode=True,
    )
    params = module.params
    for name, least in (
        ("content_workers", 1),
        ("content_sample", 0),
        ("content_seconds", 0),
        ("maximum_age_seconds", 0),
    ):
        if params[name] < least:
            module.fail_json(msg=f"{name} is {params[name]}, wanted at least {least}")
    if params["system_identifier"] is not None and not params["system_identifier"].isdigit():
        module.fail_json(
            msg=f"system_identifier is {params['system_identifier']!r}, wanted digits, as pg_controldata prints it"
        )
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    judgement = look(params)
    result = {**judgement.as_dict(), "changed": False}
    if judgement.health.value in module.params["fail_on"]:
        findings = "; ".join(reason.message for reason in judgement.reasons)
        module.fail_json(
            msg=f"backup_not_good: the archive of {module.params['settings_file']} is {judgement.health.value}: {findings}",
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
