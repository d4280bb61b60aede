# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack the WAL commands into one executable archive: ``pack.py CACHE_DIR`` prints its path.

One file instead of ten keeps the role quick. Names are sorted and dates fixed, so the same sources
and the same Python give the same bytes and a second run of the role changes nothing.

Each module is there twice: compiled for this Python, and as source for hosts with another one.
Compiling at every start would be a fifth of the time that a promotion waits for these commands.
"""

from __future__ import annotations

import hashlib
import io
import os
import py_compile
import sys
import tempfile
import zipfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "usr/local/lib/diting-wal"
# Isolated, without site-packages and without writing bytecode: it runs as postgres in a directory
# that is not ours.
SHEBANG = b"#!/usr/bin/python3 -IBS\n"
LICENCE = b"# SPDX-License-Identifier: GPL-3.0-or-later\n"


def pack() -> bytes:
    """Bytes of the archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(SOURCE.rglob("*.py")):
            name = path.relative_to(SOURCE).as_posix()
            _add(archive, name, path.read_bytes())
            _add(archive, f"{name}c", _compiled(path, name))
    return SHEBANG + LICENCE + buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)


def _compiled(path: Path, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "module.pyc"
        # Unchecked: the source lies beside it in the same file and cannot change alone.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(path), str(target), dfile=name, doraise=True, invalidation_mode=mode)
        return target.read_bytes()


def main() -> None:
    """Write the archive into the cache unless it is there, and print its path."""
    content = pack()
    target = Path(sys.argv[1]) / f"diting-wal-{hashlib.sha256(content).hexdigest()[:16]}.pyz"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent)
        with os.fdopen(handle, "wb") as part:
            part.write(content)
        Path(name).chmod(0o755)
        Path(name).rename(target)
    print(target)


if __name__ == "__main__":
    main()
