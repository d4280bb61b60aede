# SPDX-License-Identifier: GPL-3.0-or-later
"""The functions that a WAL-G needs which only knows those that PostgreSQL 15 dropped, installed as the role does."""

from __future__ import annotations

from pathlib import Path

from support.servers import PG_BIN, as_postgres
from support.tree import ROOT
from support.wal_cluster import Cluster

TEMPLATE = ROOT / "roles/walg/templates/etc/wal-g/compat.sql.j2"


def install_compat(cluster: Cluster, base: Path, *, dry: bool = False) -> str:
    """Run the role's SQL the way the role does."""
    script = base / "compat.sql"
    script.write_text(TEMPLATE.read_text())
    done = as_postgres(
        *(PG_BIN / "psql", "-Xq", "-h", cluster.socket_dir, "-p", cluster.port, "-U", "postgres"),
        *("-d", "postgres", "-v", "stamp=diting test", "-v", f"dry={str(dry).lower()}"),
        *("-v", "backup_user=postgres", "-f", script),
        cwd=base,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
