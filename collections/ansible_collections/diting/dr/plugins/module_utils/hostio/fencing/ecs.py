# SPDX-License-Identifier: GPL-3.0-or-later
"""Fencing on Alibaba Cloud ECS: the instance stopped by force, or its interfaces cut off by a group without rules.

Uses the vendor's core SDK (``aliyunsdkcore``), which signs requests and knows the roles of instances; the
few calls needed are named here, so the package of generated classes is not.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...core import fence
from ...core.fence import Interface, Order, Power, Reading
from .base import FencingError, RefusedError, UnclearError, credentials, looked, ordered
from .record import Record

if TYPE_CHECKING:
    from ...core.fence import Read

VERSION = "2014-05-26"
KEYS = ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN")
ROLE = "ALIBABA_CLOUD_ECS_METADATA"
"""Variable that names the instance's RAM role, as in the vendor's other tools."""
CONNECT_SECONDS = 2
READ_SECONDS = 20
LOOPBACK = frozenset({"127.0.0.1", "localhost"})


def make_client(region: str, credentials_file: str | None, port: int, ca_file: str | None) -> Any:
    """An SDK client. Keys come from the file or the environment, else the role of the instance is used."""
    try:
        from aliyunsdkcore.auth import credentials as kinds
        from aliyunsdkcore.client import AcsClient
    except ImportError as error:
        raise FencingError(f"agents ecs and ecs_network need aliyun-python-sdk-core: {error}") from error
    # The SDK logs whole requests when they fail, tokens included; what is worth knowing is in our own words.
    logging.getLogger("aliyunsdkcore").setLevel(logging.CRITICAL + 1)
    known = credentials(credentials_file, [*KEYS, ROLE])
    if known.keys() >= set(KEYS):
        credential = kinds.StsTokenCredential(*(known[name] for name in KEYS))
    elif known.keys() >= set(KEYS[:2]):
        credential = kinds.AccessKeyCredential(known[KEYS[0]], known[KEYS[1]])
    elif ROLE in known:
        credential = kinds.EcsRamRoleCredential(known[ROLE])
    else:
        where = credentials_file or "the environment"
        raise FencingError(f"{where} holds neither {KEYS[0]} with {KEYS[1]} nor {ROLE}")
    return AcsClient(
        region_id=region,
        credential=credential,
        port=port,
        connect_timeout=CONNECT_SECONDS,
        timeout=READ_SECONDS,
        # A hidden second order could come after a host was switched on again.
        auto_retry=False,
        verify=ca_file,
    )


class _Ecs:
    def __init__(
        self,
        *,
        instance_id: str,
        region: str,
        endpoint_url: str | None = None,
        credentials_file: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        parts = urlsplit(endpoint_url or f"https://ecs.{region}.aliyuncs.com")
        if not parts.hostname or (parts.scheme != "https" and parts.hostname not in LOOPBACK):
            raise FencingError(f"endpoint_url: want https://<address>[:port], found {endpoint_url!r}")
        self.instance_id = instance_id
        self._region = region
        self._scheme, self._host = parts.scheme, parts.hostname
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self._client = make_client(region, credentials_file, port, ca_file)

    def _ask(self, action: str, **parameters: str) -> Any:
        """Answer of an API call as an object. A refusal by ECS is clear; all else is not."""
        from aliyunsdkcore.acs_exception.exceptions import ClientException, ServerException
        from aliyunsdkcore.request import CommonRequest

        request = CommonRequest(domain=self._host, version=VERSION, action_name=action)
        request.set_protocol_type(self._scheme)
        request.set_method("POST")
        request.set_accept_format("json")
        for name, value in {"RegionId": self._region, **parameters}.items():
            request.add_query_param(name, value)
        try:
            return json.loads(self._client.do_action_with_exception(request))
        except ServerException as error:
            # With a wrong secret the message repeats the request, and with it a session's token.
            message = str(error.message).partition("server string to sign")[0]
            words = f"ECS {action}: {error.error_code}: {message[:300]}"
            clear = 400 <= int(error.http_status or 500) < 500 and "Throttling" not in str(error.error_code)
            raise (RefusedError if clear else UnclearError)(words) from error
        except (ClientException, ValueError, OSError) as error:
            raise UnclearError(f"ECS {action}: {error}") from error


class EcsAgent(_Ecs):
    """Stops the instance without asking its system, and reads its state back."""

    def off(self, deadline_seconds: float) -> Order:
        """Order a forced stop. DONE means that ECS took the order, or that the instance is stopped already."""
        return ordered(f"stop of {self.instance_id}", deadline_seconds, self._stop)

    def on(self, deadline_seconds: float, *, leader: str | None = None) -> Order:  # noqa: ARG002 - a cloud asks no leader
        """Order a start."""
        return ordered(f"start of {self.instance_id}", deadline_seconds, self._start)

    def state(self, deadline_seconds: float) -> Reading:
        """State by DescribeInstances."""
        return looked(
            f"state of {self.instance_id}",
            deadline_seconds,
            lambda: (self._look(), {"instance_id": self.instance_id}),
        )

    def _look(self) -> Read:
        body = self._ask("DescribeInstances", InstanceIds=json.dumps([self.instance_id]))
        return fence.read_ecs(body, self.instance_id)

    def _stop(self) -> str:
        try:
            # StopCharging could give the place of the instance away; whoever fences wants it back.
            self._ask(
                "StopInstance", InstanceId=self.instance_id, ForceStop="true", StoppedMode="KeepCharging"
            )
        except RefusedError as refusal:
            return self._already(Power.OFF, refusal)
        return f"ECS took the order to stop {self.instance_id}"

    def _start(self) -> str:
        try:
            self._ask("StartInstance", InstanceId=self.instance_id)
        except RefusedError as refusal:
            return self._already(Power.ON, refusal)
        return f"ECS took the order to start {self.instance_id}"

    def _already(self, wanted: Power, refusal: RefusedError) -> str:
        """ECS refuses to stop what is stopped: then nothing is left to do. Raises the refusal if it is not so."""
        try:
            power, words = self._look()
        except (RefusedError, UnclearError):
            raise refusal from None
        if power is not wanted:
            raise refusal
        return f"nothing to do: {words}"


class EcsNetworkAgent(_Ecs):
    """Gives every interface of the instance one security group without rules, and back."""

    def __init__(self, *, isolation_group: str, record_directory: str, **common: Any) -> None:
        super().__init__(**common)
        self._group = isolation_group
        self._record = Record(record_directory, "ecs-network", self.instance_id)

    def off(self, deadline_seconds: float) -> Order:
        """Swap the groups of every interface; what they were is on disk first."""
        return ordered(f"isolation of {self.instance_id}", deadline_seconds, self._isolate)

    def on(self, deadline_seconds: float, *, leader: str | None = None) -> Order:  # noqa: ARG002 - a cloud asks no leader
        """Give every interface the groups it had."""
        return ordered(f"rejoining of {self.instance_id}", deadline_seconds, self._restore)

    def state(self, deadline_seconds: float) -> Reading:
        """OFF when every interface carries only the isolation group, and that lets nothing through at this moment."""

        def look() -> tuple[Read, dict[str, Any]]:
            interfaces = self._interfaces()
            evidence = {item.id: list(item.groups) for item in interfaces}
            return fence.read_isolation(interfaces, self._group, self._open_rules()), evidence

        return looked(f"isolation of {self.instance_id}", deadline_seconds, look)

    def _open_rules(self) -> list[str]:
        body = self._ask("DescribeSecurityGroupAttribute", SecurityGroupId=self._group, Direction="all")
        listed = self._ask("DescribeSecurityGroups", SecurityGroupIds=json.dumps([self._group]))
        try:
            (kind,) = [
                str(item["SecurityGroupType"])
                for item in listed["SecurityGroups"]["SecurityGroup"]
                if item["SecurityGroupId"] == self._group
            ]
        except (KeyError, TypeError, ValueError):
            return [f"the type of {self._group} could not be read"]
        return fence.ecs_open_rules(body, self._group, kind)

    def _interfaces(self) -> list[Interface]:
        body = self._ask("DescribeNetworkInterfaces", InstanceId=self.instance_id, MaxResults="100")
        if body.get("NextToken"):
            raise UnclearError(f"{self.instance_id} has more interfaces than one answer holds")
        return [
            Interface(
                item["NetworkInterfaceId"],
                tuple(sorted(item["SecurityGroupIds"]["SecurityGroupId"])),
                item.get("Type") == "Primary",
            )
            for item in body["NetworkInterfaceSets"]["NetworkInterfaceSet"]
        ]

    def _set_groups(self, interface: Interface, groups: list[str]) -> None:
        listed = {f"SecurityGroupIds.{number}": group for number, group in enumerate(groups, 1)}
        if interface.primary:
            self._ask("ModifyInstanceAttribute", InstanceId=self.instance_id, **listed)
        else:
            listed = {f"SecurityGroupId.{number}": group for number, group in enumerate(groups, 1)}
            self._ask("ModifyNetworkInterfaceAttribute", NetworkInterfaceId=interface.id, **listed)

    def _isolate(self) -> str:
        rules = self._open_rules()
        if rules:
            raise RefusedError(
                f"{self._group} is no group without rules: {'; '.join(rules)}; nothing was swapped"
            )
        interfaces = self._interfaces()
        if not interfaces:
            raise RefusedError(f"{self.instance_id} has no network interface; nothing was swapped")
        now = {item.id: list(item.groups) for item in interfaces if item.groups != (self._group,)}
        if now:
            # What is isolated already keeps the groups on record: those are the ones to go back to.
            self._record.write({**self._record.read(), **now})
        for item in interfaces:
            if item.groups != (self._group,):
                self._set_groups(item, [self._group])
        return f"ECS swapped the groups of {len(now)} of {len(interfaces)} interfaces"

    def _restore(self) -> str:
        known = self._record.read()
        interfaces = self._interfaces()
        if not known:
            if any(item.groups == (self._group,) for item in interfaces):
                raise RefusedError(
                    f"nothing is on record in {self._record.path}, and {self.instance_id} is isolated"
                )
            return "nothing was swapped"
        for item in interfaces:
            if item.id in known:
                self._set_groups(item, known[item.id])
        read, words = fence.read_restored(self._interfaces(), known)
        if read is not Power.ON:
            raise UnclearError(f"the groups are not all back: {words}")
        self._record.forget()
        return words
