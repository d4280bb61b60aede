# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive holds, and how far each backup can be recovered, over gaps, timelines and damage."""

from __future__ import annotations

import json

import pytest

from diting.core.backup_catalog import BACKUPS, METADATA, SENTINEL, wanted_files, without_ending
from support.archives import SYSTEM, Made


@pytest.fixture
def made():
    return Made()


def window(made, backup, timeline=None):
    found = made.catalog()
    named = {b.name: b for b in found.backups}
    assert not found.unreadable
    return found.window(named[backup], timeline).as_dict()


def test_a_backup_is_what_its_small_files_say(made):
    name = made.backup(6, age=60)
    (backup,) = made.catalog().backups
    assert (backup.name, backup.timeline, backup.system_identifier) == (name, 1, SYSTEM)
    assert backup.stored_size == backup.compressed_size == 253
    assert backup.parts == ("part_001.tar.lz4", "part_002.tar.lz4")
    assert (backup.finish_time - backup.start_time).total_seconds() == 4


def test_backups_are_in_the_order_in_which_they_finished(made):
    """Not in that of their names: after a failover, or a backup that took long, the two differ."""
    late, early = made.backup(6, age=60), made.backup(9, age=600)
    assert [backup.name for backup in made.catalog().backups] == [early, late]


def test_a_backup_without_a_sentinel_is_unfinished(made):
    name = made.backup(6, age=500)
    del made.contents[f"{BACKUPS}{name}{SENTINEL}"]
    found = made.catalog()
    assert found.backups == ()
    assert [(item.name, item.size > 253) for item in found.unfinished] == [(name, True)]


def test_wal_up_to_the_end_can_be_recovered(made):
    name = made.backup(6)
    made.wal(5, 6, 7, 8)
    found = window(made, name)
    assert (found["recoverable"], found["end_lsn"], found["missing"]) == (True, "0/9000000", [])
    assert found["begin_lsn"] == "0/6002728"


def test_a_gap_ends_the_window_and_is_named(made):
    name = made.backup(6)
    made.wal(6, 7, 9, 11)
    found = window(made, name)
    assert found["end_lsn"] == "0/8000000"
    assert found["missing"] == ["000000010000000000000008", "00000001000000000000000A"]


@pytest.mark.parametrize("numbers", [(), (5,), (7, 8)])
def test_a_backup_without_its_own_wal_cannot_be_recovered(made, numbers):
    """The WAL from its start to its end is part of a backup: without it no page can be trusted."""
    name = made.backup(6)
    made.wal(*numbers)
    found = window(made, name)
    assert (found["recoverable"], found["end_lsn"]) == (False, None)
    assert found["missing"] == ["000000010000000000000006"]


def test_a_backup_that_spans_segments_needs_all_of_them(made):
    name = made.backup(6, finish_lsn=8 * 2**24 + 100)
    made.wal(6, 7)
    assert window(made, name)["recoverable"] is False
    made.wal(8)
    assert window(made, name)["recoverable"] is True


def test_a_segment_from_far_away_costs_nothing(made):
    """Somebody's test of a name, or a bit that fell over in one."""
    name = made.backup(6)
    made.wal(6, 7, 2**39)
    found = window(made, name)
    assert (found["end_lsn"], found["missing_count"]) == ("0/8000000", 2**39 - 8)
    assert len(found["missing"]) == 1000


def test_recovery_goes_over_to_the_next_timeline(made):
    name = made.backup(3)
    made.wal(3, 4, 5)
    # Timeline 1 went on to 6 on the old primary, which nobody can use any more: the new one left it in segment 5.
    made.wal(6)
    made.wal(5, 6, 7, 8, timeline=2)
    made.history(2, (1, "0/5000148"))
    found = window(made, name)
    assert (found["timeline"], found["end_lsn"], found["missing"]) == (2, "0/9000000", [])
    old = window(made, name, timeline=1)
    assert (old["end_lsn"], old["missing"]) == ("0/7000000", [])


def test_a_segment_of_the_old_timeline_does_not_stand_in_for_the_new_ones(made):
    name = made.backup(3)
    made.wal(3, 4, 5, 6, 7)
    made.wal(5, 7, timeline=2)
    made.history(2, (1, "0/5000148"))
    assert window(made, name)["missing"] == ["000000020000000000000006"]


def test_a_timeline_that_left_before_the_backup_ended_is_not_reachable(made):
    name = made.backup(6)
    made.wal(6, 7)
    made.wal(5, 6, timeline=2)
    made.history(2, (1, "0/5000148"))
    found = window(made, name)
    assert (found["timeline"], found["end_lsn"]) == (1, "0/8000000")


