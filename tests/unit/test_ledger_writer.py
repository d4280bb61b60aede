# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger file: durable means flushed, whole lines only, errors are not swallowed."""

from __future__ import annotations

import json
import os
import threading

import pytest

from diting.ledger import writer as module
from diting.ledger.writer import LedgerWriter, append_line


def fail(error: OSError) -> None:
    raise AssertionError(error)


def test_durable_is_said_after_the_flush_and_not_before(tmp_path, monkeypatch):
    flushing, may_finish, told = threading.Event(), threading.Event(), threading.Event()

    def slow_flush(_fd: int) -> None:
        flushing.set()
        assert may_finish.wait(10)

    monkeypatch.setattr(module.os, "fdatasync", slow_flush)
    writer = LedgerWriter(tmp_path / "l.jsonl", fail)
    writer.append_durable([{"seq": 1}], told.set)
    assert flushing.wait(10)
    assert not told.is_set()
    may_finish.set()
    assert told.wait(10)
    writer.close()


def test_records_that_need_no_flush_ride_along_in_order(tmp_path):
    writer = LedgerWriter(tmp_path / "l.jsonl", fail)
    told = threading.Event()
    writer.append({"n": 1})
    writer.append_durable([{"n": 2}, {"n": 3}], told.set)
    assert told.wait(10)
    lines = (tmp_path / "l.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 2, 3]
    writer.append({"n": 4})
    writer.close()
    assert (tmp_path / "l.jsonl").read_text(encoding="utf-8").endswith('{"n":4}\n')


def test_an_existing_file_is_refused(tmp_path):
    (tmp_path / "l.jsonl").write_text("", encoding="ascii")
    with pytest.raises(FileExistsError):
        LedgerWriter(tmp_path / "l.jsonl", fail)


def test_a_disk_error_is_told_and_nothing_is_called_durable(tmp_path, monkeypatch):
    def broken(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fdatasync", broken)
    errors: list[OSError] = []
    told, failed = threading.Event(), threading.Event()
    writer = LedgerWriter(tmp_path / "l.jsonl", lambda error: (errors.append(error), failed.set()))
    writer.append_durable([{"n": 1}], told.set)
    assert failed.wait(10)
    assert errors[0].errno == 28
    assert not told.is_set()


def test_short_writes_are_completed(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(module.os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    append_line(tmp_path / "m.jsonl", {"label": "inject_sent"})
    assert json.loads((tmp_path / "m.jsonl").read_text(encoding="utf-8")) == {"label": "inject_sent"}
