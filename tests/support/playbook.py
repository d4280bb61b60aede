# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a playbook of this tree as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.tree import ROOT


def run_playbook(book: str | Path, *options: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """``ansible-playbook`` beside this Python, with the tree's settings and without colours; never raises on failure."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), str(book), *options],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
