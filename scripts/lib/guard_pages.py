# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated parts of the guards' pages: what the code says about itself, as Markdown."""

from __future__ import annotations

import json
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from diting.core import guard as vocabulary  # noqa: E402 - the package of this clone, not an installed one
from diting.guards.runtime import blindness, metrics, registry, settings  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

PAGES = ROOT / "docs" / "guards"


def guards() -> list[str]:
    """Every guard, with its summary and its page."""
    rows = [
        f"| [{name}](guards/{name}.md) | {registry.load(name).machine.summary} |" for name in registry.names()
    ]
    return ["| Guard | What it does |", "|---|---|", *rows]


def page(name: str) -> list[str]:
    """Everything generated about one guard."""
    guard = registry.load(name)
    machine = guard.machine
    steady = ", ".join(f"`{state.name.lower()}`" for state in machine.states if state in machine.steady)
    return [
        "## States",
        "",
        "```mermaid",
        *vocabulary.mermaid(machine),
        "```",
        "",
        f"Steady states, in which only changes are journalled: {steady}.",
        "",
        "Every event that is not listed for a state leaves it as it is and does nothing.",
        "",
        "| In | On | To | Does | Why |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in vocabulary.table_rows(machine)),
        "",
        "## Metrics",
        "",
        "Beside those of every guard ([guards.md](../guards.md#metrics)):",
        "",
        "| Metric | Meaning |",
        "|---|---|",
        *(f"| `diting_guard_{name}_{item.name}` | {item.help} |" for item in machine.measures),
        "",
        "## Alerts",
        "",
        *_alerts(machine.alerts, "../../"),
        "",
        "## Settings",
        "",
        f"One cycle every {guard.default_interval_seconds:g} s, unless `runtime.interval_seconds` says otherwise.",
        "",
        *_table(guard.config_model, "settings"),
    ]


def runtime_settings() -> list[str]:
    """What every guard's file may say beside the guard's own settings."""
    return _table(settings.Runtime, "runtime")


def runtime_metrics() -> list[str]:
    """The metrics of every guard."""
    lines = ["| Metric | Labels beside `guard` | Meaning |", "|---|---|---|"]
    for short, kind, labels, text in metrics.SHARED:
        name = f"diting_guard_{short}{'_total' if kind == 'counter' else ''}"
        lines.append(f"| `{name}` | {', '.join(labels)} | {text} |")
    return lines


def runtime_alerts() -> list[str]:
    """The alert that every guard has."""
    return _alerts([blindness.ALERT], "../")


def _alerts(alerts: Iterable[vocabulary.Alert], up: str) -> list[str]:
    rows = [
        f"| `{a.name}` | {a.severity} | {a.summary} | [{a.runbook.rpartition('#')[2]}]({up}{a.runbook}) |"
        for a in alerts
    ]
    return ["| Alert | Severity | Summary | Runbook |", "|---|---|---|---|", *rows]


def missing() -> Iterator[tuple[Path, str]]:
    """Pages of guards that have none yet, with what they begin as."""
    for name in registry.names():
        path = PAGES / f"{name}.md"
        if not path.exists():
            summary = registry.load(name).machine.summary
            head = f"<!-- SPDX-License-Identifier: GPL-3.0-or-later -->\n# Guard `{name}`\n\n{summary}\n\n"
            yield path, f"{head}<!-- generated: guard {name} -->\n<!-- end -->\n"


def _table(model: type[BaseModel], path: str) -> list[str]:
    lines = ["| Key | Default | Limits | Meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{key}` | {default} | {limits} | {text} |" for key, default, limits, text in _rows(model, path)
    ]
    return lines


def _rows(model: type[BaseModel], path: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        key = f"{path}.{name}"
        yield key, _default(field), _limits(field), _cell(field.description or "")
        inner = _model_in(field.annotation)
        if inner is not None:
            yield from _rows(inner, key)


def _model_in(hint: Any) -> type[BaseModel] | None:
    for candidate in (hint, *typing.get_args(hint)):
        if hasattr(candidate, "model_fields"):
            found: type[BaseModel] = candidate
            return found
    return None


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    # What is worked out differs from host to host, and a model's fields have rows of their own.
    if value is None or (field.default_factory is not None and not isinstance(value, list | dict)):
        return ""
    return f"`{json.dumps(value, default=str)}`"


def _limits(field: FieldInfo) -> str:
    words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
    found = [
        f"{text} {getattr(item, name)}"
        for item in field.metadata
        for name, text in words.items()
        if hasattr(item, name)
    ]
    return ", ".join(found)


def _cell(text: str) -> str:
    return text.replace("|", "&#124;")
