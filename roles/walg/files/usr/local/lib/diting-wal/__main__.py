# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry of the archive: the name it was called by says which command this is, or else the first word does."""

from __future__ import annotations

import os
import sys


def run() -> int:
    """Run the command whose name this program was called by."""
    if os.path.basename(sys.argv[0]).endswith(".pyz") and len(sys.argv) > 1:
        del sys.argv[0]
    name = os.path.basename(sys.argv[0])
    # Imports are late: each command loads only what it needs, because it runs once per segment.
    if name == "diting-wal-archive":
        from diting_wal import archive

        return archive.main()
    if name == "diting-wal-restore":
        from diting_wal import restore

        return restore.main()
    from diting_wal import backup

    return backup.main()


if __name__ == "__main__":
    sys.exit(run())
