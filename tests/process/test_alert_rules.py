# SPDX-License-Identifier: GPL-3.0-or-later
"""Every alert fires when it should and only then, by Prometheus's own eyes; every runbook it names is there."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from support.monitoring import program, write_config
from support.tree import ROOT

pytestmark = pytest.mark.process
CASES = sorted((ROOT / "tests/rules").glob("*.test.yml"))
RECEIVERS = [
    {
        "name": "hook",
        "kind": "webhook",
        "severities": ["critical"],
        "url": "https://a.example/x",
        "ca": "/x/ca.crt",
    },
    {
        "name": "room",
        "kind": "dingtalk",
        "severities": ["emergency"],
        "url": "https://b.example/x",
        "secret": "s",
    },
    {
        "name": "pager",
        "kind": "pagerduty",
        "severities": ["emergency"],
        "url": "https://c.example/x",
        "secret": "s",
    },
    {
        "name": "mail",
        "kind": "email",
        "severities": ["warning", "critical"],
        "smtp": {
            "host": "mail.example",
            "sender": "a@b.example",
            "to": ["c@d.example"],
            "user": "u",
            "password": "p",
        },
    },
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alerting")
    write_config(
        folder,
        alerting_clusters=[{"name": "main", "members": 3}],
        alerting_targets=[{"job": "node", "targets": ["pg1:9100"]}],
        alerting_receivers=RECEIVERS,
        alerting_relay_url="https://store1:9097",
        alerting_scheduler_hosts=["ops1", "ops-a.example.com"],
        alerting_labels={"estate": "test"},
    )
    return folder


@pytest.fixture(scope="module")
def rules(written):
    groups = yaml.safe_load((written / "rules/diting.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def checked(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.name.partition(".")[0])
def test_each_alert_fires_when_it_should_and_only_then(written, cases):
    copy = written / "rules" / cases.name
    shutil.copy(cases, copy)
    try:
        out = checked(program("promtool"), "test", "rules", copy.name, cwd=copy.parent)
    finally:
        copy.unlink()
    assert "SUCCESS" in out


def test_each_alert_has_a_case(rules):
    cases = "".join(path.read_text() for path in CASES)
    named = set(re.findall(r'alertname(?:="|: )(\w+)', cases))
    assert {rule["alert"] for rule in rules} - named == set()


def test_each_alert_says_how_bad_it_is_what_it_is_and_what_to_do(rules):
    assert len(rules) > 20
    for rule in rules:
        assert rule["labels"]["severity"] in {"none", "info", "warning", "critical", "emergency"}, rule
        assert rule["annotations"]["summary"], rule
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        text = (ROOT / page).read_text()
        headings = {
            re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-")
            for line in re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
        }
        assert anchor in headings, f"{rule['alert']}: {page} has no heading {anchor!r}"


def test_what_is_written_is_taken(written):
    checked(program("promtool"), "check", "config", "--syntax-only", "prometheus.yml", cwd=written)
    checked(program("amtool"), "check-config", "alertmanager.yml", cwd=written)


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ("alertname=DitingWatchdog severity=none", "heartbeat"),
        ("alertname=X severity=emergency", "room,pager"),
        ("alertname=X severity=critical", "hook,mail"),
        ("alertname=X severity=warning", "mail"),
        ("alertname=X severity=info", "nobody"),
        # What nobody gave a level must not fall through.
        ("alertname=X", "hook,mail"),
        ("alertname=X severity=sev1", "hook,mail"),
    ],
)
def test_each_level_goes_where_it_should(written, labels, receivers):
    out = checked(
        program("amtool"),
        "config",
        "routes",
        "test",
        "--config.file=alertmanager.yml",
        *labels.split(),
        cwd=written,
    )
    assert out.strip() == receivers
