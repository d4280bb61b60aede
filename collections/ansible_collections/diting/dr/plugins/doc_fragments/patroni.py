# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options that every Patroni module documents."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of every module that speaks to Patroni's REST interface."""

    DOCUMENTATION = r"""
options:
  members:
    description: Names of all members of the cluster, with the base URL of each one's REST interface.
    type: dict
    required: true
  ca_file:
    description: CA that the members' certificates must be signed by.
    type: path
    default: /etc/diting/pki/ca.crt
  cert_file:
    description: Client certificate. Needed for writes.
    type: path
  key_file:
    description: Key of O(cert_file).
    type: path
  username:
    description: User for basic authentication of writes.
    type: str
  password:
    description: Password of O(username).
    type: str
  timeout_seconds:
    description: Deadline per member and step.
    type: float
    default: 2.0
"""

    # For modules that judge the cluster: what it should be, and which verdicts to wait for or to fail on.
    # Each says for itself what the end of its wait_seconds means.
    JUDGE = r"""
options:
  synchronous_mode:
    description: The mode the cluster should run in.
    type: str
    choices: ["off", "on", quorum]
    default: quorum
  synchronous_node_count:
    description: Number of synchronous standbys that must stream.
    type: int
    default: 1
  maximum_lag_bytes:
    description: Lag above which a replica counts as behind.
    type: int
    default: 1048576
  wait_for:
    description: Verdicts to wait for.
    type: list
    elements: str
    choices: [HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN]
    default: [HEALTHY]
  fail_on:
    description: Verdicts that make the task fail.
    type: list
    elements: str
    choices: [DEGRADED, UNHEALTHY, UNKNOWN]
    default: []
"""
