# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Restores of a real archive to points that were recorded while others wrote: what proves them, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.archives import flip
from support.pgp_keys import pgp_key
from support.restore_place import TABLES, RestorePlace, archive_only, restore_place  # noqa: F401 - fixtures
from support.servers import as_postgres, own, wait_until
from support.wal_cluster import BIN
from support.wal_fixtures import archiving, base, cluster, clusters, host, pristine, store  # noqa: F401 - fixtures

pytestmark = pytest.mark.process


def test_each_way_to_name_a_point_brings_back_what_was_there_then(restore_place: RestorePlace) -> None:
    place = restore_place
    place.back_up()
    with place.writing():
        point = place.record("diting-test-1")
    place.cluster.sql("insert into orders (note) values ('after the point')")
    place.archived(point)
    for kind in ("name", "lsn", "time"):
        done = place.prove(place.request(point, kind))
        found = place.judged(point)
        assert (kind, found["verdict"], found["reasons"]) == (kind, "HEALTHY", [])
        assert done.returncode == 0
        assert not place.root.exists()


def test_tablespaces_are_refused_before_anything_is_fetched(restore_place: RestorePlace) -> None:
    # Neither generation of WAL-G puts them anywhere but where they are in production.
    place = restore_place
    space = place.base / "fast-disk"
    space.mkdir()
    own(space)
    place.cluster.sql(f"create tablespace fast location '{space}'")
    place.cluster.sql("create table placed tablespace fast as select generate_series(1, 1000) n")
    place.back_up()
    point = place.record("diting-spaces", tables=(*TABLES, ("postgres", "public.placed")))
    place.archived(point)
    before = {path: path.stat().st_mtime_ns for path in space.rglob("*")}
    assert place.prove(place.request(point, "lsn")).returncode == 1
    found = place.judged(point)
    assert (found["verdict"], [reason["code"] for reason in found["reasons"]]) == ("UNKNOWN", ["tablespaces"])
    assert {path: path.stat().st_mtime_ns for path in space.rglob("*")} == before
    assert not place.root.exists()


def test_nothing_of_the_source_acts_on_the_copy(restore_place: RestorePlace) -> None:
    place = restore_place
    # Each of these would end the recovery, forbid a check, or write elsewhere.
    place.cluster.sql("alter system set archive_cleanup_command = 'false'")
    place.back_up()
    place.record("diting-first")
    place.cluster.sql(
        "create function shout() returns event_trigger language plpgsql as 'begin raise exception $$no$$; end'"
    )
    place.cluster.sql("create event trigger noisy on ddl_command_start execute function shout()")
    place.cluster.configure(
        restore_command="false", recovery_end_command="false", archive_cleanup_command="false"
    )
    point = place.record("diting-quiet")
    place.archived(point)
    archive = place.store.objects()
    assert place.prove(place.request(point, "lsn")).returncode == 0, place.facts()
    assert place.judged(point)["verdict"] == "HEALTHY"
    assert place.store.objects() == archive


def test_an_encrypted_backup_is_proven_with_its_key_and_not_blamed_for_another(
    restore_place: RestorePlace,
) -> None:
    place = restore_place
    keys = {name: place.base / f"{name}.asc" for name in ("right", "wrong")}
    for name, path in keys.items():
        path.write_text(pgp_key(place.base / name))
        own(path)

    def with_key(path: Path) -> None:
        place.settings = {**place.settings, "WALG_PGP_KEY_PATH": str(path)}
        place.host.write(place.settings)

    with_key(keys["right"])
    place.back_up()
    point = place.record("diting-secret")
    place.archived(point)
    request = place.request(point, "lsn")
    assert place.prove(request).returncode == 0, place.facts()
    assert place.judged(point)["verdict"] == "HEALTHY"
    for path, code in ((keys["wrong"], "key_wrong"), (place.base / "none.asc", "key_absent")):
        with_key(path)
        assert place.prove(request).returncode == 1
        found = place.judged(point)
        assert (found["verdict"], found["reasons"][0]["code"]) == ("UNKNOWN", code), found
        assert not place.root.exists()


