# SPDX-License-Identifier: GPL-3.0-or-later
"""Power control's requests: which there are, what each body must hold, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diting.lab.power_switches import Switches

if TYPE_CHECKING:
    from diting.lab.power import PowerControl

MAX_SECONDS = 7 * 24 * 3600.0


class RequestError(Exception):
    """A request that cannot be served: HTTP status and a message that says what is wanted."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _fields(body: dict[str, Any], *wanted: str, optional: tuple[str, ...] = ()) -> None:
    unknown = sorted(set(body) - {*wanted, *optional})
    missing = sorted(set(wanted) - set(body))
    if unknown or missing:
        raise RequestError(400, f"body: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")


def _text(body: dict[str, Any], key: str, *, null: bool = False) -> str | None:
    value = body[key]
    if value is None and null:
        return None
    if not isinstance(value, str) or not value or len(value) > 500:
        raise RequestError(400, f"{key}: want a text of 1 to 500 characters{' or null' if null else ''}")
    return value


def _seconds(body: dict[str, Any], key: str, *, null: bool = False, zero: bool = False) -> float | None:
    value = body[key]
    if value is None and null:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (value >= 0 if zero else value > 0) or value > MAX_SECONDS:
        least = "of 0 or more" if zero else "above 0"
        also = ", or null for no limit" if null else ""
        raise RequestError(
            400, f"{key}: want seconds {least} and at most {MAX_SECONDS:g}{also}, found {value!r}"
        )
    return float(value)


def _flag(body: dict[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise RequestError(400, f"{key}: want true or false, found {value!r}")
    return value


def route(control: PowerControl, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Serve one authenticated request; raises ``RequestError`` for what cannot be served."""
    parts = [part for part in path.split("?", 1)[0].split("/") if part]
    match (method, *parts):
        case ("GET", "v1", "daemon"):
            return 200, {"fingerprint": control.fingerprint, "lab": control.instance.name}
        case ("GET", "v1", "hosts"):
            return 200, control.describe_all()
        case ("DELETE", "v1", "switches"):
            return 200, control.clear_switches()
        case (_, "v1", "hosts", host, *rest):
            return _host(control, method, host, tuple(rest), body, path)
        case _:
            raise RequestError(404, f"no such request: {method} {path}")


def _host(
    control: PowerControl, method: str, host: str, rest: tuple[str, ...], body: dict[str, Any], path: str
) -> tuple[int, dict[str, Any]]:
    match (method, *rest):
        case ("GET",):
            return 200, control.answer(host)
        case ("POST", "on"):
            _fields(body, "reason", "incident_id")
            reason, incident = _text(body, "reason") or "", _text(body, "incident_id", null=True)
            return 200, control.switch_on(host, reason, incident)
        case ("POST", "off"):
            _fields(body, "reason", "incident_id", "revert_after_seconds", optional=("fence",))
            revert = _seconds(body, "revert_after_seconds", null=True)
            reason, incident = _text(body, "reason") or "", _text(body, "incident_id", null=True)
            return 200, control.switch_off(host, reason, incident, revert, fence=_flag(body, "fence"))
        case ("POST", "release"):
            _fields(body, "reason", "incident_id", "leader", optional=("after_seconds",))
            after = _seconds({"after_seconds": 0, **body}, "after_seconds", zero=True) or 0.0
            reason, incident = _text(body, "reason") or "", _text(body, "incident_id", null=True)
            return 200, control.release(host, reason, incident, _text(body, "leader", null=True), after)
        case ("GET", "timers"):
            return 200, {"timers": control.timers(host)}
        case ("POST", "timers"):
            _fields(body, "action", "after_seconds", "reason", "incident_id")
            after = _seconds(body, "after_seconds") or 0.0
            reason, incident = _text(body, "reason") or "", _text(body, "incident_id", null=True)
            return 201, control.add_timer(host, body["action"], after, reason, incident)
        case ("DELETE", "timers", timer_id):
            control.remove_timer(host, timer_id)
            return 200, {"removed": timer_id}
        case ("GET", "switches"):
            return 200, control.switches(host)
        case ("PUT", "switches"):
            return 200, control.set_switches(host, *_switches(body))
        case ("DELETE", "switches"):
            return 200, control.clear_switches(host)
        case _:
            raise RequestError(404, f"no such request: {method} {path}")


def _switches(body: dict[str, Any]) -> tuple[Switches, float | None]:
    """What a host's switches are to be; what the body does not name is off."""
    _fields(body, optional=("lie", "hang_seconds", "unknown", "latency_seconds", "for_seconds"))
    given = {"hang_seconds": 0, "latency_seconds": None, "for_seconds": None, **body}
    wanted = Switches(
        lie=_flag(body, "lie"),
        hang_seconds=_seconds(given, "hang_seconds", zero=True) or 0.0,
        unknown=_flag(body, "unknown"),
        latency_seconds=_seconds(given, "latency_seconds", null=True, zero=True),
    )
    return wanted, _seconds(given, "for_seconds", null=True)
