# SPDX-License-Identifier: GPL-3.0-or-later
"""``ansible-test sanity`` on a staged copy of the collection.

It insists on a physical folder ``.../ansible_collections/diting/dr`` without links to folders, so it
runs where scripts/build_collection.py stages the tree, never in the checkout.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import build_collection

STUB = "import ensurepip\nensurepip.bootstrap()\n"
"""Stands where ansible-test keeps a downloaded get-pip.py: its venvs get the pip that Python brings.

The file's host is outside the package mirrors that a company proxy lets through; pip itself is not.
https://github.com/ansible/ansible/blob/stable-2.19/test/lib/ansible_test/_util/target/setup/requirements.py
"""

RUNNING = re.compile(r'Running sanity test "(?P<name>[^"]+)"')
MISSING = re.compile(r'Required program "(?P<program>[^"]+)" not found')
FAILED = re.compile(r"^(?P<name>[a-z0-9-]+)(?: --python [\d.]+)?$")


def cache_home() -> Path:
    """A home of its own for ansible-test, so that its venvs survive and the user's are left alone."""
    return Path(os.environ.get("DITING_CACHE", "/var/cache/diting")) / "ansible-test"


def environment(home: Path) -> dict[str, str]:
    """What ansible-test may see: the machine's pip settings, none of the checkout's Ansible ones."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    user_pip = Path.home() / ".config" / "pip" / "pip.conf"
    if user_pip.is_file():
        kept.setdefault("PIP_CONFIG_FILE", str(user_pip))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return kept | {"HOME": str(home), "PATH": path, "LC_ALL": "C.UTF-8"}


def prepare(home: Path) -> None:
    """Put the stub in place; the name is the one that ansible-core of requirements.txt looks for."""
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "get_pip_24_2.py").write_text(STUB, encoding="ascii")


OK, FAIL = "ok", "failed"
"""Results of a test; any other text is the reason why it was skipped."""


def outcome(output: str, status: int) -> dict[str, str]:
    """Test name -> OK, FAIL or the reason why it was skipped, read from what ansible-test printed.

    A run that ended with an error but names no failed test counts as one failure called "sanity".
    """
    results: dict[str, str] = {}
    listed = False
    for line in output.splitlines():
        if match := RUNNING.search(line):
            results[match["name"]] = OK
        elif results and (match := MISSING.search(line)):
            # ansible-test calls that a success.
            results[next(reversed(results))] = f"{match['program']} is not installed"
        elif "sanity test(s) listed below" in line:
            listed = True
        elif listed and (match := FAILED.match(line.strip())) and match["name"] in results:
            results[match["name"]] = FAIL
    if not results:
        return {"sanity": FAIL}
    if status != 0 and FAIL not in results.values():
        # A crash leaves no list: the last test that ran is the one.
        results[next(reversed(results))] = FAIL
    return results


def run(root: Path) -> dict[str, str]:
    """Stage, run, print what ansible-test says, and return what :func:`outcome` makes of it."""
    home = cache_home()
    prepare(home)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory(prefix="diting-sanity-") as scratch:
        staged = build_collection.stage(root, Path(scratch))
        process = subprocess.Popen(
            ["ansible-test", "sanity", "--python", version, "--requirements", "--color", "no"],
            cwd=staged,
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        for line in process.stdout:
            lines.append(line)
            if not line.startswith(
                ("Collecting", "  ", "Installing", "Successfully", "Processing", "Looking", "Using")
            ):
                print(line, end="", flush=True)
        return outcome("".join(lines), process.wait())
