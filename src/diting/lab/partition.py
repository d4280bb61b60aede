# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut one host of the lab off from others, silently and both ways, as a switch that fails would.

The rules lie on the machine's side, in the bridge between the hosts: no host sees a local error, and no
host can take them away. Each pair of addresses is an element of a set in the kernel with a timeout of its
own, so a partition ends on time whatever becomes of every process of ours.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

from diting.core.journal import utc_text_at
from diting.lab.powerloss import stamp
from diting.lab.records import append_journal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diting.lab.instance import Instance

MAX_LIMIT_SECONDS = 3600
SET = "pairs"


class PartitionError(Exception):
    """Nothing was cut, or the kernel does not hold what was asked for; the message says which."""


def table_name(name: str) -> str:
    """Name of the nft table, of family bridge, that holds the cuts of the lab ``name``."""
    return "diting_cut_" + re.sub(r"\W", "_", name)


def ruleset(table: str, pairs: Sequence[tuple[str, str]], limit_seconds: int) -> str:
    """The whole change as one transaction: IPv4 and its address resolution between each pair stop."""
    elements = ", ".join(f"{source} . {target} timeout {limit_seconds}s" for source, target in pairs)
    return f"""\
add table bridge {table}
add set bridge {table} {SET} {{ type ipv4_addr . ipv4_addr; flags timeout; }}
add chain bridge {table} forward {{ type filter hook forward priority -10; policy accept; }}
flush chain bridge {table} forward
add rule bridge {table} forward ip saddr . ip daddr @{SET} counter drop
add rule bridge {table} forward arp saddr ip . arp daddr ip @{SET} drop
add element bridge {table} {SET} {{ {elements} }}
"""


def _nft(*words: str, stdin: str | None = None) -> str:
    try:
        done = subprocess.run(
            ["nft", *words], input=stdin, capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartitionError(f"nft cannot be run: {error}") from error
    if done.returncode != 0:
        raise PartitionError(f"nft {' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _is_there(table: str) -> bool:
    return f"table bridge {table}\n" in _nft("list", "tables")


def pairs_cut(instance: Instance) -> set[tuple[str, str]]:
    """Pairs of addresses between which the kernel drops everything now."""
    table = table_name(instance.name)
    if not _is_there(table):
        return set()
    listed = json.loads(_nft("-j", "list", "set", "bridge", table, SET))["nftables"]
    elements: list[Any] = next((item["set"].get("elem", []) for item in listed if "set" in item), [])
    found = set()
    for element in elements:
        # With a timeout nft wraps the value: {"elem": {"val": {"concat": [...]}, "timeout": ...}}.
        value = element.get("elem", element)
        source, target = value.get("val", value)["concat"]
        found.add((str(source), str(target)))
    return found


def cut(
    instance: Instance, host: str, others: Sequence[str], limit_seconds: int, incident_id: str | None
) -> dict[str, Any]:
    """Cut ``host`` off from ``others`` for ``limit_seconds`` and return the record.

    Raises ``PartitionError``. When it says "refused", nothing was touched.
    """
    unknown = sorted({*others} - {*instance.hosts})
    if not others or unknown or host in others:
        known = ", ".join(name for name in instance.hosts if name != host)
        raise PartitionError(
            f"refused, nothing was cut: --from is {','.join(others)!r}, wanted names of: {known}"
        )
    if not 1 <= limit_seconds <= MAX_LIMIT_SECONDS:
        raise PartitionError(
            f"refused, nothing was cut: --limit is {limit_seconds}, wanted 1 to {MAX_LIMIT_SECONDS}"
        )
    address = str(instance.hosts[host])
    if any(address in pair for pair in pairs_cut(instance)):
        raise PartitionError(f"refused, nothing was cut: {host} is cut off already; diting lab heal {host}")
    ends = [str(instance.hosts[other]) for other in others]
    pairs = [pair for end in ends for pair in ((address, end), (end, address))]
    told: dict[str, Any] = {
        "host": host,
        "address": address,
        "cut_from": list(others),
        "incident_id": incident_id,
        "limit_seconds": limit_seconds,
    }
    journal = instance.power_dir / "journal.jsonl"
    append_journal(journal, "partition_intended", told, source="partition")
    steps = [stamp("cut_sent")]
    _nft("-f", "-", stdin=ruleset(table_name(instance.name), pairs, limit_seconds))
    steps.append(stamp("cut"))
    missing = set(pairs) - pairs_cut(instance)
    if missing:
        heal(instance, host)
        raise PartitionError(f"the kernel does not hold {sorted(missing)}; what it held was taken back")
    record = {**told, "steps": steps, "reverts_at": utc_text_at(time.time() + limit_seconds)}
    append_journal(journal, "partition", record, source="partition")
    return record


def heal(instance: Instance, host: str | None = None) -> dict[str, Any]:
    """Take back the cuts of ``host``, or all; returns how many pairs were still cut, and what is left."""
    table = table_name(instance.name)
    if not _is_there(table):
        return {"healed": 0, "left": 0}
    before = pairs_cut(instance)
    address = None if host is None else str(instance.hosts[host])
    mine = {pair for pair in before if address is None or address in pair}
    if mine == before:
        _nft("delete", "table", "bridge", table)
    elif mine:
        elements = ", ".join(f"{source} . {target}" for source, target in sorted(mine))
        _nft("-f", "-", stdin=f"delete element bridge {table} {SET} {{ {elements} }}\n")
    told = {"healed": len(mine), "left": len(before - mine)}
    if mine and instance.power_dir.is_dir():  # a lab that is being removed may have none left
        fields = {"host": host, **told}
        append_journal(instance.power_dir / "journal.jsonl", "partition_healed", fields, source="partition")
    return told
