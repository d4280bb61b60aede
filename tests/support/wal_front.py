# SPDX-License-Identifier: GPL-3.0-or-later
"""restore_command as a host has it: the shell in front, the program behind it, and a store that counts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.tree import ROOT
from support.wal_cluster import BIN

FRONT = "roles/walg/files/usr/local/bin/diting-wal-restore"
MEMORY = "/run/diting-wal/restore-memory"
"""Where the shell in front looks; a test has a place of its own."""


class Front:
    """The shell in front with its own place for the memory, and a program behind it that counts its starts."""

    def __init__(self, root: Path, state: Path, config: Path) -> None:
        self.path = root / "bin/diting-wal-restore"
        self.log = root / "lib/starts"
        for folder in (self.path.parent, self.log.parent):
            folder.mkdir(parents=True)
        text = (ROOT / FRONT).read_text()
        assert text.count(MEMORY) == 1
        self.path.write_text(text.replace(MEMORY, str(state / "restore-memory")))
        self.program = root / "lib/diting-wal.pyz"
        self.program.write_text(
            f'#!/bin/sh\necho "$2" >>{self.log}\nname=$1; shift\n'
            f'exec {BIN}/lib/diting-wal.pyz "$name" --config {config} "$@"\n'
        )
        self.log.touch()
        for file, mode in ((self.path, 0o755), (self.program, 0o755), (self.log, 0o666)):
            file.chmod(mode)

    def starts(self) -> list[str]:
        """Names for which the program was started."""
        return self.log.read_text().split()


class CountingStore:
    """Lists what it was told to hold; remembers who asked for which prefix, over how many connections."""

    def __init__(self) -> None:
        self.objects: set[str] = set()
        self.asked: list[str] = []
        self.connections = 0
        self.slow: dict[str, float] = {}
        """Seconds by which the answer for a prefix is late."""
        self.meanwhile: dict[str, Callable[[], object]] = {}
        """What happens while a prefix is asked for."""
        self.broken: set[str] = set()
        """Prefixes that are answered with an error."""
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet, or the second waits for an acknowledgement

            def setup(self) -> None:
                store.connections += 1
                super().setup()

            def do_GET(self) -> None:
                prefix = parse_qs(urlsplit(self.path).query)["prefix"][0].removeprefix("c1/wal_005/")
                store.asked.append(prefix)
                store.meanwhile.get(prefix, lambda: None)()
                time.sleep(store.slow.get(prefix, 0))
                keys = sorted(name for name in store.objects if name.startswith(prefix))
                body = "".join(f"<Contents><Key>c1/wal_005/{key}</Key></Contents>" for key in keys)
                answer = f"<ListBucketResult>{body}</ListBucketResult>".encode()
                self.send_response(500 if prefix in store.broken else 200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_words: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_words: None  # a command that is stopped hangs up
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Place:
    """A data directory of a server that runs, the settings of a host, and the commands."""

    def __init__(self, root: Path, store: CountingStore, pid: int) -> None:
        self.root, self.store = root, store
        self.data, self.state = root / "data", root / "state"
        (self.data / "pg_wal").mkdir(parents=True)
        self.state.mkdir()
        (self.data / "postmaster.pid").write_text(f"{pid}\n")
        self.config = root / "wrapper.json"
        self.memory = self.state / "restore-memory"
        self.settings()
        self.front = Front(root, self.state, self.config)

    def settings(self, **changes: Any) -> None:
        walg = {
            "WALG_S3_PREFIX": "s3://wal-test/c1",
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.store.server.server_port}",
            "AWS_S3_FORCE_PATH_STYLE": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        values = {
            "walg": "/bin/false",
            "walg_config": str(self.root / "wal-g.json"),
            "archive_deadline_seconds": 60,
            "archive_stopping_seconds": 1,
            "archive_standby_patience_seconds": 5,
            "restore_target_seconds": 5,
            "restore_standby_seconds": 20,
            "restore_absent_seconds": 60,
            "store_probe_seconds": 10,
            "store_silent_seconds": 60,
            "state_dir": str(self.state),
            "planned_stop_file": str(self.state / "planned-stop"),
            **changes,
        }
        (self.root / "wal-g.json").write_text(json.dumps(walg))
        self.config.write_text(json.dumps(values))

    def signals(self, *names: str) -> None:
        for name in ("standby.signal", "recovery.signal"):
            (self.data / name).unlink(missing_ok=True)
        for name in names:
            (self.data / name).touch()

    def words(self) -> list[str]:
        return self.memory.read_text().splitlines()[1].split() if self.memory.exists() else []
