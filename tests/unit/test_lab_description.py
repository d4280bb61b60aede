# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab is told about itself and about this machine."""

from __future__ import annotations

import json

import pytest

from diting.lab import image, instance, network, site_settings, view

GOOD = {
    "name": "test",
    "subnet": "10.89.99.0/24",
    "gateway": "10.89.99.1",
    "bridge": "dtest",
    "hosts": {"pg1": "10.89.99.11", "pg2": "10.89.99.12"},
    "database_hosts": ["pg1", "pg2"],
    "podman_home": "/nowhere",
}


@pytest.fixture
def lab(tmp_path):
    return instance.parse(GOOD, tmp_path)


def test_a_good_description_is_taken(lab):
    assert lab.container("pg1") == "test-pg1"
    assert lab.power_url == "https://10.89.99.1:7443"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"name": ""}, "/name"),
        ({"name": None}, "/name"),
        ({"bridge": "fifteen-letters"}, "/bridge"),
        ({"gateway": "10.89.98.1"}, "/gateway"),
        ({"subnet": "10.89.99.0/99"}, "/subnet"),
        ({"hosts": {}}, "/hosts"),
        ({"hosts": {"pg1": "pg1.example"}, "database_hosts": []}, "/hosts/pg1"),
        ({"hosts": {"pg1": "10.1.1.1"}, "database_hosts": []}, "/hosts/pg1"),
        ({"database_hosts": ["pg9"]}, "/database_hosts"),
        ({"pgdata_mib": 100}, "/pgdata_mib"),
        ({"latency_seconds": -1}, "/latency_seconds"),
        ({"latency_seconds": True}, "/latency_seconds"),
    ],
)
def test_a_wrong_description_is_refused_by_place(tmp_path, change, place):
    with pytest.raises(instance.InstanceError, match=place):
        instance.parse({**GOOD, **change}, tmp_path)


def test_all_problems_are_told_at_once(tmp_path):
    with pytest.raises(instance.InstanceError) as caught:
        instance.parse({}, tmp_path)
    assert all(
        place in str(caught.value) for place in ("/name", "/bridge", "/subnet", "/hosts", "/podman_home")
    )


def test_a_missing_lab_says_what_to_run(tmp_path):
    with pytest.raises(instance.InstanceError, match=r"run \./scripts/lab up"):
        instance.load(tmp_path)


def test_an_unknown_host_is_refused(lab):
    with pytest.raises(instance.InstanceError, match="pg9"):
        lab.container("pg9")


# --- the rules -------------------------------------------------------------------------------


def chain(rules, name):
    return [
        line.strip()
        for line in rules.partition(f"chain {name} {{")[2].partition("}\n  chain")[0].splitlines()
        if line.strip()
    ]


def test_metadata_and_carrier_addresses_are_dropped_before_any_port_opens(lab):
    outbound = chain(network.ruleset(lab, ["192.0.2.53"], [80, 443]), "outbound")
    dropped = next(
        i for i, rule in enumerate(outbound) if "169.254.0.0/16" in rule and "100.64.0.0/10" in rule
    )
    opened = next(i for i, rule in enumerate(outbound) if "dport { 80, 443 } accept" in rule)
    assert dropped < opened
    assert outbound[-1] in ("drop", "}") and "drop" in outbound  # noqa: PT018


def test_nothing_new_comes_in_and_only_power_control_answers(lab):
    rules = network.ruleset(lab, [], [80])
    assert chain(rules, "inbound")[:2] == ["ct state established,related accept", "drop"]
    accepted = [rule for rule in chain(rules, "machine") if rule.endswith("accept")]
    assert accepted == [
        "ct state established,related accept",
        "meta l4proto icmp accept",
        "ip daddr 10.89.99.1 tcp dport { 7443 } accept",
    ]


def test_only_the_labs_own_netavark_rules_are_found():
    listing = """\
-P POSTROUTING ACCEPT
-N NETAVARK-AAAA1111
-A POSTROUTING -s 10.89.99.0/24 -j NETAVARK-AAAA1111
-A POSTROUTING -s 10.89.9.0/24 -j NETAVARK-BBBB2222
-A POSTROUTING -j NETAVARK-HOSTPORT-MASQ
-A NETAVARK-AAAA1111 -d 10.89.99.0/24 -j ACCEPT
-A NETAVARK-AAAA1111 ! -d 224.0.0.0/4 -j MASQUERADE
"""
    deletions, chains = network.netavark_leftovers(listing, "10.89.99.0/24")
    assert deletions == [["-D", "POSTROUTING", "-s", "10.89.99.0/24", "-j", "NETAVARK-AAAA1111"]]
    assert chains == ["NETAVARK-AAAA1111"]


