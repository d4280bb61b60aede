# SPDX-License-Identifier: GPL-3.0-or-later
"""The wheel as hosts get it: whole, without links, and usable with nothing else installed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import diting
from support.tree import ROOT, files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target, ROOT],
        check=True,
        capture_output=True,
    )
    return next(target.glob("diting-*.whl"))


@pytest.fixture(scope="module")
def bare_python(wheel, tmp_path_factory) -> Path:
    """A virtual environment that holds the wheel and nothing else, and cannot see the checkout."""
    home = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", home], check=True, capture_output=True)
    subprocess.run(
        [home / "bin" / "pip", "install", "--quiet", "--no-index", "--no-deps", wheel],
        check=True,
        capture_output=True,
    )
    return home / "bin"


def test_version_is_in_the_name(wheel):
    assert wheel.name == f"diting-{diting.__version__}-py3-none-any.whl"


def test_every_file_of_the_package_is_in_it(wheel):
    """The links core and hostio are followed: their files are in the wheel as files."""
    package = ROOT / "src" / "diting"
    linked = [("core", ROOT / "src/diting/core"), ("hostio", ROOT / "src/diting/hostio")]
    wanted = {
        str(p.relative_to("src"))
        for p in files()
        if p.parts[:2] == ("src", "diting") and (ROOT / p).is_file()
    }
    for name, folder in linked:
        wanted |= {f"diting/{name}/{path.relative_to(folder)}" for path in folder.rglob("*.py")}
    assert package.is_dir()
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        links = [i.filename for i in archive.infolist() if stat.S_ISLNK(i.external_attr >> 16)]
    assert not links
    assert held == wanted


def test_same_tree_gives_the_same_bytes(wheel, tmp_path):
    """guard_runtime names releases by content; a wheel that differs each time would be a release each time."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    assert next(tmp_path.glob("*.whl")).read_bytes() == wheel.read_bytes()


def run(bare_python: Path, *argv: str) -> subprocess.CompletedProcess:
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [bare_python / argv[0], *argv[1:]], env=environment, capture_output=True, text=True, check=False
    )


def test_the_command_runs_without_any_dependency(bare_python):
    done = run(bare_python, "diting", "--version")
    assert (done.returncode, done.stdout) == (0, f"diting {diting.__version__}\n")


def test_the_gate_needs_nothing_but_the_standard_library(bare_python):
    """The stop-all lever has to work on a host where everything else is broken."""
    done = run(bare_python, "diting", "gate", "--help")
    assert done.returncode == 0, done.stderr
    assert "stop" in done.stdout


def test_core_and_hostio_import_nothing_but_the_standard_library(bare_python):
    code = (
        "import importlib, pkgutil, diting.core, diting.hostio\n"
        "for package in (diting.core, diting.hostio):\n"
        "    for module in pkgutil.iter_modules(package.__path__):\n"
        "        importlib.import_module(f'{package.__name__}.{module.name}')\n"
    )
    done = run(bare_python, "python", "-c", code)
    assert done.returncode == 0, done.stderr
