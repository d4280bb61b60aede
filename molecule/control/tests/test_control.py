# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that controls and probes: the command, the gate and its lever, the proxy without databases."""

from __future__ import annotations

import json
import socket

import pytest

from support.lab_host import (
    has_to_be_refused,
    has_to_run,
    listening,
    modes,
    playbook,
    run,
    verify_while,
)
from support.tree import ROOT

ADDRESS = "10.89.83.11"


def test_listens_for_the_database_and_for_nothing_else(host):
    assert listening(host) == {
        "0.0.0.0:5000 haproxy",
        "0.0.0.0:5001 haproxy",
        "127.0.0.1:9601 diting",
        "*:9090 prometheus",
        "*:9093 prometheus-aler",
        "*:9100 prometheus-node",
    }


@pytest.mark.parametrize(
    "name",
    [
        "chrony.service",
        "diting-guard-clock.service",
        "haproxy.service",
        "prometheus.service",
        "prometheus-alertmanager.service",
        "prometheus-node-exporter.service",
    ],
)
def test_service_runs_and_starts_at_boot(host, name):
    has_to_run(host, name)


def test_files_have_exactly_these_owners_and_modes(host):
    wanted = {
        "/etc/diting/pki/ca": "700 root:root",
        "/etc/diting/pki/ca/ca.key": "600 root:root",
        "/etc/diting/pki/host.key": "640 root:diting-pki",
        "/etc/diting/client/prober.pgpass": "600 diting:diting",
        "/etc/diting/gate/policy.json": "644 root:root",
        "/etc/diting/guards/clock.json": "644 root:root",
        "/etc/systemd/system/diting-guard-clock.service": "644 root:root",
        "/var/lib/diting/gate": "2750 root:diting-journal",
        "/var/lib/diting/guards/clock": "750 _chrony:_chrony",
        "/var/lib/diting/guards/clock/journal.jsonl": "640 _chrony:_chrony",
        "/var/lib/diting/journal": "2770 root:diting-journal",
        "/etc/prometheus/alertmanager.yml": "640 root:prometheus",
        "/etc/prometheus/rules/diting.yml": "644 root:root",
        "/opt/diting": "755 root:root",
        "/opt/diting/releases": "755 root:root",
    }
    assert modes(host, *wanted) == wanted


def test_the_command_is_the_release_that_current_points_at(host):
    target = run(host, "readlink -f /usr/local/bin/diting").strip()
    releases = run(host, "ls /opt/diting/releases").split()
    assert target.startswith("/opt/diting/releases/")
    assert len(releases) == 1
    version = (ROOT / "src/diting/__init__.py").read_text().split('__version__ = "')[1].split('"')[0]
    assert releases[0].startswith(version)
    assert run(host, "diting --version") == f"diting {version}\n"


def test_no_compiler_and_no_index_was_needed(host):
    assert host.run("command -v gcc cc make").rc != 0
    packages = json.loads(run(host, "/opt/diting/current/bin/python -m pip list --format json"))
    assert {item["name"] for item in packages} >= {"diting"}


def test_the_lever_stops_a_request_and_says_why(host):
    """One command, no database, no controller."""
    run(host, "diting gate stop --reason 'molecule pulls the lever'")
    try:
        assert modes(host, "/var/lib/diting/gate/STOP")
        status = host.run("diting gate status")
        assert "molecule pulls the lever" in status.stdout
    finally:
        run(host, "diting gate resume --reason 'molecule is done'")
    assert not modes(host, "/var/lib/diting/gate/STOP")
    done = host.run("diting gate verify-journal")
    assert done.rc == 0, done.stdout + done.stderr


def test_guards_can_read_what_the_gate_wrote_and_change_none_of_it(host):
    """The failover guard runs as this user, and a gate that it cannot read forbids every fence."""
    run(host, "diting gate stop --reason one && diting gate resume --reason two")
    folder = "/var/lib/diting/gate"
    assert run(host, f"runuser -u diting -- cat {folder}/journal.jsonl")
    for word in (f"echo x >> {folder}/journal.jsonl", f"touch {folder}/maintenance.json"):
        assert host.run(f"runuser -u diting -- sh -c '{word}'").rc != 0, word


