# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's bridge and the rules that keep its traffic inside.

``python -m diting.lab.network ensure|remove --lab-home DIR`` prints ``{"changed": bool, "done": [...]}``.

The bridge is ours, not podman's: power control listens on its address before the first host runs
and while every host is off. A veth pair whose one end is a port of the bridge (the *keeper*) stops
netavark from removing the bridge with its last container.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diting.lab import instance as lab
from diting.lab import site_settings
from diting.lab.hosts import link_of
from diting.lab.partition import PartitionError, heal
from diting.lab.podman import Podman, PodmanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diting.lab.instance import Instance

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


class NetworkError(Exception):
    """An ``ip`` or ``nft`` command failed; the message has the command and its words."""


def _run(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise NetworkError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _links() -> dict[str, dict[str, Any]]:
    return {link["ifname"]: link for link in json.loads(_run("ip", "-j", "-d", "address", "show") or "[]")}


def table_name(name: str) -> str:
    """Name of the nft table of the lab ``name``."""
    return "diting_lab_" + re.sub(r"\W", "_", name)


def ruleset(instance: Instance, resolvers: Sequence[str], tcp_ports: Sequence[int]) -> str:
    """The lab's nft table: what may leave, what may reach this machine, and nothing may enter.

    It only ever drops: an accept here ends this table, not those of the machine.
    """
    bridge, table = instance.bridge, table_name(instance.name)
    dns = ", ".join(resolvers)
    ports = ", ".join(str(port) for port in tcp_ports)
    own = ", ".join(str(port) for port in (instance.power_port, instance.alert_port) if port)
    dns_forward = f"ip daddr {{ {dns} }} meta l4proto {{ tcp, udp }} th dport 53 accept" if dns else ""
    return f"""\
table inet {table} {{
  chain outbound {{
    ct state established,related accept
    ip saddr != {instance.subnet} drop
    {dns_forward}
    ip daddr {{ 169.254.0.0/16, 100.64.0.0/10 }} drop
    ip daddr {{ 127.0.0.0/8, 224.0.0.0/3 }} drop
    tcp dport {{ {ports} }} accept
    drop
  }}
  chain inbound {{
    ct state established,related accept
    drop
  }}
  chain machine {{
    ct state established,related accept
    meta l4proto icmp accept
    ip daddr {instance.gateway} tcp dport {{ {own} }} accept
    {dns_forward}
    drop
  }}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    iifname "{bridge}" oifname "{bridge}" accept
    iifname "{bridge}" goto outbound
    oifname "{bridge}" goto inbound
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept;
    iifname "{bridge}" goto machine
  }}
}}
"""


def _normal(rules: str) -> str:
    """Rules without white space, to compare what was asked for with what the kernel holds."""
    return re.sub(r"\s+", " ", rules).strip()


def _ensure_rules(instance: Instance, rules: str) -> bool:
    """Load the table unless exactly this one is loaded; the swap is one transaction."""
    table = table_name(instance.name)
    kept = instance.home / "network" / "nft.loaded"
    try:
        loaded = _run("nft", "--stateless", "list", "table", "inet", table)
    except NetworkError:
        loaded = ""
    before = json.loads(kept.read_text()) if kept.exists() else {}
    if loaded and before == {"asked": rules, "loaded": _normal(loaded)}:
        return False
    # "add" first, so that "delete" cannot fail on a table that is not there.
    _run("nft", "-f", "-", stdin=f"table inet {table} {{}}\ndelete table inet {table}\n{rules}")
    loaded = _run("nft", "--stateless", "list", "table", "inet", table)
    kept.write_text(json.dumps({"asked": rules, "loaded": _normal(loaded)}))
    return True


def _refuse_foreign_subnet(instance: Instance, links: dict[str, dict[str, Any]]) -> None:
    for name, link in links.items():
        for address in link["addr_info"]:
            if name != instance.bridge and ipaddress.ip_address(address["local"]) in instance.subnet:
                raise NetworkError(
                    f"{instance.subnet} is in use: {name} has {address['local']}. "
                    "Choose another lab_subnet, or bring down the lab that has it"
                )


def ensure(instance: Instance) -> list[str]:
    """Bring the bridge, its address, the keeper and the rules to what they must be."""
    done: list[str] = []
    (instance.home / "network").mkdir(parents=True, exist_ok=True)
    forward = instance.home / "network" / "ip_forward.before"
    if not forward.exists():
        forward.write_text(IP_FORWARD.read_text())
    if IP_FORWARD.read_text().strip() != "1":
        # Named on the machine's side because podman would set it at the first start in any case.
        IP_FORWARD.write_text("1\n")
        done.append("enabled net.ipv4.ip_forward")
    # The rules come first: no packet of the lab passes before they hold.
    settings = site_settings.collect()
    if _ensure_rules(
        instance, ruleset(instance, site_settings.resolvers(), site_settings.egress_tcp_ports(settings))
    ):
        done.append(f"loaded nft table {table_name(instance.name)}")
    bridge, keeper, plug = instance.bridge, instance.bridge + "k", instance.bridge + "p"
    links = _links()
    if bridge in links and links[bridge].get("linkinfo", {}).get("info_kind") != "bridge":
        raise NetworkError(f"{bridge} exists and is no bridge; choose another lab_bridge or remove it")
    if bridge not in links:
        _run("ip", "link", "add", bridge, "type", "bridge")
        done.append(f"created bridge {bridge}")
        links = _links()
    _refuse_foreign_subnet(instance, links)
    wanted = f"{instance.gateway}/{instance.subnet.prefixlen}"
    have = [f"{a['local']}/{a['prefixlen']}" for a in links[bridge]["addr_info"] if a["family"] == "inet"]
    for address in have:
        if address != wanted:
            _run("ip", "address", "del", address, "dev", bridge)
            done.append(f"removed address {address}")
    if wanted not in have:
        _run("ip", "address", "add", wanted, "dev", bridge)
        done.append(f"added address {wanted}")
    if keeper not in links:
        _run("ip", "link", "add", keeper, "type", "veth", "peer", "name", plug)
        done.append(f"created keeper {keeper}")
    links = _links()
    if links[keeper].get("master") != bridge:
        _run("ip", "link", "set", keeper, "master", bridge)
        done.append(f"plugged {keeper}")
    for link in (bridge, keeper):
        if "UP" not in links[link]["flags"]:
            _run("ip", "link", "set", link, "up")
            done.append(f"set {link} up")
    ports = [name for name, link in links.items() if link.get("master") == bridge and name != keeper]
    if len(ports) < len(instance.hosts):
        done += _plug_running_hosts(instance)
    return done


def _plug_running_hosts(instance: Instance) -> list[str]:
    """Hosts that outlived their bridge keep their links, which belong to no bridge any more."""
    done = []
    podman = Podman(instance.podman_home)
    for host in instance.hosts:
        try:
            link = link_of(podman.inspect(instance.container(host)).pid)
        except PodmanError:
            continue  # not made yet
        if link is not None and _links()[link].get("master") != instance.bridge:
            _run("ip", "link", "set", link, "master", instance.bridge, "up")
            done.append(f"plugged {host} in again")
    return done


def netavark_leftovers(listing: str, subnet: str) -> tuple[list[list[str]], list[str]]:
    """From ``iptables -S``: rules about ``subnet`` as deletions, and the chains made for it alone."""
    deletions: list[list[str]] = []
    chains: list[str] = []
    for line in listing.splitlines():
        words = shlex.split(line)
        if words[:1] == ["-A"] and subnet in words:
            own = re.fullmatch(r"NETAVARK-[0-9A-F]+", words[1])
            if own is None:  # rules within a chain of its own go with the chain
                deletions.append(["-D", *words[1:]])
            target = words[words.index("-j") + 1] if "-j" in words else ""
            chains += [name for name in (words[1], target) if re.fullmatch(r"NETAVARK-[0-9A-F]+", name)]
    return deletions, list(dict.fromkeys(chains))


def _remove_netavark_rules(subnet: str) -> list[str]:
    """Netavark keeps its rules for as long as the bridge has a port, and ours always has the keeper."""
    done: list[str] = []
    for table in ("nat", "filter"):
        command = ("iptables", "--wait", "--table", table)
        deletions, chains = netavark_leftovers(_run(*command, "-S"), subnet)
        for words in [*deletions, *(["-F", chain] for chain in chains), *(["-X", chain] for chain in chains)]:
            _run(*command, *words)
        if deletions or chains:
            done.append(f"removed {len(deletions)} rules and {len(chains)} chains of {table}")
    return done


def remove(instance: Instance) -> list[str]:
    """Take bridge, keeper and rules away; what is already gone is no error."""
    done = _remove_netavark_rules(str(instance.subnet))
    links = _links()
    for link in (instance.bridge + "k", instance.bridge):
        if link in links:
            _run("ip", "link", "del", link)
            done.append(f"removed {link}")
    table = table_name(instance.name)
    if f"table inet {table}\n" in _run("nft", "list", "tables"):
        _run("nft", "delete", "table", "inet", table)
        done.append(f"removed nft table {table}")
    try:
        if heal(instance)["healed"]:
            done.append("took back the partitions")
    except PartitionError as error:
        raise NetworkError(str(error)) from error
    before = instance.home / "network" / "ip_forward.before"
    others = [p for p in instance.home.parent.glob("*/network/ip_forward.before") if p != before]
    if before.exists() and before.read_text().strip() == "0":
        if others:
            # Another lab still forwards; it inherits the duty of putting the setting back.
            others[0].write_text("0\n")
        else:
            IP_FORWARD.write_text("0\n")
            done.append("put net.ipv4.ip_forward back to 0")
    before.unlink(missing_ok=True)
    return done


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m diting.lab.network", description="The lab's bridge and rules."
    )
    parser.add_argument("action", choices=("ensure", "remove"))
    parser.add_argument("--lab-home", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        found = lab.load(args.lab_home)
        done = ensure(found) if args.action == "ensure" else remove(found)
    except (lab.InstanceError, NetworkError) as error:
        parser.exit(1, f"{error}\n")
    sys.stdout.write(json.dumps({"changed": bool(done), "done": done}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
