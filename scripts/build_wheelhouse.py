#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the wheelhouse that hosts install the package from: one tar, once per state of the tree.

Hosts have no index, no compiler and no say in what they get. The wheelhouse holds the wheel of this
repository, the wheels that ``requirements-host.txt`` pins, a ``requirements.txt`` with the hash of
each, and ``SHA256SUMS``. Prints one JSON object on stdout::

    {"release": "0.1.0-1a2b3c4d5e6f", "version": "0.1.0", "tar": "/...", "sha256": "...", "built": true}

``release`` is the version and a hash of what went in, so two trees never share a release by accident.
Exit status 0, or 1 with a message on stderr.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements-host.txt"
FORMAT = 1
"""Raised when the same inputs must give another wheelhouse."""


class WheelhouseError(Exception):
    """The wheelhouse could not be built; the text says what is wrong."""


@dataclass(frozen=True)
class Target:
    """The hosts' Python and machine, in pip's words."""

    python: str
    machine: str

    @property
    def pip_options(self) -> list[str]:
        """Options that make pip choose wheels for the target and not for the controller."""
        options = ["--python-version", self.python, "--implementation", "cp"]
        options += ["--abi", "cp" + self.python.replace(".", ""), "--abi", "abi3", "--abi", "none"]
        # Newest C library of Debian 12 first; pip does not infer the older ones by itself.
        for glibc in ("2_36", "2_34", "2_28", "2_17"):
            options += ["--platform", f"manylinux_{glibc}_{self.machine}"]
        return [*options, "--platform", f"manylinux2014_{self.machine}", "--platform", "any"]


def source_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file that goes into the package's wheel, as (name in the tree, real path), sorted."""
    top = [root / "pyproject.toml", root / "README.md", root / "LICENSE"]
    yield from ((path.name, path) for path in top if path.is_file())
    found: list[tuple[str, Path]] = []
    # followlinks: core and hostio are links into the collection and belong to the package.
    for folder, folders, names in os.walk(root / "src" / "diting", followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            if not name.endswith((".pyc", ".pyo")):
                path = Path(folder, name)
                found.append((str(path.relative_to(root)), path))
    yield from sorted(found)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def version_of(root: Path) -> str:
    """The package's version, from the one place that states it."""
    text = (root / "src" / "diting" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise WheelhouseError("src/diting/__init__.py: found no __version__, wanted one line that sets it")
    return match.group(1)


def content_hash(root: Path, target: Target) -> str:
    """Hash of everything that decides what the wheelhouse holds, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    digest.update(f"{FORMAT} {target.python} {target.machine} {sha256_of(REQUIREMENTS)}\n".encode())
    for name, path in source_files(root):
        digest.update(f"{name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()[:12]


def run(command: list[str], cwd: Path) -> None:
    """Run ``command``; its output goes to stderr, and a failure raises with the last lines of it."""
    # No SOURCE_DATE_EPOCH of the caller: hatchling's own fixed date makes the wheel byte-stable.
    environment = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-15:])
        raise WheelhouseError(f"{' '.join(command[:5])} ... ended with status {result.returncode}:\n{tail}")


def stage(root: Path, work: Path) -> Path:
    """A copy of the package with links resolved, so that nothing else in the tree can leak in."""
    staged = work / "tree"
    for name, path in source_files(root):
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, staged / name)
    return staged


def build(root: Path, target: Target, version: str, work: Path) -> Path:
    """Fill ``work/house``; returns it."""
    house = work / "house"
    house.mkdir()
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(house)], stage(root, work))
    own = list(house.glob("*.whl"))
    if len(own) != 1:
        raise WheelhouseError(f"hatchling: found {len(own)} wheels, wanted one")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--requirement", str(REQUIREMENTS)]
    run([*command, "--dest", str(house), *target.pip_options], root)
    requirements = [f"diting=={version} --hash=sha256:{sha256_of(own[0])}"]
    for wheel in sorted(set(house.glob("*.whl")) - set(own)):
        name, number = wheel.name.split("-")[:2]
        requirements.append(f"{name.replace('_', '-')}=={number} --hash=sha256:{sha256_of(wheel)}")
    (house / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    sums = [f"{sha256_of(path)}  {path.name}" for path in sorted(house.iterdir())]
    (house / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")
    return house


def pack(house: Path, tar: Path) -> None:
    """One tar, the same bytes for the same wheels."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.mtime, info.mode, info.uid, info.gid, info.uname, info.gname = 0, 0o644, 0, 0, "root", "root"
        return info

    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(house.iterdir()):
            archive.add(path, arcname=path.name, filter=plain)


def wheelhouse(root: Path, target: Target, cache: Path) -> dict[str, object]:
    """Find or build the wheelhouse of this tree below ``cache``."""
    version = version_of(root)
    release = f"{version}-{content_hash(root, target)}"
    home = cache / "wheelhouse"
    home.mkdir(parents=True, exist_ok=True)
    tar, note = home / f"{release}.tar", home / f"{release}.json"
    with (home / ".lock").open("w") as lock:
        # Two runs side by side: the second finds what the first has built.
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = False
        known = json.loads(note.read_text(encoding="utf-8"))["sha256"] if note.is_file() else None
        # A cache is a place where files get damaged: what does not match is built anew.
        if known is None or not tar.is_file() or sha256_of(tar) != known:
            with tempfile.TemporaryDirectory(prefix=".build-", dir=home) as work:
                part = Path(work) / "wheelhouse.tar"
                pack(build(root, target, version, Path(work)), part)
                known, built = sha256_of(part), True
                part.replace(tar)
            note.write_text(json.dumps({"sha256": known}) + "\n", encoding="utf-8")
    return {"release": release, "version": version, "tar": str(tar), "sha256": known, "built": built}


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cache = os.environ.get("DITING_CACHE") or "/var/cache/diting"
    parser.add_argument("--cache", type=Path, default=Path(cache), metavar="DIR")
    parser.add_argument("--python", default="3.11", metavar="X.Y", help="Python of the hosts")
    parser.add_argument(
        "--machine", default="x86_64", choices=["x86_64", "aarch64"], help="machine of the hosts"
    )
    args = parser.parse_args(argv)
    try:
        result = wheelhouse(ROOT, Target(args.python, args.machine), args.cache)
    except (OSError, WheelhouseError) as error:
        print(f"build_wheelhouse: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
