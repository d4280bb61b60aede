# SPDX-License-Identifier: GPL-3.0-or-later
"""A guard as a real process: it lives, is killed, lives again, and its journal says the same as it did."""

from __future__ import annotations

import json
import signal

import pytest

from diting.core import journal
from support.guard_process import FAR, GOOD, Place, diting
from support.guard_receiver import Receiver
from support.servers import wait_until

pytestmark = pytest.mark.process


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path)
    yield found
    found.close()


@pytest.fixture
def alarmed(tmp_path):
    """A place whose alerts go to a receiver."""
    with Receiver() as receiver:
        alertmanager = {
            "urls": [receiver.url],
            "timeout_seconds": 0.5,
            "retry_first_seconds": 0.1,
            "retry_max_seconds": 0.2,
        }
        found = Place(tmp_path, alertmanager=alertmanager)
        yield found, receiver
        found.close()


@pytest.mark.alone
def test_ready_after_a_full_cycle_and_gone_on_sigterm(place):
    place.start()
    # READY came after a cycle, so the journal has its decision already.
    assert place.phases() == ["trusted"]
    place.hears("WATCHDOG=1")
    status, seconds = place.stop()
    assert status == 0
    assert seconds < 1.0
    assert "STOPPING=1" in place.hears("STOPPING=1")
    assert place.records()[-1]["event"] == "stopped"
    assert place.records()[-1]["reason"] == "SIGTERM"


def test_sigterm_is_heeded_in_the_middle_of_a_long_wait_and_of_a_long_look(tmp_path):
    slow = Place(tmp_path, interval_seconds=3600)
    try:
        slow.start()
        assert slow.stop()[1] < 1.0
        chronyc = tmp_path / "chronyc"
        chronyc.write_text("#!/bin/sh\nexec sleep 60\n")
        slow.start_only()
        wait_until(
            "the slow guard has started",
            lambda: any(line["event"] == "started" for line in slow.logged()[-2:]),
        )
        assert slow.stop()[1] < 1.5
    finally:
        slow.close()


def test_a_systemd_that_does_not_read_does_not_stop_a_guard(place):
    place.deaf = True
    place.start_only()
    wait_until(
        "30 cycles and a record",
        lambda: (
            len(place.records())
            and place.metrics()['diting_guard_cycles_total{guard="clock",outcome="finished"}'] > 30
        ),
    )
    assert place.stop()[0] == 0


def test_no_answer_of_chrony_is_trouble_and_not_silence(place):
    place.start()
    (place.directory / "chronyc").unlink()
    place.reaches("alerting")
    alert = next(
        r for r in place.records() if r["event"] == "cycle" and r["actions"] and r["phase"] == "alerting"
    )
    assert "no answer" in alert["actions"][0]["args"]["annotations"]["description"]


def test_killed_while_alerting_it_comes_back_alerting_and_the_alert_ends_once(alarmed):
    place, receiver = alarmed
    place.start()
    place.says(FAR)
    place.reaches("alerting")
    receiver.wait(lambda r: r.taken("firing"))
    place.stop(signal.SIGKILL)
    place.start()
    wait_until("the guard is ready", lambda: place.status()["ready"])
    assert place.status()["phase"] == "alerting"
    place.says(GOOD)
    place.reaches("trusted")
    receiver.wait(lambda r: r.taken("resolved"))
    place.stop()
    raised = [
        a
        for r in place.records()
        if r["event"] == "cycle"
        for a in r["actions"]
        if a["name"] == "raise_alert"
    ]
    assert len(raised) == 1
    assert diting("guard", "replay", place.journal).returncode == 0


def test_spooled_alerts_survive_a_kill(alarmed):
    place, receiver = alarmed
    receiver.mode = "hang"
    place.start()
    place.says(FAR)
    wait_until("alerts wait for the receiver", lambda: receiver.pending)
    place.stop(signal.SIGKILL)
    # What chrony says now must not matter: the alert is older than this life.
    receiver.mode = "ok"
    place.start()
    receiver.wait(lambda r: r.taken("firing"))


def test_replay_is_identical_and_one_altered_observation_is_named(place, tmp_path):
    place.start()
    for offset, phase in ((FAR, "alerting"), (GOOD, "trusted")):
        place.says(offset)
        place.reaches(phase)
    place.stop()
    good = diting("guard", "replay", place.journal)
    assert (good.returncode, good.stderr) == (0, "")
    assert "identical" in good.stdout

    records = place.records()
    number = next(n for n, r in enumerate(records) if r["event"] == "cycle" and r["phase"] == "doubted")
    altered = tmp_path / "altered.jsonl"
    records[number]["observation"]["offset_seconds"] = -0.0001
    altered.write_text("".join(journal.canonical_json(record) + "\n" for record in records))
    bad = diting("guard", "replay", altered)
    assert bad.returncode == 1
    assert f"line {number + 1}: observation.offset_seconds: " in bad.stderr

    told = json.loads(diting("guard", "replay", "--json", altered).stdout)[0]
    assert told["difference"]["line"] == number + 1
    assert told["difference"]["field"] == "observation.offset_seconds"


def test_replay_refuses_what_is_no_journal_of_a_guard(tmp_path):
    (tmp_path / "empty").write_text("")
    (tmp_path / "other").write_text('{"event":"segment","guard":"nobody"}\n')
    for name, words in (("empty", "no segment"), ("other", "does not have"), ("none", "No such file")):
        done = diting("guard", "replay", tmp_path / name)
        assert done.returncode == 1
        assert words in done.stderr


