# SPDX-License-Identifier: GPL-3.0-or-later
"""What a receiver is sent, and what its answer means. Pure.

A receiver that refused a message may well answer 200: the chat rooms say so in the body only. Taken for
delivered, an alert would be lost without a trace, so each answer is judged by what its API promises:

* DingTalk robot: https://open.dingtalk.com/document/orgapp/custom-robots-send-group-messages
* Feishu bot: https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot
* WeCom robot: https://developer.work.weixin.qq.com/document/path/91770
* PagerDuty Events API v2: https://developer.pagerduty.com/docs/events-api-v2-overview
* Alertmanager's webhook: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SEVERITIES = ("info", "warning", "critical", "emergency")
"""From what can wait to what cannot."""

_PAGERDUTY = {"info": "info", "warning": "warning", "critical": "error", "emergency": "critical"}
_LIMIT_BYTES = {"dingtalk": 18_000, "feishu": 18_000, "wecom": 4_000, "email": 100_000}
"""A little less than each API takes: DingTalk and Feishu 20 000, WeCom 4096."""
_SUMMARY_CHARACTERS = 1024
_ANSWER_CHARACTERS = 200


class PayloadError(Exception):
    """What came is no notification of an Alertmanager; the text says where and why."""


@dataclass(frozen=True)
class Alert:
    """One alert of a notification."""

    name: str
    firing: bool
    severity: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: str
    fingerprint: str


@dataclass(frozen=True)
class Notification:
    """Alerts that an Alertmanager (or the dead man's switch) tells a receiver together."""

    alerts: tuple[Alert, ...]
    left_off: int
    payload: Mapping[str, Any]
    """As it came, for receivers that understand Alertmanager's own form."""

    @property
    def firing(self) -> bool:
        """Whether anything of it still stands."""
        return any(alert.firing for alert in self.alerts)

    @property
    def severity(self) -> str:
        """The worst of what stands, or of all when nothing stands any more."""
        candidates = [alert for alert in self.alerts if alert.firing] or list(self.alerts)
        return max((alert.severity for alert in candidates), key=_rank)


@dataclass(frozen=True)
class Request:
    """One HTTP POST."""

    url: str
    body: bytes


def _rank(severity: str) -> int:
    # What nobody gave a level is not what can wait.
    return SEVERITIES.index(severity) if severity in SEVERITIES else SEVERITIES.index("critical")


def parse(body: bytes) -> Notification:
    """A notification from the JSON of Alertmanager's webhook (version 4). Raises :class:`PayloadError`."""
    try:
        payload = json.loads(body)
    except ValueError as error:
        raise PayloadError(f"body: found no JSON ({error}), wanted Alertmanager's webhook message") from error
    return notification(payload)


def notification(payload: Any) -> Notification:
    """As :func:`parse`, from what JSON held."""
    if not isinstance(payload, dict) or payload.get("version") != "4":
        found = payload.get("version") if isinstance(payload, dict) else type(payload).__name__
        raise PayloadError(f'version: found {found!r}, wanted "4", the webhook message of an Alertmanager')
    entries = payload.get("alerts")
    if not isinstance(entries, list) or not entries:
        raise PayloadError(f"alerts: found {type(entries).__name__}, wanted a list with at least one alert")
    left_off = payload.get("truncatedAlerts", 0)
    return Notification(
        tuple(_alert(index, entry) for index, entry in enumerate(entries)),
        left_off if isinstance(left_off, int) else 0,
        payload,
    )


def _alert(index: int, entry: Any) -> Alert:
    place = f"alerts[{index}]"
    if not isinstance(entry, dict) or entry.get("status") not in ("firing", "resolved"):
        found = entry.get("status") if isinstance(entry, dict) else entry
        raise PayloadError(f'{place}.status: found {found!r}, wanted "firing" or "resolved"')
    labels: Any = entry.get("labels")
    annotations: Any = entry.get("annotations", {})
    for name, found in (("labels", labels), ("annotations", annotations)):
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise PayloadError(f"{place}.{name}: found {found!r}, wanted names with texts")
    return Alert(
        name=labels.get("alertname", "unnamed"),
        firing=entry["status"] == "firing",
        severity=labels.get("severity", "critical"),
        labels=labels,
        annotations=annotations,
        starts_at=str(entry.get("startsAt", "")),
        fingerprint=str(entry.get("fingerprint") or _fingerprint(labels)),
    )


def _fingerprint(labels: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(labels), sort_keys=True).encode()).hexdigest()[:16]


def title(told: Notification) -> str:
    """One line: whether it stands, how bad it is, what it is."""
    names = sorted({alert.name for alert in told.alerts})
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"[{'FIRING' if told.firing else 'RESOLVED'} {told.severity}] {shown}"


