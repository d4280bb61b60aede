# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits to be archived: what is counted, and that "could not look" is never "nothing waits"."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest

from support.tree import ROOT

sys.path.insert(0, str(ROOT / "roles/walg/files/usr/local/lib/diting-wal"))

from diting_wal import waiting

SEGMENT = "00000001000000000000000"
NAMES = {
    "could_not_look",
    "looked_timestamp_seconds",
    "waiting_files",
    "waiting_bytes",
    "oldest_waiting_seconds",
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory, its WAL behind a link as where it has a disk of its own."""
    (tmp_path / "disk/archive_status").mkdir(parents=True)
    (tmp_path / "main").mkdir()
    (tmp_path / "main/pg_wal").symlink_to(tmp_path / "disk")
    return tmp_path / "main"


def mark(data: Path, name: str, age: float, size: int | None = 16) -> None:
    """A file that waits; one of no size was removed, and its mark stayed."""
    if size is not None:
        (data / "pg_wal" / name).write_bytes(bytes(size))
    path = data / f"pg_wal/archive_status/{name}.ready"
    path.touch()
    os.utime(path, (time.time() - age,) * 2)


def run(data: Path, cluster: str = "main") -> tuple[int, dict[str, float]]:
    """Exit status and figures."""
    file = data.parent / "out.prom"
    code = waiting.run(cluster, str(data), str(file))
    rows = (line.rpartition(" ") for line in file.read_text().splitlines() if not line.startswith("#"))
    return code, {re.sub(r"^diting_archive_(\w+)\{.*", r"\1", row[0]): float(row[2]) for row in rows}


def test_everything_that_is_marked_counts_and_nothing_else(data: Path) -> None:
    mark(data, f"{SEGMENT}2", 40)
    mark(data, f"{SEGMENT}3", 10)
    mark(data, "00000002.history", 30, size=5)
    mark(data, f"{SEGMENT}2.00000028.backup", 20, size=7)
    mark(data, f"{SEGMENT}1.partial", 5, size=None)
    for name in (f"{SEGMENT}0.done", f"{SEGMENT}4.ready.tmp", "ready"):
        (data / "pg_wal/archive_status" / name).touch()
    code, found = run(data)
    assert code == 0
    assert set(found) == NAMES
    assert (found["could_not_look"], found["waiting_files"], found["waiting_bytes"]) == (
        0,
        5,
        16 + 16 + 5 + 7,
    )
    assert 40 <= found["oldest_waiting_seconds"] < 45
    assert abs(found["looked_timestamp_seconds"] - time.time()) < 5


def test_nothing_waits(data: Path) -> None:
    code, found = run(data)
    assert code == 0
    assert found.pop("looked_timestamp_seconds") > 0
    assert found == {
        "could_not_look": 0,
        "waiting_files": 0,
        "waiting_bytes": 0,
        "oldest_waiting_seconds": 0,
    }


@pytest.mark.parametrize("gone", ["main", "main/pg_wal", "disk/archive_status"])
def test_a_place_that_is_not_there_is_named_and_leaves_no_figure_of_nothing(
    data: Path, gone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data)[0] == 0
    path = data.parent / gone
    path.rename(data.parent / "elsewhere")
    code, found = run(data)
    assert (code, found) == (2, {"could_not_look": 1})
    said = capsys.readouterr().err
    where = data / "pg_wal/archive_status" if gone.startswith("disk") else path
    assert said.startswith(
        f"diting-wal archive-metrics: {where}: found No such file or directory; wanted "
    ), said
    assert "Fix: none while this member is copied anew" in said


def test_a_file_where_a_directory_should_be_is_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "pg_wal/archive_status").rmdir()
    (data / "pg_wal/archive_status").touch()
    assert run(data) == (2, {"could_not_look": 1})
    assert "archive_status: found Not a directory; wanted " in capsys.readouterr().err


def vanish(monkeypatch: pytest.MonkeyPatch, act: object) -> None:
    """Have something happen between the listing and the look at its files."""
    listed = os.scandir

    class Late:
        def __init__(self, where: int) -> None:
            self.entries = list(listed(where))
            act()

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_error: object) -> None:
            pass

    monkeypatch.setattr(waiting.os, "scandir", Late)


def test_a_file_that_is_archived_meanwhile_waits_no_more(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(data, f"{SEGMENT}2", 40)
    mark(data, f"{SEGMENT}3", 10)
    vanish(monkeypatch, (data / f"pg_wal/archive_status/{SEGMENT}2.ready").unlink)
    code, found = run(data)
    assert (code, found["waiting_files"]) == (0, 1)
    assert 10 <= found["oldest_waiting_seconds"] < 15


@pytest.mark.parametrize("anew", [False, True])
def test_a_data_directory_that_is_taken_away_meanwhile_was_not_looked_at(
    data: Path, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    mark(data, f"{SEGMENT}2", 40)

    def take() -> None:
        for path in (data / "pg_wal/archive_status").iterdir():
            path.unlink()
        (data / "pg_wal/archive_status").rmdir()
        if anew:
            # Another one: the first is still held open.
            (data / "pg_wal/archive_status").mkdir()

    vanish(monkeypatch, take)
    assert run(data) == (2, {"could_not_look": 1})


def test_a_mark_of_the_future_is_no_young_one(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark(data, f"{SEGMENT}2", -3600)
    code, found = run(data)
    assert code == 2
    assert (found["could_not_look"], found["waiting_files"], found["oldest_waiting_seconds"]) == (1, 1, 0)
    assert "looked_timestamp_seconds" not in found, "it has to get old"
    assert f"{SEGMENT}2.ready: found a time to come; wanted " in capsys.readouterr().err
    # How long another one has waited is known all the same.
    mark(data, f"{SEGMENT}1", 500)
    assert run(data)[1]["oldest_waiting_seconds"] >= 500
    # A moment is no other clock.
    mark(data, f"{SEGMENT}2", -1)
    assert run(data)[0] == 0


def test_figures_that_cannot_be_written_are_an_error_and_leave_the_old_ones(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "gone/out.prom"
    assert waiting.run("main", str(data), str(missing)) == 2
    assert f"{missing}: found No such file or directory; wanted " in capsys.readouterr().err
    (tmp_path / "out.prom").mkdir()
    assert waiting.run("main", str(data), str(tmp_path / "out.prom")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "main", "out.prom"]


def test_figures_are_for_everybody_to_read_and_whole(data: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        run(data)
    finally:
        os.umask(before)
    assert (tmp_path / "out.prom").stat().st_mode & 0o777 == 0o644
    text = (tmp_path / "out.prom").read_text()
    for name in NAMES:
        assert text.count(f"# HELP diting_archive_{name} ") == 1
        assert text.count(f"# TYPE diting_archive_{name} gauge\n") == 1
    assert text.endswith("\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "main", "out.prom"]


def test_a_name_cannot_break_the_format(data: Path, tmp_path: Path) -> None:
    run(data, cluster='a"b\\c\nd')
    assert 'diting_archive_waiting_files{cluster="a\\"b\\\\c\\nd"} 0\n' in (tmp_path / "out.prom").read_text()
