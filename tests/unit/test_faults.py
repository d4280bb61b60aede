# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of faults and the judgement of what they leave behind."""

from __future__ import annotations

import pytest

from diting.core.faults import CATALOGUE, Scan, check_fault_id, fault_named, judge_scan


def test_every_fault_limits_itself_and_says_what_must_be_seen():
    for fault in CATALOGUE.values():
        assert 0 < fault.limit_seconds <= 600, fault.name
        assert fault.effect, fault.name


def test_an_unknown_fault_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"'hots_off'; wanted one of: dcs_loss, disk_full, guard_off, host_off, partition, postgres_hang",
    ):
        fault_named("hots_off", companions=False)


def test_a_fault_that_is_survived_is_no_planned_one_and_no_companion():
    survived = {fault.name for fault in CATALOGUE.values() if fault.survived}
    assert survived == {"dcs_loss", "replica_off"}
    assert not [name for name in survived if CATALOGUE[name].companion]


@pytest.mark.parametrize("bad", ["", "../x", "a b", "A", "x" * 90, "-x", "x;reboot"])
def test_a_fault_id_that_could_not_name_a_unit_is_refused(bad):
    with pytest.raises(ValueError, match="fault_id is"):
        check_fault_id(bad)


def test_a_clean_host_has_no_residue():
    assert judge_scan(Scan(host="pg1", qdiscs="qdisc noqueue 0: dev lo root refcnt 2")) == []


@pytest.mark.parametrize(
    ("scan", "kind"),
    [
        (Scan("pg1", records=["x (injected)"]), "fault_record"),
        (Scan("pg1", units="diting-fault-x.timer loaded active waiting"), "fault_unit"),
        (Scan("pg1", stopped=["postgres (7)"]), "stopped_process"),
        (
            Scan("pg1", qdiscs="qdisc netem 8001: dev eth0 root refcnt 2 limit 1000 loss 100%"),
            "traffic_shaping",
        ),
        (Scan("pg1", routes="unreachable 10.0.0.7 metric 1"), "dead_route"),
        (Scan("pg1", fillers=["/data/diting-fault-x.filler"]), "disk_filler"),
        (Scan("pg1", routes=None), "could_not_look"),
        (Scan("pg1", stopped=None), "could_not_look"),
    ],
)
def test_each_kind_of_residue_is_found(scan, kind):
    assert [item["kind"] for item in judge_scan(scan)] == [kind]
