#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask every member of a Patroni cluster, and judge the answers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_info
short_description: Ask every member of a Patroni cluster, and judge the answers
version_added: 0.1.0
author: Diting DR contributors (@diting-dr)
description:
  - Asks the REST interface of every listed member over TLS and judges the cluster.
  - A member or leader that could not be asked is never counted as healthy.
extends_documentation_fragment:
  - diting.dr.attributes
  - diting.dr.attributes.info_module
  - diting.dr.patroni
  - diting.dr.patroni.judge
options:
  wait_seconds:
    description:
      - Deadline for the cluster to reach O(wait_for). V(0) looks once.
      - Reaching the deadline is a result, not a failure; use O(fail_on) to make it one.
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: Look at the cluster
  diting.dr.patroni_info:
    members:
      pg1: https://192.0.2.11:8008
      pg2: https://192.0.2.12:8008
      pg3: https://192.0.2.13:8008
  register: cluster

- name: Wait until it is whole again, at most two minutes
  diting.dr.patroni_info:
    members: "{{ members }}"
    wait_seconds: 120
    fail_on: [DEGRADED, UNHEALTHY, UNKNOWN]
"""

RETURN = r"""
verdict:
  description: HEALTHY, DEGRADED (writes work, redundancy is short), UNHEALTHY, or UNKNOWN (could not look).
  returned: always
  type: str
reasons:
  description: Findings, each with code, message, observed and limit. Empty when healthy.
  returned: always
  type: list
  elements: dict
leader:
  description: Name of the one member that runs as primary; null without exactly one.
  returned: always
  type: str
timeline:
  description: The leader's timeline; null without a leader.
  returned: always
  type: int
system_identifier:
  description: Identity of the database cluster; null when unknown or not unique.
  returned: always
  type: str
paused:
  description: Whether automatic failover is paused; null when nobody answered.
  returned: always
  type: bool
sync_standbys:
  description: Names of the standbys that are synchronous and streaming.
  returned: always
  type: list
  elements: str
members:
  description:
    - Per member RV(ignore:reachable), RV(ignore:error), RV(ignore:role), RV(ignore:state), RV(ignore:replication_state),
      RV(ignore:timeline), RV(ignore:lag_bytes), RV(ignore:pending_restart), versions.
  returned: always
  type: dict
waited_seconds:
  description: Time until the last look, in seconds.
  returned: always
  type: float
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils._patroni import HttpsRest, ask_members, look
from ansible_collections.diting.dr.plugins.module_utils._patroni_argspec import (
    JUDGE_OPTIONS,
    REST_OPTIONS,
    expectation_from,
    rest_from,
)
from ansible_collections.diting.dr.plugins.module_utils.core.patroni_state import judge


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **REST_OPTIONS,
            **JUDGE_OPTIONS,
        },
        supports_check_mode=True,
    )
    params = module.params
    rest: HttpsRest = rest_from(params)
    expected = expectation_from(params)
    judgement, waited = look(
        lambda: judge(ask_members(rest, params["members"]), expected),
        params["wait_for"],
        params["wait_seconds"],
    )
    result = {**judgement.as_dict(), "waited_seconds": round(waited, 3), "changed": False}
    if judgement.health.value in params["fail_on"]:
        findings = "; ".join(reason.message for reason in judgement.reasons)
        module.fail_json(msg=f"The Patroni cluster is {judgement.health.value}: {findings}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
