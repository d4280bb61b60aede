#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge whether a database has recovered."""

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_check
short_description: Judge whether a database has recovered, by its members and by a real write
version_added: 0.1.0
author: Diting DR contributors (@diting-dr)
description:
  - Asks every member of the Patroni cluster and commits one write through a client's path.
  - The verdict is HEALTHY only when every member could be asked, redundancy is whole and the write was
    acknowledged without a warning. What could not be looked at is UNKNOWN, never healthy.
extends_documentation_fragment:
  - diting.dr.attributes
  - diting.dr.attributes.info_module
  - diting.dr.patroni
  - diting.dr.patroni.judge
options:
  write_command:
    description:
      - Argument list that commits one write and exits 0 when it was acknowledged.
      - One that makes no file grow does not see a full file system, since recycled WAL takes commits for a while.
      - Without it no write is tried and the verdict cannot be better than UNKNOWN.
    type: list
    elements: str
    default: []
  write_timeout_seconds:
    description: Limit for the write including connecting; a slower one counts as refused.
    type: float
    default: 5
  maximum_write_seconds:
    description: A write slower than this makes the verdict DEGRADED.
    type: float
    default: 2
  wait_seconds:
    description: Deadline to reach one of O(wait_for). V(0) looks once.
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: Wait until the database is whole and takes writes
  diting.dr.recovery_check:
    members:
      pg1: https://pg1:8008
      pg2: https://pg2:8008
      pg3: https://pg3:8008
    write_command: [psql, "service=diting", -Xqc, "SELECT pg_logical_emit_message(true, 'diting', 'canary')"]
    wait_seconds: 120
    fail_on: [DEGRADED, UNHEALTHY, UNKNOWN]
"""

RETURN = r"""
verdict:
  description: HEALTHY, DEGRADED, UNHEALTHY or UNKNOWN.
  returned: always
  type: str
reasons:
  description: Findings, each with code, message, observed and limit. Empty when healthy.
  returned: always
  type: list
  elements: dict
evidence:
  description: Primary, timeline, members as they answered, synchronous standbys, seconds of the write.
  returned: always
  type: dict
waited_seconds:
  description: Time until the last look, in seconds.
  returned: always
  type: float
"""

import os
import subprocess
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils._patroni import ask_members, look
from ansible_collections.diting.dr.plugins.module_utils._patroni_argspec import (
    JUDGE_OPTIONS,
    REST_OPTIONS,
    expectation_from,
    rest_from,
)
from ansible_collections.diting.dr.plugins.module_utils.core.patroni_state import judge as judge_cluster
from ansible_collections.diting.dr.plugins.module_utils.core.recovery import WriteSeen, judge

if t.TYPE_CHECKING:
    from ansible_collections.diting.dr.plugins.module_utils.core.verdict import Judgement


def try_write(command: list[str], timeout_seconds: float) -> WriteSeen:
    """Commit one write by ``command``. A program that cannot be started is "not tried"."""
    if not command:
        return WriteSeen(ok=None, said="write_command is empty")
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "LANG": "C"},
        )
    except subprocess.TimeoutExpired:
        return WriteSeen(ok=False, said=f"not acknowledged in {timeout_seconds} s")
    except OSError as problem:
        return WriteSeen(ok=None, said=str(problem))
    seconds = round(time.monotonic() - start, 3)
    return WriteSeen(ok=done.returncode == 0, seconds=seconds, said=" ".join(done.stderr.split())[:300])


def ask(module: AnsibleModule) -> Judgement:
    """Ask the members, try one write, and judge both."""
    params = module.params
    cluster = judge_cluster(ask_members(rest_from(params), params["members"]), expectation_from(params))
    if module.check_mode:
        write = WriteSeen(ok=None, said="check mode writes nothing")
    else:
        write = try_write(params["write_command"], params["write_timeout_seconds"])
    return judge(cluster, write, params["maximum_write_seconds"])


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **REST_OPTIONS,
            **JUDGE_OPTIONS,
            "write_command": {"type": "list", "elements": "str", "default": []},
            "write_timeout_seconds": {"type": "float", "default": 5},
            "maximum_write_seconds": {"type": "float", "default": 2},
        },
        supports_check_mode=True,
    )
    recovery, waited = look(lambda: ask(module), module.params["wait_for"], module.params["wait_seconds"])
    result = {**recovery.as_dict(), "waited_seconds": round(waited, 3), "changed": False}
    if recovery.health.value in module.params["fail_on"]:
        findings = "; ".join(reason.message for reason in recovery.reasons)
        module.fail_json(
            msg=f"not_recovered: the database is {recovery.health.value} after {waited:.0f} s: {findings}",
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
