# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts wait on disk until a receiver knows, are told once a state, and never twice for nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading

import pytest

from diting.core.guard import Alert, raise_alert, resolve_alert
from diting.guards.runtime import http
from diting.guards.runtime.log import make_logger
from diting.guards.runtime.notify import Notifier
from diting.guards.runtime.ports import SystemClock
from diting.guards.runtime.settings import Alertmanager
from diting.guards.runtime.spool import Spool, fingerprint
from support.guard_receiver import Receiver

HOT = Alert("TooHot", "warning", "It is hot", "docs/runbooks/guards.md")
BAD = Alert("Bad", "info", "Nobody wants this one", "docs/runbooks/guards.md")
AT = "2026-01-01T00:00:00.000000Z"


@pytest.fixture
def receiver():
    with Receiver() as found:
        yield found


class Sender:
    """A notifier in a thread of its own, and what it counted."""

    def __init__(self, directory, *urls, **changes):
        self.outcomes = []
        self.directory = directory
        settings = {"timeout_seconds": 0.3, "retry_first_seconds": 0.05, "retry_max_seconds": 0.2, **changes}
        document = Alertmanager.model_validate_json(json.dumps({"urls": list(urls), **settings}))
        self.log = open(directory / "log", "a+")  # noqa: PTH123, SIM115
        log = make_logger("debug", SystemClock(), self.log)
        count = lambda outcome, _seconds: self.outcomes.append(outcome)  # noqa: E731
        self._made = lambda: Notifier(directory / "spool", document, SystemClock(), log, count)

    def __enter__(self):
        ready = threading.Event()

        async def live():
            self.notifier = self._made()
            self.notifier.open()
            self.loop = asyncio.get_running_loop()
            self.task = asyncio.ensure_future(self.notifier.run())
            ready.set()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task

        self.thread = threading.Thread(target=lambda: asyncio.run(live()))
        self.thread.start()
        assert ready.wait(5)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.task.cancel)
        self.thread.join(5)
        self.log.close()

    def do(self, action, alert=HOT):
        async def act():
            return self.notifier.spool_action(action, alert, {"guard": "toy"})

        return asyncio.run_coroutine_threadsafe(act(), self.loop).result(5)

    def until(self, condition):
        asyncio.run_coroutine_threadsafe(_until(condition), self.loop).result(15)

    def files(self):
        return sorted(path.name for path in (self.directory / "spool").glob("*.json"))


def names(alerts):
    return [alert["labels"]["alertname"] for alert in alerts]


def test_an_alert_arrives_with_what_a_person_needs(tmp_path, receiver):
    with Sender(
        tmp_path, receiver.url, labels={"cluster": "diting", "guard": "cannot be overwritten"}
    ) as sender:
        sender.do(raise_alert("TooHot", description="35 degrees", incident_id="inc-1"))
        receiver.wait(lambda r: r.requests)
    alert = receiver.taken()[0]
    assert alert["labels"] == {
        "alertname": "TooHot",
        "severity": "warning",
        "guard": "toy",
        "cluster": "diting",
    }
    assert {k: alert["annotations"][k] for k in ("summary", "runbook", "description", "incident_id")} == {
        "summary": "It is hot",
        "runbook": "docs/runbooks/guards.md",
        "description": "35 degrees",
        "incident_id": "inc-1",
    }
    # No time of ours: a receiver whose clock differs would refuse it, or take it for over.
    assert "startsAt" not in alert
    assert "endsAt" not in alert


def test_raised_again_is_told_once_and_resolved_ends_it(tmp_path, receiver):
    with Sender(tmp_path, receiver.url) as sender:
        assert sender.do(raise_alert("TooHot")) is True
        receiver.wait(lambda r: len(r.requests) == 1)
        assert sender.do(raise_alert("TooHot")) is False
        assert sender.do(resolve_alert("TooHot")) is True
        receiver.wait(lambda r: len(r.requests) == 2)
        assert sender.do(resolve_alert("TooHot")) is False
        sender.until(lambda: not sender.files())
    assert len(receiver.taken("firing")) == 1
    assert len(receiver.taken("resolved")) == 1


def test_a_standing_alert_is_sent_again(tmp_path, receiver):
    with Sender(tmp_path, receiver.url, resend_seconds=1) as sender:
        sender.do(raise_alert("TooHot"))
        receiver.wait(lambda r: len(r.taken("firing")) >= 2)


@pytest.mark.parametrize("mode", ["error", "busy", "hang", "drip", "garbage"])
def test_a_receiver_in_trouble_is_tried_until_it_is_well(tmp_path, receiver, mode):
    receiver.mode = mode
    with Sender(tmp_path, receiver.url) as sender:
        sender.do(raise_alert("TooHot"))
        sender.until(lambda: len(sender.outcomes) >= 2)
        assert "ok" not in sender.outcomes
        assert len(sender.files()) == 1
        receiver.mode = "ok"
        receiver.wait(lambda r: r.taken("firing"))


async def _until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is set by no event of ours
            await asyncio.sleep(0.01)


