# SPDX-License-Identifier: GPL-3.0-or-later
"""Fencing on AWS EC2: the instance stopped by force, or its interfaces cut off by a security group without rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core import fence
from ...core.fence import Interface, Order, Reading
from .base import FencingError, RefusedError, UnclearError, credentials, looked, ordered
from .record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...core.fence import Read

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
CONNECT_SECONDS = 2.0
READ_SECONDS = 20.0


def make_client(region: str, endpoint_url: str | None, credentials_file: str | None) -> Any:
    """An EC2 client. Credentials from the file, else by boto3's own rules (environment, role of the instance)."""
    try:
        import boto3
        import botocore.config
        import botocore.exceptions
    except ImportError as error:
        raise FencingError(
            f"agents ec2 and ec2_network need boto3 (Debian: python3-boto3): {error}"
        ) from error
    known = credentials(credentials_file, KEYS) if credentials_file else {}
    if credentials_file and not known.keys() >= set(KEYS[:2]):
        raise FencingError(f"credentials_file {credentials_file}: want {KEYS[0]} and {KEYS[1]}")
    config = botocore.config.Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        # One try of our own choosing: a hidden second order could come after a host was switched on again.
        retries={"total_max_attempts": 1},
    )
    try:
        return boto3.client(
            "ec2",
            region_name=region,
            endpoint_url=endpoint_url,
            config=config,
            aws_access_key_id=known.get(KEYS[0]),
            aws_secret_access_key=known.get(KEYS[1]),
            aws_session_token=known.get(KEYS[2]),
        )
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise FencingError(f"EC2 client: {error}") from error


def _called(what: str, call: Callable[[], Any]) -> Any:
    """Answer of an API call. A refusal by EC2 is clear; all else is not."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call()
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
        code = error.response.get("Error", {}).get("Code", "?")
        words = f"EC2 {what}: {code}: {error.response.get('Error', {}).get('Message', '')[:300]}"
        if 400 <= status < 500 and code not in ("RequestLimitExceeded", "Throttling"):
            raise RefusedError(words) from error
        raise UnclearError(words) from error
    except BotoCoreError as error:
        raise UnclearError(f"EC2 {what}: {error}") from error


class _Ec2:
    def __init__(
        self,
        *,
        instance_id: str,
        region: str,
        endpoint_url: str | None = None,
        credentials_file: str | None = None,
    ) -> None:
        self.instance_id = instance_id
        self._client = make_client(region, endpoint_url, credentials_file)

    def _ask(self, method: str, **arguments: Any) -> Any:
        return _called(method, lambda: getattr(self._client, method)(**arguments))


class Ec2Agent(_Ec2):
    """Stops the instance without asking its system, and reads its state back."""

    def off(self, deadline_seconds: float) -> Order:
        """Order a forced stop. DONE means that EC2 took the order; the instance may be "stopping" for a minute."""

        def stop() -> str:
            self._ask("stop_instances", InstanceIds=[self.instance_id], Force=True)
            return f"EC2 took the order to stop {self.instance_id}"

        return ordered(f"stop of {self.instance_id}", deadline_seconds, stop)

    def on(self, deadline_seconds: float, *, leader: str | None = None) -> Order:  # noqa: ARG002 - a cloud asks no leader
        """Order a start."""

        def start() -> str:
            self._ask("start_instances", InstanceIds=[self.instance_id])
            return f"EC2 took the order to start {self.instance_id}"

        return ordered(f"start of {self.instance_id}", deadline_seconds, start)

    def state(self, deadline_seconds: float) -> Reading:
        """State by DescribeInstances."""

        def look() -> tuple[Read, dict[str, Any]]:
            body = self._ask("describe_instances", InstanceIds=[self.instance_id])
            read = fence.read_ec2(body, self.instance_id)
            return read, {"instance_id": self.instance_id}

        return looked(f"state of {self.instance_id}", deadline_seconds, look)


class Ec2NetworkAgent(_Ec2):
    """Gives every interface of the instance one security group without rules, and back."""

    def __init__(self, *, isolation_group: str, record_directory: str, **common: Any) -> None:
        super().__init__(**common)
        self._group = isolation_group
        self._record = Record(record_directory, "ec2-network", self.instance_id)

    def off(self, deadline_seconds: float) -> Order:
        """Swap the groups of every interface; what they were is on disk first."""
        return ordered(f"isolation of {self.instance_id}", deadline_seconds, self._isolate)

    def on(self, deadline_seconds: float, *, leader: str | None = None) -> Order:  # noqa: ARG002 - a cloud asks no leader
        """Give every interface the groups it had."""
        return ordered(f"rejoining of {self.instance_id}", deadline_seconds, self._restore)

    def state(self, deadline_seconds: float) -> Reading:
        """OFF when every interface carries only the isolation group, and that has no rules at this moment."""

        def look() -> tuple[Read, dict[str, Any]]:
            interfaces = self._interfaces()
            rules = fence.ec2_open_rules(
                self._ask("describe_security_groups", GroupIds=[self._group]), self._group
            )
            evidence = {item.id: list(item.groups) for item in interfaces}
            return fence.read_isolation(interfaces, self._group, rules), evidence

        return looked(f"isolation of {self.instance_id}", deadline_seconds, look)

    def _interfaces(self) -> list[Interface]:
        filters = [{"Name": "attachment.instance-id", "Values": [self.instance_id]}]
        found: list[Interface] = []
        page: dict[str, str] = {}
        while True:
            body = self._ask("describe_network_interfaces", Filters=filters, **page)
            for item in body["NetworkInterfaces"]:
                groups = tuple(sorted(group["GroupId"] for group in item["Groups"]))
                first = item.get("Attachment", {}).get("DeviceIndex") == 0
                found.append(Interface(item["NetworkInterfaceId"], groups, first))
            if not body.get("NextToken"):
                return found
            page = {"NextToken": body["NextToken"]}

    def _isolate(self) -> str:
        body = self._ask("describe_security_groups", GroupIds=[self._group])
        rules = fence.ec2_open_rules(body, self._group)
        if rules:
            raise RefusedError(
                f"{self._group} is no group without rules: {'; '.join(rules)}; nothing was swapped"
            )
        interfaces = self._interfaces()
        if not interfaces:
            raise RefusedError(f"{self.instance_id} has no network interface; nothing was swapped")
        known = self._record.read()
        # What is isolated already keeps the groups on record: those are the ones to go back to.
        now = {i.id: list(i.groups) for i in interfaces if i.groups != (self._group,)}
        if now:
            self._record.write({**known, **now})
        for item in interfaces:
            self._ask("modify_network_interface_attribute", NetworkInterfaceId=item.id, Groups=[self._group])
        return f"EC2 swapped the groups of {len(interfaces)} interfaces"

    def _restore(self) -> str:
        known = self._record.read()
        if not known:
            if any(item.groups == (self._group,) for item in self._interfaces()):
                raise RefusedError(
                    f"nothing is on record in {self._record.path}, and {self.instance_id} is isolated"
                )
            return "nothing was swapped"
        for interface, groups in known.items():
            self._ask("modify_network_interface_attribute", NetworkInterfaceId=interface, Groups=groups)
        read, words = fence.read_restored(self._interfaces(), known)
        if read is not fence.Power.ON:
            raise UnclearError(f"the groups are not all back: {words}")
        self._record.forget()
        return words
