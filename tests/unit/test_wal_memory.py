# SPDX-License-Identifier: GPL-3.0-or-later
"""What a promotion will ask for next, and how long the store's word counts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml

from support.tree import ROOT
from support.wal_front import FRONT, MEMORY

sys.path.insert(0, str(ROOT / "roles/walg/files/usr/local/lib/diting-wal"))

from diting_wal import memory, store

SEGMENT = "00000002000000000000000C"
END = 1e12
"""Of time.monotonic(): never."""


@pytest.mark.parametrize(
    ("name", "streamed", "words"),
    [
        (
            "00000002.history",
            "00000001000000000000000C",
            ["00000001000000000000000C", "00000001.history", "00000002", "00000003"],
        ),
        ("00000003.history", SEGMENT, [SEGMENT, "00000002.history", "00000003", "00000004"]),
        (
            "00000004.history",
            SEGMENT,
            [SEGMENT, f"00000003{SEGMENT[8:]}", "00000003.history", "00000004", "00000005"],
        ),
        ("00000003.history", None, ["00000002.history", "00000003", "00000004"]),
        ("0000000A.history", None, ["00000009.history", "0000000A", "0000000B"]),
        ("FFFFFFFF.history", None, ["FFFFFFFE.history", "FFFFFFFF"]),
        ("00000001.history", None, ["00000001", "00000002"]),
        (SEGMENT, SEGMENT, ["00000002.history", f"00000001{SEGMENT[8:]}", "00000003", "00000004"]),
        ("000000010000000000000001", None, ["00000001.history", "00000002", "00000003"]),
    ],
)
def test_what_is_asked_next(name: str, streamed: str | None, words: list[str]) -> None:
    assert list(memory.next_questions(name, streamed)) == words
    assert len(words) <= 5


@pytest.mark.parametrize(
    "name", ["00000003.partial", "0000000g.history", "x", "", f"{SEGMENT}.history", "a b.history"]
)
def test_other_names_are_not_asked_after(name: str) -> None:
    assert not memory.is_question(name)


@pytest.mark.parametrize(
    ("words", "name", "covered"),
    [
        ({"00000003.history"}, "00000003.history", True),
        ({"00000003"}, "00000003.history", True),
        ({"00000003"}, "000000030000000000000001", True),
        ({"00000003.history"}, "000000030000000000000001", False),
        ({SEGMENT}, SEGMENT, True),
        ({SEGMENT}, "00000002000000000000000D", False),
        ({SEGMENT}, "00000002.history", False),
        ({"00000003"}, "00000003", False),
        ({"silent"}, "silent", False),
        (set(), "00000003.history", False),
    ],
)
def test_what_the_words_cover(words: set[str], name: str, covered: bool) -> None:
    assert memory.covers(frozenset(words), name) is covered


@pytest.mark.parametrize(
    ("later", "counts"), [(-1, False), (0, True), (149, True), (150, False), (10**6, False)]
)
def test_words_count_from_the_question_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: int, counts: bool
) -> None:
    path = str(tmp_path / "m")
    memory.write(path, 5000, 1.5, ["00000003"])
    monkeypatch.setattr(memory, "now", lambda: 5000 + later)
    words, age = memory.recall(path)
    assert words == (frozenset({"00000003"}) if counts else frozenset())
    assert age == (later / 100 if counts else 0)


def test_the_shell_reads_the_clock_that_is_written() -> None:
    """The kernel cuts off what the shell reads, so a question is never of its future."""
    before = memory.now()
    read = int(Path("/proc/uptime").read_text().split()[0].replace(".", ""))
    assert before <= read <= memory.now()


def test_two_writers_leave_one_whole_memory(tmp_path: Path) -> None:
    path = str(tmp_path / "m")
    sets = [["00000003"] * 200, ["00000004"]]
    memory.write(path, memory.now(), 60, sets[0])
    writers = []
    for words in sets:
        pid = os.fork()
        if pid == 0:
            for _ in range(300):
                memory.write(path, memory.now(), 60, words)
            os._exit(0)
        writers.append(pid)
    for _ in range(300):
        assert memory.recall(path)[0] in ({"00000003"}, {"00000004"})
    for pid in writers:
        assert os.waitpid(pid, 0)[1] == 0
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_a_place_that_cannot_be_written_has_no_memory(tmp_path: Path) -> None:
    memory.write(str(tmp_path / "gone/m"), memory.now(), 60, ["00000003"])
    (tmp_path / "m").mkdir()
    memory.write(str(tmp_path / "m"), memory.now(), 60, ["00000003"])
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert memory.recall(str(tmp_path / "m")) == (frozenset(), 0.0)
    memory.forget(str(tmp_path / "m"))


def test_the_segment_written_last_goes_by_its_time(tmp_path: Path) -> None:
    for name, time in (
        (SEGMENT, 300),
        ("00000002000000000000000F", 200),
        ("00000003.history", 400),
        ("archive_status.000000001", 500),
    ):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    assert memory.last_written(str(tmp_path), END) == SEGMENT
    assert memory.last_written(str(tmp_path), 0) is None
    assert memory.last_written(str(tmp_path / "gone"), END) is None


def test_a_timeline_is_lacking_only_when_nothing_of_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / store.WAL_FOLDER
    folder.mkdir()
    (folder / f"{SEGMENT}.partial.lz4").touch()
    where = store.FileStore(str(tmp_path))
    with where.session() as same:
        assert same == where
        assert not store.lacks(same, "00000002", 1.0)
        assert store.lacks(same, SEGMENT, 1.0)
        assert store.lacks(same, "00000003", 1.0)


def test_the_shell_looks_where_the_role_has_the_memory() -> None:
    values = yaml.safe_load((ROOT / "roles/walg/vars/main.yml").read_text())
    assert f"{values['__walg_state_dir']}/{memory.FILE}" == MEMORY
    assert f"\nmemory={MEMORY}\n" in (ROOT / FRONT).read_text()
