#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove a backup by restoring it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_test
short_description: Prove a backup by restoring it
version_added: 0.3.0
author: Diting DR contributors (@diting-dr)
description:
  - Restores a backup onto a scratch instance of this host with production's own settings and commands, recovers it to a recorded point
    (M(diting.dr.recovery_point)), and looks whether the target was reached, whether each named table holds what it held then, whether
    the copy can be promoted, and whether indexes, heaps and page checksums are sound. Then takes it away.
  - Reads every object of that backup to its end by ordinary programs too, since WAL-G does not heed the checksum of what it unpacks.
  - HEALTHY means that all of this is so. DEGRADED is a proof with something left open, such as a cluster without page checksums.
    UNKNOWN says nothing of the backup, for example when the store did not answer; UNHEALTHY says that it cannot be restored from.
  - The newest backup is taken, and at every other test an older one; one of its points, and whether it is named by name, LSN or time,
    by lot.
  - The scratch instance archives nothing, listens only on a socket that its own user reaches, and is removed whatever happens. Where
    systemd runs, the restore is a unit of its own that goes on when the connection to the host is lost, and cleans up when it is killed.
  - Each test leaves a record on the host, from which the time of a restore at production's size is forecast.
extends_documentation_fragment:
  - diting.dr.attributes
  - diting.dr.archive
options:
  points:
    description: Recorded points, as M(diting.dr.recovery_point) returns them.
    type: list
    elements: dict
    required: true
  wait_seconds:
    description: How long to wait for a point to be archived.
    type: float
    default: 90
  cluster:
    description: Name of the cluster, in records and metrics.
    type: str
    default: main
  root:
    description: Directory of the scratch instance, created and removed, in a directory that O(user) owns and that holds nothing else.
      Its file system needs room for the copy and 2 GiB. Where systemd runs, nothing can be written outside of that directory.
    type: path
    default: /var/lib/postgresql/restore-test/scratch
  pg_bin:
    description: Directory of PostgreSQL's programs, of the same major version as the backup.
    type: path
    default: /usr/lib/postgresql/15/bin
  restore_command:
    description: The cluster's C(restore_command).
    type: str
    default: /usr/local/bin/diting-wal-restore %f %p
  program:
    description: The program that restores, with its options; role C(diting.dr.walg) installs it.
    type: list
    elements: str
    default: [/usr/local/bin/diting-wal]
  user:
    description: System user that owns WAL-G's settings and the scratch instance.
    type: str
    default: postgres
  fetch_seconds:
    description: Longest that fetching the backup may take.
    type: float
    default: 14400
  stall_seconds:
    description: Longest that fetching may make no progress.
    type: float
    default: 120
  replay_seconds:
    description: Longest that recovery, and promotion, may take.
    type: float
    default: 14400
  check_seconds:
    description: Longest that each check may take.
    type: float
    default: 7200
  content_seconds:
    description: Begin to read no further object of the backup after so long. 0 reads none, and the verdict is DEGRADED at best.
    type: float
    default: 14400
  content_workers:
    description: So many objects are read at a time.
    type: int
    default: 2
  records_dir:
    description: Where the records of the tests are.
    type: path
    default: /var/lib/diting/restore-tests
  metrics_file:
    description: File for the textfile collector of Prometheus's node exporter; empty writes none.
    type: str
    default: ""
  production_size_bytes:
    description: Size of the database to forecast a restore for. Without it, that of the copy.
    type: int
  production_wal_bytes:
    description: WAL to be replayed in that restore. Without it, as much as in the last proof.
    type: int
  fail_on:
    description: Verdicts that make the task fail.
    type: list
    elements: str
    choices: [DEGRADED, UNHEALTHY, UNKNOWN]
    default: []
requirements:
  - PostgreSQL's server programs, WAL-G and C(diting-wal) on the host
attributes:
  check_mode:
    support: full
    details: Chooses backup and point, and restores nothing; the verdict is UNKNOWN.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Each test is one more proof.
"""

EXAMPLES = r"""
- name: Prove the backups
  diting.dr.restore_test:
    points: "{{ hostvars['pg1'].recorded.points }}"
    production_size_bytes: 800000000000
    fail_on: [UNHEALTHY, UNKNOWN]
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
  description: What was restored and recovered to, sizes in bytes, seconds of each phase, speeds in bytes a second. Empty when nothing
    was restored.
  returned: always
  type: dict
forecast:
  description: C(seconds) that a restore of C(size_bytes) with C(wal_bytes) of WAL would take, from so many C(proofs).
  returned: always
  type: dict