def test_a_busy_receiver_is_not_asked_for_each_alert(tmp_path, receiver):
    receiver.mode = "busy"
    spool = Spool(tmp_path / "spool")
    spool.open()
    for name in ("TooHot", "TooCold"):
        spool.firing({"alertname": name}, {}, at=AT)
    with Sender(tmp_path, receiver.url) as sender:
        sender.until(lambda: len(sender.outcomes) >= 3)
    assert {len(batch) for _, batch in receiver.requests} == {2}


def test_a_receiver_that_is_gone_is_told_when_it_is_back(tmp_path):
    with Receiver() as first:
        port, url = first.port, first.url
    with Sender(tmp_path, url) as sender:
        sender.do(raise_alert("TooHot"))
        sender.do(resolve_alert("TooHot"))
        sender.do(raise_alert("TooHot"))
        sender.until(lambda: "unreachable" in sender.outcomes)
        with Receiver(port) as second:
            second.wait(lambda r: r.taken("firing"))
            # The state, not the history: three changes were one alert.
            assert len(second.taken()) == len(second.requests)


def test_attempts_keep_their_distance(tmp_path):
    with Receiver() as first:
        url = first.url
    with Sender(tmp_path, url, retry_first_seconds=30) as sender:
        sender.do(raise_alert("TooHot"))
        sender.until(lambda: sender.outcomes)
        sender.do(resolve_alert("TooHot"))
        sender.do(raise_alert("TooHot"))
        assert sender.outcomes == ["unreachable"]


def test_one_alert_that_is_refused_does_not_hold_back_the_others(tmp_path, receiver):
    receiver.mode = "refuse"
    with Sender(tmp_path, receiver.url) as sender:
        sender.do(raise_alert("Bad"), BAD)
        sender.do(raise_alert("TooHot"))
        receiver.wait(lambda r: "TooHot" in names(r.taken()))
        assert "Bad" not in names(receiver.taken())


def test_one_receiver_of_two_is_enough(tmp_path, receiver):
    with Receiver() as gone:
        dead = gone.url
    with Sender(tmp_path, dead, receiver.url) as sender:
        sender.do(raise_alert("TooHot"))
        sender.do(resolve_alert("TooHot"))
        receiver.wait(lambda r: r.taken("resolved"))
        sender.until(lambda: not sender.files())


def test_what_was_spooled_by_an_earlier_life_is_sent(tmp_path, receiver):
    spool = Spool(tmp_path / "spool")
    spool.open()
    spool.firing({"alertname": "TooHot"}, {"summary": "x"}, at=AT)
    with Sender(tmp_path, receiver.url):
        receiver.wait(lambda r: r.taken("firing"))


def test_a_later_state_is_not_lost_to_the_answer_about_an_earlier_one(tmp_path):
    spool = Spool(tmp_path / "spool")
    spool.open()
    labels = {"alertname": "TooHot"}
    spool.firing(labels, {}, at=AT)
    sent = spool.waiting()[0]
    spool.resolved(labels, at=AT)
    spool.took(sent)
    assert [alert.ends_at for alert in spool.waiting()] == [AT]


def test_a_full_disk_does_not_silence_an_alert(tmp_path, monkeypatch, receiver):
    with Sender(tmp_path, receiver.url) as sender:
        monkeypatch.setattr("diting.hostio.files.write_atomic", _full)
        with pytest.raises(OSError, match="no space"):
            sender.do(raise_alert("TooHot"))
        receiver.wait(lambda r: r.taken("firing"))


def _full(*_args, **_kw):
    raise OSError(28, "no space")


def test_a_damaged_file_is_set_aside_and_named(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "0123456789abcdef.json").write_text("{")
    spool = Spool(folder)
    spool.open()
    assert spool.alerts == {}
    assert "0123456789abcdef.json" in spool.damaged[0]
    assert (folder / "0123456789abcdef.damaged").exists()


def test_a_fingerprint_is_of_the_labels_in_any_order():
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})
    assert fingerprint({"a": "1", "b": "2"}) != fingerprint({"a": "12", "b": ""})


def test_a_page_is_served_and_nothing_else(tmp_path):
    async def ask(port, request):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        found = (await asyncio.wait_for(reader.read(), 5)).split(b"\r\n")
        writer.close()
        return found[0], found[-1]

    async def live():
        server = http.PageServer("/metrics", lambda: ("text/plain", b"up 1\n"))
        port = await server.start("127.0.0.1", 0, None)
        answers = [
            await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n"),
            await ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n"),
            await ask(port, b"GET /metrics?x=1 HTTP/1.0\r\n\r\n"),
            await ask(port, b"GET / HTTP/1.1\r\n\r\n"),
            await ask(port, b"POST /metrics HTTP/1.1\r\n\r\n"),
            await ask(port, b"\r\n\r\n"),
            await ask(port, b"x" * 40000),
        ]
        server.close()
        return [(line.split(b" ")[1] if b" " in line else b"", body) for line, body in answers]

    assert asyncio.run(live()) == [
        (b"200", b"up 1\n"),
        (b"200", b""),
        (b"200", b"up 1\n"),
        (b"404", b"only /metrics is here\n"),
        (b"405", b"GET or HEAD\n"),
        (b"404", b"only /metrics is here\n"),
        (b"", b""),
    ]
