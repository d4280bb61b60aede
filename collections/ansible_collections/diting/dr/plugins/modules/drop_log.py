#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have databases write down which transaction dropped a table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: drop_log
short_description: Have databases write down which transaction dropped a table
version_added: 0.3.0
author: Diting DR contributors (@diting-dr)
description:
  - On a primary it installs an event trigger in each of O(databases), which writes down every table and materialized view that is dropped,
    with the transaction that did it, and lists what was written down. A restore can then end just before that transaction
    (M(diting.dr.restore_plan)).
  - The trigger never stands in the way of a drop. C(TRUNCATE), C(DELETE) and C(DROP DATABASE) are not seen by it.
  - On a standby it installs nothing; in check mode it only lists.
extends_documentation_fragment:
  - diting.dr.attributes
options:
  databases:
    description: Databases in which drops are written down.
    type: list
    elements: str
    required: true
  login_unix_socket:
    description: Directory of the server's socket.
    type: path
    default: /var/run/postgresql
  login_port:
    description: Port of the server's socket.
    type: int
    default: 5432
  login_user:
    description: A superuser.
    type: str
    default: postgres
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Have drops written down
  diting.dr.drop_log:
    databases: [trading]
"""

RETURN = r"""
in_recovery:
  description: Whether the server is a standby.
  returned: success
  type: bool
drops:
  description: What was dropped, oldest first, each with C(database), C(relation), C(time), C(xid), C(lsn), C(timeline) and C(user).
  returned: success
  type: list
  elements: dict
"""

import typing as t
from datetime import datetime

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils.hostio.drop_log import dropped, install, installed
from ansible_collections.diting.dr.plugins.module_utils.hostio.recovery_points import (
    Login,
    PointsError,
    in_recovery,
)


def run(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Install where it is not, and list. Raises PointsError."""
    logins = [
        Login(params["login_unix_socket"], params["login_port"], params["login_user"], database)
        for database in params["databases"]
    ]
    standby = bool(logins) and in_recovery(logins[0])
    missing = [] if standby else [login for login in logins if not installed(login)]
    if not check_mode:
        for login in missing:
            install(login)
    drops = [drop for login in logins for drop in dropped(login)]
    return {
        "changed": bool(missing),
        "in_recovery": standby,
        "drops": sorted(drops, key=lambda drop: datetime.fromisoformat(drop["time"])),
    }


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "databases": {"type": "list", "elements": "str", "required": True},
            "login_unix_socket": {"type": "path", "default": "/var/run/postgresql"},
            "login_port": {"type": "int", "default": 5432},
            "login_user": {"type": "str", "default": "postgres"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module.params, module.check_mode))
    except PointsError as error:
        module.fail_json(msg=f"drop_log: {error}")


if __name__ == "__main__":
    main()
