# SPDX-License-Identifier: GPL-3.0-or-later
"""``-e option=false`` is a string, and as one it is true: every option that is a boolean is read through ``bool``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from support.tree import read, role_names, text_files

CONDITIONS = {"when", "that", "until", "failed_when", "changed_when"}
EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


class Loader(yaml.SafeLoader):
    """Reads Ansible's own tags (!unsafe, !vault) as what they wrap."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def booleans() -> set[str]:
    return {
        name
        for role in role_names()
        for entry in yaml.safe_load(read(Path(f"roles/{role}/meta/argument_specs.yml")))[
            "argument_specs"
        ].values()
        for name, option in entry.get("options", {}).items()
        if option.get("type") == "bool"
    }


def expressions(node: Any, *, condition: bool = False) -> Iterator[str]:
    """Every piece of Jinja in a piece of YAML; conditions are Jinja without braces."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from expressions(value, condition=key in CONDITIONS)
    elif isinstance(node, list):
        for item in node:
            yield from expressions(item, condition=condition)
    elif isinstance(node, str):
        yield from [node] if condition else EXPRESSION.findall(node)


def unread(text: str, names: set[str]) -> list[str]:
    """Names that an expression takes as they come."""
    through = r"(?:\s*\|\s*default\([^)]*\))?\s*\|\s*bool\b"
    return [name for name in names if re.search(rf"\b{name}\b(?!{through})", text)]


def test_every_boolean_option_is_read_through_bool():
    names = booleans()
    assert names
    found = []
    for path in text_files():
        if path.parts[0] not in ("roles", "playbooks") or {"meta", "defaults", "files"} & set(path.parts):
            continue
        content = read(path)
        if not any(name in content for name in names):
            continue
        if path.suffix == ".yml":
            texts = expressions(yaml.load(content, Loader=Loader))  # noqa: S506 - a SafeLoader with plain tags
        else:
            texts = EXPRESSION.findall(content)
        found += [f"{path}: {name}: {text}" for text in texts for name in unread(text, names)]
    assert not found, "\n".join(found)


def test_what_is_not_read_through_bool_is_found():
    names = {"a_strict"}
    for text in ("{{ a_strict }}", "not a_strict or b", "a_strict | default(false)", "{% if a_strict %}"):
        assert unread(text, names), text
    for text in (
        "{{ a_strict | bool }}",
        "a_strict | default(false) | bool",
        "a_strictly",
        "x if a_strict|bool",
    ):
        assert not unread(text, names), text
    assert list(expressions({"when": ["a"], "msg": "say {{ b }} of c"})) == ["a", "{{ b }}"]
