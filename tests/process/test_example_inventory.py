# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventory, with the vault that its README asks for, gives every role what it must have."""

from __future__ import annotations

import re

import pytest
import yaml

from support.playbook import run_playbook
from support.tree import ROOT, role_names

pytestmark = pytest.mark.process


@pytest.fixture
def hollow(tmp_path, monkeypatch):
    """The collection with roles that check their arguments and then do nothing."""
    for role in role_names():
        hollow_role = tmp_path / "ansible_collections/diting/dr/roles" / role
        (hollow_role / "tasks").mkdir(parents=True)
        (hollow_role / "tasks/main.yml").write_text("---\n[]\n")
        for part in ("defaults", "meta", "vars"):
            if (ROOT / "roles" / role / part).is_dir():
                (hollow_role / part).symlink_to(ROOT / "roles" / role / part)
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", str(tmp_path))
    return tmp_path


def test_every_role_of_the_estate_has_what_it_requires(hollow):
    books = ("site", "recover/l4_database_failure", "drill/l4_database_failure")
    plays = [
        {"name": play["name"], "hosts": play["hosts"], "gather_facts": False, "roles": play["roles"]}
        for book in books
        for play in yaml.safe_load((ROOT / f"playbooks/{book}.yml").read_text())
        if "roles" in play
    ]
    assert plays
    readme = (ROOT / "inventories/example/README.md").read_text()
    vault = dict.fromkeys(re.findall(r"\bvault_\w+", readme), "0123456789abcdef" * 4)
    (hollow / "site.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
    (hollow / "vault.yml").write_text(yaml.safe_dump(vault))
    done = run_playbook(
        hollow / "site.yml", "-i", "inventories/example", "-e", f"@{hollow / 'vault.yml'}", timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for host in ("db-a", "store-a", "ops-a", "client-a", "localhost"):
        assert re.search(rf"^{host} +: ok=[1-9]", done.stdout, re.MULTILINE), done.stdout
