# SPDX-License-Identifier: GPL-3.0-or-later
"""The file system for a database host's data: small, its own, lasting, and begun anew with a new host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diting.lab import instance as lab
from support.playbook import run_playbook
from support.tree import ROOT

pytestmark = pytest.mark.process

SCRIPT = """
import json, os, sys
from pathlib import Path
from diting.lab import instance as lab, pgdata

instance = lab.load(Path(sys.argv[1]))
told = {"first": pgdata.ensure(instance, ["pg1"]), "second": pgdata.ensure(instance, ["pg1"])}
point = pgdata.mount_point(instance, "pg1")
told["size"] = os.statvfs(point).f_blocks * os.statvfs(point).f_frsize
told["own"] = os.stat(point).st_dev != os.stat(point.parent).st_dev
told["taken"] = pgdata.image_of(instance, "pg1").stat().st_blocks * 512
(point / "kept").write_text("x")
pgdata._run("umount", str(point))  # as after a reboot
told["again"] = pgdata.ensure(instance, ["pg1"])
told["kept"] = (point / "kept").exists()
told["new"] = len(pgdata.new(instance, ["pg1"]))
told["empty"] = [path.name for path in point.iterdir()]
pgdata._run("umount", str(point))
print(json.dumps(told))
"""


def test_it_is_made_once_survives_and_begins_anew(tmp_path):
    (tmp_path / "hosts" / "pg1").mkdir(parents=True)
    description = {
        "name": "test",
        "subnet": "10.99.8.0/24",
        "gateway": "10.99.8.1",
        "bridge": "none",
        "hosts": {"pg1": "10.99.8.11"},
        "podman_home": "/nowhere",
        "database_hosts": ["pg1"],
        "pgdata_mib": 512,
    }
    (tmp_path / "lab.json").write_text(json.dumps(description))
    image = tmp_path / "hosts/pg1/pgdata.img"
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(lab.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if any(words in done.stderr for words in ("Operation not permitted", "cannot find an unused loop")):
        pytest.skip("no right to mount, or no loop devices")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["first"] == [f"made {image}", f"mounted {image.with_suffix('')}"]
    assert told["second"] == []
    assert 400 << 20 < told["size"] <= 512 << 20
    assert told["own"]
    assert told["taken"] < 64 << 20
    assert told["again"] == [f"mounted {image.with_suffix('')}"]
    assert told["kept"]
    assert told["new"] == 2
    assert told["empty"] == ["lost+found"]
    devices = subprocess.run(
        ["losetup", "--list", "--output", "BACK-FILE"], capture_output=True, text=True, check=True
    )
    assert str(image) not in devices.stdout


def play(out, mebibytes):
    """Writes what each host's container would be made by, a line each."""
    tasks = yaml.safe_load((ROOT / "playbooks/lab/tasks/containers.yml").read_text())
    made = next(task for task in tasks if task["name"] == "Create the hosts that are missing")["vars"]
    line = "{{ item }} {{ __lab_container_create | list | to_json }}"
    return {
        "name": "Say what would be created",
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROOT / "playbooks/lab/vars/main.yml")],
        "vars": {**made, "__lab_image": {"recipe": "x"}, "lab_pgdata_mib": mebibytes},
        "tasks": [
            {
                "name": "Say it",
                "ansible.builtin.lineinfile": {
                    "path": str(out),
                    "create": True,
                    "line": line,
                    "mode": "0600",
                },
                "loop": "{{ __lab_hosts }}",
            }
        ],
    }


def test_the_store_is_made_anew_with_the_data_that_its_archive_is_of(tmp_path):
    outs = [tmp_path / "first", tmp_path / "second"]
    book = tmp_path / "play.yml"
    book.write_text(yaml.safe_dump([play(out, size) for out, size in zip(outs, (8192, 4096), strict=True)]))
    done = run_playbook(book, "-i", str(ROOT / "inventories/lab"))
    assert done.returncode == 0, done.stdout
    first, second = (dict(line.split(" ", 1) for line in out.read_text().splitlines()) for out in outs)
    assert {host for host in first if first[host] != second[host]} == {"pg1", "pg2", "pg3", "store1"}
