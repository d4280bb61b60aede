# SPDX-License-Identifier: GPL-3.0-or-later
"""What to restore for a proof, what it proves, and how long production would take."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from diting.core.backup_content import Content
from diting.core.restore_proof import (
    NOT_THE_BACKUP,
    PHASES,
    Choice,
    Digest,
    Point,
    PointError,
    chain,
    choose,
    forecast,
    forecast_errors,
    judge,
    of_system,
    proof_findings,
)
from diting.core.restore_sql import digest, quoted
from diting.core.verdict import Reason
from diting.core.wal_names import SEGMENT_BYTES
from support.archives import NOW, Made
from support.restore_records import record

ORDERS = Digest("trading", "public.orders", 10, "123")


def point(number: float, timeline: int = 1, **changes: Any) -> Point:
    """In the midst of segment ``number``."""
    made = Point(f"p{number:g}", timeline, int(number * SEGMENT_BYTES), NOW - timedelta(hours=1), (ORDERS,))
    return replace(made, **changes)


def archive(*, backups: tuple[int, ...] = (2, 6), last: int = 9) -> Made:
    made = Made()
    for age, number in enumerate(reversed(backups), start=1):
        made.backup(number, age=3600.0 * age)
    made.wal(*range(1, last + 1))
    return made


def test_the_newest_backup_and_a_point_after_it_are_taken():
    points = [point(3.5), point(7.5), point(8.5)]
    found = choose(archive().catalog(), points, 0, Random(1))
    assert isinstance(found, Choice)
    assert found.backup.name == "base_000000010000000000000006"
    assert found.point in points[1:]
    assert (found.recorded, found.kind in ("name", "lsn", "time")) == (2, True)


def test_at_every_other_turn_it_is_an_older_one():
    points = [point(3.5), point(7.5)]
    names = {choose(archive().catalog(), points, turn, Random(1)).backup.name[-2:] for turn in (1, 3, 5)}  # type: ignore[union-attr]
    assert names == {"02"}
    # Where there is no other, or none with a point, the newest is better than nothing.
    for made, known in ((archive(backups=(6,)), points), (archive(backups=(6, 7)), [point(8.5)])):
        found = choose(made.catalog(), known, 1, Random(1))
        assert isinstance(found, Choice)
    late = choose(archive(backups=(2, 6)).catalog(), [point(9.5), point(8.5)], 1, Random(1))
    assert isinstance(late, Choice)


def test_everything_is_drawn_in_the_end():
    points = [point(7.25), point(7.5), point(8.5)]
    drawn = [choose(archive().catalog(), points, 0, Random(seed)) for seed in range(60)]
    assert {one.point.name for one in drawn if isinstance(one, Choice)} == {"p7.25", "p7.5", "p8.5"}
    assert {one.kind for one in drawn if isinstance(one, Choice)} == {"name", "lsn", "time"}


@pytest.mark.parametrize(
    "points",
    [
        [],
        [point(5.5)],  # before the only backup
        [point(6.00001)],  # within it, before it is consistent
        [point(10.5)],  # its segment is not archived yet
        [point(10)],  # nor is anything behind its end
        [point(7.5, timeline=3)],  # of a timeline that nothing leads to
    ],
)
def test_a_point_that_cannot_be_recovered_to_is_none(points):
    found = choose(archive(backups=(6,)).catalog(), points, 0, Random(1))
    assert isinstance(found, Reason)
    assert found.code == "no_point"
    assert "base_000000010000000000000006" in found.message


def test_without_a_backup_there_is_nothing_to_prove():
    found = choose(Made().catalog(), [point(1.5)], 0, Random(1))
    assert isinstance(found, Reason)
    assert found.code == "no_backup"


def test_a_point_on_a_timeline_that_came_later_is_reached():
    made = archive(backups=(2,), last=5)
    made.wal(4, 5, 6, timeline=2)
    made.history(2, (1, f"0/{4 * SEGMENT_BYTES + 100:X}"))
    on_new, on_old = point(5.5, timeline=2), point(5.5, timeline=1)
    for wanted in (on_new, on_old):
        found = choose(made.catalog(), [wanted], 0, Random(1))
        assert isinstance(found, Choice)
        assert found.point == wanted


def plain(**changes: Any) -> dict[str, Any]:
    tables = [{"database": "trading", "table": "public.orders", "rows": 10, "digest": "123"}]
    made = {
        "name": "p",
        "timeline": 1,
        "lsn": "0/6000028",
        "time": "2026-11-22T11:00:00+00:00",
        "tables": tables,
    }
    return {**made, **changes}


def test_a_point_is_read_from_what_the_module_returns():
    found = Point.read(plain(time="2026-11-22T19:00:00+08:00"))
    assert found == Point("p", 1, 0x6000028, NOW - timedelta(hours=1), (ORDERS,))
    assert [found.target(kind) for kind in ("name", "lsn", "time")] == [
        "p",
        "0/6000028",
        "2026-11-22 11:00:00.000000+00:00",
    ]


@pytest.mark.parametrize(
    "changes",
    [{"lsn": "x"}, {"time": "2026-11-22T11:00:00"}, {"time": "soon"}, {"tables": [{}]}, {"timeline": None}],
)
def test_a_point_that_says_nonsense_is_refused_by_name(changes):
    with pytest.raises(PointError, match="point p:"):
        Point.read(plain(**changes))


def facts(**changes: Any) -> dict[str, Any]:
    phases = [{"name": name, "status": "ok", "seconds": 2.0} for name in PHASES]
    tables = [{"database": "trading", "table": "public.orders", "rows": 10, "digest": "123"}]
    made = {"id": "t", "phases": phases, "tables": tables, "torn_down": True, "root": "/r", "complete": True}
    return {
        **made,
        "size_bytes": 2 * 10**9,
        "wal_bytes": 10**9,
        "backup": "b",
        "target_type": "lsn",
        **changes,
    }


READ = Content(wanted=1, good=[("basebackups_005/b/tar_partitions/part_001.tar.lz4", 5)])


def judged(
    found: dict[str, Any], wanted: Point | None = None, content: Content | Reason | None = READ
) -> tuple[str, list[str]]:
    result = judge(found, wanted or point(7.5), NOW, content).as_dict()
    return result["verdict"], [reason["code"] for reason in result["reasons"]]


def test_a_restore_that_brought_everything_back_is_a_proof():
    assert judged(facts()) == ("HEALTHY", [])
    evidence = judge(facts(), point(7.5), NOW, READ).evidence
    assert evidence["content"]["objects_good"] == 1
    assert (evidence["fetch_bytes_per_second"], evidence["replay_bytes_per_second"]) == (10**9, 5 * 10**8)
    assert evidence["point_age_seconds"] == 3600


@pytest.mark.parametrize(
    ("content", "verdict", "code"),
    [
        (Content(wanted=1, damaged={"part": "lz4 says: no"}), "UNHEALTHY", "object_damaged"),
        (Content(wanted=1, unread={"part": "gone"}), "DEGRADED", "object_unread"),
        (Content(wanted=1), "DEGRADED", "content_not_finished"),
        (Reason("content_not_read", "the key is not read here"), "DEGRADED", "content_not_read"),
        (None, "DEGRADED", "content_not_read"),
    ],
)
def test_a_restore_that_went_well_is_no_proof_of_objects_that_are_damaged_or_were_not_read(
    content, verdict, code
):
    assert judged(facts(), content=content) == (verdict, [code])


def test_a_delta_comes_upon_its_bases_and_a_base_that_names_itself_ends_it():
    made = archive(backups=(2, 4, 5), last=7)
    full, delta, third = made.catalog().backups
    upon = replace(delta, delta_from=full.name)
    last = replace(third, delta_from=upon.name)
    found = replace(made.catalog(), backups=(full, upon, last))
    assert chain(found, last) == [last, upon, full]
    looped = replace(full, delta_from=last.name)
    assert chain(replace(found, backups=(looped, upon, last)), last) == [last, upon, looped]


@pytest.mark.parametrize("last", range(len(PHASES)))
def test_facts_that_end_early_prove_nothing(last):
    found = facts()
    found["phases"] = found["phases"][:last]
    verdict, codes = judged(found)
    assert verdict == "UNKNOWN"
    assert "not_to_the_end" in codes
    assert judged({})[0] == "UNKNOWN"


@pytest.mark.parametrize("name", PHASES)
def test_a_restore_that_was_killed_in_a_phase_says_nothing_of_the_backup(name):
    found = facts(complete=None)
    found["phases"] = found["phases"][: PHASES.index(name) + 1]
    del found["phases"][-1]["status"]
    if name == "compare":
        found["tables"] = []
    assert judged(found) == ("UNKNOWN", ["not_to_the_end"])


@pytest.mark.parametrize("name", PHASES)
def test_a_phase_that_failed_is_named_and_what_did_not_follow_is_not_blamed(name):
    found = facts()
    found["phases"] = found["phases"][: PHASES.index(name) + 1]
    found["phases"][-1].update(status="failed", words="why")
    if name == "compare":
        found["tables"] = []
    assert judged(found) == ("UNHEALTHY", [f"{name}_failed"])


@pytest.mark.parametrize("code", sorted(NOT_THE_BACKUP))
def test_what_lies_not_with_the_backup_is_unknown(code):
    found = facts()
    found["phases"] = [*found["phases"][:1], {"name": "fetch", "status": "failed", "code": code, "words": ""}]
    assert judged(found) == ("UNKNOWN", [code])


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ({"rows": 9, "digest": "122"}, "rows_differ"),
        ({"digest": "124"}, "digest_differs"),
        ({"table": "public.other"}, "table_not_compared"),
        ({"rows": None}, "tables_unreadable"),
    ],
)
def test_a_table_that_is_not_what_it_was_is_named(table, code):
    found = facts()
    found["tables"] = [{**found["tables"][0], **table}]
    verdict, codes = judged(found)
    assert codes == [code]
    assert verdict == ("UNHEALTHY" if "differ" in code else "UNKNOWN")


def test_a_restore_that_does_not_say_that_it_came_to_its_end_is_no_proof():
    assert judged(facts(complete=None)) == ("UNKNOWN", ["not_to_the_end"])
    # A check that was left out excuses nothing after it.
    found = facts()
    found["phases"] = found["phases"][: PHASES.index("amcheck") + 1]
    found["phases"][-1].update(status="skipped", words="")
    assert judged(found) == ("UNKNOWN", ["not_to_the_end", "amcheck_skipped"])


def test_damage_that_was_found_is_told_although_a_later_table_was_not_read():
    found = facts()
    wanted = point(7.5, tables=(ORDERS, replace(ORDERS, table="public.late")))
    found["tables"][0]["rows"] = 9
    found["phases"][PHASES.index("compare")].update(status="failed", code="late", words="")
    assert judged(found, wanted) == ("UNHEALTHY", ["rows_differ", "late"])


def test_a_point_with_nobodys_table_is_no_whole_proof():
    own = Digest("postgres", "diting_proof.sentinel", 10, "123")
    found = facts()
    found["tables"] = [
        {"database": "postgres", "table": "diting_proof.sentinel", "rows": 10, "digest": "123"}
    ]
    assert judged(found, point(7.5, tables=(own,))) == ("DEGRADED", ["only_sentinel_compared"])
    with pytest.raises(PointError, match="no table was recorded"):
        Point.read(plain(tables=[]))


def test_a_check_that_was_left_out_and_an_instance_that_was_left_are_told():
    found = facts(torn_down=False)
    found["phases"][-1].update(status="skipped", words="no page checksums")
    assert judged(found) == ("DEGRADED", ["checksums_skipped", "scratch_left"])
    # Only a check may be left out.
    found = facts()
    found["phases"][PHASES.index("compare")]["status"] = "skipped"
    assert judged(found)[0] == "UNHEALTHY"


def test_a_forecast_goes_by_the_speed_of_the_proofs_before():
    known = [record(10**9, 10.0), record(10**9, 12.0), record(2 * 10**9, 22.0)]
    found = forecast(known, 10**10, 10**9)
    assert found.seconds == pytest.approx(110 + 20 + 1)
    assert found.proofs == 3
    # What was no proof tells no speed, and without any there is no forecast.
    assert forecast([record(10**9, 1.0, "UNHEALTHY")], 10**10, None).seconds is None
    assert forecast([], 10**10, None).as_dict() == {
        "size_bytes": 10**10,
        "wal_bytes": 0,
        "seconds": None,
        "proofs": 0,
    }


def test_a_replay_of_next_to_nothing_tells_no_speed():
    found = forecast([record(10**9, 10.0, wal=10**6, replay=2.0)], 10**9, 10**9)
    assert found.seconds == pytest.approx(10 + 2 + 1)


def test_how_good_forecasts_were_is_told():
    known = [
        record(10**9, 10.0, expected={"seconds": 12.0}),
        record(10**9, 10.0, "UNKNOWN", expected={"seconds": 1.0}),
        record(10**9, 10.0, expected={"seconds": None}),
        record(10**9, 10.0),
    ]
    assert forecast_errors(known) == [0.25]


def test_what_was_found_of_a_backup_stays_until_it_is_proven_or_gone():
    def test(backup: str, verdict: str, hours: float) -> dict[str, Any]:
        made = {**record(1, 1.0, verdict), "ended": NOW.timestamp() - hours * 3600}
        made["evidence"]["backup"] = backup
        return made

    bad = [
        test("a", "HEALTHY", 5),
        test("a", "UNHEALTHY", 4),
        test("a", "UNKNOWN", 3),
        test("b", "HEALTHY", 2),
    ]

    def codes(records: list[dict[str, Any]], backups: tuple[str, ...]) -> list[str]:
        return [reason.code for _health, reason in proof_findings(records, 86400, NOW, backups)]

    assert codes(bad[:3], ()) == ["restore_failed"]
    assert codes(bad, ("a", "b")) == ["restore_failed"]
    assert codes(bad, ("b",)) == []
    assert codes([*bad, test("a", "HEALTHY", 1)], ("a", "b")) == []


def test_another_clusters_proof_is_none():
    records = [{**record(1, 1.0), "system_identifier": name} for name in ("1", "2", None)]
    assert of_system(records, {"2"}) == [records[1]]


@pytest.mark.parametrize(
    ("records", "codes"),
    [
        ([], ["no_proof"]),
        ([{**record(1, 1.0, "UNKNOWN"), "ended": NOW.timestamp() - 10}], ["no_proof"]),
        ([{**record(1, 1.0, "DEGRADED"), "ended": NOW.timestamp() - 3599}], []),
        ([{**record(1, 1.0), "ended": NOW.timestamp() - 3601}], ["proof_old"]),
        ([{**record(1, 1.0), "ended": NOW.timestamp() + 60}], ["clock_differs"]),
        # A test that could not look says nothing against a proof; one that found it broken does.
        (
            [
                {**record(1, 1.0), "ended": NOW.timestamp() - 60},
                {**record(1, 1.0, "UNKNOWN"), "ended": NOW.timestamp()},
            ],
            [],
        ),
        (
            [
                {**record(1, 1.0), "ended": NOW.timestamp() - 60},
                {**record(1, 1.0, "UNHEALTHY"), "ended": NOW.timestamp()},
            ],
            ["restore_failed"],
        ),
    ],
)
def test_a_proof_that_is_not_there_or_old_is_told(records, codes):
    found = proof_findings(records, 3600, NOW)
    assert [reason.code for _health, reason in found] == codes


def test_a_table_is_two_quoted_names():
    assert quoted('public.odd "name"') == '"public"."odd ""name"""'
    assert '"a"."b; drop"' in digest("a.b; drop")
    for wrong in ("orders", "a.b.c", ".b", "a.", "a.\0"):
        with pytest.raises(ValueError, match=r"wanted schema\.table"):
            quoted(wrong)