def test_a_pause_is_seen_journalled_and_ends_by_itself(place):
    place.start()
    done = diting(
        "guard", "pause", place.config, "--minutes", "0.02", "--reason", "moving racks", "--by", "ann"
    )
    assert done.returncode == 0, done.stderr
    place.reaches("paused")
    place.reaches("trusted")
    events = [record for record in place.records() if record["event"] in ("paused", "pause_over")]
    assert [record["event"] for record in events] == ["paused", "pause_over"]
    assert events[0]["pause"]["reason"] == "moving racks"
    assert diting("guard", "pause", place.config, "--minutes", "5").returncode == 64
    assert diting("guard", "pause", place.config, "--minutes", "0", "--reason", "x").returncode == 64


def test_a_pause_can_be_ended(place):
    place.start()
    diting("guard", "pause", place.config, "--minutes", "60", "--reason", "x")
    place.reaches("paused")
    assert diting("guard", "pause", place.config, "--end").returncode == 0
    place.reaches("trusted")


def test_status_tells_well_troubled_and_gone_apart(place):
    assert diting("guard", "status", place.config).returncode == 1
    place.start()
    well = diting("guard", "status", place.config)
    assert (well.returncode, well.stdout.split()[:2]) == (0, ["clock", "OK"])
    place.says(FAR)
    place.reaches("alerting")
    wait_until(
        "status says that it is not steady", lambda: diting("guard", "status", place.config).returncode == 1
    )
    assert "not in a steady state: alerting" in diting("guard", "status", place.config).stdout
    place.says(GOOD)
    place.reaches("trusted")
    place.stop(signal.SIGKILL)
    gone = json.loads(diting("guard", "status", "--json", place.config).stdout)[0]
    assert (gone["verdict"], gone["why"].split(",")[0]) == (
        "trouble",
        f"process {place.process.pid} is gone without a word",
    )


def test_status_of_a_guard_that_hangs_is_unknown(place):
    place.start()
    wait_until("the guard is ready", lambda: place.status()["ready"])
    place.process.send_signal(signal.SIGSTOP)
    try:
        found = wait_until(
            "the guard's silence is noticed",
            lambda: (
                (s := json.loads(diting("guard", "status", "--json", place.config).stdout)[0])["verdict"]
                != "ok"
                and s
            ),
        )
        assert found["verdict"] == "unknown"
        assert "hangs" in found["why"]
    finally:
        place.process.send_signal(signal.SIGCONT)


def test_metrics_are_served(place):
    place.start()
    place.says(FAR)
    place.reaches("alerting")
    cycles = 'diting_guard_cycles_total{guard="clock",outcome="finished"}'
    found = wait_until(
        "the metrics show the alert and the cycles that led to it",
        lambda: (
            (m := place.metrics())['diting_guard_state{guard="clock",state="alerting"}'] == 1
            and m[cycles] > 3
            and m
        ),
    )
    assert found['diting_guard_clock_offset_seconds{guard="clock"}'] == -0.75
    assert found['diting_guard_clock_synchronised{guard="clock"}'] == 1
    assert found['diting_guard_ready{guard="clock"}'] == 1
    assert found['diting_guard_steady{guard="clock"}'] == 0
    assert found['diting_guard_alerts{guard="clock",status="firing"}'] == 1
    own = [name for name in found if not name.startswith(("process_", "diting_guard_"))]
    assert own == []


def test_the_log_is_json_with_the_ids_of_the_incident(place):
    place.start()
    place.says(FAR)
    place.reaches("alerting")
    place.stop()
    raised = next(line for line in place.logged() if line["event"] == "raise_alert")
    record = next(r for r in place.records() if r["event"] == "cycle" and r["cycle"] == raised["cycle"])
    assert raised["incident_id"] == record["incident_id"]
    assert raised["incident_id"].startswith("inc-")
    assert raised["trace_id"] == record["trace_id"]
    assert {"ts", "level", "guard", "run_id"} <= raised.keys()


def test_a_config_with_ten_errors_shows_ten(place):
    data = json.loads(place.config.read_text())
    data["nmae"] = "x"
    data["runtime"] |= {
        "interval_seconds": -1,
        "log_level": "loud",
        "recent_observations": "5",
        "journal_keep_files": 0,
    }
    data["runtime"]["metrics"] = {"port": -1, "tls": {"certificate": "here"}}
    data["settings"] |= {"limit_seconds": 0, "confirm_seconds": None}
    place.config.write_text(json.dumps(data))
    for action, status in (("check-config", 1), ("run", 78)):
        done = diting("guard", action, place.config)
        assert done.returncode == status
        assert sum("Fix: " in line for line in done.stderr.splitlines()) == 10, done.stderr


def test_a_second_process_is_kept_out(place):
    place.start()
    second = diting("guard", "run", place.config)
    assert second.returncode == 1
    assert "another process runs this guard" in second.stderr


def test_a_torn_journal_is_mended_and_goes_on(place):
    place.start()
    place.stop(signal.SIGKILL)
    with place.journal.open("ab") as stream:
        stream.write(b'{"half a li')
    place.start()
    place.stop()
    assert "journal_repaired" in [record["event"] for record in place.records()]
    assert diting("guard", "replay", place.journal).returncode == 0


def test_it_is_small_and_quick(tmp_path):
    """At most 60 MB, and no more than a second of work until it is ready, however busy this machine is."""
    place = Place(tmp_path, interval_seconds=10, alertmanager={"urls": ["http://127.0.0.1:9"]})
    try:
        seconds = place.start()
        size, worked = place.memory_bytes(), place.cpu_seconds()
        print(f"ready after {seconds:.2f} s, {worked:.2f} s of work, {size / 2**20:.1f} MB")
        assert size <= 60 * 2**20
        assert worked <= 1.0
    finally:
        place.close()
