# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role promises in meta/argument_specs.yml is what its defaults do, name by name."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.tree import ROOT, files, read, role_names, text_files

TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
    "raw": (object,),
}
SECRET = re.compile(r"(password|secret|token|_key)$")
NO_SECRET = re.compile(r"(tls|ssl|cert|public|ssh|pki|file|path|dir)")


class Loader(yaml.SafeLoader):
    """Reads Ansible's own tags (!unsafe, !vault) as what they wrap."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def load(path: str | Path) -> Any:
    return yaml.load(read(Path(path)), Loader=Loader)  # noqa: S506 - a SafeLoader with plain tags


def specs(role: str) -> dict[str, Any]:
    return load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]


def defaults(role: str) -> dict[str, Any]:
    path = Path(f"roles/{role}/defaults/main.yml")
    return (load(path) or {}) if (ROOT / path).exists() else {}


def templated(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


def wrong_type(value: Any, spec: dict[str, Any]) -> bool:
    """A value that Ansible would have to convert, or could not, to the type that is promised."""
    if value is None or templated(value):
        return False
    kind = spec.get("type", "str")
    if kind not in {"bool", "raw"} and isinstance(value, bool):
        return True
    if not isinstance(value, TYPES[kind]):
        return True
    if kind == "list" and "elements" in spec:
        element = {"type": spec["elements"], "options": spec.get("options", {})}
        return any(wrong_type(item, element) for item in value)
    if kind == "dict" and spec.get("options"):
        return bool(set(value) - set(spec["options"])) or any(
            wrong_type(value[name], sub) for name, sub in spec["options"].items() if name in value
        )
    return False


def faults_of_entry(entry: str, options: dict[str, Any], values: dict[str, Any]) -> Iterator[str]:
    """Differences between one entry point and the defaults."""
    for name, spec in options.items():
        where = f"{entry}: {name}"
        if "description" not in spec:
            yield f"{where}: no description"
        if spec.get("required") and "default" in spec:
            yield f"{where}: required and with a default"
        if spec.get("type", "str") == "list" and "elements" not in spec:
            yield f"{where}: a list without elements"
        if "default" in spec and name not in values:
            yield f"{where}: default {spec['default']!r} promised, none in defaults/main.yml"
        if name in values:
            if "default" not in spec:
                yield f"{where}: defaults/main.yml says {values[name]!r}, argument_specs no default"
            elif spec["default"] != values[name] or type(spec["default"]) is not type(values[name]):
                yield f"{where}: argument_specs says {spec['default']!r}, defaults/main.yml {values[name]!r}"
            if wrong_type(values[name], spec):
                yield f"{where}: {values[name]!r} is no {spec.get('type', 'str')}"
        if (
            SECRET.search(name)
            and not NO_SECRET.search(name)
            and "no_log" not in spec
            and "default" not in spec
        ):
            yield f"{where}: looks secret, so no_log must be said"


@functools.cache
def uses() -> str:
    """Everything roles and playbooks do with variables, definitions left out."""
    texts = []
    for path in text_files():
        if path.parts[0] not in ("roles", "playbooks") or "meta" in path.parts or path.suffix == ".md":
            continue
        text = read(path)
        if "defaults" in path.parts:
            # A default that feeds another one is used; its own definition is not a use.
            text = re.sub(r"^\w+:", "", re.sub(r"#.*", "", text), flags=re.MULTILINE)
        texts.append(text)
    return "\n".join(texts)


@pytest.mark.parametrize("role", role_names())
def test_argument_specs_equal_defaults(role):
    values = defaults(role)
    entries = specs(role)
    faults = [
        f for entry, spec in entries.items() for f in faults_of_entry(entry, spec.get("options", {}), values)
    ]
    promised = set(entries["main"].get("options", {}))
    faults += [f"main: {name} is in defaults/main.yml only" for name in sorted(set(values) - promised)]
    faults += [
        f"main: {name} is not named after the role"
        for name in sorted(promised)
        if not name.startswith(f"{role}_")
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("role", role_names())
def test_every_variable_is_used(role):
    text = uses()
    unused = [name for name in specs(role)["main"].get("options", {}) if not re.search(rf"\b{name}\b", text)]
    assert not unused, f"promised and never read: {', '.join(unused)}"


@pytest.mark.parametrize("role", role_names())
def test_role_has_its_parts(role):
    here = {str(path.relative_to(f"roles/{role}")) for path in files() if path.parts[:2] == ("roles", role)}
    assert {"meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml"} <= here
    entry_points = set(specs(role))
    if "tasks/verify.yml" in here:
        assert "verify" in entry_points, "tasks/verify.yml without an entry point in argument_specs"
    assert {f"tasks/{entry}.yml" for entry in entry_points} <= here, "an entry point without its tasks file"


def role_calls(node: Any) -> Iterator[dict[str, Any]]:
    """Every include_role and import_role in a piece of YAML."""
    if isinstance(node, list):
        for item in node:
            yield from role_calls(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key.rsplit(".", maxsplit=1)[-1] in ("include_role", "import_role") and isinstance(value, dict):
                yield value
            elif key == "roles" and isinstance(value, list) and "hosts" in node:
                yield from (
                    {"name": role} if isinstance(role, str) else {"name": role["role"]} for role in value
                )
            else:
                yield from role_calls(value)


def test_roles_are_called_by_full_name_and_exist():
    faults = []
    for path in files():
        if path.parts[0] not in ("playbooks", "roles", "molecule") or path.suffix != ".yml":
            continue
        for call in role_calls(load(path)):
            name, tasks = call["name"], call.get("tasks_from", "main")
            if templated(name):
                continue
            if not name.startswith("diting.dr."):
                faults.append(f"{path}: role {name}: not its full name")
                continue
            target = f"roles/{name.removeprefix('diting.dr.')}/tasks/{tasks.removesuffix('.yml')}.yml"
            if not templated(tasks) and not (ROOT / target).is_file():
                faults.append(f"{path}: {target} does not exist")
    assert not faults, "\n".join(faults)


def test_every_role_is_in_a_molecule_scenario():
    named = {
        call["name"].removeprefix("diting.dr.")
        for path in files()
        if path.parts[0] == "molecule" and path.suffix == ".yml"
        for call in role_calls(load(path))
    }
    # These two need a whole cluster to act on; their test is the drill itself (./scripts/test e2e).
    assert set(role_names()) - {"drill", "database_recovery"} <= named, (
        f"in no scenario: {set(role_names()) - named}"
    )


def test_every_scenario_finds_the_tests_that_all_share():
    """Molecule leaves out without a word what is not there."""
    shared = load(Path(".config/molecule/config.yml"))["verifier"]["additional_files_or_dirs"]
    scenarios = [path.parent for path in files() if path.name == "molecule.yml"]
    assert shared
    assert scenarios
    missing = [
        f"{scenario}: {name}"
        for scenario in scenarios
        for name in shared
        if not (ROOT / scenario / "tests" / name).is_file()
    ]
    assert not missing, "\n".join(missing)
