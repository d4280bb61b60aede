# SPDX-License-Identifier: GPL-3.0-or-later
"""To which moment, from which backup, along which timeline; and why not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from diting.core.restore_plan import RestorePlan, Target, TargetError, plan, read_target
from diting.core.restore_proof import Digest, Point
from diting.core.verdict import Reason
from diting.core.wal_names import SEGMENT_BYTES, lsn_text
from support.archives import NOW, Made

OLD, NEW = "base_000000010000000000000002", "base_000000010000000000000006"
"""They end in the segments 2 and 6, two hours and one hour ago."""


def archive(*, missing: int | None = None) -> Made:
    made = Made()
    made.backup(2, age=7200.0)
    made.backup(6, age=3600.0)
    made.wal(*(number for number in range(1, 11) if number != missing))
    return made


def at(seconds_ago: float) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).isoformat()


def lsn(segment: float) -> str:
    return lsn_text(int(segment * SEGMENT_BYTES))


def planned(kind: str, value: str, made: Made | None = None, **options: Any) -> RestorePlan | Reason:
    inclusive = options.pop("inclusive", True)
    target = read_target(kind, value, inclusive=inclusive)
    wanted = {"cluster": "main", "seed": "pg2", "now": NOW, **options}
    return plan((made or archive()).catalog(), target, **wanted)


def good(kind: str, value: str, **options: Any) -> RestorePlan:
    found = planned(kind, value, **options)
    assert isinstance(found, RestorePlan), found
    return found


def refused(kind: str, value: str, **options: Any) -> Reason:
    found = planned(kind, value, **options)
    assert isinstance(found, Reason), found
    return found


@pytest.mark.parametrize(
    ("kind", "value", "backup"),
    [
        ("time", at(1800), NEW),
        ("time", at(3601), OLD),
        ("lsn", lsn(7.5), NEW),
        ("lsn", lsn(6.0001), OLD),
        ("lsn", lsn(3), OLD),
    ],
)
def test_the_newest_backup_that_ended_before_the_moment_is_taken(kind: str, value: str, backup: str) -> None:
    assert good(kind, value).backup.name == backup


def test_a_moment_before_the_first_backup_ended_cannot_be_had() -> None:
    for kind, value in (("time", at(7201)), ("lsn", lsn(2.0001))):
        found = refused(kind, value)
        assert found.code == "target_too_early"
        assert OLD in found.message


def test_a_moment_that_the_archive_does_not_reach_is_not_looked_for_in_vain() -> None:
    assert refused("time", at(-1)).code == "target_in_future"
    assert refused("time", at(30)).code == "target_not_archived", "the newest WAL is 60 s old"
    assert refused("lsn", lsn(11)).code == "target_not_archived"
    assert isinstance(planned("lsn", lsn(10.9)), RestorePlan)


def test_wal_that_is_missing_in_between_is_named() -> None:
    made = archive(missing=8)
    assert isinstance(planned("lsn", lsn(7.9), made), RestorePlan)
    found = refused("lsn", lsn(9), made=made)
    assert (found.code, "000000010000000000000008" in found.message) == ("target_not_archived", True)
    assert refused("time", at(1800), made=made).code == "wal_missing", "nobody can tell on which side it is"


def test_a_transaction_needs_a_backup_that_somebody_names() -> None:
    found = refused("xid", "4711")
    assert (found.code, found.limit) == ("backup_not_named", [OLD, NEW])
    assert good("xid", "4711", backup=OLD).backup.name == OLD
    assert refused("xid", "4711", backup="base_000000010000000000000003").code == "backup_unknown"


def test_a_recorded_point_knows_its_place() -> None:
    digest = Digest("trading", "public.orders", 10, "123")
    point = Point("before-release", 1, int(4.5 * SEGMENT_BYTES), NOW - timedelta(seconds=5000), (digest,))
    found = good("name", "before-release", points=[point])
    assert (found.backup.name, found.lost_seconds) == (OLD, 5000)
    assert found.lost_bytes == int(6.5 * SEGMENT_BYTES)
    assert refused("name", "unheard-of", points=[point]).code == "backup_not_named"


def test_what_a_yes_is_bound_to_does_not_change_with_the_time_of_looking() -> None:
    first, later = good("time", at(1800)), good("time", at(1800), now=NOW + timedelta(hours=1))
    assert first.approved == later.approved
    assert first.lost_seconds != later.lost_seconds


@pytest.mark.parametrize(
    "changes", [{"seed": "pg3"}, {"backup": OLD}, {"inclusive": False}, {"cluster": "other"}]
)
def test_whatever_decides_the_outcome_is_part_of_it(changes: dict[str, Any]) -> None:
    assert good("time", at(1800), **changes).approved != good("time", at(1800)).approved


def test_along_another_timeline_only_what_leads_there_counts() -> None:
    made = archive()
    made.history(2, (1, lsn(5)))
    made.wal(5, 6, 7, timeline=2)
    assert good("lsn", lsn(6.5), made=made, timeline=2).backup.name == OLD, (
        "the newer one lies behind the fork"
    )
    assert good("lsn", lsn(6.5), made=made, timeline=1).backup.name == NEW
    assert refused("lsn", lsn(6.5), made=made, timeline=7).code == "no_backup"


def test_a_moment_that_may_lie_on_either_branch_needs_a_timeline() -> None:
    made = archive()
    made.history(2, (1, lsn(7.5)))
    made.wal(7, 8, 9, timeline=2)
    for kind, value in (("lsn", lsn(8.5)), ("time", at(1800))):
        found = refused(kind, value, made=made)
        assert (found.code, found.limit) == ("timeline_not_named", [1, 2])
        assert good(kind, value, made=made, timeline=2).timeline == 2
        assert good(kind, value, made=made, timeline=1).timeline == 1
    assert good("lsn", lsn(7.2), made=made).timeline == 2, "before the fork they are the same"
    made.backup(8, age=900.0, timeline=2)
    assert good("time", at(600), made=made).timeline == 2, "the backup is behind the fork"


def test_a_failover_that_left_nothing_behind_needs_none() -> None:
    made = Made()
    made.backup(2, age=7200.0)
    made.wal(*range(1, 6))
    made.history(2, (1, lsn(5.5)))
    made.wal(5, 6, 7, timeline=2)
    assert good("time", at(1800), made=made).timeline == 2


def test_a_delta_brings_its_bases_along() -> None:
    made = archive()
    made.backup(8, age=1800.0, base=NEW)
    assert good("lsn", lsn(9.5), made=made).size_bytes == 6000


@pytest.mark.parametrize(
    ("kind", "value", "spelt"),
    [
        ("time", "2026-11-22T04:10:00+01:00", "2026-11-22 03:10:00.000000+00:00"),
        ("time", " 2026-11-22 03:10:00Z ", "2026-11-22 03:10:00.000000+00:00"),
        ("lsn", "0/3000060", "0/3000060"),
        ("xid", "4711", "4711"),
    ],
)
def test_one_moment_has_one_spelling(kind: str, value: str, spelt: str) -> None:
    assert read_target(kind, value).value == spelt


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("time", "yesterday", "wanted such as"),
        ("time", "2026-11-22 03:10:00", "with its zone"),
        ("lsn", "3000060", "wanted such as 0/3000060"),
        ("xid", "0", "without its epoch"),
        ("xid", str(2**32), "without its epoch"),
        ("name", "a b", "wanted 1 to 63"),
        ("moment", "x", "wanted one of time"),
    ],
)
def test_what_cannot_be_understood_is_said(kind: str, value: str, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        read_target(kind, value)


def test_a_name_has_no_moment_before_it() -> None:
    assert read_target("name", "p1", inclusive=False) == Target("name", "p1", inclusive=True)


def test_the_lines_say_what_is_given_up_and_what_nobody_knows() -> None:
    text = "\n".join(good("time", at(1800), inclusive=False).lines())
    assert "goes back to before 2026-11-22 11:30:00" in text
    assert "given up     what was written after it: 1800 s" in text
    assert "nobody can tell" in text
    assert "everything that was committed since" in "\n".join(good("xid", "4711", backup=NEW).lines())
