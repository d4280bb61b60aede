# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: what a power loss tears is mended and told; what somebody edits is found."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from diting.core import journal
from diting.hostio import files
from diting.hostio.journal import JournalFile


@pytest.fixture
def book(tmp_path):
    return JournalFile(tmp_path / "journal.jsonl", "test")


def lines(book: JournalFile) -> list[str]:
    return book.path.read_text().splitlines()


def test_records_are_canonical_chained_and_private(book):
    first, second = book.append("one", {"b": 1, "a": "é"}), book.append("two", {})
    assert [r["seq"] for r in (first, second)] == [1, 2]
    assert first["prev_sha256"] == journal.GENESIS_SHA256
    assert second["prev_sha256"] == first["sha256"]
    assert lines(book)[0] == journal.canonical_json(first)
    assert lines(book)[0].isascii()
    assert first["ts"].endswith("Z")
    assert book.path.stat().st_mode & 0o777 == 0o640
    assert book.verify().as_dict() == {
        "ok": True,
        "records": 2,
        "seq": 2,
        "sha256": second["sha256"],
        "line": None,
        "problem": None,
    }


@pytest.mark.parametrize("fields", [{"seq": 9}, {"x": float("inf")}, {"x": object()}])
def test_what_cannot_be_a_record_leaves_the_file_as_it_was(book, fields):
    book.append("one", {})
    before = book.path.read_bytes()
    with pytest.raises(journal.JournalError):
        book.append_all([("two", {}), ("three", fields)])
    assert book.path.read_bytes() == before


def test_what_cannot_be_a_record_leaves_a_torn_end_where_it_was(book):
    """Cut off without the record that tells of it, it would be gone and nobody the wiser."""
    book.append("one", {})
    with book.path.open("ab") as stream:
        stream.write(b'{"torn')
    before = book.path.read_bytes()
    with pytest.raises(journal.JournalError):
        book.append_all(iter([("two", {}), ("three", {"x": object()})]))
    assert book.path.read_bytes() == before
    assert book.append_all(iter([("two", {}), ("three", {})])) == 2
    assert [r["event"] for r in book.records()] == ["one", "journal_repaired", "two", "three"]


@pytest.mark.parametrize("torn", [b'{"event":"ha', b"\x00" * 700, b"x" * 200_000])
def test_a_torn_end_is_set_aside_and_told(book, torn):
    book.append("one", {})
    with book.path.open("ab") as stream:
        stream.write(torn)
    report = book.verify()
    assert (report.ok, report.line) == (False, 2)
    assert "torn" in str(report.problem)
    book.append("two", {})
    assert book.verify().ok
    repaired = book.records()[1]
    assert repaired["event"] == "journal_repaired"
    assert repaired["torn_bytes"] == len(torn)
    assert (book.path.parent / repaired["quarantined_to"]).read_bytes() == torn


def test_every_possible_tear_of_the_last_record_is_mended(book):
    book.append("one", {"text": "x" * 40})
    keep = book.path.stat().st_size
    book.append("two", {"text": "y" * 40})
    whole = book.path.read_bytes()
    for size in range(keep + 1, len(whole)):
        book.path.write_bytes(whole[:size])
        book.append("three", {})
        assert [r["event"] for r in book.records()] == ["one", "journal_repaired", "three"]


def test_a_torn_first_line_is_mended_too(book):
    book.path.write_bytes(b'{"half')
    assert book.append("one", {})["seq"] == 2
    assert [r["event"] for r in book.records()] == ["journal_repaired", "one"]


def test_nothing_is_appended_after_an_edited_last_line(book):
    book.append("one", {"who": "alice"})
    book.path.write_text(book.path.read_text().replace("alice", "mallo"))
    before = book.path.read_bytes()
    with pytest.raises(journal.JournalError, match="edited"):
        book.append("two", {})
    assert book.path.read_bytes() == before


def edit(text: list[str]) -> None:
    text[1] = text[1].replace("alice", "mallo")


def edit_and_rehash(text: list[str]) -> None:
    record = json.loads(text[1])
    del record["sha256"]
    record["who"] = "mallory"
    text[1] = journal.canonical_json({**record, "sha256": journal.sha256_of(record)})


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (edit, 2),
        (edit_and_rehash, 3),
        (lambda text: text.pop(1), 2),
        (lambda text: text.insert(1, text[0]), 2),
        (lambda text: text.reverse(), 1),
        (lambda text: text.insert(2, ""), 3),
        (lambda text: text.__setitem__(2, "[]"), 3),
        (lambda text: text.__setitem__(2, "{}"), 3),
    ],
)
def test_damage_in_the_middle_is_named_by_its_line(book, damage, line):
    for who in ("alice", "alice", "alice", "alice"):
        book.append("one", {"who": who})
    text = lines(book)
    damage(text)
    book.path.write_text("\n".join(text) + "\n")
    report = book.verify()
    assert (report.ok, report.line) == (False, line)
    with pytest.raises(journal.JournalError):
        book.records()


def test_a_cut_off_tail_and_a_forged_journal_are_found_by_the_anchor(book):
    for number in range(3):
        book.append("one", {"number": number})
    anchor = book.verify().head
    text = lines(book)
    book.path.write_text("\n".join(text[:2]) + "\n")
    assert book.verify().ok  # the chain alone cannot know
    assert "cut off" in str(book.verify(anchor).problem)
    book.path.unlink()
    assert "cut off" in str(book.verify(anchor).problem)
    for number in range(4):
        book.append("one", {"number": number + 100})
    assert "rewritten" in str(book.verify(anchor).problem)


