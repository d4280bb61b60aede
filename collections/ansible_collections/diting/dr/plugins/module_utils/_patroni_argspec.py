# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: no promise is made to anybody outside it.
"""The options that Patroni modules share; documented by the fragments ``diting.dr.patroni`` and ``.judge``."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from ._patroni import HttpsRest
from .core.patroni_state import Expectation

if TYPE_CHECKING:
    from collections.abc import Mapping

REST_OPTIONS: dict[str, dict[str, Any]] = {
    "members": {"type": "dict", "required": True},
    "ca_file": {"type": "path", "default": "/etc/diting/pki/ca.crt"},
    "cert_file": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "timeout_seconds": {"type": "float", "default": 2.0},
}

VERDICTS = ["HEALTHY", "DEGRADED", "UNHEALTHY", "UNKNOWN"]
JUDGE_OPTIONS: dict[str, dict[str, Any]] = {
    "synchronous_mode": {"type": "str", "choices": ["off", "on", "quorum"], "default": "quorum"},
    "synchronous_node_count": {"type": "int", "default": 1},
    "maximum_lag_bytes": {"type": "int", "default": 1048576},
    "wait_seconds": {"type": "float", "default": 0},
    "wait_for": {"type": "list", "elements": "str", "choices": VERDICTS, "default": ["HEALTHY"]},
    "fail_on": {"type": "list", "elements": "str", "choices": VERDICTS[1:], "default": []},
}


def rest_from(params: Mapping[str, Any]) -> HttpsRest:
    """Build the REST client from a module's parameters."""
    authorization = None
    if params["username"] is not None:
        pair = f"{params['username']}:{params['password'] or ''}".encode()
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    return HttpsRest(
        ca_file=params["ca_file"],
        cert_file=params["cert_file"],
        key_file=params["key_file"],
        authorization=authorization,
        timeout_seconds=params["timeout_seconds"],
    )


def expectation_from(params: Mapping[str, Any]) -> Expectation:
    """What the cluster should be, from a module's parameters."""
    return Expectation(
        members=list(params["members"]),
        synchronous_mode=params["synchronous_mode"],
        synchronous_node_count=params["synchronous_node_count"],
        maximum_lag_bytes=params["maximum_lag_bytes"],
    )