def codes(place: RestorePlace) -> tuple[str, list[str]]:
    found = place.judged(place.made)
    return found["verdict"], [reason["code"] for reason in found["reasons"]]


def server_of(place: RestorePlace) -> int:
    """Process number of the copy's server, 0 before there is one: its file is made first and written to then."""
    path = place.root / "data/postmaster.pid"
    words = path.read_text().split() if path.exists() else []
    return int(words[0]) if words else 0


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def part(place: RestorePlace) -> Path:
    """The largest tar file of the backup."""
    found = place.store.path("basebackups_005").rglob("part_*.tar.lz4")
    return max(found, key=lambda path: path.stat().st_size)


def segment(place: RestorePlace) -> Path:
    """One that recovery needs after the backup's own end."""
    return sorted(place.store.path("wal_005").glob("0*[0-9A-F].lz4"))[-2]


DAMAGE: dict[str, tuple[Callable[[RestorePlace], None], str]] = {
    "bit of a base object": (lambda place: flip(part(place)), "object_damaged"),
    "base object cut off": (lambda place: cut(part(place)), "object_damaged"),
    "base object gone": (lambda place: part(place).unlink(), "fetch_failed"),
    "bit of a WAL object": (lambda place: flip(segment(place)), "replay_failed"),
    "WAL object cut off": (lambda place: cut(segment(place)), "replay_failed"),
    "WAL object gone": (lambda place: segment(place).unlink(), "replay_failed"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_each_damage_of_the_archive_is_found_and_nothing_is_left(
    archive_only: RestorePlace, name: str
) -> None:
    place = archive_only
    request = place.request(place.made, "lsn", stall_seconds=5)
    damage, wanted = DAMAGE[name]
    damage(place)
    # A flipped bit WAL-G refuses mostly, and hands out what it made of a page now and then, or of a file without checksums.
    assert place.prove(request).returncode == 1 or name == "bit of a base object"
    verdict, found = codes(place)
    assert (verdict, wanted in found) == ("UNHEALTHY", True), place.judged(place.made)["reasons"]
    assert not place.root.exists()


def test_a_bit_of_the_checksum_itself_is_found(archive_only: RestorePlace) -> None:
    place = archive_only
    path = part(place)
    content = bytearray(path.read_bytes())
    # What ends it: nothing of what is unpacked differs, and WAL-G mostly does not look at it.
    content[-1] ^= 1
    path.write_bytes(content)
    place.prove(place.request(place.made, "lsn", stall_seconds=5))
    verdict, found = codes(place)
    assert (verdict, "object_damaged" in found) == ("UNHEALTHY", True), found
    assert not place.root.exists()


def test_a_store_that_refuses_says_nothing_of_the_backup(archive_only: RestorePlace) -> None:
    place = archive_only
    request = place.request(place.made, "name")
    place.host.write(place.store.settings(AWS_SECRET_ACCESS_KEY="another-secret-key"))
    assert place.prove(request).returncode == 1
    assert codes(place) == ("UNKNOWN", ["store_silent"])
    assert "SignatureDoesNotMatch" in place.judged(place.made)["reasons"][0]["message"]
    assert not place.root.exists()


def test_a_store_that_stops_in_the_midst_of_a_fetch_is_not_waited_for(archive_only: RestorePlace) -> None:
    place = archive_only
    # Slow enough that there is a midst.
    place.host.write(place.store.settings(WALG_NETWORK_RATE_LIMIT="1000000"))
    request = place.request(place.made, "name", stall_seconds=3)
    running = subprocess.Popen(place.command(request), user="postgres", group="postgres", extra_groups=[])
    try:
        wait_until("something has come", lambda: any((place.root / "data").glob("*")))
        assert place.store.process is not None
        place.store.process.send_signal(signal.SIGSTOP)
        assert running.wait(60) == 1
    finally:
        running.kill()
        running.wait()
        place.store.process.send_signal(signal.SIGCONT)
    assert codes(place) == ("UNKNOWN", ["store_silent"])
    assert not place.root.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("phase", ["fetch", "replay"])
def test_told_to_stop_it_takes_everything_away_first(
    archive_only: RestorePlace, number: int, phase: str
) -> None:
    place = archive_only
    place.host.write(place.store.settings(WALG_NETWORK_RATE_LIMIT="1000000" if phase == "fetch" else ""))
    if phase == "replay":
        # WAL that never comes: recovery waits for it, as it would for a slow store.
        request = place.request(place.made, "name", restore_command="sleep 60")
    else:
        request = place.request(place.made, "name")
    running = subprocess.Popen(place.command(request), user="postgres", group="postgres", extra_groups=[])
    try:
        wait_until(
            "it is in that phase",
            lambda: (place.base / "result.json").exists() and place.facts()["phase"] == phase,
        )
        if phase == "replay":
            wait_until("a server runs", lambda: server_of(place))
        running.send_signal(number)
        assert running.wait(60) == 1
    finally:
        running.kill()
        running.wait()
    assert codes(place) == ("UNKNOWN", ["interrupted"])
    assert not place.root.exists()


def test_what_a_killed_test_leaves_is_taken_away_and_nothing_else(archive_only: RestorePlace) -> None:
    place = archive_only
    request = place.request(place.made, "name", restore_command="sleep 60")
    running = subprocess.Popen(place.command(request), user="postgres", group="postgres", extra_groups=[])
    wait_until("a server runs", lambda: server_of(place))
    server = server_of(place)
    running.kill()
    running.wait()
    wait_until("its server is gone with it", lambda: not Path(f"/proc/{server}").exists())
    words = (BIN / "bin/diting-wal", "--config", place.host.wrapper_config, "scratch-clean", place.root)
    done = as_postgres(*words, cwd=place.base)
    assert (done.returncode, place.root.exists()) == (0, False), done.stderr

    # Somebody else's directory, named by mistake.
    place.root.mkdir()
    own(place.root)
    (place.root / "precious").write_text("data")
    done = as_postgres(*words, cwd=place.base)
    assert done.returncode == 2
    assert "not made by a restore test" in done.stderr
    assert place.prove(request).returncode == 1
    assert codes(place)[1][0] == "host_failed"
    assert "not made by a restore test" in place.judged(place.made)["reasons"][0]["message"]
    assert (place.root / "precious").read_text() == "data"


def test_a_store_that_falls_silent_while_it_recovers_says_nothing_of_the_backup(
    archive_only: RestorePlace,
) -> None:
    place = archive_only
    request = place.request(
        place.made, "lsn", restore_command="echo 'diting-wal-restore: WARNING: could not look' >&2; exit 200"
    )
    assert place.prove(request).returncode == 1
    assert codes(place) == ("UNKNOWN", ["store_silent"])


def test_two_at_a_time_and_no_room_are_refused(archive_only: RestorePlace) -> None:
    place = archive_only
    request = place.request(place.made, "name", backup_bytes=10**18)
    assert place.prove(request).returncode == 1
    assert codes(place) == ("UNKNOWN", ["no_space"])
    assert not place.root.exists()

    request = place.request(place.made, "name", restore_command="sleep 60")
    running = subprocess.Popen(place.command(request), user="postgres", group="postgres", extra_groups=[])
    try:
        wait_until("a server runs", lambda: server_of(place))
        second = place.prove(request)
        assert second.returncode == 2
        assert "another one is under way" in second.stderr
        # Nor does the clean-up after a second one touch the first.
        words = (BIN / "bin/diting-wal", "--config", place.host.wrapper_config, "scratch-clean", place.root)
        assert as_postgres(*words, cwd=place.base).returncode == 2
        assert (place.root / "data/postmaster.pid").exists()
    finally:
        running.terminate()
        running.wait(60)


def test_a_request_that_makes_no_sense_is_refused_with_all_that_is_wrong(archive_only: RestorePlace) -> None:
    place = archive_only
    request = place.request(
        place.made, "name", root="relative", target_type="moon", backup="../../etc", more=1, timeline="1"
    )
    done = place.prove(request)
    assert done.returncode == 64
    assert "/more: is not known" in done.stderr
    assert "/timeline: wanted int, found '1'" in done.stderr