def test_the_way_goes_over_several_timelines(made):
    name = made.backup(3)
    made.wal(3, 4)
    made.wal(4, 5, 6, timeline=2)
    made.wal(6, 7, timeline=4)
    made.history(2, (1, "0/4000100"))
    made.history(4, (1, "0/4000100"), (2, "0/6000100"))
    # Timeline 3 was a promotion that came to nothing: its history is there, and it leads nowhere new.
    made.history(3, (1, "0/4000100"))
    assert window(made, name)["end_lsn"] == "0/8000000"
    assert window(made, name)["timeline"] == 4


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("000000010000000000000006.lz4", "000000010000000000000006"),
        ("000000010000000000000006", "000000010000000000000006"),
        ("000000010000000000000006.zst", "000000010000000000000006"),
        ("00000002.history.lz4", "00000002.history"),
        ("00000002.history", "00000002.history"),
        ("000000010000000000000006.partial.lz4", None),
        ("000000010000000000000006.00000028.backup.lz4", None),
        ("000000010000000000000006.tmp", None),
        (".lz4", None),
    ],
)
def test_only_whole_wal_files_count(name, stem):
    assert without_ending(name) == stem


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda raw: b"{", "Expecting property name"),
        (lambda raw: b"[]", "a list, wanted a dict"),
        (
            lambda raw: json.dumps({**json.loads(raw), "finish_time": "yesterday"}).encode(),
            "cannot be understood",
        ),
        (
            lambda raw: json.dumps({**json.loads(raw), "finish_time": "2026-11-22T10:00:00"}).encode(),
            "no time zone",
        ),
        (lambda raw: json.dumps({**json.loads(raw), "start_lsn": None}).encode(), "cannot be understood"),
        (lambda raw: json.dumps({"start_time": "2026-11-22T10:00:00Z"}).encode(), "'finish_time'"),
        *(
            (lambda raw, change=change: json.dumps({**json.loads(raw), **change}).encode(), "cannot be true")
            for change in (
                {"start_lsn": -1},
                {"start_lsn": 0},
                {"finish_lsn": 5},
                {"finish_lsn": 2**64},
                {"compressed_size": 0},
            )
        ),
        (lambda raw: raw.replace(b'"start_lsn": ', b'"start_lsn": 1e999, "x": '), "cannot be understood"),
    ],
)
def test_metadata_that_say_nothing_are_told_and_not_left_out(made, spoil, words):
    name = made.backup(6)
    key = f"{BACKUPS}{name}{METADATA}"
    made.contents[key] = spoil(made.contents[key])
    found = made.catalog()
    assert found.backups == ()
    assert words in found.unreadable[name]


@pytest.mark.parametrize(
    ("sentinel", "words"),
    [
        ({}, "LSN or DeltaFrom is none"),
        ({"LSN": 1}, "lists no parts"),
        ({"LSN": 1, "TarFileSets": {}}, "lists no parts"),
        ({"LSN": 1, "TarFileSets": ["part_001.tar.lz4"]}, "lists no parts: TarFileSets is list"),
        ({"LSN": 1, "TarFileSets": {"a": []}, "DeltaFrom": ["x"]}, "LSN or DeltaFrom is none"),
        (
            {"LSN": 1, "TarFileSets": {"a": []}, "DeltaFrom": "base_000000010000000000000006"},
            "DeltaFrom is none",
        ),
        # v3 has the list beside it, and cannot restore without.
        ({"LSN": 1, "Version": 2, "TarFileSets": {"a": []}}, "files_metadata.json: not there"),
    ],
)
def test_a_sentinel_that_says_nothing_is_told(made, sentinel, words):
    name = made.backup(6)
    made.contents[f"{BACKUPS}{name}{SENTINEL}"] = json.dumps(sentinel).encode()
    found = made.catalog()
    assert found.backups == ()
    assert words in found.unreadable[name]


def test_the_list_of_v3_is_read_where_it_lies(made):
    name = made.backup(6)
    made.contents[f"{BACKUPS}{name}{SENTINEL}"] = b'{"LSN": 1, "Version": 2}'
    made.put(
        f"{BACKUPS}{name}/files_metadata.json",
        b'{"TarFileSets": {"part_001.tar.lz4": [], "part_007.tar.lz4": []}}',
    )
    (backup,) = made.catalog().backups
    assert backup.parts == ("part_001.tar.lz4", "part_007.tar.lz4")
    assert f"{BACKUPS}{name}/files_metadata.json" in wanted_files(made.objects())
    made.contents[f"{BACKUPS}{name}{SENTINEL}"] = b'{"LSN": 1, "Version": 2, "FilesMetadataDisabled": true}'
    assert made.catalog().backups[0].parts is None


def test_wal_before_a_fork_is_wanted_although_none_came_after_it(made):
    """Right after a failover: the dead primary had not archived all, and the new timeline has only its history yet."""
    name = made.backup(6)
    made.wal(6, 7, 8)
    made.history(2, (1, "0/E000148"))
    found = window(made, name)
    assert (found["timeline"], found["end_lsn"], found["missing_count"]) == (2, "0/9000000", 5)


def test_a_segment_without_a_byte_is_not_there(made):
    name = made.backup(6)
    made.wal(6, 7, 8)
    made.contents["wal_005/000000010000000000000007.lz4"] = b""
    assert window(made, name)["missing"] == ["000000010000000000000007"]
    assert made.catalog().empty == ("wal_005/000000010000000000000007.lz4",)


def test_a_sentinel_without_metadata_is_told(made):
    name = made.backup(6)
    del made.contents[f"{BACKUPS}{name}{METADATA}"]
    assert "metadata.json: not there" in made.catalog().unreadable[name]


def test_a_history_that_is_none_is_told(made):
    made.put("wal_005/00000002.history", b"nonsense\n")
    assert "line 1 is no history" in made.catalog().unreadable["wal_005/00000002.history"]


def test_what_has_to_be_read_is_little(made):
    name = made.backup(6)
    made.wal(*range(6, 40))
    made.history(2, (1, "0/9000100"))
    assert wanted_files(made.objects()) == [
        f"{BACKUPS}{name}{SENTINEL}",
        f"{BACKUPS}{name}{METADATA}",
        "wal_005/00000002.history",
    ]
