# SPDX-License-Identifier: GPL-3.0-or-later
"""Promises about every file: licence, size, links, and nothing that belongs to one machine only."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from support.tree import ROOT, files, read, text_files

LINKS = {
    "collections/ansible_collections/diting/dr/playbooks": "../../../../playbooks",
    "collections/ansible_collections/diting/dr/roles": "../../../../roles",
    # The program on database hosts stands alone, and judges a segment by the same code as everybody.
    "roles/walg/files/usr/local/lib/diting-wal/diting_wal/segment.py": (
        "../../../../../../../../collections/ansible_collections/diting/dr/plugins/module_utils/core/wal_segment.py"
    ),
    # What a recorded point holds and what a restore brought back are read by one text of SQL.
    "roles/walg/files/usr/local/lib/diting-wal/diting_wal/proof_sql.py": (
        "../../../../../../../../collections/ansible_collections/diting/dr/plugins/module_utils/core/restore_sql.py"
    ),
    "src/diting/core": "../../collections/ansible_collections/diting/dr/plugins/module_utils/core",
    "src/diting/hostio": "../../collections/ansible_collections/diting/dr/plugins/module_utils/hostio",
}

# Formats without comments, checksums made by tools, the licence itself, and files that are compared
# byte for byte (fixtures, one name per line); go.mod is rewritten by the go command.
NO_COMMENTS = {".json", ".jsonl", ".sum", ".png", ".svg", ".txt", ".hex", ".partial", ".history", ".mod"}
NO_HEADER = {"LICENSE", "src/diting/py.typed"}

REGISTRIES = re.compile(
    r"pypi\.(?:org|python\.org)|pythonhosted\.org|proxy\.golang\.org|sum\.golang\.org|goproxy\.\w+|galaxy\.ansible\.com"
    r"|registry\.npmjs\.org|registry\.yarnpkg\.com"
    r"|(?:docker|quay|ghcr)\.io/"
    r"|--(?:extra-)?index-url[ =]+\w"
)


def test_links_are_exactly_these():
    found = {str(path): str((ROOT / path).readlink()) for path in files() if (ROOT / path).is_symlink()}
    assert found == LINKS
    for link in found:
        assert (ROOT / link).exists(), f"{link} leads nowhere"


def has_header(path: Path) -> bool:
    if path.suffix in NO_COMMENTS or str(path) in NO_HEADER or not read(path).strip():
        return True
    return "SPDX-License-Identifier: GPL-3.0-or-later" in "\n".join(read(path).splitlines()[:6])


def test_every_file_names_its_licence():
    missing = [str(path) for path in text_files() if not has_header(path)]
    assert not missing, f"no SPDX line in the first six lines of: {', '.join(missing)}"


def test_no_file_is_too_long_to_read():
    """A Python file of more than 400 lines or a tasks file of more than 150 is split before it lands."""
    lengths = {path: len(read(path).splitlines()) for path in text_files()}
    long = [f"{path}: {length} lines" for path, length in lengths.items() if length > limit_of(path)]
    assert not long, "\n".join(long)


def limit_of(path: Path) -> float:
    if path.suffix == ".py" or (path.suffix == "" and read(path).startswith("#!/usr/bin/python")):
        return 400
    if path.suffix in (".yml", ".yaml") and {"tasks", "handlers"} & set(path.parts):
        return 150
    return float("inf")


def test_no_package_registry_is_named():
    """Which mirror to use is a setting of the machine (pip.conf, sources.list), never of the tree."""
    named = [
        f"{path}:{number}: {line.strip()}"
        for path in text_files()
        if path != Path("tests/contract/test_tree.py")
        for number, line in enumerate(read(path).splitlines(), start=1)
        if REGISTRIES.search(line)
    ]
    assert not named, "\n".join(named)


def test_nothing_is_committed_that_belongs_to_one_machine():
    strays = [
        str(path)
        for path in files()
        if path.suffix in {".pyc", ".retry", ".log", ".whl", ".key", ".pem", ".pgpass"}
        or ".venv" in path.parts
    ]
    assert not strays


# A file that is sourced (*.sh) must not change how its caller's shell treats faults.
def faults_of_script(path: Path) -> list[str]:
    text = read(path)
    runs = bool((ROOT / path).stat().st_mode & stat.S_IXUSR)
    faults = []
    if runs != text.startswith("#!"):
        faults.append(f"{path}: executable={runs}, shebang={text.startswith('#!')}")
    if (
        re.match(r"#!.*\b(ba)?sh\n", text)
        and path.suffix != ".sh"
        and not re.search(r"^set -eu(o pipefail)?$", text, re.MULTILINE)
    ):
        faults.append(f"{path}: no 'set -euo pipefail'")
    return faults


def test_scripts_are_executable_and_stop_at_the_first_fault():
    scripts = [path for path in text_files() if path.parts[0] in ("scripts", ".ci")]
    faults = [fault for path in scripts for fault in faults_of_script(path)]
    assert not faults, "\n".join(faults)
