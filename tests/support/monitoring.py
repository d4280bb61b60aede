# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus and Alertmanager of Debian's packages, configured by the role's own templates."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.playbook import run_playbook
from support.tree import ROOT

TEMPLATES = {
    "prometheus/rules/diting.yml": "rules/diting.yml",
    "prometheus/prometheus.yml": "prometheus.yml",
    "prometheus/alertmanager.yml": "alertmanager.yml",
    "prometheus/web.yml": "web.yml",
}


def program(name: str) -> str:
    """Path of a program of the packages; skips when they are not here."""
    folder = os.environ.get("DITING_TEST_PROMETHEUS")
    found = shutil.which(name, path=folder) if folder else shutil.which(name)
    if found is None:
        pytest.skip(
            f"{name} is not installed (Debian: prometheus, prometheus-alertmanager) and DITING_TEST_PROMETHEUS is not set"
        )
    return found


def alertmanager(*options: str) -> list[str]:
    """Command of Alertmanager. Debian's has the place of its texts built in: where the package is only unpacked, it is shown there to this process alone."""
    binary = program("prometheus-alertmanager")
    texts = Path(binary).parents[1] / "share/prometheus"
    if Path("/usr/share/prometheus/alertmanager/default.tmpl").exists():
        return [binary, *options]
    script = 'mount -t tmpfs none /usr/share && cp -a "$1" /usr/share/prometheus && shift && exec "$@"'
    return ["unshare", "--mount", "sh", "-ec", script, "sh", str(texts), binary, *options]


def write_config(folder: Path, **variables: Any) -> None:
    """The files that role alerting writes, below ``folder``, with ``variables`` over the role's defaults."""
    (folder / "rules").mkdir(parents=True)
    role = ROOT / "roles/alerting"
    tasks = [
        {
            "name": f"Write {dest}",
            "ansible.builtin.template": {
                "src": str(role / f"templates/etc/{src}.j2"),
                "dest": str(folder / dest),
                "mode": "0644",
            },
        }
        for src, dest in TEMPLATES.items()
    ]
    play = {
        "name": "Write what the role writes",
        "hosts": "localhost",
        "gather_facts": False,
        "connection": "local",
        "vars_files": [
            str(role / "defaults/main.yml"),
            str(role / "vars/main.yml"),
            str(folder / "vars.yml"),
        ],
        "tasks": tasks,
    }
    (folder / "vars.yml").write_text(yaml.safe_dump(variables))
    (folder / "book.yml").write_text(yaml.safe_dump([play]))
    done = run_playbook(folder / "book.yml", "-i", "localhost,", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    # Where the role puts the rules, seen from here.
    config = folder / "prometheus.yml"
    config.write_text(config.read_text().replace("/etc/prometheus/rules", str(folder / "rules")))
