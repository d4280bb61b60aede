# SPDX-License-Identifier: GPL-3.0-or-later
"""The wheelhouse: what decides its name, what is in it, and what happens to a damaged one."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def house():
    spec = importlib.util.spec_from_file_location(
        "build_wheelhouse", ROOT / "scripts" / "build_wheelhouse.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def clone(tmp_path):
    """A small tree of the project's shape, core being a link that leaves the package."""
    package = tmp_path / "clone" / "src" / "diting"
    core = tmp_path / "clone" / "collections" / "core"
    package.mkdir(parents=True)
    core.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (core / "verdict.py").write_text("PASS = 1\n")
    (package / "core").symlink_to("../../collections/core")
    (tmp_path / "clone" / "pyproject.toml").write_text("[project]\n")
    return tmp_path / "clone"


@pytest.fixture
def target(house):
    return house.Target("3.11", "x86_64")


@pytest.fixture
def counted_build(house, monkeypatch):
    """Builds without compiler, index or hatchling, and counts."""
    calls = []

    def build(root, target, version, work):
        calls.append(version)
        folder = work / "house"
        folder.mkdir()
        (folder / "SHA256SUMS").write_text("sums\n")
        return folder

    monkeypatch.setattr(house, "build", build)
    return calls


def test_files_behind_links_belong_to_the_package(house, clone):
    names = [name for name, _ in house.source_files(clone)]
    assert names == ["pyproject.toml", "src/diting/__init__.py", "src/diting/core/verdict.py"]


def test_compiled_files_do_not(house, clone):
    (clone / "src" / "diting" / "__pycache__").mkdir()
    (clone / "src" / "diting" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"x")
    assert len(list(house.source_files(clone))) == 3


@pytest.mark.parametrize("change", ["core", "package", "python", "machine"])
def test_the_name_follows_what_goes_in(house, clone, target, change):
    before = house.content_hash(clone, target)
    if change == "core":
        (clone / "collections" / "core" / "verdict.py").write_text("PASS = 2\n")
    elif change == "package":
        (clone / "src" / "diting" / "new.py").write_text("")
    elif change == "python":
        target = house.Target("3.12", "x86_64")
    else:
        target = house.Target("3.11", "aarch64")
    assert house.content_hash(clone, target) != before


def test_a_second_run_builds_nothing(house, clone, target, tmp_path, counted_build):
    first = house.wheelhouse(clone, target, tmp_path / "cache")
    second = house.wheelhouse(clone, target, tmp_path / "cache")
    assert (first["built"], second["built"], len(counted_build)) == (True, False, 1)
    assert {**first, "built": None} == {**second, "built": None}
    assert first["sha256"] == hashlib.sha256(Path(first["tar"]).read_bytes()).hexdigest()


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_a_damaged_wheelhouse_is_built_anew(house, clone, target, tmp_path, counted_build, damage):
    tar = Path(house.wheelhouse(clone, target, tmp_path / "cache")["tar"])
    if damage == "gone":
        tar.unlink()
    else:
        tar.write_bytes(tar.read_bytes()[:100])
    assert house.wheelhouse(clone, target, tmp_path / "cache")["built"] is True
    assert len(counted_build) == 2


def test_the_tar_is_the_same_whoever_packs_it(house, tmp_path):
    sums = []
    for name, mode in (("a", 0o600), ("b", 0o755)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "x.whl").write_bytes(b"wheel")
        (folder / "x.whl").chmod(mode)
        house.pack(folder, tmp_path / f"{name}.tar")
        sums.append(hashlib.sha256((tmp_path / f"{name}.tar").read_bytes()).hexdigest())
        with tarfile.open(tmp_path / f"{name}.tar") as archive:
            assert [(m.name, m.mode, m.uid) for m in archive] == [("x.whl", 0o644, 0)]
    assert sums[0] == sums[1]


def test_a_tree_without_a_version_is_refused_by_name(house, clone):
    (clone / "src" / "diting" / "__init__.py").write_text("")
    with pytest.raises(house.WheelhouseError, match="__version__"):
        house.version_of(clone)


def test_a_failed_tool_shows_its_last_words(house, tmp_path):
    with pytest.raises(house.WheelhouseError, match="the reason"):
        house.run([sys.executable, "-c", "import sys; sys.exit('the reason')"], tmp_path)


def test_the_host_lock_names_no_index_and_pins_every_hash():
    text = (ROOT / "requirements-host.txt").read_text(encoding="utf-8")
    assert "index" not in text.replace("--no-emit-index-url", "")
    pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert pins
    assert all(line.endswith("\\") for line in pins), "a pin without a hash"
