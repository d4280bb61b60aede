# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive keeps: by when backups finished, never by their names, and never what a kept one needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from diting.core.backup_catalog import BACKUPS, SENTINEL, WAL
from diting.core.backup_judge import Limits, judge
from diting.core.retention import KEPT_BEYOND, order_of, plan
from diting.core.retention_plan import (
    Policy,
    Proofs,
    RetentionPlan,
    check_dry_run,
    proofs_of,
    would_delete,
)
from diting.core.verdict import Reason
from support.archives import NOW, Made

DAY = 86400.0
WEEK = Policy(monthly=False, proof_wanted=False)
MONTHLY = replace(WEEK, monthly=True)


def daily(days: int, *, timeline: int = 1, **changes: Any) -> tuple[Made, list[str]]:
    """A full backup a day, the oldest ``days`` ago, three segments apart, with all WAL in between."""
    made = Made()
    names = [
        made.backup(3 * number + 1, (days - number) * DAY, timeline, **changes) for number in range(days + 1)
    ]
    made.wal(*range(1, 3 * days + 4), timeline=timeline)
    return made, names


def planned(made: Made, policy: Policy = WEEK, tests: Proofs | None = None) -> RetentionPlan:
    found = plan(made.catalog(), made.objects(), policy, NOW, tests or Proofs())
    assert isinstance(found, RetentionPlan), found
    return found


def refused(made: Made, policy: Policy = WEEK) -> Reason:
    found = plan(made.catalog(), made.objects(), policy, NOW, Proofs())
    assert isinstance(found, Reason), found
    return found


def actions(found: RetentionPlan) -> dict[str, str]:
    return {fate.backup.name: fate.action for fate in found.fates}


