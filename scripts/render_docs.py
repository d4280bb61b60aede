#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the generated parts of the documentation equal to the code they describe.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. Without arguments
the files are rewritten; with ``--check`` nothing is written and the exit status is 1 if one differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))
PART = re.compile(r"(<!-- generated: (?P<name>[a-z0-9_ ./-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PLUMBING = ("Ask the gate", "Report ", "Keep ", "Recover, and tell")
"""Tasks that a reader of a runbook need not follow one by one."""


def tasks_of(path: Path) -> list[dict[str, Any]]:
    """The tasks of a file in the order they run, blocks opened up (rescue and always left out)."""
    found: list[dict[str, Any]] = []
    for task in yaml.safe_load(path.read_text(encoding="utf-8")) or []:
        found.append(task)
        if "block" in task:
            found += task["block"]
    return found


def steps(role: str, entry: str = "main") -> list[str]:
    """Numbered steps of a role's entry point, includes of its own files followed."""
    lines: list[str] = []
    folder = ROOT / "roles" / role / "tasks"

    def walk(name: str, depth: int) -> None:
        for task in tasks_of(folder / name):
            title = re.sub(
                r"\{\{ *[_a-z]*?(member|host)[_a-z]* *\}\}", "the member", str(task.get("name", ""))
            )
            if "block" not in task and not title.startswith(PLUMBING):
                lines.append(f"{'   ' * depth}- {title}")
            included = str(task.get("ansible.builtin.include_tasks", ""))
            if included.endswith(".yml") and "/" not in included and (folder / included).exists():
                walk(included, depth + 1)

    walk(f"{entry}.yml", 0)
    return lines


def options(role: str, entry: str = "main") -> list[str]:
    """A table of a role's variables from its argument specification."""
    text = (ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    spec = yaml.safe_load(text)["argument_specs"][entry]["options"]
    lines = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, option in spec.items():
        default = "required" if option.get("required") else f"`{option.get('default', '')}`"
        description = option["description"]
        if isinstance(description, list):
            description = " ".join(description)
        description = re.sub(r"[COVRM]\(([^)]*)\)", r"`\1`", description)
        lines.append(
            f"| `{name}` | {default.replace('|', '&#124;')} | {description.replace('|', '&#124;')} |"
        )
    return lines


def faults(level: str) -> list[str]:
    """A table of a level's faults from the catalogue."""
    sys.path.insert(0, str(ROOT / "src"))
    from diting.core.faults import CATALOGUE

    lines = ["| Fault | What an independent probe must see | Gone by itself after | |", "|---|---|---|---|"]
    for fault in CATALOGUE.values():
        if fault.level != level or fault.companion:
            continue
        note = "no role may change" if fault.survived else fault.kind.value
        lines.append(f"| `{fault.name}` | {fault.effect} | {fault.limit_seconds} s | {note} |")
    return lines


def _of_guards(function: str) -> Callable[..., list[str]]:
    """A generator of scripts/lib/guard_pages.py, loaded only for a document that wants it."""

    def generate(*words: str) -> list[str]:
        import guard_pages

        found: list[str] = getattr(guard_pages, function)(*words)
        return found

    return generate


GENERATORS: dict[str, Callable[..., list[str]]] = {
    "steps": steps,
    "options": options,
    "faults": faults,
    "guards": _of_guards("guards"),
    "guard": _of_guards("page"),
    "guard_alerts": _of_guards("runtime_alerts"),
    "guard_settings": _of_guards("runtime_settings"),
    "guard_metrics": _of_guards("runtime_metrics"),
}


def render(text: str) -> str:
    """``text`` with every generated part made anew."""

    def part(match: re.Match[str]) -> str:
        kind, *words = match["name"].split()
        return match[1] + "\n".join(GENERATORS[kind](*words)) + "\n" + match[3]

    return PART.sub(part, text)


def pages_to_begin(*, write: bool) -> list[Path]:
    """Pages of new guards, begun if ``write``: the hand-written part is for people to add."""
    import guard_pages

    found = list(guard_pages.missing())
    for path, text in found if write else ():
        path.parent.mkdir(exist_ok=True)
        path.write_text(render(text), encoding="utf-8")
    return [path for path, _text in found]


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if a file differs")
    args = parser.parse_args()
    stale = pages_to_begin(write=not args.check)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        new = render(text)
        if new == text or path in stale:
            continue
        stale.append(path)
        if not args.check:
            path.write_text(new, encoding="utf-8")
    for path in stale:
        print(
            f"{path.relative_to(ROOT)}: {'stale: run scripts/render_docs.py' if args.check else 'rewritten'}"
        )
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
