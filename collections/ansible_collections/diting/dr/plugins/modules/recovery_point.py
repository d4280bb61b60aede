#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record a point that a restore can be proven by."""

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_point
short_description: Record a point that a restore can be proven by
version_added: 0.3.0
author: Diting DR contributors (@diting-dr)
description:
  - On a primary, creates a restore point and records its name, timeline, LSN and time, and number of rows and digest of named tables as
    they were at exactly that point. Module M(diting.dr.restore_test) recovers to it and compares.
  - So that nothing is committed between the point and the snapshot, writers of the named tables wait for a few milliseconds, and for no
    longer than O(lock_seconds). Reading the tables takes place afterwards, on a snapshot, and holds nobody up.
  - On a standby nothing is recorded, and what the primary recorded is listed.
extends_documentation_fragment:
  - diting.dr.attributes
options:
  state:
    description: V(listed) changes nothing.
    type: str
    choices: [present, listed]
    default: present
  name:
    description: Name of the restore point. Without one, C(diting-) and the time.
    type: str
  tables:
    description:
      - Tables whose content proves a restore. A small table of the collection's own, which gets a row with its time each time, is always
        among them.
    type: list
    elements: dict
    default: []
    suboptions:
      database:
        description: Database of the table.
        type: str
        required: true
      table:
        description: Schema and table, with a dot between.
        type: str
        required: true
  lock_seconds:
    description: Longest that writers of the named tables may be made to wait by one try.
    type: float
    default: 0.2
  lock_tries:
    description: Tries, one second apart.
    type: int
    default: 5
  query_seconds:
    description: Longest that reading one table may take.
    type: float
    default: 3600
  keep_days:
    description: Older points are forgotten.
    type: float
    default: 35
  switch_wal:
    description: Begin a new WAL segment afterwards, so that the point is archived at once and not when its segment is full.
    type: bool
    default: true
  login_unix_socket:
    description: Directory of the server's socket.
    type: path
    default: /var/run/postgresql
  login_port:
    description: The server's port.
    type: int
    default: 5432
  login_user:
    description: A superuser; it creates a schema and restore points, and reads the named tables.
    type: str
    default: postgres
  login_db:
    description: Database in which the points are kept.
    type: str
    default: postgres
requirements:
  - psycopg2 or psycopg 3
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Each call records one more point.
"""

EXAMPLES = r"""
- name: Record a point
  diting.dr.recovery_point:
    tables:
      - {database: trading, table: public.orders}
      - {database: trading, table: public.fills}
  become: true
  become_user: postgres
  register: recorded
"""

RETURN = r"""
in_recovery:
  description: Whether the server is a standby, where nothing was recorded.
  returned: always
  type: bool
point:
  description: What was recorded - name, timeline, lsn, time, held_seconds (for how long writers were held up) and tables with
    database, table, rows and digest. Null on a standby and in check mode.
  returned: always
  type: dict
points:
  description: Every point that is kept, oldest first, each as RV(point).
  returned: always
  type: list
  elements: dict
"""

import re
import typing as t
from datetime import UTC, datetime

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils.hostio.recovery_points import (
    Login,
    PointsError,
    Wish,
    in_recovery,
    record,
    recorded,
)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")


def run(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Record or list. Raises PointsError."""
    host, port = params["login_unix_socket"], params["login_port"]
    login = Login(host, port, params["login_user"], params["login_db"])
    standby = in_recovery(login)
    wanted = params["state"] == "present" and not standby
    point = None
    if wanted and not check_mode:
        tables = tuple((one["database"], one["table"]) for one in params["tables"])
        name = params["name"] or f"diting-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        point = record(
            login,
            Wish(
                name,
                tables,
                lock_seconds=params["lock_seconds"],
                lock_tries=params["lock_tries"],
                query_seconds=params["query_seconds"],
                keep_days=params["keep_days"],
                switch_wal=params["switch_wal"],
            ),
        )
    return {"changed": wanted, "in_recovery": standby, "point": point, "points": recorded(login)}


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "listed"], "default": "present"},
            "name": {"type": "str"},
            "tables": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "database": {"type": "str", "required": True},
                    "table": {"type": "str", "required": True},
                },
            },
            "lock_seconds": {"type": "float", "default": 0.2},
            "lock_tries": {"type": "int", "default": 5},
            "query_seconds": {"type": "float", "default": 3600},
            "keep_days": {"type": "float", "default": 35},
            "switch_wal": {"type": "bool", "default": True},
            "login_unix_socket": {"type": "path", "default": "/var/run/postgresql"},
            "login_port": {"type": "int", "default": 5432},
            "login_user": {"type": "str", "default": "postgres"},
            "login_db": {"type": "str", "default": "postgres"},
        },
        supports_check_mode=True,
    )
    params = module.params
    for name in ("lock_seconds", "lock_tries", "query_seconds", "keep_days"):
        if params[name] <= 0:
            module.fail_json(msg=f"{name} is {params[name]}, wanted more than 0")
    if params["name"] is not None and not _NAME.fullmatch(params["name"]):
        module.fail_json(
            msg=f"name is {params['name']!r}, wanted 1 to 63 letters, digits, '.', '_' and '-', as PostgreSQL keeps them"
        )
    try:
        module.exit_json(**run(params, module.check_mode))
    except PointsError as error:
        module.fail_json(msg=f"recovery_point: {error}")


if __name__ == "__main__":
    main()