def by_walg(made: Made, found: RetentionPlan) -> list[str]:
    """What v0.2.19 deletes: by the order of names, but for permanent backups and the WAL from their start to their end."""
    if found.cut is None:
        return []
    spared = [b for b in made.catalog().backups if b.is_permanent]
    spared_orders = {order_of(b.name) for b in spared}
    for backup in spared:
        prefix = backup.name[5:13]
        numbers = range((backup.start_lsn - 1) // 2**24, (backup.finish_lsn - 1) // 2**24 + 1)
        spared_orders |= {f"{prefix}{number // 256:08X}{number % 256:08X}" for number in numbers}
    limit = order_of(found.cut.name)
    return [
        n for n in made.contents if order_of(n) and order_of(n) < limit and order_of(n) not in spared_orders
    ]


def delete(made: Made, names: list[str]) -> None:
    for name in names:
        del made.contents[name]


def test_what_is_beyond_a_week_goes_and_the_backup_that_its_first_moment_needs_stays():
    made, names = daily(10)
    found = planned(made)
    assert found.cut is not None
    assert found.cut.name == names[3], "seven days old to the second"
    assert [name for name, action in actions(found).items() if action == "delete"] == names[:3]
    assert f"{WAL}000000010000000000000009.lz4" not in found.must_stay
    assert f"{WAL}00000001000000000000000A.lz4" in found.must_stay
    whys = {fate.backup.name: fate.why for fate in found.fates}
    assert (whys[names[4]], whys[names[10]]) == ("daily", "snapshot")
    assert "any moment since 2026-11-15T12:00:00Z" in found.why
    assert any("delete" in line and names[0] in line for line in found.lines())


def test_nothing_goes_while_the_first_moment_that_is_wanted_is_not_covered():
    made, names = daily(6)
    found = planned(made)
    assert (found.cut, found.deleted) == (None, ())
    assert "no good full backup finished before 2026-11-15T12:00:00Z" in found.why
    assert f"nothing is deleted: {found.why}" in found.lines()[-1]
    assert set(actions(found).values()) == {"keep"}
    assert found.must_stay == set(made.contents), names


def test_what_a_tier_would_thin_out_is_kept_and_said():
    made, _names = daily(10)
    extra = made.backup(20, 4 * DAY - 3600)
    found = planned(made)
    assert {fate.backup.name: fate.why for fate in found.fates}[extra] == KEPT_BEYOND


def test_the_first_full_backup_of_a_month_is_marked_once_and_stays_with_its_own_wal():
    made, names = daily(40)
    found = planned(made, MONTHLY)
    # 13 October is the oldest, 1 November the first of its month.
    assert found.marks == (names[0], names[19])
    assert "mark" in next(line for line in found.lines() if names[0] in line)
    marked = Made()
    for number, name in enumerate(names):
        marked.backup(3 * number + 1, (40 - number) * DAY, is_permanent=name in found.marks)
    marked.wal(*range(1, 124))
    again = planned(marked, MONTHLY)
    assert again.marks == ()
    gone = by_walg(marked, again)
    assert check_dry_run(again, gone, marked.contents) is None
    delete(marked, gone)
    left = {backup.name: marked.catalog().window(backup) for backup in marked.catalog().backups}
    assert {names[0], names[19]} < set(left)
    assert len(left) == 2 + 8
    assert all(window.recoverable for window in left.values())
    # The gap behind a permanent one is no finding; one behind another backup still is.
    verdict = judge(marked.catalog(), Limits(2 * DAY), NOW).as_dict()
    assert (verdict["verdict"], verdict["reasons"]) == ("HEALTHY", [])
    delete(marked, [f"{WAL}{order_of(names[34])[:16]}{3 * 34 + 2:08X}.lz4"])
    assert judge(marked.catalog(), Limits(2 * DAY), NOW).as_dict()["verdict"] == "DEGRADED"


def test_never_fewer_good_backups_than_wanted():
    made, names = daily(10)
    found = planned(made, replace(WEEK, minimum_full=10))
    assert found.cut is not None
    assert found.cut.name == names[1]
    found = planned(made, replace(WEEK, minimum_full=12))
    assert (found.cut, found.why) == (None, "11 good full backups would be left, wanted at least 12")


def test_a_backup_that_was_found_bad_counts_for_nothing_and_a_proven_one_is_left():
    made, names = daily(10)
    found = planned(made, WEEK, Proofs(failed=frozenset({names[3]})))
    assert found.cut is not None
    assert found.cut.name == names[2]
    wanted = replace(WEEK, proof_wanted=True)
    found = planned(made, wanted, Proofs(proven=frozenset({names[5]})))
    assert found.cut is not None
    assert found.cut.name == names[3]
    found = planned(made, wanted, Proofs(proven=frozenset({names[1]})))
    assert found.cut is not None
    assert found.cut.name == names[1]
    none = planned(made, wanted)
    assert (none.cut, "no backup would be left that a restore test has proven" in none.why) == (None, True)


def test_the_last_word_of_the_restore_tests_counts_for_all_that_a_delta_is_upon():
    made, names = daily(3)
    delta = made.backup(20, 60, base=names[2])

    def record(backup: str, verdict: str) -> dict[str, Any]:
        return {"verdict": verdict, "evidence": {"backup": backup}}

    def said(*records: dict[str, Any]) -> Proofs:
        return proofs_of(records, made.catalog())

    a, b = names[:2]
    found = said(record(a, "UNHEALTHY"), record(b, "HEALTHY"), record(a, "DEGRADED"), record(b, "UNKNOWN"))
    assert found == Proofs(frozenset(), frozenset({a, b}))
    assert said(record(a, "HEALTHY"), record(a, "UNHEALTHY")) == Proofs(frozenset({a}), frozenset())
    assert said(record(delta, "UNHEALTHY")).failed == {delta, names[2]}
    assert said(record(delta, "UNHEALTHY"), record(names[2], "HEALTHY")) == Proofs(
        frozenset({delta}), frozenset({names[2]})
    )
    assert said(record("base_of_long_ago", "HEALTHY")) == Proofs()


def test_a_gap_moves_the_cut_before_it_or_leaves_everything():
    made, names = daily(10)
    delete(made, [f"{WAL}{order_of(names[3])[:16]}{3 * 3 + 2:08X}.lz4"])
    found = planned(made)
    assert found.cut is None
    assert "none of the 4 good full backups from before" in found.why


def damage_unreadable(made: Made, names: list[str]) -> None:
    made.put(f"{BACKUPS}{names[0]}{SENTINEL}", b"{", DAY)


def damage_foreign(made: Made, _names: list[str]) -> None:
    made.backup(50, 60, system_identifier=1)


def damage_clock(made: Made, _names: list[str]) -> None:
    made.backup(50, -60)


def damage_order(made: Made, _names: list[str]) -> None:
    # A new cluster in an old prefix: it begins to count anew.
    made.backup(0, 60)
    made.wal(0)


def damage_stopped(made: Made, _names: list[str]) -> None:
    # As when the clock runs ahead: everything is old.
    made.contents = {k: v for k, v in made.contents.items() if k.startswith(WAL)}
    for number in range(11):
        made.backup(3 * number + 1, (30 - number) * DAY)


def damage_left_behind(made: Made, _names: list[str]) -> None:
    # Somebody went back to before the first backup: nothing leads to where production is now.
    made.history(2, (1, "0/500"))
    made.wal(0, 1, 2, timeline=2)


def damage_written(made: Made, names: list[str]) -> None:
    made.put(f"{BACKUPS}base_{order_of(names[0])[:-1]}0/tar_partitions/part_001.tar.lz4", b"x", 3600)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (damage_unreadable, "unreadable"),
        (damage_foreign, "foreign_backup"),
        (damage_clock, "clock_differs"),
        (damage_order, "order_differs"),
        (damage_written, "being_written"),
        (damage_stopped, "backups_stopped"),
        (damage_left_behind, "backups_stopped"),
    ],
)
def test_an_archive_that_is_not_understood_is_left_alone(
    damage: Callable[[Made, list[str]], None], code: str
):
    made, names = daily(10)
    damage(made, names)
    assert refused(made).code == code


