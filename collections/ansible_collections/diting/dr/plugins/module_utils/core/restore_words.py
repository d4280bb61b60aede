# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore test in words: lines for the operator, and metrics for Prometheus's textfile collector. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .restore_proof import forecast_errors, proven

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MIB = 2**20
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))
_SHOWN_REASONS = 5


def duration(seconds: float | None) -> str:
    """For people: the two largest units that are not nothing."""
    if seconds is None:
        return "unknown"
    left = round(seconds)
    if left < _UNITS[-1][0]:
        return f"{seconds:.1f} s"
    words = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            words.append(f"{count} {unit}")
    return " ".join([*words, f"{left} s"][:2])


def size(count: float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "unknown"
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count / _MIB:.1f} MiB"


def lines(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What an operator reads. ``records`` are the tests before this one, for how good their forecasts were."""
    evidence = record.get("evidence", {})
    found = [f"Restore test {record.get('id')}: {record.get('verdict')}"]
    found += [
        f"  {reason['code']}: {reason['message']}" for reason in record.get("reasons", ())[:_SHOWN_REASONS]
    ]
    if evidence:
        found.append(
            f"  backup {evidence.get('backup')}, recovered to {evidence.get('target_type')} {evidence.get('target')}"
            f" (point {evidence.get('point')})"
        )
        for name, seconds in evidence.get("phases", {}).items():
            found.append(f"  {name:<10} {duration(seconds):>12}{_speed(name, evidence)}")
        content = evidence.get("content")
        if content:
            words = f"{content['objects_good']} of {content['objects_wanted']} objects of the backup read to their end"
            found.append(f"  {'content':<10} {duration(content['seconds']):>12}   {words}")
        if proven(record):
            found.append(
                f"  proven: the target was reached; tables as they were recorded: {evidence.get('tables')}, with"
                f" {evidence.get('rows')} rows"
            )
    return [*found, *_forecast(record, records)]


def _speed(phase: str, evidence: Mapping[str, Any]) -> str:
    pair = {
        "fetch": ("size_bytes", "fetch_bytes_per_second"),
        "replay": ("wal_bytes", "replay_bytes_per_second"),
    }.get(phase)
    if pair is None or not evidence.get(pair[1]):
        return ""
    return f"   {size(evidence[pair[0]])} at {evidence[pair[1]] / _MIB:.1f} MiB/s"


def _forecast(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[str]:
    ahead = record.get("forecast") or {}
    if ahead.get("seconds") is None:
        return []
    words = (
        f"  forecast: {size(ahead['size_bytes'])} and {size(ahead['wal_bytes'])} of WAL would be back in"
        f" {duration(ahead['seconds'])} (by {ahead['proofs']} of the last proofs)"
    )
    errors = forecast_errors([*records, record])
    if errors:
        shown = ", ".join(f"{error:+.0%}" for error in errors[-5:])
        words += f"; past forecasts were off by {shown}"
    return [words]


def metrics(cluster: str, record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """In Prometheus's text format. The moment of the last proof stays when a test fails: its age is what alerts go by."""
    label = cluster.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    last = next((one for one in reversed([*records, record]) if proven(one)), None)
    evidence = record.get("evidence", {})
    rows: list[tuple[str, str, str, float | None]] = [
        ("diting_restore_test_timestamp_seconds", "End of the last restore test.", "", record.get("ended")),
        (
            "diting_restore_test_proven",
            "Whether the last restore test was a proof (1) or not (0).",
            "",
            float(proven(record)),
        ),
        (
            "diting_backup_proven_restore_timestamp_seconds",
            "End of the last restore test that was a proof.",
            "",
            last.get("ended") if last else None,
        ),
        ("diting_restore_test_size_bytes", "Size of the restored copy.", "", evidence.get("size_bytes")),
        (
            "diting_restore_forecast_seconds",
            "Forecast of a restore at production's size.",
            "",
            (record.get("forecast") or {}).get("seconds"),
        ),
    ]
    rows += [
        (
            "diting_restore_test_phase_seconds",
            "Time of each phase of the last restore test.",
            f',phase="{name}"',
            seconds,
        )
        for name, seconds in evidence.get("phases", {}).items()
    ]
    text: list[str] = []
    named: set[str] = set()
    for name, words, more, value in rows:
        if value is None:
            continue
        if name not in named:
            text += [f"# HELP {name} {words}", f"# TYPE {name} gauge"]
            named.add(name)
        text.append(
            f'{name}{{cluster="{label}"{more}}} {value:g}'
            if value < 10**6
            else f'{name}{{cluster="{label}"{more}}} {value:.3f}'
        )
    return "\n".join(text) + "\n"
