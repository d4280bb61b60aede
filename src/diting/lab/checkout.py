# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks are run from, for the lab's control host: a copy of this checkout with the Ansible that it is used with.

In production a person makes a checkout with its own environment on that host. Here the controller's is taken, since the lab's hosts reach
no network of packages by themselves and have the same Python. ``python -m diting.lab.checkout ensure --lab-home DIR --root DIR`` prints
``{"changed": bool}``; the copy is ``DIR/checkout/current``, put in place in one step, and only what playbooks need is in it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PARTS = ("ansible.cfg", "collections", "inventories", "playbooks", "roles", "src")
LIBRARY = "python"
_ROOT_PACKAGE = "ansible-core"
_LEFT_OUT = ("__pycache__", "*.pyc")


class CheckoutError(Exception):
    """The copy cannot be made; the message names what is missing."""


def ensure(home: Path, root: Path) -> bool:
    """Have a copy of ``root`` as it is now. Returns whether anything was written. Raises CheckoutError."""
    missing = [part for part in PARTS if not (root / part).exists()]
    if missing:
        raise CheckoutError(f"{root}: found no {', '.join(missing)}; wanted a checkout of this project")
    packages = {found.name: found for found in _needed(_ROOT_PACKAGE)}
    digest = _digest(root, packages)
    where = home / "checkout"
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    current = where / "current"
    if current.is_symlink() and current.readlink() == Path(digest) and (where / digest).is_dir():
        return False
    part = where / "part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name in PARTS:
        if (root / name).is_dir():
            shutil.copytree(
                root / name, part / name, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT)
            )
        else:
            shutil.copy2(root / name, part / name)
    for package in packages.values():
        _copy_package(package, part / LIBRARY)
    shutil.rmtree(where / digest, ignore_errors=True)
    part.rename(where / digest)
    link = where / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(digest)
    link.replace(current)
    for old in where.iterdir():
        if old.name not in (digest, "current"):
            shutil.rmtree(old)
    return True


def _needed(name: str, seen: frozenset[str] = frozenset()) -> Iterator[importlib.metadata.Distribution]:
    """A package and all that it needs here. Raises CheckoutError."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise CheckoutError(f"{name}: not installed in {sys.prefix}; ./scripts/lab installs it") from error
    yield found
    for line in found.requires or []:
        # Extras are not asked for, and what is for other Pythons is not installed.
        wanted = re.match(r"[A-Za-z0-9._-]+", line)
        if wanted is None or "extra ==" in line or wanted[0] in seen:
            continue
        try:
            importlib.metadata.distribution(wanted[0])
        except importlib.metadata.PackageNotFoundError:
            continue
        yield from _needed(wanted[0], seen | {name, wanted[0]})


def _copy_package(package: importlib.metadata.Distribution, library: Path) -> None:
    for file in package.files or []:
        # Programs beside the packages have this machine's paths in them.
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        target = library / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(str(file.locate())), target)


def _digest(root: Path, packages: dict[str, importlib.metadata.Distribution]) -> str:
    """Of everything that is copied: content of the checkout, versions of the packages."""
    found = hashlib.sha256()
    for name in sorted(packages):
        found.update(f"{name} {packages[name].version}\n".encode())
    for path in sorted(_files(root)):
        found.update(f"{path.relative_to(root)} {path.lstat().st_mode:o}\n".encode())
        found.update(str(path.readlink()).encode() if path.is_symlink() else path.read_bytes())
    return found.hexdigest()[:16]


def _files(root: Path) -> Iterator[Path]:
    for part in PARTS:
        if (root / part).is_file():
            yield root / part
        for path in (root / part).rglob("*"):
            if (path.is_symlink() or path.is_file()) and not ({"__pycache__"} & set(path.parts)):
                yield path


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="diting.lab.checkout", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("action", choices=["ensure"])
    parser.add_argument("--lab-home", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True, help="the checkout")
    args = parser.parse_args(argv)
    try:
        changed = ensure(args.lab_home, args.root)
    except (CheckoutError, OSError) as error:
        sys.stderr.write(f"diting.lab.checkout: {error}\n")
        return 1
    sys.stdout.write(json.dumps({"changed": changed}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
