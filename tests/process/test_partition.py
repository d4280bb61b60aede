# SPDX-License-Identifier: GPL-3.0-or-later
"""A partition on a real bridge between real network namespaces: silent, both ways, and over by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diting.lab import instance as lab
from diting.lab import partition

pytestmark = pytest.mark.process
WORLD = Path(__file__).parents[1] / "support" / "bridge_world.py"
DESCRIPTION = {
    "name": "te-st",
    "subnet": "10.99.7.0/24",
    "gateway": "10.99.7.1",
    "bridge": "br0",
    "hosts": {"pg1": "10.99.7.11", "pg2": "10.99.7.12", "client1": "10.99.7.41"},
    "podman_home": "/nowhere",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lab")
    (directory / "power").mkdir()
    (directory / "lab.json").write_text(json.dumps(DESCRIPTION))
    return directory


@pytest.fixture(scope="module")
def told(home: Path) -> dict:
    command = ["unshare", "--net", sys.executable, str(WORLD), str(home)]
    environment = {**os.environ, "PYTHONPATH": str(Path(lab.__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("no right to make a network namespace")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_before_everybody_answers(told):
    assert set(told["before"].values()) == {"answers"}


def test_a_cut_is_silent_both_ways_and_for_the_named_hosts_only(told):
    assert told["cut"] == {
        "pg1->pg2": "silence",
        "pg2->pg1": "silence",
        "pg1->client1": "answers",
        "client1->pg1": "answers",
        "client1->pg2": "answers",
    }
    assert [step["step"] for step in told["record"]["steps"]] == ["cut_sent", "cut"]
    assert told["record"]["limit_seconds"] == 20


def test_nobody_learns_a_new_address_across_the_cut(told):
    assert any(state in told["neighbour"] for state in ("INCOMPLETE", "FAILED")), told["neighbour"]


def test_a_second_cut_is_refused_and_touches_nothing(told):
    assert told["twice"].startswith("refused, nothing was cut: pg1 is cut off already")


def test_it_can_be_taken_back(told):
    assert told["healed"] == {"healed": 2, "left": 0}
    assert set(told["after"].values()) == {"answers"}
    assert told["again"] == {"healed": 0, "left": 0}


def test_the_kernel_ends_it_without_anybody(told):
    assert told["cut_all"]["client1->pg1"] == "silence"
    assert told["cut_all"]["client1->pg2"] == "answers"
    assert set(told["expired"].values()) == {"answers"}


def test_it_is_written_down_before_and_after(told, home):
    lines = [json.loads(line) for line in (home / "power" / "journal.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines][:3] == ["partition_intended", "partition", "partition_healed"]


@pytest.mark.parametrize(
    ("others", "limit", "why"),
    [([], 5, "--from"), (["pg9"], 5, "--from"), (["pg1"], 5, "--from"), (["pg2"], 0, "--limit")],
)
def test_what_makes_no_sense_is_refused(home, others, limit, why):
    with pytest.raises(partition.PartitionError, match=f"refused, nothing was cut: {why}"):
        partition.cut(lab.load(home), "pg1", others, limit, None)
