# SPDX-License-Identifier: GPL-3.0-or-later
"""What verify makes of the clock that chrony describes."""

from __future__ import annotations

import pytest

from support.stand_in import Hosts

pytestmark = pytest.mark.process

# As chrony 4.3 answers "tracking" and "sources", the second for 127.0.0.21.
ITSELF = "7F7F0101,,10,1795278083.465629010,0.0,0.0,0.0,0.000,0.000,0.000,0.000000000,0.000000000,0.0,Normal"
ANOTHER = (
    "7F000015,127.0.0.21,11,1795278104.382237436,-0.000002122,0.000000144,0.000000144,"
    "-0.077,0.000,4.926,0.000013253,0.000010523,2.0,Normal"
)
SELECTED = "^,*,127.0.0.21,10,4,377,12,0.000000030,0.000001617,0.000003275"
SILENT = "^,?,127.0.0.21,10,5,0,258,0.000000030,0.000001617,0.000003275"


def server(hosts: Hosts, name: str, *answer: str, sources: list[str]) -> None:
    lines = "\n".join(answer)
    programs = {"chronyc": f"cat <<'EOF'\n{lines}\nEOF", "systemd-detect-virt": "echo none; exit 1"}
    hosts.add(name, programs, base_time_server=True, base_time_sources=sources)


def test_a_server_that_lost_its_sources_is_not_healthy(tmp_path):
    hosts = Hosts(tmp_path)
    server(hosts, "lost", ANOTHER, SILENT, sources=["127.0.0.21"])
    server(hosts, "lost_and_started_anew", ITSELF, SILENT, sources=["127.0.0.21"])
    server(hosts, "alone_by_design", ITSELF, sources=[])
    server(hosts, "synchronised", ANOTHER, SELECTED, sources=["127.0.0.21"])
    found = hosts.findings("base", base_time_sync_timeout_seconds=1)
    # Past the clock, each stops at something else that a host without the role has not.
    wrong = {name for name, detail in found.items() if detail.startswith("Clock of")}
    assert wrong == {"lost", "lost_and_started_anew"}, found
    assert "following 127.0.0.21 (state *) and not its own clock" in found["lost"]
