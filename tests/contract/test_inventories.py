# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory sets, something reads; what it takes from a vault, its README names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.tree import files, read, role_names

EXAMPLE = Path("inventories/example")
SECRET = re.compile(r"\b(?:vault|secret)_\w+")


def variable_files(inventory: Path) -> list[Path]:
    return [
        path
        for path in files()
        if path.is_relative_to(inventory)
        and path.suffix == ".yml"
        and {"group_vars", "host_vars"} & set(path.parts)
    ]


def options(role: str) -> set[str]:
    """Variables of every entry point of a role."""
    entries: dict[str, Any] = yaml.safe_load(read(Path(f"roles/{role}/meta/argument_specs.yml")))[
        "argument_specs"
    ]
    return {name for entry in entries.values() for name in entry.get("options", {})}


def role_of(variable: str) -> str | None:
    """The role that a variable is named after: of two that fit the longer one."""
    return max((role for role in role_names() if variable.startswith(f"{role}_")), key=len, default=None)


def playbooks_text() -> str:
    return "\n".join(read(path) for path in files() if path.parts[0] == "playbooks" and path.suffix == ".yml")


@pytest.mark.parametrize("name", ["lab", "example"])
def test_every_variable_named_after_a_role_is_one_of_its_options(name):
    """Ansible takes a misspelt variable without a word, and the role goes on with its default."""
    found = variable_files(Path("inventories") / name)
    assert found
    strays = [
        f"{path}: {variable}"
        for path in found
        for variable in yaml.safe_load(read(path))
        if (role := role_of(variable)) is not None
        and variable not in options(role)
        # Playbooks have a few of their own, such as gate_host.
        and not re.search(rf"\b{variable}\b", playbooks_text())
    ]
    assert not strays, "\n".join(strays)


def test_the_example_names_every_secret_that_it_takes_from_the_vault():
    taken = {name for path in variable_files(EXAMPLE) for name in SECRET.findall(read(path))}
    named = set(SECRET.findall(read(EXAMPLE / "README.md")))
    assert taken
    assert named == taken


def test_the_lab_makes_every_secret_that_it_uses():
    lab = variable_files(Path("inventories/lab"))
    made = {name for path in lab for name in yaml.safe_load(read(path)) if SECRET.fullmatch(name)}
    used = {name for path in lab for name in SECRET.findall(re.sub(r"(?m)^\w+:", "", read(path)))}
    assert made
    assert used <= made, f"used and never made: {sorted(used - made)}"
    text = playbooks_text()
    idle = {name for name in made - used if not re.search(rf"\b{name}\b", text)}
    assert not idle, f"made and never used: {sorted(idle)}"
