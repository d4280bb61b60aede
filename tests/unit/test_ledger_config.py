# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration files of the ledger: all problems at once, with paths; the documented examples load."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from diting.cli.main import main
from diting.ledger.config import load_prober, load_watch
from diting.ledger.fields import ConfigError, load
from diting.ledger.rundir import judge_run
from diting.ledger.settings import Settings, parse_settings

DOC = Path(__file__).parents[2] / "docs/measuring.md"
MINIMAL = {
    "run_id": "r1",
    "path": "dsn",
    "output_dir": "/tmp/x",
    "failure_zone": "zone_infra",
    "max_duration_seconds": 60,
    "connection": {"hosts": ["a", "b"], "dbname": "d", "user": "u", "sslmode": "require"},
}


def examples(key: str) -> list[dict]:
    blocks = re.findall(r"```json\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in map(json.loads, blocks) if key in block]


def save(tmp_path: Path, document: object) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def problems(tmp_path: Path, document: object, loader=load_prober) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loader(save(tmp_path, document))
    return caught.value.problems


@pytest.mark.parametrize("example", examples("output_dir"), ids=lambda e: e["path"])
def test_the_documented_prober_examples_load(tmp_path, example):
    assert load_prober(save(tmp_path, example)).pool_max == 100


def test_the_documented_watcher_example_loads(tmp_path):
    (example,) = examples("targets")
    assert [t.kind for t in load_watch(save(tmp_path, example)).targets] == [
        "host",
        "tcp",
        "https",
        "postgres",
    ]


def test_the_documented_judge_example_loads(tmp_path):
    (example,) = examples("stability_seconds")
    assert load(save(tmp_path, example), parse_settings).effect_target == "pg1-postgres"


def test_defaults_of_the_judges_file_are_those_of_its_settings(tmp_path):
    parsed = load(save(tmp_path, {"run_id": "r1", "paths": ["dsn"]}), parse_settings)
    assert parsed == Settings(run_id="r1", paths=("dsn",))


def test_every_problem_is_named_at_once(tmp_path):
    document = {
        **MINIMAL,
        "run_id": "no spaces",
        "interval_secs": 1,
        "op_deadline_seconds": "1",
        "connection": {"hosts": [], "ports": [70000], "dbname": "d", "user": 7, "sslmode": "tls"},
    }
    found = " ".join(problems(tmp_path, document))
    for path in (
        "/run_id:",
        "/interval_secs: unknown key",
        "/op_deadline_seconds:",
        "/connection/hosts:",
        "/connection/ports/0:",
        "/connection/user:",
        "/connection/sslmode:",
    ):
        assert path in found


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"interval_seconds": 0.9, "op_deadline_seconds": 0.5}, "/interval_seconds"),
        ({"min_send_budget_seconds": 1.0}, "/min_send_budget_seconds"),
        ({"output_dir": "relative"}, "/output_dir"),
        ({"interval_seconds": True}, "/interval_seconds"),
        ({"pool_min": 1.5}, "/pool_min"),
        ({"connection": {**MINIMAL["connection"], "hostaddrs": ["10.0.0.1"]}}, "/connection/hostaddrs"),
        ({"connection": {**MINIMAL["connection"], "ports": [1, 2, 3]}}, "/connection/ports"),
        ({"connection": {**MINIMAL["connection"], "sslmode": "verify-full"}}, "/connection/sslrootcert"),
        ({"connection": {**MINIMAL["connection"], "password": "x"}}, "/connection/password: unknown key"),
    ],
)
def test_single_faults(tmp_path, change, path):
    assert any(p.startswith(path) for p in problems(tmp_path, {**MINIMAL, **change}))


def test_hosts_keep_their_order_and_share_one_port(tmp_path):
    config = load_prober(save(tmp_path, MINIMAL))
    assert [str(e) for e in config.connection.endpoints] == ["a:5432", "b:5432"]
    assert config.connect_parallel == 20


def test_a_value_cannot_add_a_parameter_to_the_connection_string(tmp_path):
    document = {**MINIMAL, "connection": {**MINIMAL["connection"], "user": "u' password='p"}}
    connection = load_prober(save(tmp_path, document)).connection
    text = connection.conninfo(connection.endpoints[0], "10.0.0.1", {}).decode()
    assert "user='u\\' password=\\'p'" in text


def test_targets_need_different_names(tmp_path):
    target = {"name": "a", "kind": "tcp", "host": "h", "port": 1}
    document = {
        "run_id": "r",
        "output": "/tmp/w",
        "max_duration_seconds": 5,
        "targets": [target, target, {"name": "b", "kind": "https", "url": "http://x"}],
    }
    found = problems(tmp_path, document, load_watch)
    assert any("used twice" in p for p in found)
    assert any(p.startswith("/targets/2/url") for p in found)


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_what_is_no_object_is_refused(tmp_path, text):
    file = tmp_path / "config.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        load_prober(file)


def test_the_commands_leave_with_64_and_every_problem(tmp_path, capsys):
    bad = save(tmp_path, {"path": "X"})
    assert main(["ledger", "check-config", str(bad)]) == 64
    assert main(["ledger", "run", "--config", str(bad)]) == 64
    assert "/path: found 'X'" in capsys.readouterr().err


def test_a_missing_file_is_said(tmp_path, capsys):
    assert main(["ledger", "check-config", str(tmp_path / "none.json")]) == 64
    assert "cannot read" in capsys.readouterr().err


def test_a_run_directory_without_its_input_is_no_verdict(tmp_path):
    with pytest.raises(ConfigError, match="judge-input"):
        judge_run(tmp_path)


def test_a_mark_takes_a_moment_measured_before(tmp_path, capsys):
    file = tmp_path / "marks.jsonl"
    assert main(["ledger", "mark", "--file", str(file), "--label", "a", "--data", '{"x": 1}']) == 0
    assert main(["ledger", "mark", "--file", str(file), "--label", "b", "--mono-ns", "77"]) == 0
    assert main(["ledger", "mark", "--file", str(file), "--label", "c", "--data", "{"]) == 64
    first, second = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert (first["label"], first["data"]) == ("a", {"x": 1})
    assert (second["label"], second["mono_ns"]) == ("b", 77)