expected:
  description: What was forecast for this test itself, by the tests before it.
  returned: always
  type: dict
plan:
  description: Backup, point and target that were chosen; null when there was nothing to choose from.
  returned: always
  type: dict
record:
  description: Path of the record; null in check mode.
  returned: always
  type: str
lines:
  description: All of it in words.
  returned: always
  type: list
  elements: str
"""

import random
import time
import typing as t
from datetime import UTC, datetime
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils._archive import ARCHIVE_OPTIONS, look_from
from ansible_collections.diting.dr.plugins.module_utils.core.restore_proof import (
    Choice,
    Point,
    PointError,
    chain,
    choose,
    forecast,
    judge,
    of_system,
)
from ansible_collections.diting.dr.plugins.module_utils.core.restore_words import lines, metrics
from ansible_collections.diting.dr.plugins.module_utils.core.verdict import Health, Judgement, Reason
from ansible_collections.diting.dr.plugins.module_utils.hostio import restore_records
from ansible_collections.diting.dr.plugins.module_utils.hostio.archive_content import read_backups
from ansible_collections.diting.dr.plugins.module_utils.hostio.archive_store import ArchiveError
from ansible_collections.diting.dr.plugins.module_utils.hostio.restore_records import RecordsError
from ansible_collections.diting.dr.plugins.module_utils.hostio.restore_run import RunError, Runner

if t.TYPE_CHECKING:
    from ansible_collections.diting.dr.plugins.module_utils.core.backup_content import Content
    from ansible_collections.diting.dr.plugins.module_utils.hostio.archive_store import Look

_AGAIN_SECONDS = 2.0
_LIMITS = ("fetch_seconds", "stall_seconds", "replay_seconds", "check_seconds")


def chosen(
    params: t.Mapping[str, t.Any], points: list[Point], records: list[dict[str, t.Any]]
) -> tuple[Choice | Reason, Look, list[dict[str, t.Any]]]:
    """What to prove, once it is archived, with the archive and the records of its cluster. Raises ArchiveError."""
    end = time.monotonic() + params["wait_seconds"]
    rng = random.SystemRandom()
    while True:
        look = look_from(params)
        catalog = look.catalog
        own = [dict(one) for one in of_system(records, (b.system_identifier for b in catalog.backups))]
        found = choose(catalog, points, len(own), rng)
        if isinstance(found, Choice) or time.monotonic() > end:
            return found, look, own
        time.sleep(_AGAIN_SECONDS)


def content_of(params: t.Mapping[str, t.Any], look: Look, choice: Choice) -> Content | Reason | None:
    """What the objects of the backup hold; None when nobody wants to know."""
    if not params["content_seconds"]:
        return None
    limits = (params[name] for name in ("wal_segment_bytes", "content_workers", "content_seconds"))
    return read_backups(look, chain(look.catalog, choice.backup), *limits)


def request_of(params: t.Mapping[str, t.Any], name: str, choice: Choice, size: int) -> dict[str, t.Any]:
    """For the program that restores."""
    backup, point = choice.backup, choice.point
    return {
        "id": name,
        "root": params["root"],
        "pg_bin": params["pg_bin"],
        "restore_command": params["restore_command"],
        "backup": backup.name,
        "backup_bytes": size,
        "backup_start_lsn": backup.start_lsn,
        "point_lsn": point.lsn,
        "timeline": point.timeline,
        "target_type": choice.kind,
        "target": point.target(choice.kind),
        "tables": [{"database": one.database, "table": one.table} for one in point.tables],
        **{limit: params[limit] for limit in _LIMITS},
    }


def plan_of(choice: Choice) -> dict[str, t.Any]:
    """What was chosen, for people."""
    return {
        "backup": choice.backup.name,
        "point": choice.point.name,
        "target_type": choice.kind,
        "target": choice.point.target(choice.kind),
        "timeline": choice.point.timeline,
        "points": choice.recorded,
    }


def limit_of(params: t.Mapping[str, t.Any], choice: Choice) -> float:
    """All phases at their longest."""
    checks = len(choice.point.tables) + 2
    return float(params["fetch_seconds"] + 2 * params["replay_seconds"] + checks * params["check_seconds"])


def unknown(code: str, words: str) -> Judgement:
    """Nothing was restored, and that says nothing of the backup."""
    return Judgement(Health.UNKNOWN, (Reason(code, words),), {})


def test(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Choose, restore, judge, and keep the record. Raises RecordsError."""
    records = restore_records.read(Path(params["records_dir"]))
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    plan: dict[str, t.Any] | None = None
    facts: dict[str, t.Any] = {}
    expected: dict[str, t.Any] | None = None
    system = None
    try:
        points = [Point.read(point) for point in params["points"]]
        choice, look, records = chosen(params, points, records)
        if isinstance(choice, Reason):
            health = Health.UNHEALTHY if choice.code == "no_backup" else Health.UNKNOWN
            judgement = Judgement(health, (choice,), {})
        else:
            plan = plan_of(choice)
            system = choice.backup.system_identifier
            # A delta comes upon its bases.
            size = sum(one.uncompressed_size for one in chain(look.catalog, choice.backup))
            wal = choice.point.lsn - choice.backup.start_lsn
            expected = forecast(records, size, wal).as_dict()
            judgement = unknown("check_mode", "nothing was restored, since this is a check run")
            if not check_mode:
                runner = Runner(tuple(params["program"]), params["user"], params["root"])
                facts = runner.run(request_of(params, name, choice, size), limit_of(params, choice))
                judgement = judge(facts, choice.point, datetime.now(UTC), None)
                if judgement.health is not Health.UNKNOWN:
                    # Of one that failed too: it names the object.
                    content = content_of(params, look, choice)
                    judgement = judge(facts, choice.point, datetime.now(UTC), content)
    except ArchiveError as error:
        judgement = unknown("could_not_look", str(error))
    except PointError as error:
        judgement = unknown("point_unreadable", str(error))
    except RunError as error:
        judgement = unknown("not_restored", str(error))
    record = {
        "schema": 1,
        "id": name,
        "cluster": params["cluster"],
        "system_identifier": system,
        "ended": time.time(),
        **judgement.as_dict(),
        "expected": expected,
        "facts": facts,
    }
    record["forecast"] = ahead(params, [*records, record])
    path = None
    if not check_mode:
        path = str(restore_records.keep(Path(params["records_dir"]), record))
        if params["metrics_file"]:
            restore_records.write(Path(params["metrics_file"]), metrics(params["cluster"], record, records))
    said = (
        lines(record, records)
        if not check_mode
        else [f"would restore {plan}" if plan else "nothing to restore"]
    )
    return {
        "changed": not check_mode,
        "plan": plan,
        "record": path,
        "lines": said,
        **judgement.as_dict(),
        "forecast": record["forecast"],
        "expected": expected or {},
    }