# --- package settings ------------------------------------------------------------------------

DEB822 = """\
# a comment
Types: deb
URIs: http://mirror.example:8080/debian
Suites: bookworm bookworm-updates trixie
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://vendor.example/apt
Suites: bookworm
Components: stable
"""


def test_only_debians_own_sources_are_passed_on():
    found = site_settings.debian_sources(
        [DEB822],
        [
            "deb [arch=amd64] http://two.example/d bookworm-security main # x\n#deb http://no.example bookworm main"
        ],
    )
    assert "http://mirror.example:8080/debian" in found
    assert "Suites: bookworm bookworm-updates\n" in found
    assert "http://two.example/d" in found
    for absent in ("trixie", "vendor.example", "off.example", "no.example", "deb-src"):
        assert absent not in found


def test_without_a_source_the_folder_and_the_fix_are_named():
    with pytest.raises(ValueError, match=r"/etc/apt: found no source of Debian bookworm"):
        site_settings.debian_sources([], [""])


def test_pip_settings_are_merged_and_local_paths_left_out():
    base = "[global]\nindex-url = https://one.example/simple\nfind-links = /opt/wheels\ncert = /opt/ca.pem\n"
    merged = site_settings.pip_conf(
        base, {"PIP_INDEX_URL": "https://two.example/simple", "PIP_DEFAULT_TIMEOUT": "9", "HOME": "/root"}
    )
    assert "index-url = https://two.example/simple" in merged
    assert "default-timeout = 9" in merged
    assert f"cert = {site_settings.CA_BUNDLE}" in merged
    assert "wheels" not in merged
    assert "root" not in merged


def settings(**changes):
    empty = dict.fromkeys(site_settings.SiteSettings.__dataclass_fields__, "")
    return site_settings.SiteSettings(**{**empty, **changes})


def test_ports_of_mirrors_and_proxies_are_opened():
    found = settings(
        apt_sources="URIs: http://mirror.example:8080/debian",
        environment="https_proxy=http://user:pw@proxy.example:3128\n",
        apt_conf='Acquire::http::Proxy "http://apt.example:9999/";',
    )
    assert site_settings.egress_tcp_ports(found) == [80, 443, 3128, 8080, 9999]
    assert site_settings.egress_tcp_ports(settings()) == [80, 443]


def test_a_loopback_resolver_is_not_what_hosts_ask(tmp_path):
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\nnameserver 192.0.2.1\nnameserver ::1\nnameserver 192.0.2.1\n")
    assert site_settings.resolvers(conf) == ["192.0.2.1"]


def test_settings_tell_one_machine_from_another():
    assert settings(pip_conf="a").digest() != settings(apt_conf="a").digest()


def test_the_image_asks_for_nothing_but_the_minimum():
    assert image.packages() == [
        "ca-certificates",
        "dbus",
        "openssh-server",
        "python3",
        "systemd",
        "systemd-sysv",
    ]


# --- the connection string -------------------------------------------------------------------


def test_the_dsn_names_what_is_missing(lab):
    with pytest.raises(view.ViewError, match=r"client/pgpass.*playbooks/site.yml"):
        view.dsn(lab)


def test_the_dsn_lists_every_database_host_and_no_secret(lab, tmp_path):
    (tmp_path / "client").mkdir()
    for name in ("pgpass", "ca.crt", "diting_app.crt", "diting_app.key"):
        (tmp_path / "client" / name).write_text("very-secret")
    found = dict(part.split("=", 1) for part in view.dsn(lab).split())
    assert (found["host"], found["hostaddr"]) == ("pg1,pg2", "10.89.99.11,10.89.99.12")
    assert (found["sslmode"], found["target_session_attrs"]) == ("verify-full", "read-write")
    assert "password" not in found
    assert "very-secret" not in json.dumps(found)


def test_the_table_shows_failures_and_reasons():
    rows = [
        {
            "host": "pg1",
            "address": "10.0.0.1",
            "power": "on",
            "ssh": "ok",
            "services": ["etcd"],
            "failed": ["patroni"],
            "why": "",
        },
        {
            "host": "pg2",
            "address": "10.0.0.2",
            "power": "unknown",
            "ssh": "-",
            "services": [],
            "failed": [],
            "why": "no podman",
        },
    ]
    text = view.table(rows)
    assert "etcd, !patroni failed" in text
    assert "no podman" in text
