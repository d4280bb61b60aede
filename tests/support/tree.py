# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository as the contract tests see it: files that are tracked, or would be."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "collections" / "ansible_collections" / "diting" / "dr"


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file git tracks or would track, links included and not followed, relative to ROOT."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = {Path(name) for name in listed.split("\0") if name}
    return tuple(sorted(path for path in found if (ROOT / path).is_symlink() or (ROOT / path).is_file()))


def text_files() -> list[Path]:
    """Files that hold text, links left out (their target is a file of its own)."""
    return [path for path in files() if not (ROOT / path).is_symlink() and _is_text(ROOT / path)]


def read(path: Path) -> str:
    """Content of a file given relative to ROOT."""
    return (ROOT / path).read_text(encoding="utf-8")


def role_names() -> list[str]:
    """Names of the roles in the tree."""
    return sorted({path.parts[1] for path in files() if path.parts[0] == "roles" and len(path.parts) > 2})


def markdown() -> list[Path]:
    """Every Markdown file."""
    return [path for path in text_files() if path.suffix == ".md"]


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" not in file.read(4096)
