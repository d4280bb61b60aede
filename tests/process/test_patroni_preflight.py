# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role patroni refuses before it looks at anything: combinations that one host alone cannot show."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from support.playbook import run_playbook

pytestmark = pytest.mark.process
MEMBERS = ["localhost", "pg2", "pg3"]


def preflight(directory: Path, members: list[str], **variables: object) -> str:
    names = ("superuser", "replication", "rewind", "rest", "app", "prober")
    known = {
        "patroni_hosts": members,
        "patroni_member_addresses": dict.fromkeys(members, "127.0.0.1"),
        "etcd_hosts": members,
        "postgresql_networks": [{"name": "clients", "cidr": "10.0.0.0/24"}],
        **{f"patroni_{name}_password": "long-enough-for-a-test" for name in names},
    }
    role = {"name": "diting.dr.patroni", "tasks_from": "preflight"}
    # A member's own variable, which the others see in hostvars as they see one of the inventory.
    tags = variables.pop("patroni_tags", {})
    book = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": known | variables,
            "tasks": [
                {"ansible.builtin.set_fact": {"patroni_tags": tags}},
                {"ansible.builtin.include_role": role},
            ],
        }
    ]
    (directory / "book.yml").write_text(yaml.safe_dump(book, sort_keys=False))
    return run_playbook(directory / "book.yml", "--check", timeout=120).stdout


@pytest.mark.parametrize(
    ("members", "variables", "refused"),
    [
        (
            MEMBERS[:2],
            {"patroni_synchronous_mode_strict": True},
            "patroni_synchronous_mode_strict is true with 2 members",
        ),
        (MEMBERS, {"patroni_synchronous_mode_strict": True}, None),
        (
            MEMBERS,
            {"patroni_synchronous_mode_strict": True, "patroni_tags": {"nosync": True}},
            "patroni_synchronous_mode_strict is true with 3 members (1 standbys",
        ),
        (MEMBERS[:2], {}, None),
        (MEMBERS, {"patroni_synchronous_node_count": 3}, "patroni_synchronous_node_count is 3"),
    ],
    ids=["two and strict", "three and strict", "a standby that may not", "two", "more than there are"],
)
def test_members_and_replication_have_to_fit(tmp_path, members, variables, refused):
    printed = preflight(tmp_path, members, **variables)
    assert "Check the inputs" in printed, printed
    if refused is None:
        assert "failed=0" in printed or "Check the watchdog" in printed, printed
    else:
        assert refused in printed, printed
        assert "Look at the unit" not in printed
