# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes an archive good, and what each damage to it is called."""

from __future__ import annotations

import pytest

from diting.core.backup_catalog import BACKUPS, METADATA, SENTINEL, WAL
from diting.core.backup_judge import Limits, could_not_look, judge
from diting.core.wal_names import Segment
from support.archives import NOW, SYSTEM, Made

LIMITS = Limits(max_age_seconds=90000, min_backups=2, max_wal_age_seconds=300, system_identifier=SYSTEM)


@pytest.fixture
def made():
    """Two backups, WAL from the first of them to a minute ago, over a change of timeline."""
    archive = Made()
    archive.backup(3, age=90000)
    archive.backup(7, age=3600, timeline=2)
    archive.wal(3, 4, 5, age=80000)
    archive.wal(5, 6, 7, 8, timeline=2, age=600)
    archive.wal(9, timeline=2, age=60)
    archive.history(2, (1, "0/5000148"))
    return archive


OLD, NEW = "base_000000010000000000000003", "base_000000020000000000000007"


def judged(made, **limits):
    return judge(made.catalog(), Limits(**{**vars(LIMITS), **limits}), NOW).as_dict()


def codes(found):
    return [reason["code"] for reason in found["reasons"]]


def test_a_good_archive_is_healthy(made):
    found = judged(made)
    assert (found["verdict"], found["reasons"]) == ("HEALTHY", [])
    assert found["evidence"] == {
        "backups": 2,
        "newest_backup": NEW,
        "newest_backup_age_seconds": 3600.0,
        "newest_wal_age_seconds": 60.0,
        "system_identifiers": [SYSTEM],
        "content": None,
    }


def drop(*names):
    def spoil(made):
        for name in names:
            del made.contents[name]

    return spoil


def part(name, number=1):
    return f"{BACKUPS}{name}/tar_partitions/part_{number:03}.tar.lz4"


def cut(name, size):
    def spoil(made):
        made.contents[name] = made.contents[name][:size]

    return spoil


def wal(name):
    return f"wal_005/{name}.lz4"


@pytest.mark.parametrize(
    ("spoil", "verdict", "found"),
    [
        (drop(part(NEW)), "UNHEALTHY", ["part_missing", "size_differs"]),
        (drop(part(OLD)), "UNHEALTHY", ["part_missing", "size_differs"]),
        (
            drop(f"{BACKUPS}{NEW}/tar_partitions/pg_control.tar.lz4"),
            "UNHEALTHY",
            ["part_missing", "size_differs"],
        ),
        (cut(wal("000000020000000000000008"), 0), "UNHEALTHY", ["wal_missing", "wal_empty"]),
        (cut(part(NEW), 60), "UNHEALTHY", ["size_differs"]),
        (cut(part(NEW), 0), "UNHEALTHY", ["part_empty", "size_differs"]),
        (drop(wal("000000020000000000000007")), "UNHEALTHY", ["wal_missing"]),
        (drop(wal("000000020000000000000008")), "UNHEALTHY", ["wal_missing"]),
        (drop(wal("000000010000000000000004")), "DEGRADED", ["wal_missing"]),
        (drop("wal_005/00000002.history"), "UNHEALTHY", ["history_missing"]),
        (drop(f"{BACKUPS}{NEW}{SENTINEL}"), "UNHEALTHY", ["few_backups"]),
        (drop(f"{BACKUPS}{NEW}{METADATA}"), "UNHEALTHY", ["few_backups", "unreadable"]),
        (lambda made: made.contents.clear(), "UNHEALTHY", ["no_backup", "wal_old"]),
    ],
)
def test_each_damage_is_found_and_named(made, spoil, verdict, found):
    spoil(made)
    result = judged(made)
    # Losing the first part of the WAL of a backup makes it one that is too old, or none, as well.
    rest = [code for code in codes(result) if code != "backup_old"]
    assert (result["verdict"], rest) == (verdict, found), result["reasons"]


def test_a_young_backup_that_cannot_reach_production_is_none():
    """After a recovery to a point before the newest backup, production goes on where no backup leads."""
    made = Made()
    made.backup(6, age=3600)
    made.wal(6, 7)
    made.wal(5, 6, timeline=2)
    made.history(2, (1, "0/5000000"))
    found = judged(made, min_backups=1)
    assert codes(found) == ["timeline_unreachable"]
    assert "timeline 2" in found["reasons"][0]["message"]
    # An old one that does lead there is no reason to take the young one for good.
    made.backup(3, age=99999)
    made.wal(3, 4)
    assert codes(judged(made, min_backups=1)) == ["backup_old"]


def test_somebodys_recovery_hides_no_gap(made):
    """A restore that was tried out, and archived: its timeline has the highest number."""
    drop(wal("000000020000000000000008"))(made)
    assert judged(made)["verdict"] == "UNHEALTHY"
    made.history(3, (1, "0/4000100"))
    found = judged(made)
    assert found["verdict"] == "UNHEALTHY"
    assert "wal_missing" in codes(found)


