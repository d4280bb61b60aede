# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of the guards say what the code does, and their units let them do no more than they need."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import jinja2
import pytest
import yaml

from diting.guards.runtime import registry
from support.tree import ROOT, read

ROLE = ROOT / "roles" / "guard_runtime"
MODULES = "collections/ansible_collections/diting/dr/plugins/modules"
EXPOSURE = 2.5
"""Of ``systemd-analyze security``: 0 is locked up, 10 is wide open."""


def variables():
    return yaml.safe_load((ROLE / "vars" / "main.yml").read_text())


def needs():
    return variables()["__guard_runtime_needs"]


def unit(guard):
    """The unit as the role writes it; the template uses one filter that plain Jinja does not have."""
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)  # noqa: S701 - no HTML
    environment.filters["regex_replace"] = lambda text, pattern, new: re.sub(pattern, new, text)
    text = (ROLE / "templates/etc/systemd/system/diting-guard.service.j2").read_text()
    return environment.from_string(text).render(
        **defaults,
        item={"guard": guard},
        __guard_runtime_needs=needs(),
        __guard_runtime_hidden=variables()["__guard_runtime_hidden"],
        __guard_runtime_current="/opt/diting/current",
        __guard_runtime_config_dir="/etc/diting/guards",
    )


def test_generated_parts_are_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/render_docs.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_page_tells_of_the_machine_that_made_it():
    """A default that is worked out is another one on each host; a page that shows it is stale everywhere else."""
    pages = [path.read_text() for path in sorted((ROOT / "docs/guards").glob("*.md"))]
    assert pages
    assert not [page for page in pages if "PosixPath(" in page]
    (row,) = [line for page in pages for line in page.splitlines() if line.startswith("| `settings.owner` |")]
    assert row.split("|")[2].strip() == ""


def test_only_guards_have_needs():
    assert set(needs()) <= set(registry.names())


@pytest.mark.parametrize("guard", registry.names())
def test_a_unit_lets_its_guard_do_no_more_than_it_needs(guard, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    path = tmp_path / f"diting-guard-{guard}.service"
    path.write_text(unit(guard))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", path],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert found, done.stdout
    assert float(found[1]) <= EXPOSURE, done.stdout


@pytest.mark.parametrize("guard", registry.names())
def test_a_unit_keeps_its_guard_out_of_what_drills_write(guard):
    """A guard that could read the drill's records could look better than it is."""
    drill, gate = (yaml.safe_load(read(f"roles/{role}/defaults/main.yml")) for role in ("drill", "gate"))
    faults = re.search(r'"record_directory": .*"default": "([^"]+)"', read(f"{MODULES}/fault.py"))
    places = {drill["drill_ledger_root"], gate["gate_drill_dir"], faults[1]}
    (line,) = [line for line in unit(guard).splitlines() if line.startswith("InaccessiblePaths=")]
    assert set(line.partition("=")[2].split()) == {f"-{place}" for place in places}


@pytest.mark.parametrize("guard", registry.names())
def test_a_unit_is_watched_and_comes_back(guard):
    lines = unit(guard).splitlines()
    assert {"Type=notify", "Restart=always", "StartLimitIntervalSec=0", "NoNewPrivileges=yes"} <= set(lines)
    seconds = int(next(line for line in lines if line.startswith("WatchdogSec=")).partition("=")[2])
    runtime = registry.load(guard)
    longest = runtime.default_interval_seconds + 2 * 10.0
    assert seconds > longest, "a cycle that looks and acts for as long as it may would be killed"


@pytest.mark.parametrize("name", ["lab", "example"])
def test_a_drill_stops_the_guard_that_its_inventory_installs(name):
    """A unit of another name would go on guarding, and its figures would be called those without a guard."""
    variables = ROOT / "inventories" / name / "group_vars"
    guards = yaml.safe_load((variables / "control/main.yml").read_text())["guard_runtime_guards"]
    units = [f"diting-guard-{item['guard']}.service" for item in guards if item["guard"] == "failover"]
    assert [yaml.safe_load((variables / "all/estate.yml").read_text())["drill_guard_unit"]] == units


@pytest.mark.parametrize("name", ["lab", "example"])
def test_what_holds_a_certificate_takes_the_next_one(name):
    """A guard reads its pair once. One that was rotated out is refused by its peers when it is needed, and not before."""

    def of(group):
        return yaml.safe_load(read(f"inventories/{name}/group_vars/{group}/main.yml"))

    for group, guard, port in (("database", "witness", "7444"), ("control", "failover", "7447")):
        found = of(group)
        guards = [item["guard"] for item in found["guard_runtime_guards"]]
        assert guard in guards
        assert found["pki_restart_units"] == [f"diting-guard-{name}.service" for name in guards]
        assert port in found["pki_served_ports"]
    # The alert relay does likewise.
    assert of("store")["pki_restart_units"] == ["diting-alert-relay.service"]
    assert "9097" in of("store")["pki_served_ports"]
    client = of("client")
    estate = yaml.safe_load(read(f"inventories/{name}/group_vars/all/estate.yml"))
    assert client["pki_reload_units"] == ["haproxy.service"]
    assert str(estate["haproxy_runtime_port"]) in client["pki_served_ports"]


def test_the_labs_witnesses_look_at_the_file_system_that_can_be_full():
    """The lab mounts one for each database host's data; space elsewhere would make a full member a candidate."""
    volume = re.search(r"/pgdata:(/[^']+)'", read("playbooks/lab/tasks/containers.yml"))
    settings = yaml.safe_load(read("inventories/lab/group_vars/database/main.yml"))["guard_runtime_guards"]
    assert [guard["settings"]["space_paths"] for guard in settings] == [[volume[1]]]


def test_no_guard_is_named_where_it_would_have_to_be_listed():
    """A new guard is one file: the runtime and the command know none by name."""
    for name in registry.names():
        for path in [*(ROOT / "src/diting/guards/runtime").glob("*.py"), ROOT / "src/diting/cli/guard.py"]:
            text = read(path.relative_to(ROOT))
            assert f'"{name}"' not in text, path
