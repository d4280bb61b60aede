# SPDX-License-Identifier: GPL-3.0-or-later
"""One version of the project, one version of each tool, wherever it is written."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import diting
from support.tree import COLLECTION, ROOT, read

PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE)


def galaxy() -> dict:
    return yaml.safe_load((COLLECTION / "galaxy.yml").read_text(encoding="utf-8"))


def pins(name: str) -> dict[str, str]:
    """Normalised package name -> pinned version."""
    return {
        match["name"].lower().replace("_", "-"): match["version"] for match in PIN.finditer(read(Path(name)))
    }


def test_package_and_collection_have_one_version():
    assert galaxy()["version"] == diting.__version__
    assert metadata.version("diting") == diting.__version__, "install again: pip install --no-deps -e ."


def test_python_is_one_version_everywhere():
    project = tomllib.loads(read(Path("pyproject.toml")))
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["tool"]["ruff"]["target-version"] == "py311"
    assert project["tool"]["mypy"]["python_version"] == "3.11"


def test_requirements_are_pinned_with_hashes_and_name_no_index():
    text = read(Path("requirements.txt"))
    blocks = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).strip())
    loose = [
        block.splitlines()[0] for block in blocks if not PIN.match(block) or "--hash=sha256:" not in block
    ]
    assert not loose
    assert not re.search(r"^\s*(-i|--index-url|--extra-index-url|--find-links|-f)\b", text, re.MULTILINE)


def test_everything_asked_for_is_pinned():
    asked = {
        re.split(r"[\[<>=;]", line)[0].strip().lower()
        for line in read(Path("requirements.in")).splitlines()
        if line.strip() and not line.startswith("#")
    }
    assert asked <= set(pins("requirements.txt"))
    exact, pinned = pins("requirements.in"), pins("requirements.txt")
    assert {name: pinned[name] for name in exact} == exact, "requirements.txt is older than requirements.in"


def test_installed_tools_are_the_pinned_ones():
    wrong = {
        name: (metadata.version(name), version)
        for name, version in pins("requirements.txt").items()
        if _installed(name) and metadata.version(name) != version
    }
    assert not wrong, "run scripts/test, which installs requirements.txt again"


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_collections_named_are_the_ones_that_are_installed():
    """requirements.yml (AWX reads it), galaxy.yml (users) and the pinned "ansible" must not drift apart."""
    named = {
        item["name"]: item["version"]
        for item in yaml.safe_load(read(Path("requirements.yml")))["collections"]
    }
    assert "diting.dr" not in named, "an installed copy of our own collection would shadow the checkout"
    wanted = galaxy()["dependencies"]
    assert set(named) == set(wanted)
    spec = find_spec("ansible_collections")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    for name, version in named.items():
        assert Version(version) in SpecifierSet(wanted[name]), name
        manifests = [
            Path(base, *name.split("."), "MANIFEST.json") for base in spec.submodule_search_locations
        ]
        manifest = next(path for path in manifests if path.exists())
        assert json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"] == version, name


def test_collections_used_are_the_ones_that_are_named():
    named = set(galaxy()["dependencies"])
    used = set()
    for folder in ("playbooks", "roles", "molecule"):
        for path in (ROOT / folder).rglob("*.yml"):
            for name in re.findall(
                r"^\s+(?:- )?(\w+\.\w+)\.\w+:", path.read_text(encoding="utf-8"), re.MULTILINE
            ):
                if name.split(".")[0] not in ("net", "vm", "kernel", "fs"):  # names of sysctl settings
                    used.add(name)
    assert used - {"ansible.builtin", "ansible.legacy", "diting.dr"} <= named
    assert named <= used, f"named in galaxy.yml and used nowhere: {named - used}"


def test_ansible_core_is_within_what_the_collection_asks_for():
    runtime = yaml.safe_load((COLLECTION / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    assert Version(pins("requirements.txt")["ansible-core"]) in SpecifierSet(runtime["requires_ansible"])


def test_every_tool_config_is_one_file():
    """A second configuration would quietly win over the first."""
    strays = [
        name
        for name in ("mypy.ini", "setup.cfg", "pytest.ini", "tox.ini", ".ruff.toml", ".flake8")
        if (ROOT / name).exists()
    ]
    assert not strays
