# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as it would be published, and the ways in which a build loses things silently."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from support.tree import COLLECTION, ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import build_collection

GALAXY = Path(sys.executable).parent / "ansible-galaxy"


@pytest.fixture(scope="module")
def tarball(tmp_path_factory):
    return build_collection.build(ROOT, tmp_path_factory.mktemp("dist"))


def test_holds_every_role_playbook_and_module(tarball):
    with tarfile.open(tarball) as archive:
        names = set(archive.getnames())
    roles = {
        f"roles/{path.name}/tasks/main.yml"
        for path in (ROOT / "roles").iterdir()
        if (path / "tasks").is_dir()
    }
    books = {
        f"playbooks/{path.relative_to(ROOT / 'playbooks')}" for path in (ROOT / "playbooks").rglob("*.yml")
    }
    modules = {f"plugins/modules/{path.name}" for path in (COLLECTION / "plugins" / "modules").glob("*.py")}
    assert roles
    assert books
    assert modules
    assert roles | books | modules | {"README.md", "LICENSE", "CHANGELOG.md", "meta/runtime.yml"} <= names


def test_holds_no_link_and_no_junk(tarball):
    with tarfile.open(tarball) as archive:
        members = archive.getmembers()
    assert not [member.name for member in members if member.issym() or member.islnk()]
    assert not [
        member.name for member in members if "__pycache__" in member.name or member.name.endswith(".pyc")
    ]


@pytest.fixture
def clone(tmp_path):
    """A copy of what the build reads, with the links as links, to break at will."""
    for folder in ("collections", "roles", "playbooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True)
    shutil.copy2(ROOT / "LICENSE", tmp_path / "LICENSE")
    return tmp_path


@pytest.mark.parametrize("link", ["roles", "playbooks"])
def test_a_dropped_link_is_an_error(clone, link):
    (clone / build_collection.COLLECTION / link).unlink()
    with pytest.raises(build_collection.BuildError, match=f"no {link[:-1]} in"):
        build_collection.build(clone, clone / "dist")
    assert not (clone / "dist").exists()


def test_a_link_to_nowhere_is_an_error(clone):
    shutil.rmtree(clone / "roles")
    with pytest.raises(build_collection.BuildError, match="cannot stage"):
        build_collection.stage(clone, clone / "staged")


def test_a_file_that_the_build_ignores_is_an_error(clone):
    """build_ignore is the second way in which galaxy drops files without a word."""
    galaxy = clone / build_collection.COLLECTION / "galaxy.yml"
    galaxy.write_text(galaxy.read_text() + '  - "roles/*/templates"\n')
    with pytest.raises(build_collection.BuildError, match=r"missing: roles/\w+/templates/"):
        build_collection.build(clone, clone / "dist")


def test_compare_sees_every_difference():
    staged = {"galaxy.yml": "0", "a": "1", "b": "2", "c": "3"}
    installed = {"a": "1", "b": "changed", "extra": "4", "MANIFEST.json": "5", "FILES.json": "6"}
    assert build_collection.compare(staged, installed) == [
        "missing: c",
        "not from the tree: extra",
        "differs: b",
    ]


def test_building_in_place_is_still_a_trap(tmp_path):
    """The reason for the whole script. If this fails, Ansible has changed and staging may go."""
    subprocess.run(
        [GALAXY, "collection", "build", "--output-path", tmp_path, COLLECTION],
        check=True,
        capture_output=True,
    )
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    assert not [name for name in names if name.startswith(("roles/", "playbooks/"))]


@pytest.mark.parametrize("argv", [["--nonsense"], ["--output"]])
def test_wrong_usage_is_64(argv):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/build_collection.py", *argv], capture_output=True, check=False
    )
    assert done.returncode == 64
