# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch the lab's bridge for a FIN or RST from one address, until a deadline.

A host that loses its power says nothing more. A connection that ends politely after the cut means the fault
was something else, and the drill proved nothing. JSON lines: ``watching``, then ``fin`` or ``rst``
for each packet, last ``ended``; a file without ``ended`` is a watch that did not finish.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import select
import signal
import socket
import struct
import time
from pathlib import Path
from typing import IO, Any

from diting.core.journal import utc_text_at

# linux/if_packet.h, linux/if_ether.h, asm-generic/socket.h; Python 3.11 does not name them.
ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_STATISTICS = 6
PACKET_MR_PROMISC = 1
SO_ATTACH_FILTER = 26
SO_TIMESTAMPNS = 35
SNAP_BYTES = 128
TCP_FIN, TCP_RST = 0x01, 0x04


def bpf_program(address: ipaddress.IPv4Address) -> list[tuple[int, int, int, int]]:
    """Classic BPF: IPv4, from ``address``, TCP, first fragment, FIN or RST set."""
    return [
        (0x28, 0, 0, 12),  # ldh [12]: EtherType
        (0x15, 0, 10, 0x0800),
        (0x20, 0, 0, 26),  # ld [26]: source address
        (0x15, 0, 8, int(address)),
        (0x30, 0, 0, 23),  # ldb [23]: protocol
        (0x15, 0, 6, socket.IPPROTO_TCP),
        (0x28, 0, 0, 20),  # ldh [20]: fragment offset
        (0x45, 4, 0, 0x1FFF),
        (0xB1, 0, 0, 14),  # ldxb 4*([14]&0xf): length of the IP header
        (0x50, 0, 0, 27),  # ldb [x+27]: TCP flags
        (0x45, 0, 1, TCP_FIN | TCP_RST),
        (0x06, 0, 0, SNAP_BYTES),
        (0x06, 0, 0, 0),
    ]


def describe(frame: bytes) -> dict[str, Any]:
    """What a frame that passed the filter says."""
    header = (frame[14] & 0x0F) * 4
    source, target = frame[26:30], frame[30:34]
    source_port, target_port, sequence = struct.unpack_from("!HHI", frame, 14 + header)
    flags = frame[14 + header + 13]
    return {
        "event": "rst" if flags & TCP_RST else "fin",
        "source": f"{ipaddress.IPv4Address(source)}:{source_port}",
        "target": f"{ipaddress.IPv4Address(target)}:{target_port}",
        "tcp_sequence": sequence,
        "tcp_flags": flags,
    }


def open_socket(interface: str, address: ipaddress.IPv4Address) -> socket.socket:
    """Packet socket that sees all the bridge forwards, filtered by the kernel.

    Raises ``OSError`` when the interface does not exist or the right to watch is missing.
    """
    try:
        index = socket.if_nametoindex(interface)
    except OSError as error:
        raise OSError(error.errno, f"cannot watch {interface}: {error.args[-1]}") from error
    watch = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # deaf until bound: no unfiltered packet
    try:
        program = b"".join(struct.pack("HBBI", *step) for step in bpf_program(address))
        buffer = ctypes.create_string_buffer(program)
        watch.setsockopt(
            socket.SOL_SOCKET,
            SO_ATTACH_FILTER,
            struct.pack("HP", len(program) // 8, ctypes.addressof(buffer)),
        )
        watch.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        # A bridge hands up what it forwards between its ports only while it is promiscuous.
        request = struct.pack("iHH8s", index, PACKET_MR_PROMISC, 0, b"")
        watch.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        watch.bind((interface, ETH_P_ALL))
    except OSError:
        watch.close()
        raise
    return watch


def _bridge_packets(interface: str) -> int:
    return int(Path(f"/sys/class/net/{interface}/statistics/rx_packets").read_text())


def _line(output: IO[str], event: dict[str, Any], unix_ns: int | None = None) -> None:
    now_unix, now_mono = time.time_ns(), time.monotonic_ns()
    unix_ns = now_unix if unix_ns is None else unix_ns
    moment = {"ts": utc_text_at(unix_ns / 1e9), "mono_ns": now_mono - (now_unix - unix_ns)}
    output.write(json.dumps({**moment, **event}, sort_keys=True) + "\n")
    output.flush()


def watch(interface: str, address: ipaddress.IPv4Address, seconds: float, output: IO[str]) -> int:
    """Watch for ``seconds`` or until SIGTERM, write JSON lines, return the number of packets seen.

    Raises ``OSError`` before the first line when watching is not possible.
    """
    stop, wake = socket.socketpair()
    seen = 0
    with stop, wake, open_socket(interface, address) as packets:
        wake.setblocking(False)
        with contextlib.suppress(ValueError):  # not in the main thread (tests): the deadline is enough
            signal.set_wakeup_fd(wake.fileno())
            signal.signal(signal.SIGTERM, lambda *_: None)
        before = _bridge_packets(interface)
        deadline = time.monotonic() + seconds
        head = {"event": "watching", "interface": interface, "address": str(address), "seconds": seconds}
        _line(output, {**head, "bridge_packets": before})
        reason = "deadline"
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([packets, stop], [], [], left)
            if packets in ready:
                frame, ancillary, _, _ = packets.recvmsg(SNAP_BYTES, 64)
                _line(output, describe(frame), _kernel_time(ancillary))
                seen += 1
            elif stop in ready:
                reason = "terminated"
                break
        _, dropped = struct.unpack("II", packets.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        # The bridge's own count shows that the watch had traffic to look at.
        passed = _bridge_packets(interface) - before
        _line(
            output,
            {"event": "ended", "why": reason, "seen": seen, "dropped": dropped, "bridge_packets": passed},
        )
    return seen


def _kernel_time(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            return int(seconds * 1_000_000_000 + nanoseconds)
    return None
