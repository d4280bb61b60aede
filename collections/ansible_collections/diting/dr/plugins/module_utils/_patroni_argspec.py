# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: no promise is made to anybody outside it.
"""The options that every Patroni module shares; documented by the fragment ``diting.dr.patroni``."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from ._patroni import HttpsRest

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
