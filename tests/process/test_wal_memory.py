# SPDX-License-Identifier: GPL-3.0-or-later
"""restore_command asks the store once for what a promotion asks in a row, and goes by that for a moment only."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import wait_until
from support.wal_cluster import BIN, install_commands
from support.wal_front import CountingStore, Place

pytestmark = pytest.mark.process

SEGMENT = "00000002000000000000000C"


@pytest.fixture
def store() -> Iterator[CountingStore]:
    store = CountingStore()
    yield store
    store.close()


@pytest.fixture
def place(tmp_path: Path, store: CountingStore) -> Place:
    """A standby of timeline 2 that has written SEGMENT last; a kept file has a later name."""
    install_commands()
    place = Place(tmp_path, store, os.getpid())
    place.signals("standby.signal")
    for name, age in ((SEGMENT, 10), ("00000002000000000000000F", 100), ("00000002000000000000000B", 50)):
        path = place.data / "pg_wal" / name
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
    return place


def run(place: Place, *command: object) -> tuple[int, str]:
    done = subprocess.run(
        [str(word) for word in command], cwd=place.data, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def ask(place: Place, name: str, path: str = "pg_wal/RECOVERYXLOG") -> tuple[int, str]:
    return run(place, place.front.path, name, path)


def ask_program(place: Place, name: str, path: str = "pg_wal/RECOVERYXLOG") -> tuple[int, str]:
    program = BIN / "lib/diting-wal.pyz"
    return run(place, program, "diting-wal-restore", "--config", place.config, name, path)


def clock() -> int:
    """The clock of the shell in front, in its unit."""
    return int(Path("/proc/uptime").read_text().split()[0].replace(".", ""))


def test_a_promotion_asks_the_store_once(place: Place, store: CountingStore) -> None:
    assert ask(place, "00000003.history") == (1, "")
    assert store.connections == 1
    first = list(store.asked)
    assert first == ["00000003.history", SEGMENT, "00000002.history", "00000003", "00000004"]
    for name in (SEGMENT, SEGMENT, "00000003.history"):
        assert ask(place, name) == (1, "")
    place.signals()  # the last question of a promotion comes when PostgreSQL has removed its signal files
    assert ask(place, "00000002.history") == (1, "")
    assert store.asked == first
    assert place.front.starts() == ["00000003.history"]
    # The program has the same memory, for when nothing stands in front of it.
    assert ask_program(place, "00000002.history") == (1, "")
    assert store.asked == first


def test_a_standby_that_follows_asks_the_store_once(place: Place, store: CountingStore) -> None:
    store.objects |= {"00000002.history.lz4", "00000003.history.lz4"}
    assert ask(place, "00000004.history") == (1, "")
    for name in (f"00000003{SEGMENT[8:]}", SEGMENT):
        assert ask(place, name) == (1, "")
    assert place.front.starts() == ["00000004.history"]
    # What the store has is never remembered: neither the file, nor a timeline with one.
    assert place.words() == ["00000004.history", SEGMENT, f"00000003{SEGMENT[8:]}", "00000004", "00000005"]


def test_a_segment_that_is_not_there_answers_for_the_timelines_to_come(
    place: Place, store: CountingStore
) -> None:
    assert ask(place, SEGMENT) == (1, "")
    asked = list(store.asked)
    for name in ("00000003.history", "00000002.history", "00000004.history", f"00000001{SEGMENT[8:]}"):
        assert ask(place, name) == (1, "")
    assert store.asked == asked
    ask(place, "00000002000000000000000B")
    assert store.asked[len(asked)] == "00000002000000000000000B"


def test_the_memory_ends(place: Place, store: CountingStore) -> None:
    place.settings(restore_absent_seconds=1)
    before = clock()
    assert ask(place, "00000003.history")[0] == 1
    asked, until = (int(word) for word in place.memory.read_text().split("\n")[0].split())
    assert before <= asked <= clock()
    assert until == asked + 100
    wait_until("it has ended", lambda: clock() >= until)
    for question in (ask, ask_program):
        count = len(store.asked)
        place.settings(restore_absent_seconds=0.01)
        assert question(place, "00000003.history") == (1, "")
        assert len(store.asked) > count, question.__name__


def test_what_came_meanwhile_is_seen_when_the_memory_has_ended(place: Place, store: CountingStore) -> None:
    place.settings(restore_absent_seconds=0.01)
    ask(place, "00000003.history")
    store.objects.add("00000003.history.lz4")
    # The fetch fails here, and says so: the store was asked, and has it.
    wait_until("it is seen", lambda: "could not look" in ask(place, "00000003.history")[1])


def test_a_recovery_to_a_target_asks_the_store_whatever_is_remembered(
    place: Place, store: CountingStore
) -> None:
    ask(place, "00000003.history")
    place.signals("recovery.signal")
    for count, question in enumerate((ask, ask_program)):
        asked = len(store.asked)
        code, _said = question(place, "00000003.history")
        assert code >= 126
        assert len(place.front.starts()) == 2
        assert len(store.asked) > asked, count
    words = place.words()
    place.memory.unlink()
    ask(place, SEGMENT)
    assert words
    assert not place.memory.exists()


def test_one_that_calls_with_a_path_of_its_own_is_not_the_server(place: Place, store: CountingStore) -> None:
    ask(place, "00000003.history")
    for question in (ask, ask_program):
        asked = len(store.asked)
        question(place, "00000003.history", str(place.data / "pg_wal/x"))
        assert len(store.asked) > asked


@pytest.mark.alone
def test_questions_to_come_cost_no_more_than_their_share(place: Place, store: CountingStore) -> None:
    """A store that answers the question and hangs in the next: the answer counts, and no one waits."""
    place.settings(store_probe_seconds=6)
    store.slow = {SEGMENT: 30}
    begun = time.monotonic()
    assert ask(place, "00000003.history") == (1, "")
    assert time.monotonic() - begun < 5
    assert place.words() == ["00000003.history"]
    assert ask(place, "00000003.history") == (1, "")
    assert len(place.front.starts()) == 1


def test_an_answer_counts_when_the_questions_to_come_are_stopped(place: Place, store: CountingStore) -> None:
    """A listing of pg_wal that hangs is stopped with the worker; the store has answered all the same."""
    place.settings(restore_standby_seconds=2)
    frozen = "import os,time\nfrom diting_wal import memory, restore\nmemory.last_written = lambda *_: time.sleep(60)\n"
    lib = Path(__file__).parents[2] / "roles/walg/files/usr/local/lib/diting-wal"
    code, said = run(
        place,
        *(
            "python3",
            "-B",
            "-c",
            f"import sys\nsys.path.insert(0, {str(lib)!r})\n{frozen}sys.exit(restore.main())",
        ),
        *("--config", place.config, "00000003.history", "pg_wal/x"),
    )
    assert (code, said) == (1, "")
    assert place.words() == ["00000003.history"]


def test_an_error_in_a_question_to_come_is_no_answer(place: Place, store: CountingStore) -> None:
    store.broken = {"00000002.history"}
    assert ask(place, "00000003.history") == (1, "")
    assert place.words() == ["00000003.history", SEGMENT]


def test_an_error_is_silence_and_both_say_so(place: Place, store: CountingStore) -> None:
    store.broken = {SEGMENT}
    code, said = ask(place, SEGMENT)
    assert code == 1
    assert "could not look" in said
    asked = len(store.asked)
    pattern = (
        r"diting-wal-restore: WARNING: 00000009\.history: not asked for: the store was silent \d+\.\d s ago\n"
    )
    for question in (ask, ask_program):
        code, said = question(place, "00000009.history")
        assert code == 1
        assert re.fullmatch(pattern, said), said
    assert len(store.asked) == asked
    assert place.front.starts() == [SEGMENT]


@pytest.mark.parametrize(("pushes", "kept"), [("/bin/true", False), ("/bin/false", True)])
def test_a_push_drops_the_memory(place: Place, pushes: str, kept: bool) -> None:
    ask(place, "00000003.history")
    place.signals()
    place.settings(walg=pushes)
    run(place, BIN / "bin/diting-wal-archive", "--config", place.config, f"pg_wal/{SEGMENT}")
    assert place.memory.exists() == kept


def test_a_memory_that_a_push_has_dropped_stays_dropped(place: Place, store: CountingStore) -> None:
    """Also when the program is still asking ahead."""
    store.meanwhile = {SEGMENT: place.memory.unlink}
    assert ask(place, "00000003.history") == (1, "")
    assert len(store.asked) == 5
    assert not place.memory.exists()


GOOD = "{now} {later}\n00000003.history 00000004\nend\n"
CASES = {
    "the name": (GOOD, "00000003.history", True),
    "its timeline": (GOOD, "000000040000000000000001", True),
    "the history of its timeline": (GOOD, "00000004.history", True),
    "another segment of a timeline whose history alone is known": (GOOD, "000000030000000000000001", False),
    "another timeline": (GOOD, "00000005.history", False),
    "digits that are in another place": (GOOD, "000000050000000400000003", False),
    "not a name of PostgreSQL": (GOOD, "00000004.partial", False),
    "empty": ("", "00000003.history", False),
    "rubbish": ("\x00\x7frubbish", "00000003.history", False),
    "lines of rubbish": ("a\nb\nend\n", "00000003.history", False),
    "cut in the first line": ("{now}", "00000003.history", False),
    "cut after the names": ("{now} {later}\n00000003.history\n", "00000003.history", False),
    "cut in the last line": ("{now} {later}\n00000003.history\nen", "00000003.history", False),
    "cut at the last character": ("{now} {later}\n00000003.history\nend", "00000003.history", False),
    "with another last line": ("{now} {later}\n00000003.history\nends\n", "00000003.history", False),
    "of the future": ("{soon} {later}\n00000003.history\nend\n", "00000003.history", False),
    "over": ("{past} {now}\n00000003.history\nend\n", "00000003.history", False),
    "one number": ("{later}\n00000003.history\nend\n", "00000003.history", False),
    "three numbers": ("{now} {later} {later}\n00000003.history\nend\n", "00000003.history", False),
    "octal": ("0{past} {later}\n00000003.history\nend\n", "00000003.history", False),
    "negative": ("-1 {later}\n00000003.history\nend\n", "00000003.history", False),
    "a number that is no number": ("1x {later}\n00000003.history\nend\n", "00000003.history", False),
    "a number too long": ("{now} 9999999999999999999999\n00000003.history\nend\n", "00000003.history", False),
    "silence": ("{now} {later}\nsilent\nend\n", "00000003.history", True),
    "silence that is over": ("{past} {now}\nsilent\nend\n", "00000003.history", False),
}


@pytest.mark.parametrize("case", CASES)
def test_shell_and_program_go_by_the_same_rules(place: Place, store: CountingStore, case: str) -> None:
    content, name, used = CASES[case]
    now = clock()
    text = content.format(now=now, past=now - 1000, soon=now + 50000, later=now + 60000)
    place.front.program.write_text("#!/bin/sh\nexit 9\n")
    place.memory.write_text(text)
    by_shell = ask(place, name)
    store.objects.add(f"{name}.lz4")  # asked for, it would be fetched, which fails here with a warning
    asked = len(store.asked)
    by_program = ask_program(place, name)
    assert (by_shell[0] == 1, len(store.asked) == asked) == (used, used)
    assert ("could not look" not in by_program[1]) == used
    if not used:
        assert by_shell == (9, "")


@pytest.mark.parametrize(
    ("signals", "pid", "used"),
    [
        (["standby.signal"], "own", True),
        (["standby.signal", "recovery.signal"], "own", True),
        (["recovery.signal"], "own", False),
        ([], "own", True),
        ([], "-own", True),  # a server in single-user mode
        ([], None, False),
        ([], "999999999", False),
        ([], "rubbish", False),
        (["standby.signal"], None, True),
    ],
)
def test_shell_and_program_know_the_same_callers(
    place: Place, store: CountingStore, signals: list[str], pid: str | None, used: bool
) -> None:
    place.signals(*signals)
    file = place.data / "postmaster.pid"
    file.write_text(f"{pid}\n".replace("own", str(os.getpid())))
    if pid is None:
        file.unlink()
    now = clock()
    place.memory.write_text(GOOD.format(now=now, later=now + 60000))
    place.front.program.write_text("#!/bin/sh\nexit 9\n")
    assert ask(place, "00000003.history") == ((1, "") if used else (9, ""))
    ask_program(place, "00000003.history")
    assert (store.asked == []) == used
