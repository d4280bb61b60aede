# SPDX-License-Identifier: GPL-3.0-or-later
"""Chat rooms and pagers of the lab: takes what the alerting sends, answers as each API does, and keeps it with the time.

``POST /KIND/NAME`` with KIND one of webhook, dingtalk, feishu, wecom, pagerduty. Every message is a line in ``received.jsonl``:
``{"at", "mono_ns", "kind", "room", "alerts": [{"alert", "status", "labels", "starts_at"}], "body"}``; ``alerts`` is filled where the form
has them (webhook, pagerduty). Plain HTTP on the lab's gateway address; it looks at no signature and knows no rate limit.
"""

from __future__ import annotations

import http.server
import json
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

from diting.core.journal import utc_text_at
from diting.lab.power import Server
from diting.lab.records import append_line

if TYPE_CHECKING:
    from pathlib import Path

    from diting.lab.instance import Instance

_BODY_BYTES = 4 * 2**20
_ANSWERS: dict[str, tuple[int, Any]] = {
    "webhook": (200, {}),
    "dingtalk": (200, {"errcode": 0, "errmsg": "ok"}),
    "feishu": (200, {"code": 0, "msg": "success", "data": {}}),
    "wecom": (200, {"errcode": 0, "errmsg": "ok"}),
    "pagerduty": (202, {"status": "success", "message": "Event processed"}),
}


def alerts_of(kind: str, body: Any) -> list[dict[str, Any]]:
    """What a message is about, where its form says so."""
    if kind == "webhook" and isinstance(body.get("alerts"), list):
        return [
            {
                "alert": one["labels"].get("alertname"),
                "status": one["status"],
                "labels": one["labels"],
                "starts_at": one.get("startsAt"),
            }
            for one in body["alerts"]
        ]
    if kind == "pagerduty":
        details = body["payload"]["custom_details"]
        status = {"trigger": "firing", "resolve": "resolved"}[body["event_action"]]
        return [{"alert": details.get("alertname"), "status": status, "labels": details}]
    return []


class Handler(http.server.BaseHTTPRequestHandler):
    """One message."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "diting-alert-rooms", ""
    timeout = 10
    path_kept: ClassVar[Path]

    def do_POST(self) -> None:
        """Keep it, on disk before the answer."""
        kind, _, room = self.path.partition("?")[0].strip("/").partition("/")
        length = self.headers.get("Content-Length", "")
        if kind not in _ANSWERS or not room or not length.isdigit() or int(length) > _BODY_BYTES:
            self.close_connection = True
            self._answer(404, {"error": f"want /KIND/NAME, KIND one of {', '.join(_ANSWERS)}"})
            return
        raw = self.rfile.read(int(length))
        try:
            body = json.loads(raw)
            alerts = alerts_of(kind, body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._answer(400, {"error": f"not what a {kind} takes: {error!r}"})
            return
        record = {
            "at": utc_text_at(time.time()),
            "mono_ns": time.monotonic_ns(),
            "kind": kind,
            "room": room,
            "alerts": alerts,
            "body": body,
        }
        append_line(self.path_kept, record)
        self._answer(*_ANSWERS[kind])

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_args: Any) -> None:
        """The records are the log."""


def start(instance: Instance) -> Server | None:
    """Serve in a thread until the process ends; None where the lab has no such port. Raises OSError."""
    if not instance.alert_port:
        return None
    instance.alerts_file.parent.mkdir(mode=0o700, exist_ok=True)
    handler = type("BoundHandler", (Handler,), {"path_kept": instance.alerts_file})
    server = Server((str(instance.gateway), instance.alert_port), handler)
    threading.Thread(target=server.serve_forever, name="alert rooms", daemon=True).start()
    return server
