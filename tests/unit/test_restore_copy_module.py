# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that has a copy made: what it does a second time, and what it refuses. The program is a stand-in."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.diting.dr.plugins.modules import restore_copy

PLAN = {
    "scenario": "l4.restore",
    "target": "main",
    "system_identifier": "1",
    "recover_to": {"type": "xid", "value": "4711", "inclusive": False},
    "backup": "base_000000010000000000000006",
    "timeline": 1,
    "seed": "pg2",
    "old_data_directory": "kept",
}
PROGRAM = """
import json, pathlib, sys
words = sys.argv[1:]
action = words[2]
request = json.loads(pathlib.Path(words[words.index("--request") + 1]).read_text())
here = pathlib.Path(__file__).parent
with (here / "calls.jsonl").open("a") as log:
    log.write(json.dumps([action, request]) + "\\n")
failed = (here / "fail").exists()
if not failed:
    root = pathlib.Path(request["root"])
    (root / "data").mkdir(parents=True, exist_ok=True)
    (root / "diting-scratch").touch()
phase = {"name": "replay", "seconds": 1.0, "words": "recovery stopping before commit"}
phase |= {"status": "failed", "code": "target_missed"} if failed else {"status": "ok"}
facts = {"phases": [phase], "complete": not failed, "last_commit": "2026-11-22T03:00:00.000000Z"}
pathlib.Path(words[words.index("--result") + 1]).write_text(json.dumps(facts))
sys.exit(failed)
"""


class Place:
    """A directory for the copy, and a program that says what it was asked for."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.program = base / "program.py"
        self.program.write_text(PROGRAM)
        self.root, self.note = base / "copies/copy", base / "copy.json"
        self.root.parent.mkdir()

    def calls(self) -> list[Any]:
        path = self.base / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    # As where systemd does not run: the unit is the lab's to show.
    monkeypatch.setattr(restore_copy.Runner, "_has_systemd", lambda _self: False)
    return Place(tmp_path)


@pytest.fixture
def call(place: Place, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def call(state: str, plan: dict[str, Any] | None = None, *, check: bool = False) -> dict[str, Any]:
        arguments = {
            "state": state,
            "plan": plan or PLAN,
            "size_bytes": 3000,
            "backup_start_lsn": 100663336,
            "root": str(place.root),
            "note": str(place.note),
            "program": ["python3", str(place.program)],
            "user": getpass.getuser(),
            "_ansible_check_mode": check,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            restore_copy.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return call


def test_it_is_prepared_once_promoted_once_and_taken_away(
    call: Callable[..., dict[str, Any]], place: Place
) -> None:
    first = call("prepared")
    assert (first["changed"], call("prepared")["changed"]) == (True, False)
    assert "last transaction that came back: 2026-11-22T03:00:00.000000Z" in first["lines"]
    assert (call("promoted")["changed"], call("promoted")["changed"]) == (True, False)
    assert call("prepared")["changed"] is False, "going on after a break-off begins with this"
    assert [action for action, _request in place.calls()] == ["rebuild", "rebuild-promote"]
    request = place.calls()[0][1]
    assert (request["target_type"], request["target"], request["inclusive"]) == ("xid", "4711", False)
    assert (call("absent")["changed"], call("absent")["changed"]) == (True, False)
    assert not place.root.exists()


def test_another_plan_is_refused_while_a_copy_is_there(
    call: Callable[..., dict[str, Any]], place: Place
) -> None:
    call("prepared")
    found = call("prepared", {**PLAN, "seed": "pg3"})
    assert (found["failed"], "another plan" in found["msg"]) == (True, True)
    assert len(place.calls()) == 1


def test_what_did_not_become_whole_is_not_written_down(
    call: Callable[..., dict[str, Any]], place: Place
) -> None:
    (place.base / "fail").touch()
    found = call("prepared")
    assert "replay: target_missed" in found["msg"]
    assert not place.note.exists()
    assert "prepare it first" in call("promoted")["msg"]


def test_a_check_run_says_what_it_would_do_and_does_nothing(
    call: Callable[..., dict[str, Any]], place: Place
) -> None:
    assert call("prepared", check=True)["changed"] is True
    assert place.calls() == []


def test_a_directory_that_is_not_a_copy_stays(call: Callable[..., dict[str, Any]], place: Place) -> None:
    (place.root / "data").mkdir(parents=True)
    assert "not made by this module" in call("absent")["msg"]
    assert (place.root / "data").exists()


def test_a_removal_that_was_broken_off_can_be_ended(
    call: Callable[..., dict[str, Any]], place: Place
) -> None:
    call("prepared")
    for path in (place.root / "diting-scratch", place.root / "data"):
        path.rmdir() if path.is_dir() else path.unlink()
    assert call("absent")["changed"] is True
    assert (place.root.exists(), place.note.exists()) == (False, False)


def test_a_note_that_cannot_be_read_is_no_missing_note(
    call: Callable[..., dict[str, Any]], place: Place
) -> None:
    place.note.write_text("{")
    assert str(place.note) in call("prepared")["msg"]
    assert place.calls() == []


def test_half_a_plan_is_refused_by_name(call: Callable[..., dict[str, Any]], place: Place) -> None:
    assert "plan: wanted what restore_plan returns" in call("prepared", {"backup": "x"})["msg"]
    assert place.calls() == []
