# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents say can be typed, opened and found."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diting.cli.main import COMMANDS
from support.tree import ROOT, files, markdown, read, text_files

BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^]]*\]\((?P<to>[^)\s]+)\)|!\[[^]]*\]\((?P<image>[^)\s]+)\)")
REFERENCE = re.compile(r"\bdocs/[\w./-]+\.md(?:#[\w-]+)?")
HEADING = re.compile(r"^#{1,6}\s+(?P<text>.+?)\s*$", re.MULTILINE)
ON_PATH = {
    *(
        "ansible-playbook",
        "ansible",
        "ansible-vault",
        "ansible-doc",
        "ansible-inventory",
        "molecule",
        "pytest",
    ),
    *(
        "git",
        "cd",
        "psql",
        "patronictl",
        "etcdctl",
        "systemctl",
        "journalctl",
        "sudo",
        "cat",
        "ls",
        "curl",
        "jq",
    ),
    *(
        "uv",
        "pip",
        "export",
        "source",
        "diting",
        "haproxy",
        "python3",
        "ansible-lint",
        "pre-commit",
        "ssh",
        "wal-g",
    ),
    *(
        "pg_controldata",
        "openssl",
        "chronyc",
        "antsibull-changelog",
        "kill",
        "sha256sum",
        "podman",
        "nft",
        "ip",
    ),
}


def commands() -> Iterator[tuple[Path, str]]:
    """Every command line a document shows after "$ ", continued lines joined."""
    for path in markdown():
        for block in BLOCK.finditer(read(path)):
            if block["kind"] in ("console", "bash", "sh", "shell", "text", ""):
                for line in re.sub(r"\\\n\s*", " ", block["body"]).splitlines():
                    if line.startswith(("$ ", "# ./", "root@ops1:~# ")):
                        yield path, line.split(" ", 1)[1]


def words_of(line: str) -> list[str]:
    """The words of the first command of a line, a comment cut off, assignments before it dropped."""
    words = shlex.split(line, comments=True)
    while words and re.match(r"^\w+=", words[0]):
        words.pop(0)
    return words


def fault_of(line: str) -> str | None:
    """Why this command cannot work from a clone, or None."""
    words = words_of(line)
    if not words:
        return None
    program = words[0]
    if "/" in program and not program.startswith(("/", ".venv/")):
        target = ROOT / program
        if not target.is_file() or not os.access(target, os.X_OK):
            return f"{program} is no program of the tree"
    elif "/" not in program and program not in ON_PATH:
        return f"{program} is not a known program"
    if program in ("ansible-playbook", ".venv/bin/ansible-playbook"):
        missing = [
            w for w in words[1:] if w.startswith(("playbooks/", "inventories/")) and not (ROOT / w).exists()
        ]
        if missing:
            return f"{missing[0]} does not exist"
    if (
        program in ("diting", ".venv/bin/diting")
        and words[1] not in COMMANDS
        and not words[1].startswith("-")
    ):
        return f"diting has no command {words[1]!r}"
    if program == "./scripts/test":
        done = subprocess.run(
            [sys.executable, ROOT / "scripts/lib/stages.py", "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        unknown = [word for word in words[1:] if not re.search(rf"^  {word}\b", done.stdout, re.MULTILINE)]
        if unknown and not unknown[0].startswith("["):
            return f"./scripts/test has no stage {unknown[0]!r}"
    return None


def test_every_command_shown_exists():
    faults = [f"{path}: $ {line}: {fault}" for path, line in commands() if (fault := fault_of(line))]
    assert not faults, "\n".join(faults)


def test_readme_shows_the_two_commands():
    shown = [line for path, line in commands() if path == Path("README.md")]
    assert "./scripts/drill" in shown
    assert "./scripts/test" in shown


def anchor(heading: str) -> str:
    """The fragment that GitHub and GitLab make of a heading."""
    text = re.sub(r"`|\*|\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text))


def anchors(path: Path) -> set[str]:
    body = BLOCK.sub("", read(path))
    found = {anchor(match["text"]) for match in HEADING.finditer(body)}
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', body))


def leads_nowhere(base: Path, to: str) -> bool:
    """Whether ``to``, written in a file of folder ``base``, names no file or no heading."""
    name, _, fragment = to.partition("#")
    target = (ROOT / base / name).resolve() if name else None
    if target is not None and not target.exists():
        return True
    if fragment and target is not None and target.suffix == ".md":
        return fragment not in anchors(target.relative_to(ROOT))
    return False


@pytest.mark.parametrize("path", markdown(), ids=str)
def test_links_lead_somewhere(path):
    text = BLOCK.sub("", read(path))
    broken = []
    for match in LINK.finditer(text):
        to = match["to"] or match["image"]
        if to.startswith(("http://", "https://", "mailto:")):
            continue
        if to.startswith("#"):
            if to[1:] not in anchors(path):
                broken.append(to)
        elif leads_nowhere(path.parent, to):
            broken.append(to)
    assert not broken, f"{path}: {', '.join(broken)}"


def test_messages_point_at_documents_that_exist():
    """An alert or an error that names a runbook names one that is there, heading and all."""
    broken = [
        f"{path}: {found}"
        for path in text_files()
        if path.suffix != ".md" and path.parts[0] != "tests"
        for found in REFERENCE.findall(read(path))
        if leads_nowhere(Path(), found)
    ]
    assert not broken, "\n".join(broken)


def test_the_map_in_the_readme_is_the_tree():
    """Every top-level folder is in the map of the README, and the map names no other."""
    tree = {path.parts[0] for path in files() if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    text = read(Path("README.md"))
    assert "## Map" in text, "the README has no section 'Map'"
    section = text.split("## Map", 1)[1]
    mapped = set(re.findall(r"^(\w+)/", section.split("```")[1], re.MULTILINE))
    assert mapped == tree


def test_decisions_have_numbers_of_their_own_and_are_listed():
    numbers = sorted(
        path.name for path in files() if path.parts[:2] == ("docs", "decisions") and path.name != "README.md"
    )
    assert len({name[:4] for name in numbers}) == len(numbers)
    assert not [name for name in numbers if not re.match(r"\d{4}-[a-z0-9-]+\.md$", name)]
    index = read(Path("docs/decisions/README.md"))
    missing = [name for name in numbers if name not in index]
    assert not missing, f"docs/decisions/README.md does not list {missing}"


def test_the_example_inventory_names_every_secret_that_it_wants():
    """And sets only variables that a role or the inventory itself knows."""
    folder = ROOT / "inventories/example"
    settings = "".join(path.read_text() for path in folder.rglob("*.yml"))
    wanted = set(re.findall(r"\bvault_\w+", settings))
    assert wanted == set(re.findall(r"\bvault_\w+", (folder / "README.md").read_text()))
    known = "".join(path.read_text() for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
    names = set(re.findall(r"^((?!_|estate_|verify_|ansible_)\w+):", settings, re.MULTILINE))
    names -= {"all", "gate_host"}  # the inventory's root; a setting of the playbooks
    assert sorted(name for name in names if f"\n      {name}:" not in known) == []
