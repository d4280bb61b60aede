# SPDX-License-Identifier: GPL-3.0-or-later
"""Segments of a timeline that ended inside them are never archived under the name of whole ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "roles/walg/files/usr/local/lib/diting-wal"))

from diting_wal import archive, timeline  # noqa: E402

SIZE = 16 * 1024 * 1024
# Timeline 28 (1C) ended at 0/42000100, 29 (1D) at 0/440000A0, which are in segments 42 and 44.
HISTORY = "28\t0/42000100\tno recovery target specified\n\n29\t0/440000A0\tno recovery target specified\n"


def make(folder: Path, name: str, *, at: float = 100.0) -> None:
    """A file of the size that its name asks for, last written ``at`` seconds."""
    with (folder / "pg_wal" / name).open("ab") as file:
        file.truncate(SIZE if len(name) == 24 else 10)
    os.utime(folder / "pg_wal" / name, (at, at))


@pytest.fixture
def data(tmp_path, monkeypatch):
    (tmp_path / "pg_wal").mkdir()
    (tmp_path / "pg_wal/0000001E.history").write_text(HISTORY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "ended"),
    [
        ("0000001D0000000000000043", None),  # whole before the end
        ("0000001D0000000000000044", "0/440000A0"),
        ("0000001D0000000000000045", "0/440000A0"),
        ("0000001D0000000000000044.partial", None),  # says itself what it is
        ("0000001C0000000000000042", "0/42000100"),
        ("0000001E0000000000000044", None),  # the timeline that goes on
        ("0000001E.history", None),
        ("0000001B0000000000000042", None),  # not of this descent
    ],
)
def test_the_segment_in_which_a_timeline_ended_is_known(data, name, ended):
    if not name.endswith(".history"):
        make(data, name)
    assert timeline.left_behind(str(data), f"pg_wal/{name}") == ended


def test_an_end_at_the_first_byte_of_a_segment_leaves_the_one_before_whole(data):
    (data / "pg_wal/0000001E.history").write_text("29\t0/44000000\tno recovery target specified\n")
    for name in ("0000001D0000000000000043", "0000001D0000000000000044"):
        make(data, name)
    assert timeline.left_behind(str(data), "pg_wal/0000001D0000000000000043") is None
    assert timeline.left_behind(str(data), "pg_wal/0000001D0000000000000044") == "0/44000000"


def test_the_newest_history_counts_and_an_absent_one_changes_nothing(data):
    name = "0000001D0000000000000044"
    make(data, name)
    (data / "pg_wal/0000001E.history").unlink()
    assert timeline.left_behind(str(data), f"pg_wal/{name}") is None
    # The server went on to 1F by another way: 1D ended later in its own history.
    (data / "pg_wal/0000001E.history").write_text(HISTORY)
    (data / "pg_wal/0000001F.history").write_text("29\t0/460000A0\tno recovery target specified\n")
    assert timeline.left_behind(str(data), f"pg_wal/{name}") is None


def test_a_timeline_that_was_written_after_that_history_goes_on(data):
    # A promotion that came to nothing left 1E.history behind, and 1D lives: no gap may come of it.
    name = "0000001D0000000000000045"
    make(data, name, at=(data / "pg_wal/0000001E.history").stat().st_mtime + 1)
    assert timeline.left_behind(str(data), f"pg_wal/{name}") is None


def test_the_archiver_is_told_that_it_is_done(data, monkeypatch, capsys):
    name = "0000001D0000000000000044"
    make(data, name)
    monkeypatch.setattr(
        archive.config, "load", lambda _path: None
    )  # nothing of it is needed, the store least of all
    assert archive.main([f"pg_wal/{name}"]) == 0
    assert "its timeline ended at 0/440000A0" in capsys.readouterr().err
