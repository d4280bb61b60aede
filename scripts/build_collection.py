#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the collection ``diting.dr`` from a clone and prove that nothing was left out.

``ansible-galaxy collection build`` follows no link that leaves the collection: in place it makes a
tarball without roles and playbooks and still exits 0. So the tree is staged with links resolved,
built there, installed elsewhere, and the installed files are compared with the tree one by one.

Usage: scripts/build_collection.py [--output DIR] | --stage-only DIR
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAMESPACE, NAME = "diting", "dr"
COLLECTION = Path("collections/ansible_collections") / NAMESPACE / NAME
JUNK = (
    "__pycache__",
    "*.pyc",
    "*.tar.gz",
    ".ansible",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    "output",
)
"""Left behind by tools; never part of the collection."""

ADDED_BY_GALAXY = frozenset({"MANIFEST.json", "FILES.json"})
ONLY_IN_TREE = frozenset({"galaxy.yml"})
"""``galaxy.yml`` becomes MANIFEST.json."""


class BuildError(Exception):
    """The collection cannot be built, or the result is not whole. The message names the files."""


def stage(root: Path, target: Path) -> Path:
    """Copy the collection of the checkout ``root`` below ``target`` with links resolved.

    Returns:
        The collection's folder; its parents have the names that ``ansible-test`` insists on.

    Raises:
        BuildError: a link of the collection leads nowhere.
    """
    source = root / COLLECTION
    destination = target / "ansible_collections" / NAMESPACE / NAME
    try:
        shutil.copytree(source, destination, symlinks=False, ignore=shutil.ignore_patterns(*JUNK))
    except shutil.Error as error:
        raise BuildError(f"cannot stage {source}: {error}") from error
    shutil.copy2(root / "LICENSE", destination / "LICENSE")
    return destination


def digests(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below ``folder``."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def compare(staged: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """What is wrong with ``installed``, one sentence per file; empty when it is whole."""
    wanted = {path: digest for path, digest in staged.items() if path not in ONLY_IN_TREE}
    problems = [f"missing: {path}" for path in sorted(set(wanted) - set(installed))]
    problems += [
        f"not from the tree: {path}" for path in sorted(set(installed) - set(wanted) - ADDED_BY_GALAXY)
    ]
    problems += [
        f"differs: {path}" for path in sorted(set(wanted) & set(installed)) if wanted[path] != installed[path]
    ]
    return problems


def content(folder: Path) -> dict[str, list[str]]:
    """Names of what users call: roles, playbooks, and plugins by type.

    Raises:
        BuildError: there are no roles or no playbooks at all, the sign of a dropped link.
    """
    roles = sorted(path.name for path in (folder / "roles").glob("*/") if (path / "tasks").is_dir())
    books = sorted(
        str(path.relative_to(folder / "playbooks"))
        for path in (folder / "playbooks").rglob("*.yml")
        if not {"tasks", "vars", "templates", "files"} & set(path.relative_to(folder / "playbooks").parts)
    )
    found = {"role": roles, "playbook": books}
    for kind in ("modules", "callback", "filter", "action", "lookup"):
        names = sorted(p.stem for p in (folder / "plugins" / kind).glob("*.py") if not p.stem.startswith("_"))
        if names:
            found["module" if kind == "modules" else kind] = names
    for kind in ("role", "playbook"):
        if not found[kind]:
            raise BuildError(f"no {kind} in {folder}: was the link to the top-level folder dropped?")
    return found


def run(argv: Iterable[object], *, cwd: Path, environment: Mapping[str, str]) -> str:
    """Run one tool and return its stdout.

    Raises:
        BuildError: it failed; the message ends with what it printed.
    """
    words = [str(word) for word in argv]
    done = subprocess.run(words, cwd=cwd, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(words)} exited {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def check_documentation(
    found: Mapping[str, list[str]], environment: Mapping[str, str], cwd: Path
) -> list[str]:
    """Plugins of the installed collection that ``ansible-doc`` cannot show."""
    problems = []
    for kind in ("module", "callback", "filter", "lookup"):
        names = [f"{NAMESPACE}.{NAME}.{name}" for name in found.get(kind, [])]
        if not names:
            continue
        shown = json.loads(
            run(["ansible-doc", "--json", "-t", kind, *names], cwd=cwd, environment=environment)
        )
        problems += [f"no documentation: {kind} {name}" for name in names if name not in shown]
    return problems


def tool_environment(work: Path, collections_path: Path) -> dict[str, str]:
    """Environment for Ansible's tools that sees ``collections_path`` and nothing of the checkout."""
    config = work / "ansible.cfg"
    config.touch()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return kept | {
        "PATH": path,
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_COLLECTIONS_PATH": str(collections_path),
        "ANSIBLE_CONFIG": str(config),
        # Not the user's: a collection installed there could stand in for one that is missing here.
        "ANSIBLE_HOME": str(work / ".ansible"),
    }


def build(root: Path, output: Path) -> Path:
    """Stage, build, install elsewhere, compare. Returns the tarball, which lies in ``output``.

    Raises:
        BuildError: any step failed or the result is not whole; ``output`` is then left alone.
    """
    with tempfile.TemporaryDirectory(prefix="diting-collection-") as scratch:
        work = Path(scratch)
        staged = stage(root, work / "staged")
        installed_at = work / "installed"
        environment = tool_environment(work, installed_at)
        run(
            ["ansible-galaxy", "collection", "build", "--output-path", work],
            cwd=staged,
            environment=environment,
        )
        tarball = next(work.glob(f"{NAMESPACE}-{NAME}-*.tar.gz"))
        install = [
            "ansible-galaxy",
            "collection",
            "install",
            tarball,
            "-p",
            installed_at,
            "--no-deps",
            "--offline",
        ]
        run(install, cwd=work, environment=environment)
        installed = installed_at / "ansible_collections" / NAMESPACE / NAME
        problems = compare(digests(staged), digests(installed))
        found = content(installed)
        problems += check_documentation(found, environment, work)
        if problems:
            raise BuildError("the built collection is not whole:\n  " + "\n  ".join(problems))
        books = [f"{NAMESPACE}.{NAME}.{_playbook_name(book)}" for book in found["playbook"]]
        run(
            ["ansible-playbook", "--syntax-check", "-i", "localhost,", *books],
            cwd=work,
            environment=environment,
        )
        for kind, names in found.items():
            print(f"{kind:>9}: {len(names):3}  {' '.join(names)}")
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(tarball, output / tarball.name))


def _playbook_name(relative: str) -> str:
    """``recover/l4_database_failure.yml`` -> ``recover.l4_database_failure``, as FQCNs spell it."""
    return relative.removesuffix(".yml").replace("/", ".")


class UsageParser(argparse.ArgumentParser):
    """Leaves with EX_USAGE, as every script of the project does."""

    def error(self, message: str) -> NoReturn:
        """Print usage and the fault, exit 64."""
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: error: {message}\n")


def main() -> int:
    """Command line; exit status 0 done, 1 not whole, 64 wrong usage."""
    parser = UsageParser(description="Build the collection diting.dr and prove it whole.")
    parser.add_argument(
        "--output", type=Path, default=Path("dist"), help="where the tarball goes (default: dist)"
    )
    parser.add_argument(
        "--stage-only", type=Path, metavar="DIR", help="only stage a copy below DIR, print its path"
    )
    args = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    try:
        if args.stage_only:
            print(stage(root, args.stage_only.resolve()))
        else:
            print(f"built {build(root, args.output.resolve())}")
    except BuildError as error:
        print(f"build_collection.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
