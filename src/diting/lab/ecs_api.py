# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for the control plane of Alibaba Cloud ECS, which cannot run here: the calls that fencing makes, and no more.

Speaks the real protocol (RPC style, version 2014-05-26): parameters in query or form, signed by HMAC-SHA1, a nonce
used once, JSON answers and errors with Code, Message and RequestId. What it cannot prove: how long the real cloud takes,
how consistent its answers are right after a change, and what its network does with connections that are open already.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlsplit

VERSION = "2014-05-26"


class ApiError(Exception):
    """An answer of the API that refuses: HTTP status, code and message as ECS gives them."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Instance:
    """One instance; ``interfaces`` maps interface ids to security groups, the first is the primary one."""

    id: str
    status: str = "Running"
    interfaces: dict[str, list[str]] = field(default_factory=dict)
    changes_at: float = 0.0
    becomes: str = ""


@dataclass
class Group:
    """One security group; ``rules`` as DescribeSecurityGroupAttribute shows them."""

    id: str
    kind: str = "enterprise"
    inner: str = "Drop"
    rules: list[dict[str, str]] = field(default_factory=list)


def string_to_sign(method: str, parameters: dict[str, str]) -> str:
    """What a request's signature is made of, version 1.0 of the RPC protocol."""
    text = "&".join(
        f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(parameters.items())
    )
    return f"{method}&%2F&{quote(text, safe='~')}"