def ahead(params: t.Mapping[str, t.Any], records: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    """The forecast for production."""
    wanted = params["production_size_bytes"]
    if wanted is None:
        sizes = [record.get("evidence", {}).get("size_bytes") for record in records]
        wanted = next((size for size in reversed(sizes) if size), 0)
    return forecast(records, wanted, params["production_wal_bytes"]).as_dict()


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **ARCHIVE_OPTIONS,
            "points": {"type": "list", "elements": "dict", "required": True},
            "wait_seconds": {"type": "float", "default": 90},
            "cluster": {"type": "str", "default": "main"},
            "root": {"type": "path", "default": "/var/lib/postgresql/restore-test/scratch"},
            "pg_bin": {"type": "path", "default": "/usr/lib/postgresql/15/bin"},
            "restore_command": {"type": "str", "default": "/usr/local/bin/diting-wal-restore %f %p"},
            "program": {"type": "list", "elements": "str", "default": ["/usr/local/bin/diting-wal"]},
            "user": {"type": "str", "default": "postgres"},
            "fetch_seconds": {"type": "float", "default": 14400},
            "stall_seconds": {"type": "float", "default": 120},
            "replay_seconds": {"type": "float", "default": 14400},
            "check_seconds": {"type": "float", "default": 7200},
            "content_seconds": {"type": "float", "default": 14400},
            "content_workers": {"type": "int", "default": 2},
            "records_dir": {"type": "path", "default": "/var/lib/diting/restore-tests"},
            "metrics_file": {"type": "str", "default": ""},
            "production_size_bytes": {"type": "int"},
            "production_wal_bytes": {"type": "int"},
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
    for name, least in (*((name, 0.001) for name in _LIMITS), ("content_seconds", 0), ("content_workers", 1)):
        if params[name] < least:
            module.fail_json(msg=f"{name} is {params[name]}, wanted at least {least}")
    if not params["program"]:
        module.fail_json(msg="program is empty, wanted the path of diting-wal")
    try:
        result = test(params, module.check_mode)
    except RecordsError as error:
        module.fail_json(msg=f"restore_test: {error}")
    if result["verdict"] in params["fail_on"]:
        findings = "; ".join(reason["message"] for reason in result["reasons"])
        module.fail_json(
            msg=f"not_proven: the restore test of {params['cluster']} is {result['verdict']}: {findings}",
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
