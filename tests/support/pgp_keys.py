# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys that archives are encrypted by."""

from __future__ import annotations

import subprocess
from pathlib import Path


def pgp_key(folder: Path) -> str:
    """A key as people make one for WAL-G."""
    folder.mkdir(mode=0o700)
    wanted = "%no-protection\nKey-Type: RSA\nKey-Length: 2048\nSubkey-Type: RSA\nSubkey-Length: 2048\n"
    wanted += "Name-Email: backup@example.org\nExpire-Date: 0\n%commit\n"
    gpg = ("gpg", "--homedir", str(folder), "--batch", "--quiet")
    try:
        subprocess.run(
            (*gpg, "--generate-key"), input=wanted.encode(), check=True, capture_output=True, timeout=60
        )
        done = subprocess.run(
            (*gpg, "--armor", "--export-secret-keys"), check=True, capture_output=True, timeout=60
        )
    finally:
        stop = ("gpgconf", "--homedir", str(folder), "--kill", "gpg-agent")
        subprocess.run(stop, check=True, capture_output=True, timeout=60)
    return done.stdout.decode()
