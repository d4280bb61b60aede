# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Retention of a real archive by a real WAL-G: what is kept can be restored from, and nothing else was touched."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.diting.dr.plugins.module_utils.hostio.walg_command import WalgError
from ansible_collections.diting.dr.plugins.modules.backup_retention import Refused, carry_out
from diting.core.wal_names import SEGMENT_BYTES
from support.restore_place import RestorePlace, restore_place  # noqa: F401 - fixtures
from support.servers import as_postgres
from support.wal_cluster import BIN
from support.wal_fixtures import archiving, base, cluster, clusters, host, pristine, store  # noqa: F401 - fixtures

pytestmark = pytest.mark.process


def params(place: RestorePlace, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """No tier is younger than this archive; two full backups are left."""
    wrapper = json.loads(Path(place.host.wrapper_config).read_text())
    return {
        "settings_file": wrapper["walg_config"],
        "program": wrapper["walg"],
        "wal_segment_bytes": SEGMENT_BYTES,
        "user": "postgres",
        "seconds": 60.0,
        "records_dir": str(tmp_path / "records"),
        "apply": True,
        "wal_seconds": 0.0,
        "snapshot_seconds": 0.0,
        "daily_seconds": 0.0,
        "monthly": False,
        "minimum_full": 2,
        "unfinished_seconds": 0.0,
        "maximum_age_seconds": 3600.0,
        "proof_wanted": False,
        "expected_backups": None,
        "lock_file": str(tmp_path / "prove.lock"),
        **changes,
    }


def push(place: RestorePlace, kind: str = "full") -> str:
    place.cluster.fill_segment()
    words = (BIN / "bin/diting-wal", "--config", place.host.wrapper_config, "push", "--kind", kind)
    done = as_postgres(*words, cwd=place.base)
    assert done.returncode == 0, done.stdout + done.stderr
    return place.newest_backup()["backup"]


def stored(place: RestorePlace) -> set[str]:
    return {
        f"{folder}/{name}"
        for folder in ("wal_005", "basebackups_005")
        for name in place.store.objects(folder)
    }


def test_what_is_beyond_every_tier_goes_and_what_is_kept_is_restored_from(
    restore_place: RestorePlace, tmp_path: Path
) -> None:
    place = restore_place
    place.back_up()
    first = place.newest_backup()["backup"]
    early = place.record("diting-early")
    place.archived(early)
    second, third = push(place), push(place)
    delta = push(place, "delta")
    assert "_D_" in delta
    last = place.record("diting-late")
    place.archived(last)
    before = stored(place)

    # A plan changes nothing, by a check run or without being asked to apply it.
    for changes in ({"apply": False}, {"apply": True, "check": True}):
        check = bool(changes.pop("check", False))
        seen = carry_out(params(place, tmp_path, monthly=True, **changes), check)
        assert (seen["marked"], seen["cut"], seen["changed"]) == ([first], second, check)
        assert stored(place) == before
    # What WAL-G itself would delete is known where nothing has to be marked first.
    seen = carry_out(params(place, tmp_path, apply=False), False)
    assert (seen["deleted"]["backups"], seen["changed"]) == ([first], False)
    assert seen["deleted"]["objects"] > 5
    assert seen["deleted"]["bytes"] > 10**6
    assert stored(place) == before

    done = carry_out(params(place, tmp_path, monthly=True, minimum_full=1), False)
    assert (done["marked"], done["cut"], done["deleted"]["backups"]) == ([first], third, [second])
    gone = before - stored(place)
    assert len(gone) == done["deleted"]["objects"] > 0
    assert not [name for name in stored(place) if second in name]
    again = carry_out(params(place, tmp_path, monthly=True, minimum_full=1), False)
    assert (again["changed"], again["marked"], again["deleted"]["objects"]) == (False, [], 0)

    # The newest with its delta, and the permanent one up to its own end.
    assert place.prove(place.request(last, "lsn", **place.newest_backup())).returncode == 0, place.facts()
    assert place.judged(last)["verdict"] == "HEALTHY"


def test_walg_that_does_something_else_is_not_let(restore_place: RestorePlace, tmp_path: Path) -> None:
    place = restore_place
    place.back_up()
    first = place.newest_backup()["backup"]
    push(place)
    push(place)
    before = stored(place)
    wrapper = json.loads(Path(place.host.wrapper_config).read_text())

    def instead(script: str) -> dict[str, Any]:
        program = place.base / "other-wal-g"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return params(place, tmp_path, program=str(program))

    newest = place.newest_backup()["backup"]
    for script, words in (
        (
            f"{wrapper['walg']} \"$@\"; echo 'will be deleted: basebackups_005/{newest}_backup_stop_sentinel.json'",
            "would delete 1 objects that have to stay",
        ),
        ("echo nothing to do", "would not delete 1 of 1 backups"),
    ):
        with pytest.raises(Refused, match=words):
            carry_out(instead(script), False)
    for script, words in (
        ("echo no such command; exit 3", "exit 3: no such command"),
        ("sleep 60", "not done after 1 s"),
    ):
        with pytest.raises(WalgError, match=words):
            carry_out({**instead(script), "seconds": 1.0}, False)
    # One that is asked to delete, and names something else, or does nothing.
    real = f'case "$*" in *--confirm) ;; *) exec {wrapper["walg"]} "$@" ;; esac'
    stop = f"will be deleted: basebackups_005/{newest}/metadata.json"
    with pytest.raises(WalgError, match=f"about to do what nobody asked for: {stop}"):
        carry_out(instead(f"{real}; echo '{stop}'; sleep 60"), False)
    with pytest.raises(Refused, match=r"objects are still there, such as .* has its key the right to delete"):
        carry_out(instead(f"{real}; exit 0"), False)
    # One that says it has marked a backup, and has not.
    with pytest.raises(Refused, match="is not permanent all the same"):
        carry_out({**instead("exit 0"), "monthly": True}, False)
    # What was shown is what may go; and a restore test that is under way is not disturbed.
    with pytest.raises(Refused, match="would be deleted too, which was not in the plan that was shown"):
        carry_out(params(place, tmp_path, expected_backups=[]), False)
    with (tmp_path / "prove.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="a restore test, or another retention, is under way"):
            carry_out(params(place, tmp_path), False)
    assert stored(place) == before
    done = carry_out(params(place, tmp_path, expected_backups=[first]), False)
    assert done["deleted"]["backups"] == [first]
