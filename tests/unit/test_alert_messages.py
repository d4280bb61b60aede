# SPDX-License-Identifier: GPL-3.0-or-later
"""What receivers are sent is what their APIs want, and only what they really took counts as taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from diting.alerts import messages
from diting.alerts.messages import PayloadError, parse, refusal

AT = 1_700_000_000.25


def payload(*alerts, **more):
    entries = [
        {
            "status": status,
            "labels": {"alertname": name, "severity": severity, "cluster": "main"},
            "annotations": {"summary": f"{name} is wrong", "runbook": "docs/runbooks/l4.md"},
            "startsAt": "2026-11-22T00:00:00Z",
            "fingerprint": f"f-{name}",
        }
        for name, severity, status in alerts
    ]
    return {"version": "4", "status": "firing", "alerts": entries, "truncatedAlerts": 0, **more}


def told(*alerts, **more):
    return parse(json.dumps(payload(*alerts, **more)).encode())


ONE = ("DitingProofOld", "critical", "firing")
OVER = ("DitingTargetDown", "warning", "resolved")


def test_the_worst_that_stands_gives_the_level():
    assert told(ONE, OVER, ("A", "info", "firing")).severity == "critical"
    assert told(ONE, ("B", "emergency", "resolved")).severity == "critical"
    assert told(OVER).severity == "warning"
    assert not told(OVER).firing


def test_a_level_that_nobody_knows_is_as_bad_as_critical():
    assert told(("A", "sev1", "firing"), ("B", "warning", "firing")).severity == "sev1"
    assert told(("A", "sev1", "firing"), ("B", "emergency", "firing")).severity == "emergency"


def test_text_has_what_somebody_woken_up_needs():
    words = messages.text(told(ONE, OVER), 4000)
    assert words.startswith("[FIRING critical] DitingProofOld, DitingTargetDown")
    assert "DitingProofOld is wrong" in words
    assert "Runbook: docs/runbooks/l4.md" in words
    assert "cluster=main" in words
    assert "**DitingTargetDown** warning, over" in words
    assert words.index("**DitingProofOld**") < words.index("**DitingTargetDown**")


@pytest.mark.parametrize("limit", [400, 1000, 4000])
def test_text_that_is_too_long_loses_whole_alerts_and_says_how_many(limit):
    alerts = [(f"Alert{number}", "warning", "firing") for number in range(40)]
    words = messages.text(told(*alerts, truncatedAlerts=3), limit)
    assert len(words.encode()) <= limit
    shown = words.count("**Alert")
    assert f"and {43 - shown} more" in words


def test_what_alertmanager_left_off_is_counted():
    assert "and 7 more" in messages.text(told(ONE, truncatedAlerts=7), 4000)


def test_webhook_gets_alertmanagers_own_form():
    (request,) = messages.KINDS["webhook"](told(ONE), "https://a.example/x", "", AT)
    assert json.loads(request.body) == payload(ONE)
    assert request.url == "https://a.example/x"


def test_dingtalk_is_signed_in_the_address():
    url = "https://oapi.example/robot/send?access_token=t"
    (request,) = messages.KINDS["dingtalk"](told(ONE), url, "SECa", AT)
    query = parse_qs(urlsplit(request.url).query)
    assert query["access_token"] == ["t"]
    assert query["timestamp"] == ["1700000000250"]
    wanted = hmac.new(b"SECa", b"1700000000250\nSECa", hashlib.sha256).digest()
    assert base64.b64decode(query["sign"][0]) == wanted
    body = json.loads(request.body)
    assert body["msgtype"] == "markdown"
    assert body["markdown"]["title"] == "[FIRING critical] DitingProofOld"
    (plain,) = messages.KINDS["dingtalk"](told(ONE), url, "", AT)
    assert plain.url == url


def test_feishu_is_signed_in_the_body():
    (request,) = messages.KINDS["feishu"](told(ONE), "https://open.example/hook/t", "key", AT)
    body = json.loads(request.body)
    wanted = hmac.new(b"1700000000\nkey", b"", hashlib.sha256).digest()
    assert (body["timestamp"], base64.b64decode(body["sign"])) == ("1700000000", wanted)
    assert body["msg_type"] == "text"
    assert "DitingProofOld is wrong" in body["content"]["text"]


def test_wecom_stays_below_its_limit():
    alerts = [(f"Alert{number}", "warning", "firing") for number in range(200)]
    (request,) = messages.KINDS["wecom"](told(*alerts), "https://q.example", "", AT)
    assert len(json.loads(request.body)["markdown"]["content"].encode()) <= 4096


def test_pagerduty_gets_an_event_for_each_alert():
    first, second = messages.KINDS["pagerduty"](told(ONE, OVER), "https://p.example", "route", AT)
    events = [json.loads(request.body) for request in (first, second)]
    assert [event["event_action"] for event in events] == ["trigger", "resolve"]
    assert [event["payload"]["severity"] for event in events] == ["error", "warning"]
    assert {event["routing_key"] for event in events} == {"route"}
    assert events[0]["dedup_key"] == "f-DitingProofOld"


@pytest.mark.parametrize(
    ("kind", "status", "body", "taken"),
    [
        ("webhook", 200, b"", True),
        ("webhook", 302, b"", False),
        ("webhook", 500, b"", False),
        ("pagerduty", 202, b'{"status": "success"}', True),
        ("pagerduty", 429, b"", False),
        ("dingtalk", 200, b'{"errcode": 0, "errmsg": "ok"}', True),
        ("dingtalk", 200, b'{"errcode": 310000, "errmsg": "sign not match"}', False),
        ("dingtalk", 200, b"<html>proxy</html>", False),
        ("dingtalk", 200, b"{}", False),
        ("dingtalk", 200, b"[]", False),
        ("wecom", 200, b'{"errcode": 45009}', False),
        ("feishu", 200, b'{"code": 0, "msg": "success"}', True),
        ("feishu", 200, b'{"StatusCode": 0, "StatusMessage": "success"}', True),
        ("feishu", 200, b'{"code": 19021, "msg": "sign match fail"}', False),
    ],
)
def test_only_what_was_taken_counts(kind, status, body, taken):
    assert (refusal(kind, status, body) is None) is taken


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "body"),
        (b"\xff", "body"),
        (b"[]", "version"),
        (b'{"version": "3"}', "version"),
        (b'{"version": "4"}', "alerts"),
        (b'{"version": "4", "alerts": []}', "alerts"),
        (b'{"version": "4", "alerts": [{}]}', "alerts[0].status"),
        (b'{"version": "4", "alerts": [{"status": "firing"}]}', "alerts[0].labels"),
        (b'{"version": "4", "alerts": [{"status": "firing", "labels": {"a": 1}}]}', "alerts[0].labels"),
        (
            b'{"version": "4", "alerts": [{"status": "firing", "labels": {}, "annotations": 1}]}',
            "alerts[0].annotations",
        ),
    ],
)
def test_garbage_is_refused_with_its_place(body, place):
    with pytest.raises(PayloadError) as caught:
        parse(body)
    assert str(caught.value).startswith(place)