def test_an_old_primary_that_goes_on_archiving_makes_nothing_young():
    made = Made()
    made.backup(3, age=3600)
    made.wal(3, 4, age=3000)
    made.wal(4, timeline=2, age=2000)
    made.history(2, (1, "0/4000148"), age=2000)
    made.wal(5, 6, age=10)
    made.put("wal_005/README", b"hello", 10)
    found = judged(made, min_backups=1)
    assert codes(found) == ["wal_old"]
    assert found["evidence"]["newest_wal_age_seconds"] == 2000


def test_wal_of_the_future_makes_no_age(made):
    made.wal(10, timeline=2, age=-90000)
    found = judged(made)
    assert (found["verdict"], codes(found)) == ("UNKNOWN", ["clock_differs"])


def test_what_has_to_be_thawed_is_not_there_in_time(made):
    made.classes[part(NEW)] = "DEEP_ARCHIVE"
    found = judged(made)
    assert (found["verdict"], codes(found)) == ("UNHEALTHY", ["object_frozen"])
    made.classes[part(NEW)] = "STANDARD_IA"
    assert judged(made)["verdict"] == "HEALTHY"


def test_a_gap_that_hits_two_backups_is_told_once(made):
    drop(wal("000000020000000000000008"))(made)
    (reason,) = judged(made)["reasons"]
    assert "000000020000000000000008" in reason["message"]
    assert NEW in reason["message"]


def test_an_old_backup_is_too_old_however_many_there_are(made):
    (reason,) = judged(made, max_age_seconds=1800)["reasons"]
    assert (reason["code"], reason["observed"], reason["limit"]) == ("backup_old", 3600.0, 1800)


def test_the_age_is_that_of_a_backup_that_can_be_recovered(made):
    drop(wal("000000020000000000000007"))(made)
    found = judged(made, max_age_seconds=50000)
    reason = next(reason for reason in found["reasons"] if reason["code"] == "backup_old")
    assert OLD in reason["message"]


def test_wal_that_stopped_coming_is_found(made):
    (reason,) = judged(made, max_wal_age_seconds=30)["reasons"]
    assert (reason["code"], reason["observed"]) == ("wal_old", 60.0)
    assert judged(made, max_wal_age_seconds=None)["verdict"] == "HEALTHY"


def test_two_clusters_in_one_prefix_are_found(made):
    made.backup(8, age=100, timeline=2, system_identifier=99)
    assert codes(judged(made))[0] == "foreign_backup"
    assert codes(judged(made, system_identifier=None))[0] == "foreign_backup"


def test_one_wrong_cluster_is_found_where_it_is_known_which_is_right(made):
    found = judged(made, system_identifier="99")
    assert codes(found) == ["foreign_backup", "no_backup"]


def test_a_delta_needs_its_base(made):
    made.backup(8, age=100, timeline=2, base=NEW)
    assert judged(made)["verdict"] == "HEALTHY"
    for name in [name for name in made.contents if name.startswith(f"{BACKUPS}{NEW}")]:
        if not name.startswith(f"{BACKUPS}{NEW}_D"):
            del made.contents[name]
    assert "base_missing" in codes(judged(made))


def test_an_upload_that_was_broken_off_is_told_once_it_is_old(made):
    name = made.backup(9, age=200000, timeline=2)
    del made.contents[f"{BACKUPS}{name}{SENTINEL}"]
    found = judged(made)
    assert (found["verdict"], codes(found)) == ("DEGRADED", ["unfinished_backup"])
    assert judged(made, max_unfinished_seconds=300000)["verdict"] == "HEALTHY"


def test_a_backup_of_the_future_makes_no_age(made):
    made.backup(8, age=-500, timeline=2)
    found = judged(made)
    assert (found["verdict"], codes(found)) == ("UNKNOWN", ["clock_differs"])


def test_nobody_could_look_is_unknown():
    found = could_not_look("the store is down").as_dict()
    assert (found["verdict"], codes(found)) == ("UNKNOWN", ["could_not_look"])


def test_a_permanent_backup_excuses_no_gap_but_the_one_that_retention_makes():
    made = Made()
    made.backup(1, 3 * 86400, is_permanent=True)
    made.backup(9, 86400)
    made.wal(1, *range(5, 11))
    found = judge(made.catalog(), Limits(2 * 86400), NOW).as_dict()
    assert (found["verdict"], found["reasons"][0]["code"]) == ("DEGRADED", "wal_missing")
    # As retention leaves two of them: nothing but their own.
    made.backup(5, 2 * 86400, is_permanent=True)
    for number in (6, 7, 8):
        del made.contents[f"{WAL}{Segment(1, number).name()}.lz4"]
    found = judge(made.catalog(), Limits(2 * 86400), NOW).as_dict()
    assert (found["verdict"], found["reasons"]) == ("HEALTHY", [])