def test_a_broken_off_backup_that_nobody_adds_to_may_go():
    made, names = daily(10)
    loose = f"{BACKUPS}base_{order_of(names[0])[:-1]}0/tar_partitions/part_001.tar.lz4"
    made.put(loose, b"x", 9 * DAY)
    assert loose not in planned(made).must_stay


def test_a_delta_does_not_lose_its_base():
    made, names = daily(10)
    # It came after a newer full one, and is upon an older one all the same.
    delta = made.backup(3 * 3 + 2, 7 * DAY - 60, base=names[2])
    found = planned(made)
    assert found.cut is not None
    assert found.cut.name == names[2], delta


def test_a_permanent_delta_with_a_permanent_base_holds_nothing_back():
    made, names = daily(10, is_permanent=True)
    made.backup(3 * 3 + 2, 7 * DAY - 60, base=names[2], is_permanent=True)
    found = planned(made)
    assert found.cut is not None
    assert found.cut.name == names[3]


def test_what_a_restore_has_left_behind_does_not_count():
    made = Made()
    ages = [13, 12, 11, 10, 9, 8, 7.5, 1]
    names = [made.backup(3 * number + 1, age * DAY) for number, age in enumerate(ages[:-1])]
    made.wal(*range(1, 25))
    # Back to just after the fifth; what came after it on timeline 1 leads nowhere.
    fork = 3 * 4 + 2
    made.history(2, (1, f"0/{fork * 2**24 + 500:X}"))
    made.wal(*range(fork, 25), timeline=2)
    names.append(made.backup(20, DAY, timeline=2))
    found = planned(made)
    assert found.cut is not None
    assert found.cut.name == names[4]
    gone = by_walg(made, found)
    assert check_dry_run(found, gone, made.contents) is None
    delete(made, gone)
    assert made.catalog().window(made.catalog().backups[0], 2).missing == ()


def test_the_mark_is_part_of_the_plan():
    made, names = daily(10)
    # The only proven one is permanent once it is marked, and would satisfy nobody who wants a young proof.
    found = planned(made, replace(MONTHLY, proof_wanted=True), Proofs(proven=frozenset({names[0]})))
    assert found.marks == (names[0],)
    assert found.cut is not None
    assert (found.cut.name, found.deleted) == (names[0], ())


