#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring Patroni's dynamic configuration to what the inventory says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_config
short_description: Bring Patroni's dynamic configuration to what the inventory says
version_added: 0.1.0
author: Diting DR contributors (@diting-dr)
description:
  - Compares the wanted dynamic configuration with the one in the store and patches the difference.
  - With C(--check --diff) it is a drift report.
  - Keys that operations set themselves (C(pause), C(standby_cluster)) are never removed.
extends_documentation_fragment:
  - diting.dr.attributes
  - diting.dr.patroni
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  config:
    description: The wanted configuration, as in C(GET /config). A null value removes a key.
    type: dict
    required: true
  purge:
    description: Also remove keys that O(config) does not name.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the drift between inventory and store
  diting.dr.patroni_config:
    members: "{{ members }}"
    config:
      ttl: 20
      loop_wait: 1
      retry_timeout: 9
  check_mode: true
  diff: true
"""

RETURN = r"""
patch:
  description: What was, or in check mode would be, sent to the store. Empty without drift.
  returned: always
  type: dict
config:
  description: The configuration after the patch.
  returned: always
  type: dict
"""

import json
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils._patroni import PatroniError, Rest, get_json
from ansible_collections.diting.dr.plugins.module_utils._patroni_argspec import REST_OPTIONS, rest_from
from ansible_collections.diting.dr.plugins.module_utils.core.patroni_config import apply_patch, drift


def first_config(rest: Rest, members: t.Mapping[str, str]) -> tuple[str, t.Mapping[str, t.Any]]:
    """Base URL of the first member that knows the configuration, and the configuration."""
    errors = []
    for name, url in members.items():
        try:
            return url, get_json(rest, f"{url}/config")
        except PatroniError as error:
            errors.append(f"{name}: {error}")
    raise PatroniError("No member could be asked for its configuration: " + "; ".join(errors))


def send(rest: Rest, url: str, patch: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Patch the store; returns the configuration it now holds."""
    status, text = rest("PATCH", f"{url}/config", patch)
    if status != 200:
        raise PatroniError(f"PATCH {url}/config: HTTP {status}: {text.strip()[:300]}")
    return dict(json.loads(text))


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **REST_OPTIONS,
            "config": {"type": "dict", "required": True},
            "purge": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    rest = rest_from(module.params)
    try:
        url, current = first_config(rest, module.params["members"])
        patch = drift(current, module.params["config"], purge=module.params["purge"])
        write = bool(patch) and not module.check_mode
        after = send(rest, url, patch) if write else apply_patch(current, patch)
    except (PatroniError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(patch),
        patch=patch,
        config=after,
        diff={
            "before": json.dumps(current, indent=2, sort_keys=True) + "\n",
            "after": json.dumps(after, indent=2, sort_keys=True) + "\n",
        },
    )


if __name__ == "__main__":
    main()