def test_an_edited_journal_is_noticed(host):
    run(host, "diting gate stop --reason one && diting gate resume --reason two")
    journal = "/var/lib/diting/gate/journal.jsonl"
    run(host, f"cp -p {journal} /root/journal.good")
    try:
        run(host, f"sed -i '$ s/two/TWO/' {journal}")
        assert host.run("diting gate verify-journal").rc != 0
    finally:
        run(host, f"mv /root/journal.good {journal}")
    assert host.run("diting gate verify-journal").rc == 0


def test_the_proxy_takes_no_client_while_there_is_no_database():
    """A connection that is accepted and then hangs would cost every client its whole timeout."""
    with socket.create_connection((ADDRESS, 5000), timeout=5) as connection:
        connection.settimeout(5)
        assert connection.recv(1) == b""


def test_the_proxy_shows_both_members_down(host):
    asked = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); "
        "s.sendall(b'show stat\\n'); print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
    )
    text = run(host, f'python3 -c "{asked}"')
    rows = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")]
    servers = [(row[0], row[1], row[17].split()[0]) for row in rows if row[1] not in ("FRONTEND", "BACKEND")]
    assert len(servers) == 4
    assert {name for _, name, _ in servers} == {"pg1", "pg2"}
    assert {state for _, _, state in servers} == {"DOWN"}


def test_checks_of_the_proxy_verify_the_authority(host):
    text = run(host, "cat /etc/haproxy/haproxy.cfg")
    assert "verify none" not in text
    assert "verify required" in text
    assert "on-marked-down shutdown-sessions" in text


@pytest.mark.parametrize(
    ("role", "variables", "named"),
    [
        ("haproxy", {"haproxy_backends": []}, "haproxy_backends"),
        ("haproxy", {"haproxy_write_port": 5001}, "haproxy_"),
        ("guard_runtime", {"guard_runtime_keep_releases": 0}, "guard_runtime_keep_releases"),
        (
            "alerting",
            {
                "alerting_receivers": [
                    {"name": "a", "kind": "webhook", "severities": ["warning"], "url": "https://a.example"}
                ]
            },
            "wanted critical and emergency",
        ),
        ("host_metrics", {"host_metrics_collectors": ["cpu"]}, "host_metrics_collectors"),
        (
            "drill_schedule",
            {
                "drill_schedule_jobs": [
                    {"name": "a", "command": ["x"], "calendar": "someday", "maximum_age_seconds": 1}
                ]
            },
            "job a: found calendar someday",
        ),
        (
            "drill_schedule",
            {
                "drill_schedule_jobs": [
                    {"name": "a", "playbook": "playbooks/none.yml", "maximum_age_seconds": 1}
                ]
            },
            "found no playbooks/none.yml in /etc",
        ),
        (
            "drill_schedule",
            {"drill_schedule_jobs": [{"name": "a", "maximum_age_seconds": 1}]},
            "either a playbook",
        ),
    ],
    ids=[
        "no backends",
        "one port twice",
        "keep nothing",
        "nobody is told",
        "no textfiles",
        "no such time",
        "no such playbook",
        "nothing to run",
    ],
)
def test_a_wrong_variable_is_refused_by_name_before_anything_changes(role, variables, named):
    has_to_be_refused(role, variables, named)


def test_half_a_policy_is_refused_and_the_one_in_force_stays(host):
    before = run(host, "sha256sum /etc/diting/gate/policy.json")
    done = playbook(
        "converge.yml", "--tags", "gate_configure", "--extra-vars", '{"gate_policy": {"schema_version": 1}}'
    )
    assert done.returncode != 0
    assert "rules" in done.stdout, done.stdout
    assert run(host, "sha256sum /etc/diting/gate/policy.json") == before


def test_verify_sees_what_is_broken(host):
    done = verify_while(
        host, "chmod 0644 /etc/diting/pki/host.key", mended="chmod 0640 /etc/diting/pki/host.key"
    )
    assert done.returncode != 0
    assert "host.key" in done.stdout
