# SPDX-License-Identifier: GPL-3.0-or-later
"""The dead man's switch speaks when it should, to everybody, until they have it, and takes it back."""

from __future__ import annotations

import json

import pytest

from diting.alerts.messages import notification
from diting.alerts.relay import Relay
from diting.alerts.settings import Settings, load
from diting.guards.runtime.settings import ConfigError

BEAT = notification(
    {
        "version": "4",
        "alerts": [{"status": "firing", "labels": {"alertname": "DitingWatchdog"}, "annotations": {}}],
    }
)
SETTINGS = {
    "address": "127.0.0.1",
    "port": 0,
    "ca": "/x/ca.crt",
    "certificate": "/x/host.crt",
    "key": "/x/host.key",
    "clients": ["ops1"],
    "receivers": [
        {"name": "room", "kind": "dingtalk", "url": "https://a.example/send"},
        {"name": "hook", "kind": "webhook", "url": "https://b.example/"},
        {"name": "other", "kind": "webhook", "url": "https://c.example/"},
    ],
    "direct": ["room", "hook"],
    "heartbeats": [{"name": "ops1", "limit_seconds": 10.0}],
    "repeat_seconds": 60.0,
    "retry_seconds": 5.0,
}


class World:
    """Time, and receivers that can be made to refuse."""

    def __init__(self):
        self.time = 1000.0
        self.sent = []
        self.down = set()
        self.relay = Relay(
            Settings.model_validate_json(json.dumps(SETTINGS)),
            lambda *_args, **_fields: None,
            now=lambda: self.time,
            unix_now=lambda: self.time + 1e9,
            send=self.send,
        )

    def send(self, receiver, told, timeout_seconds):
        assert timeout_seconds == 10
        if receiver.name in self.down:
            return "HTTP 503"
        self.sent.append((receiver.name, "firing" if told.firing else "resolved"))
        return None

    def go(self, seconds, beat=False):
        """Second by second, as the process does; what was sent meanwhile."""
        self.sent = []
        for _ in range(seconds):
            self.time += 1
            if beat:
                self.relay.heard("ops1", BEAT)
            for pair in self.relay.watch():
                self.relay.settle(pair)
        return sorted(self.sent)


def both(what):
    return [("hook", what), ("room", what)]


def test_while_it_is_heard_nothing_is_said():
    world = World()
    assert world.go(100, beat=True) == []


def test_never_heard_is_silent_too():
    world = World()
    assert world.go(10) == []
    assert world.go(1) == both("firing")
    assert world.relay.status()["heartbeats"]["ops1"]["silent"]


def test_a_silence_is_told_once_repeated_and_taken_back():
    world = World()
    world.go(5, beat=True)
    assert world.go(10) == []
    assert world.go(1) == both("firing")
    assert world.go(59) == []
    assert world.go(1) == both("firing")
    assert world.go(1, beat=True) == both("resolved")
    assert world.go(5, beat=True) == []


def test_who_refuses_is_told_again_and_holds_up_nobody():
    world = World()
    world.down = {"room"}
    assert world.go(12) == [("hook", "firing")]
    assert world.relay.status()["waiting"] == ["ops1 to room"]
    world.down = set()
    assert world.go(5) == [("room", "firing")]
    assert world.relay.status()["waiting"] == []


def test_who_was_never_told_of_it_is_not_told_that_it_is_over():
    world = World()
    world.down = {"room"}
    world.go(12)
    world.down = set()
    world.time -= 1  # no attempt is due in between
    assert world.go(1, beat=True) == [("hook", "resolved")]
    assert world.go(20, beat=True) == []


def test_what_comes_back_while_it_is_being_told_is_taken_back():
    world = World()
    real = world.relay._send

    def slow(receiver, told, timeout_seconds):
        # Heard from again, and looked at, while the first message is on its way.
        world.relay._send = real
        world.relay.heard("ops1", BEAT)
        world.relay.watch()
        return real(receiver, told, timeout_seconds)

    world.relay._send = slow
    world.go(11)
    assert sorted(world.sent) in (both("firing"), [("room", "firing")])
    told = set(world.sent)
    assert {(name, "resolved") for name, _ in told} <= set(world.go(10, beat=True))


def test_a_sender_that_breaks_is_tried_again():
    world = World()
    real = world.relay._send
    world.relay._send = lambda *_: (_ for _ in ()).throw(RuntimeError("a defect"))
    world.time += 11
    for pair in world.relay.watch():
        with pytest.raises(RuntimeError):
            world.relay.settle(pair)
    world.relay._send = real
    assert world.go(5) == both("firing")


def test_a_heartbeat_that_is_over_is_none():
    world = World()
    over = notification({"version": "4", "alerts": [{"status": "resolved", "labels": {}, "annotations": {}}]})
    for _ in range(11):
        world.time += 1
        world.relay.heard("ops1", over)
    assert world.relay.watch() == [("ops1", "room"), ("ops1", "hook")]


def test_figures_have_every_receiver_and_source():
    world = World()
    world.down = {"room"}
    world.go(12)
    page = world.relay.metrics()
    assert 'diting_alert_relay_messages_total{receiver="hook",outcome="taken"} 1' in page
    assert 'diting_alert_relay_messages_total{receiver="room",outcome="refused"} 1' in page
    assert 'diting_alert_relay_messages_total{receiver="other",outcome="taken"} 0' in page
    assert 'diting_alert_relay_silent{source="ops1"} 1' in page
    assert "diting_alert_relay_waiting 1" in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"direct": ["nobody"]}, "direct"),
        ({"direct": []}, "direct"),
        ({"receivers": [*SETTINGS["receivers"], SETTINGS["receivers"][0]]}, "each name once"),
        ({"receivers": [{"name": "room", "kind": "dingtalk"}]}, "url: wanted"),
        ({"receivers": [{"name": "room", "kind": "dingtalk", "url": "ftp://s3cret.example"}]}, "http://"),
        ({"receivers": [{"name": "room", "kind": "pagerduty", "url": "https://p.example"}]}, "routing key"),
        ({"receivers": [{"name": "room", "kind": "email"}]}, "smtp: wanted"),
        ({"heartbeats": [{"name": "ops1", "limit_seconds": 0}]}, "heartbeats.0.limit_seconds"),
        ({"prot": 1}, "prot"),
    ],
)
def test_settings_that_cannot_be_used_are_named_and_no_secret_is_repeated(tmp_path, change, words):
    path = tmp_path / "relay.json"
    path.write_text(json.dumps(SETTINGS | change))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"{"])
def test_a_file_that_is_missing_or_broken_is_named(tmp_path, content):
    path = tmp_path / "relay.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"relay\.json"):
        load(path)