def signature(text: str, secret: str) -> str:
    """Signature of :func:`string_to_sign`'s text."""
    digest = hmac.new(f"{secret}&".encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


class EcsApi:
    """The control plane in memory. ``stop_seconds`` is how long an instance takes to stop or start."""

    def __init__(self, key_id: str, secret: str, *, stop_seconds: float = 0.0) -> None:
        self.key_id = key_id
        self.secret = secret
        self.stop_seconds = stop_seconds
        self.instances: dict[str, Instance] = {}
        self.groups: dict[str, Group] = {}
        self.asked: list[str] = []
        self.fail: dict[str, ApiError] = {}
        """Errors to answer with, by action."""
        self.hang: threading.Event | None = None
        """While set to an event, every request waits for it."""
        self._nonces: set[str] = set()
        self._lock = threading.Lock()

    def serve(self, method: str, parameters: dict[str, str]) -> dict[str, Any]:
        """Answer one request. Raises :class:`ApiError`."""
        if self.hang is not None:
            self.hang.wait()
        self._authenticate(method, parameters)
        action = parameters.get("Action", "")
        call = getattr(self, f"do_{action}", None)
        if parameters.get("Version") != VERSION or call is None:
            raise ApiError(
                404, "InvalidAction.NotFound", "Specified api is not found, please check your url and method."
            )
        with self._lock:
            self.asked.append(action)
            if action in self.fail:
                raise self.fail[action]
            answer: dict[str, Any] = call(parameters)
        return {"RequestId": str(uuid.uuid4()).upper(), **answer}

    def _authenticate(self, method: str, parameters: dict[str, str]) -> None:
        if parameters.get("AccessKeyId") != self.key_id:
            raise ApiError(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        signed = {name: value for name, value in parameters.items() if name != "Signature"}
        text = string_to_sign(method, signed)
        if not hmac.compare_digest(parameters.get("Signature", ""), signature(text, self.secret)):
            # The vendor's SDK takes this sentence apart to tell a wrong secret from a wrong clock.
            words = (
                f"Specified signature is not matched with our calculation. server string to sign is:{text}"
            )
            raise ApiError(400, "SignatureDoesNotMatch", words)
        with self._lock:
            if parameters.get("SignatureNonce", "") in self._nonces | {""}:
                raise ApiError(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
            self._nonces.add(parameters["SignatureNonce"])

    def _instance(self, parameters: dict[str, str]) -> Instance:
        try:
            found = self.instances[parameters["InstanceId"]]
        except KeyError:
            raise ApiError(
                404, "InvalidInstanceId.NotFound", "The specified InstanceId does not exist."
            ) from None
        if found.becomes and time.monotonic() >= found.changes_at:
            found.status, found.becomes = found.becomes, ""
        return found

    def _switch(self, found: Instance, wanted: str, during: str, target: str) -> dict[str, Any]:
        if found.status != wanted:
            text = "The current status of the resource does not support this operation."
            raise ApiError(403, "IncorrectInstanceStatus", text)
        found.status, found.becomes = during, target
        found.changes_at = time.monotonic() + self.stop_seconds
        return {}

    def do_StopInstance(self, parameters: dict[str, str]) -> dict[str, Any]:  # noqa: N802 - ECS's name
        """Stop, by force or not."""
        return self._switch(self._instance(parameters), "Running", "Stopping", "Stopped")

    def do_StartInstance(self, parameters: dict[str, str]) -> dict[str, Any]:  # noqa: N802 - ECS's name
        """Start."""
        return self._switch(self._instance(parameters), "Stopped", "Starting", "Running")

    def do_DescribeInstances(self, parameters: dict[str, str]) -> dict[str, Any]:  # noqa: N802 - ECS's name
        """State of the instances asked for; unknown ones are left out, as ECS does."""
        wanted = [i for i in json.loads(parameters["InstanceIds"]) if i in self.instances]
        found = [self._instance({"InstanceId": name}) for name in wanted]
        listed = [{"InstanceId": item.id, "Status": item.status} for item in found]
        return {"TotalCount": len(listed), "Instances": {"Instance": listed}}

    def do_DescribeNetworkInterfaces(self, parameters: dict[str, str]) -> dict[str, Any]:  # noqa: N802 - ECS's name
        """Interfaces of one instance."""
        found = self._instance(parameters)
        listed = [
            {
                "NetworkInterfaceId": name,
                "Type": "Secondary" if number else "Primary",
                "InstanceId": found.id,
                "SecurityGroupIds": {"SecurityGroupId": list(groups)},
            }
            for number, (name, groups) in enumerate(found.interfaces.items())
        ]
        return {"TotalCount": len(listed), "NetworkInterfaceSets": {"NetworkInterfaceSet": listed}}

    def do_ModifyInstanceAttribute(self, parameters: dict[str, str]) -> dict[str, Any]:  # noqa: N802 - ECS's name
        """Security groups of the primary interface."""
        found = self._instance(parameters)
        found.interfaces[next(iter(found.interfaces))] = _numbered(parameters, "SecurityGroupIds")
        return {}

    def do_ModifyNetworkInterfaceAttribute(self, parameters: dict[str, str]) -> dict[str, Any]:  # noqa: N802 - ECS's name
        """Security groups of a secondary interface."""
        for item in self.instances.values():
            secondary = list(item.interfaces)[1:]
            if parameters["NetworkInterfaceId"] in secondary:
                item.interfaces[parameters["NetworkInterfaceId"]] = _numbered(parameters, "SecurityGroupId")
                return {}
        raise ApiError(404, "InvalidEniId.NotFound", "The specified interface does not exist.")

    def _group(self, name: str) -> Group:
        try:
            return self.groups[name]
        except KeyError:
            raise ApiError(
                404, "InvalidSecurityGroupId.NotFound", "The specified group does not exist."
            ) from None

    def do_DescribeSecurityGroupAttribute(self, parameters: dict[str, str]) -> dict[str, Any]:  # noqa: N802 - ECS's name
        """Rules of one group."""
        found = self._group(parameters["SecurityGroupId"])
        return {
            "SecurityGroupId": found.id,
            "InnerAccessPolicy": found.inner,
            "Permissions": {"Permission": found.rules},
        }

    def do_DescribeSecurityGroups(self, parameters: dict[str, str]) -> dict[str, Any]:  # noqa: N802 - ECS's name
        """Groups asked for."""
        found = [self._group(name) for name in json.loads(parameters["SecurityGroupIds"])]
        listed = [{"SecurityGroupId": item.id, "SecurityGroupType": item.kind} for item in found]
        return {"TotalCount": len(listed), "SecurityGroups": {"SecurityGroup": listed}}


def _numbered(parameters: dict[str, str], name: str) -> list[str]:
    found = {key: value for key, value in parameters.items() if key.startswith(f"{name}.")}
    return [found[key] for key in sorted(found, key=lambda item: int(item.rpartition(".")[2]))]


class Handler(http.server.BaseHTTPRequestHandler):
    """HTTP around :meth:`EcsApi.serve`."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    api: ClassVar[EcsApi]

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        form = self.rfile.read(length).decode()
        pairs = parse_qsl(urlsplit(self.path).query, keep_blank_values=True) + parse_qsl(
            form, keep_blank_values=True
        )
        try:
            status, answer = 200, self.api.serve(self.command, dict(pairs))
        except ApiError as error:
            status = error.status
            answer = {
                "RequestId": str(uuid.uuid4()).upper(),
                "HostId": "ecs.lab",
                "Code": error.code,
                "Message": str(error),
            }
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json;charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = _serve  # noqa: N815 - names that http.server calls

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Quiet."""


def server(api: EcsApi, address: tuple[str, int]) -> http.server.ThreadingHTTPServer:
    """A server of ``api`` that listens and does not serve yet."""
    handler = type("BoundHandler", (Handler,), {"api": api})
    result = http.server.ThreadingHTTPServer(address, handler)
    result.daemon_threads = True
    return result
