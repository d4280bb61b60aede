# SPDX-License-Identifier: GPL-3.0-or-later
"""Which etcd a member of the database asks first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

ROLE = Path(__file__).parents[2] / "roles/patroni"


def order(member: str, hosts: list[str]) -> list[str]:
    known = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    context = {"inventory_hostname": member, "patroni_etcd_hosts": hosts}
    for name in ("__patroni_etcd_place", "__patroni_etcd_in_order"):
        context[name] = NativeEnvironment().from_string(known[name]).render(context)
    return context["__patroni_etcd_in_order"]


@pytest.mark.parametrize(
    ("member", "wanted"),
    [
        ("pg1", ["pg1", "pg2", "pg3"]),
        ("pg2", ["pg2", "pg3", "pg1"]),
        ("pg3", ["pg3", "pg1", "pg2"]),
        ("elsewhere", ["pg1", "pg2", "pg3"]),
    ],
)
def test_the_etcd_of_its_own_host_comes_first_and_the_next_is_another_for_each(member, wanted):
    assert order(member, ["pg1", "pg2", "pg3"]) == wanted


@pytest.mark.parametrize(("member", "kept"), [("pg2", True), ("elsewhere", False)])
def test_only_with_an_etcd_of_its_own_is_the_order_kept(member, kept):
    """Without ``use_proxies`` Patroni asks etcd who its members are, and shuffles them."""
    text = (ROLE / "templates/etc/patroni/patroni.yml.j2").read_text()
    begin = text.index("\netcd3:\n")
    section = text[begin : text.index("protocol: https", begin)]
    environment = NativeEnvironment()
    environment.filters |= {
        "regex_replace": lambda value, *_: f"{value}:2379",
        "to_json": lambda value: json.dumps(list(value)),
    }
    made = environment.from_string(section).render(
        inventory_hostname=member,
        patroni_etcd_hosts=["pg1", "pg2", "pg3"],
        __patroni_etcd_in_order=order(member, ["pg1", "pg2", "pg3"]),
        patroni_etcd_port=2379,
    )
    assert ("use_proxies" in made) is kept
    if kept:
        assert yaml.safe_load(made)["etcd3"] == {
            "hosts": ["pg2:2379", "pg3:2379", "pg1:2379"],
            "use_proxies": True,
        }