def test_walgs_own_word_has_to_be_what_was_planned():
    made, names = daily(10)
    found = planned(made)
    fine = by_walg(made, found)
    assert check_dry_run(found, fine, made.contents) is None
    needed = f"{WAL}{order_of(names[3])}.lz4"
    more = check_dry_run(found, [*fine, needed], made.contents)
    assert more is not None
    assert (more.code, needed in more.message) == ("would_delete_too_much", True)
    strange = check_dry_run(found, [*fine, "wal_005/new"], made.contents)
    assert strange is not None
    assert (strange.code, "wal_005/new" in strange.message) == ("would_delete_unseen", True)
    less = check_dry_run(found, [name for name in fine if names[1] not in name], made.contents)
    assert less is not None
    assert (less.code, names[1] in less.message) == ("would_delete_other", True)
    text = (
        "INFO: 2026/11/22 Objects in folder:\nINFO: x \twill be deleted: wal_005/A.lz4\nDEBUG: \tskipped: b\n"
    )
    assert would_delete(text) == ["wal_005/A.lz4"]


def drawn(rng: Random) -> Made:
    """An archive of a few weeks: fulls, deltas, switches of the timeline, permanent ones, gaps now and then."""
    made, number, timeline, switches = Made(), 1, 1, []
    fulls: list[str] = []
    days = rng.randint(3, 20)
    for day in range(days + 1):
        age = (days - day) * DAY + rng.random() * 3600
        if not fulls or rng.random() < 0.6:
            fulls.append(made.backup(number, age, timeline, is_permanent=rng.random() < 0.1))
        else:
            made.backup(number, age, timeline, base=fulls[-1])
        after = number + rng.randint(1, 4)
        made.wal(*[one for one in range(number, after) if rng.random() > 0.01], timeline=timeline)
        number = after
        if rng.random() < 0.08 and number > 6:
            # Back to an earlier moment: the rest of this timeline is left behind.
            number -= rng.randint(1, 5)
            kept = [one for one in switches if int(one[1].partition("/")[2], 16) < number * 2**24]
            parent = switches[len(kept)][0] if len(kept) < len(switches) else timeline
            switches = [*kept, (parent, f"0/{number * 2**24 + 700:X}")]
            timeline += 1
            made.history(timeline, *switches)
            made.wal(number, timeline=timeline)
            number += 1
            fulls = []
        elif rng.random() < 0.15:
            switches.append((timeline, f"0/{number * 2**24 + 500:X}"))
            made.wal(number, timeline=timeline)
            timeline += 1
            made.history(timeline, *switches)
            made.wal(number, timeline=timeline)
            number += 1
    return made


@pytest.mark.parametrize("seed", range(300))
def test_whatever_walg_deletes_by_a_plan_each_kept_backup_is_as_good_as_before(seed: int):
    made = drawn(Random(seed))
    policy = replace(WEEK, maximum_age_seconds=30 * DAY)
    found = plan(made.catalog(), made.objects(), policy, NOW, Proofs())
    if isinstance(found, Reason):
        top = made.catalog().top
        assert found.code == "backups_stopped"
        assert not [b for b in made.catalog().backups if made.catalog().reaches(b, top or 0) and b.delta_from is None
                    and made.catalog().window(b).recoverable]  # fmt: skip
        return
    before = {b.name: made.catalog().window(b) for b in made.catalog().backups}
    gone = by_walg(made, found)
    assert check_dry_run(found, gone, made.contents) is None
    delete(made, gone)
    after = made.catalog()
    assert after.unreadable == {}
    kept = {name for name, action in actions(found).items() if action != "delete"}
    assert {backup.name for backup in after.backups} == kept
    for backup in after.backups:
        now = after.window(backup)
        if backup.is_permanent and found.cut is not None and order_of(backup.name) < order_of(found.cut.name):
            assert now.recoverable or not before[backup.name].recoverable
        else:
            assert now == before[backup.name]
    if found.cut is not None:
        assert (NOW - found.cut.finish_time).total_seconds() >= 7 * DAY
        assert after.reaches(found.cut, after.top or 0)
        assert after.window(found.cut, after.top).missing == ()
    again = planned(made, policy)
    assert by_walg(made, again) == [], "a second run has nothing to do"
