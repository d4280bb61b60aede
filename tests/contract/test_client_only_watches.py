# SPDX-License-Identifier: GPL-3.0-or-later
"""The prober's host measures recovery; nothing that recovers anything runs or acts there."""

from __future__ import annotations

import yaml

from support.tree import ROOT

WATCHING = {"base", "pki", "host_metrics", "guard_runtime", "database_client", "haproxy"}
"""Roles that the client group may get: a client, its proxy, and what every host has."""


def test_the_client_group_gets_only_what_a_client_needs():
    plays = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())
    got = {
        (role["role"] if isinstance(role, dict) else role).rpartition(".")[2]
        for play in plays
        if play["hosts"] in {"client", "all"}
        for role in play.get("roles", [])
    }
    assert got
    assert got <= WATCHING


def test_the_recovery_never_acts_on_the_probers_host():
    for path in sorted((ROOT / "roles/database_recovery").rglob("*.yml")):
        text = path.read_text()
        assert "prober" not in text, path
        assert "groups['client']" not in text, path
