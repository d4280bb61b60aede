# SPDX-License-Identifier: GPL-3.0-or-later
"""``unreachable`` routes to single addresses, over rtnetlink: no process is started where tenths of a second count.

Ours carry a protocol number of their own, so that what an earlier life left can be told from everybody else's routes.
IPv4 routes have no time to live in the kernel: whoever sets one here has to take it away.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOCOL = 213
"""``rtm_protocol`` of our routes; unassigned in iproute2's rt_protos."""
MAIN_TABLE = 254

_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _REPLACE, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x400
_DST, _TABLE = 1, 15
_UNREACHABLE = 7
_HEAD = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_TIMEOUT_SECONDS = 1.0


class Routes(Protocol):
    """This host's isolating routes. Every call may raise OSError."""

    def add(self, address: str) -> None:
        """Make ``address`` unreachable from this host; again changes nothing."""

    def remove(self, address: str) -> None:
        """Take that back; a route that is not there is fine."""

    def listed(self) -> tuple[str, ...]:
        """Addresses that are cut off by us, sorted."""


class NetlinkRoutes:
    """:class:`Routes` in one routing table of the kernel; changing them takes CAP_NET_ADMIN."""

    def __init__(self, table: int = MAIN_TABLE) -> None:
        self._table = table

    def add(self, address: str) -> None:
        """See :class:`Routes`."""
        self._ask(_NEWROUTE, _REQUEST | _ACK | _CREATE | _REPLACE, self._message(address))

    def remove(self, address: str) -> None:
        """See :class:`Routes`."""
        try:
            self._ask(_DELROUTE, _REQUEST | _ACK, self._message(address))
        except ProcessLookupError:
            return  # ESRCH: there is none

    def listed(self) -> tuple[str, ...]:
        """See :class:`Routes`."""
        found: set[str] = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            for kind, data in self._ask(_GETROUTE, _REQUEST | _DUMP, body):
                if kind == _NEWROUTE and (address := self._ours(data)):
                    found.add(address)
        return tuple(sorted(found))

    def _message(self, address: str) -> bytes:
        ip = ipaddress.ip_address(address)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        # Tables above 255 stand in an attribute; the byte then says "unspecified".
        table = self._table if self._table < 256 else 0
        head = _ROUTE.pack(family, ip.max_prefixlen, 0, 0, table, PROTOCOL, 0, _UNREACHABLE, 0)
        return head + _attribute(_DST, ip.packed) + _attribute(_TABLE, struct.pack("=I", self._table))

    def _ours(self, data: bytes) -> str | None:
        family, length, _src, _tos, table, protocol, _scope, kind, _flags = _ROUTE.unpack_from(data)
        destination = b""
        for number, value in _attributes(data[_ROUTE.size :]):
            if number == _DST:
                destination = value
            elif number == _TABLE:
                (table,) = struct.unpack("=I", value)
        whole = 32 if family == socket.AF_INET else 128
        if (protocol, kind, table, length) != (PROTOCOL, _UNREACHABLE, self._table, whole) or not destination:
            return None
        return str(ipaddress.ip_address(destination))

    @staticmethod
    def _ask(kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        """Answers to one request. Raises OSError with the kernel's own error number."""
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
            sock.settimeout(_TIMEOUT_SECONDS)
            sock.bind((0, 0))
            sock.send(_HEAD.pack(_HEAD.size + len(body), kind, flags, 1, 0) + body)
            found: list[tuple[int, bytes]] = []
            while True:
                for answer, data in _messages(sock.recv(1 << 18)):
                    if answer == _ERROR:
                        (number,) = struct.unpack_from("=i", data)
                        if number:
                            raise OSError(-number, f"rtnetlink: {os.strerror(-number)}")
                        return found
                    if answer == _DONE:
                        return found
                    found.append((answer, data))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEAD.size:
        length, kind, _flags, _seq, _pid = _HEAD.unpack_from(data)
        if length < _HEAD.size:
            raise OSError(errno.EPROTO, "rtnetlink: a message without a length")
        yield kind, data[_HEAD.size : length]
        data = data[(length + 3) & ~3 :]


def _attribute(number: int, value: bytes) -> bytes:
    text = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value
    return text + b"\0" * (-len(text) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, number = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield number, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