def text(told: Notification, limit_bytes: int) -> str:
    """For people, in Markdown that reads as plain text too; whole alerts are left off where it would be too long."""
    head = title(told)
    parts = [_words(alert) for alert in sorted(told.alerts, key=lambda a: (not a.firing, -_rank(a.severity)))]
    kept: list[str] = []
    for index, part in enumerate(parts):
        more = len(parts) - index + told.left_off
        tail = f"and {more} more: see Alertmanager"
        if len("\n\n".join([head, *kept, part, tail]).encode()) > limit_bytes:
            return "\n\n".join([head, *kept, tail])
        kept.append(part)
    if told.left_off:
        kept.append(f"and {told.left_off} more: see Alertmanager")
    return "\n\n".join([head, *kept])


def _words(alert: Alert) -> str:
    where = " ".join(
        f"{name}={alert.labels[name]}"
        for name in ("cluster", "member", "host", "instance", "guard", "job")
        if alert.labels.get(name)
    )
    lines = [
        f"**{alert.name}** {alert.severity}{'' if alert.firing else ', over'}{f' ({where})' if where else ''}",
        alert.annotations.get("summary") or alert.annotations.get("description") or "(no summary)",
    ]
    if alert.annotations.get("runbook"):
        lines.append(f"Runbook: {alert.annotations['runbook']}")
    if alert.starts_at:
        lines.append(f"Since {alert.starts_at}")
    return "  \n".join(line.replace("\n", " ") for line in lines)


def _hmac_text(key: bytes, message: bytes) -> str:
    return base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode("ascii")


def _dump(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, sort_keys=True).encode()


def _webhook(told: Notification, url: str, secret: str, at: float) -> list[Request]:
    del secret, at
    return [Request(url, _dump(told.payload))]


def _dingtalk(told: Notification, url: str, secret: str, at: float) -> list[Request]:
    if secret:
        stamp = str(round(at * 1000))
        signed = {"timestamp": stamp, "sign": _hmac_text(secret.encode(), f"{stamp}\n{secret}".encode())}
        parts = urlsplit(url)
        query = "&".join(filter(None, (parts.query, urlencode(signed))))
        url = urlunsplit(parts._replace(query=query))
    words = {"title": title(told), "text": text(told, _LIMIT_BYTES["dingtalk"])}
    return [Request(url, _dump({"msgtype": "markdown", "markdown": words}))]


def _feishu(told: Notification, url: str, secret: str, at: float) -> list[Request]:
    body: dict[str, Any] = {"msg_type": "text", "content": {"text": text(told, _LIMIT_BYTES["feishu"])}}
    if secret:
        stamp = str(int(at))
        # The API wants the secret in the key and nothing as the message.
        body |= {"timestamp": stamp, "sign": _hmac_text(f"{stamp}\n{secret}".encode(), b"")}
    return [Request(url, _dump(body))]


def _wecom(told: Notification, url: str, secret: str, at: float) -> list[Request]:
    del secret, at
    return [
        Request(
            url, _dump({"msgtype": "markdown", "markdown": {"content": text(told, _LIMIT_BYTES["wecom"])}})
        )
    ]


def _pagerduty(told: Notification, url: str, secret: str, at: float) -> list[Request]:
    del at
    # One event an alert: each is an incident of its own, and ends by itself.
    return [
        Request(
            url,
            _dump(
                {
                    "routing_key": secret,
                    "event_action": "trigger" if alert.firing else "resolve",
                    "dedup_key": alert.fingerprint,
                    "payload": {
                        "summary": (f"{alert.name}: {alert.annotations.get('summary', '')}")[
                            :_SUMMARY_CHARACTERS
                        ],
                        "source": alert.labels.get("instance") or alert.labels.get("cluster") or "diting",
                        "severity": _PAGERDUTY.get(alert.severity, "error"),
                        "custom_details": {**alert.annotations, **alert.labels},
                    },
                }
            ),
        )
        for alert in told.alerts
    ]


KINDS: dict[str, Callable[[Notification, str, str, float], list[Request]]] = {
    "webhook": _webhook,
    "dingtalk": _dingtalk,
    "feishu": _feishu,
    "wecom": _wecom,
    "pagerduty": _pagerduty,
}
"""Kind -> ``(notification, url, secret, unix time) -> requests``. E-mail is no HTTP and has no entry."""


def email(told: Notification) -> tuple[str, str]:
    """Subject and body."""
    return f"[diting] {title(told)}", text(told, _LIMIT_BYTES["email"])


def refusal(kind: str, status: int, body: bytes) -> str | None:
    """Why an answer of HTTP status ``status`` means that the message was not taken; None when it was."""
    said = body[:_ANSWER_CHARACTERS].decode("utf-8", "replace").replace("\n", " ")
    if not 200 <= status < 300:
        return f"HTTP {status}: {said}"
    wanted = {"dingtalk": ("errcode",), "wecom": ("errcode",), "feishu": ("code", "StatusCode")}.get(kind)
    if wanted is None:
        return None
    try:
        answer = json.loads(body)
        codes = [answer[name] for name in wanted if name in answer]
    except (ValueError, TypeError):
        return f"HTTP {status}, but no JSON: {said}"
    if not codes or any(code != 0 for code in codes):
        return f"HTTP {status}, but refused: {said}"
    return None