def test_two_writers_of_one_file_never_go_on_from_what_only_one_of_them_knows(book):
    other = JournalFile(book.path, "other")
    for number in range(4):
        (book, other)[number % 2].append("one", {})
    book.path.replace(book.path.with_suffix(".aside"))
    book.append("one", {})
    assert [book.verify().records, book.records()[0]["seq"]] == [1, 1]
    assert JournalFile(book.path.with_suffix(".aside"), "reader").verify().records == 4


def test_an_end_that_was_altered_since_is_found_by_the_writer_that_wrote_it(book):
    book.append("one", {"x": 1})
    edited = book.path.read_bytes().replace(b'"x":1', b'"x":2')
    book.path.write_bytes(edited)
    os.utime(book.path, ns=(0, book.path.stat().st_mtime_ns + 1))
    with pytest.raises(journal.JournalError, match="last line"):
        book.append("two", {})
    assert book.path.read_bytes() == edited


def test_reading_on_from_a_head(book):
    book.append("one", {})
    records, offset = book.read_from(journal.Head(), 0)
    head = journal.head_of(records[-1])
    assert book.read_from(head, offset) == ([], offset)
    book.append("two", {})
    more, end = book.read_from(head, offset)
    assert [r["event"] for r in more] == ["two"]
    assert end == book.path.stat().st_size
    with book.path.open("ab") as stream:
        stream.write(b'{"torn')
    assert book.read_from(head, offset) == (more, end)


def test_reading_on_from_what_is_no_longer_there(book):
    book.append("one", {})
    head, size = book.verify().head, book.path.stat().st_size
    with pytest.raises(journal.JournalError, match="cut off"):
        book.read_from(head, size + 1)
    with pytest.raises(journal.JournalError, match="after record 1"):
        book.read_from(head, 0)
    book.path.unlink()
    with pytest.raises(journal.JournalError, match="gone"):
        book.read_from(head, size)
    assert book.read_from(journal.Head(), 0) == ([], 0)


def test_a_full_disk_leaves_no_half_line(book, monkeypatch):
    book.append("one", {})
    before = book.path.read_bytes()
    real_write, calls = os.write, []

    def short_then_full(fd, data):
        calls.append(len(data))
        if len(calls) == 1:
            return real_write(fd, bytes(data[:10]))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", short_then_full)
    with pytest.raises(OSError, match="No space"):
        book.append("two", {})
    assert len(calls) == 2
    assert book.path.read_bytes() == before


def test_a_full_disk_leaves_a_torn_end_where_it_was(book, monkeypatch):
    book.append("one", {})
    with book.path.open("ab") as stream:
        stream.write(b'{"torn')
    before = book.path.read_bytes()
    real_write, calls = os.write, []

    def full_once(fd, data):
        calls.append(len(data))
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(fd, data)

    monkeypatch.setattr(os, "write", full_once)
    with pytest.raises(OSError, match="No space"):
        book.append("two", {})
    assert book.path.read_bytes() == before
    book.append("two", {})
    assert [r["event"] for r in book.records()] == ["one", "journal_repaired", "two"]


def test_a_lock_that_is_held_is_an_error_in_time_and_not_a_hang(book):
    book.append("one", {})
    impatient = JournalFile(book.path, "test", lock_timeout_seconds=0.05)
    fd = os.open(book.path, os.O_RDWR)
    try:
        files.lock(fd, timeout_seconds=1, what="test")
        with pytest.raises(files.LockTimeoutError):
            impatient.append("two", {})
    finally:
        os.close(fd)
    impatient.append("two", {})


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from diting.hostio.journal import JournalFile
book = JournalFile(Path(sys.argv[1]), "child", lock_timeout_seconds=60)
for number in range(25):
    book.append("n", {"number": number})
"""


def test_many_writers_make_one_chain(book):
    command = [sys.executable, "-c", WRITER, str(book.path), *sys.path]
    children = [subprocess.Popen(command) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    report = book.verify()
    assert (report.ok, report.records) == (True, 100)


def test_times_are_utc_and_never_guessed():
    summer = timezone(timedelta(hours=2))
    assert journal.utc_text(datetime(2026, 3, 1, 14, 0, tzinfo=summer)) == "2026-03-01T12:00:00.000000Z"
    assert journal.parse_utc("2026-03-01T14:00:00+02:00") == datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    with pytest.raises(ValueError, match="zone"):
        journal.utc_text(datetime(2026, 3, 1))  # noqa: DTZ001 - the point of the test
    with pytest.raises(ValueError, match="zone"):
        journal.parse_utc("2026-03-01T14:00:00")


def test_an_atomic_write_leaves_no_temporary_file_behind(tmp_path, monkeypatch):
    target = tmp_path / "state.json"
    files.write_atomic(target, "one")
    assert target.stat().st_mode & 0o777 == 0o640

    def broken(_fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        files.write_atomic(target, "two")
    assert target.read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_a_number_that_was_left_out_is_found_though_the_hashes_hold(book):
    first = book.append("one", {})
    skipped = journal.Head(first["seq"] + 1, first["sha256"])
    third = journal.make_record(
        skipped, ts=datetime(2026, 3, 1, tzinfo=UTC), mono_ns=0, source="x", event="y", fields={}
    )
    with book.path.open("a") as stream:
        stream.write(journal.canonical_json(third) + "\n")
    report = book.verify()
    assert (report.ok, report.line) == (False, 2)
    assert "seq is 3, wanted 2" in str(report.problem)
