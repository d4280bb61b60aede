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
