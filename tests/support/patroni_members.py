# SPDX-License-Identifier: GPL-3.0-or-later
"""The REST interfaces of a Patroni cluster that is not there, each on a loopback address of its own."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.servers import free_port, self_signed

ADDRESSES = {"pg1": "127.0.0.2", "pg2": "127.0.0.3", "pg3": "127.0.0.4"}


class PatroniMembers:
    """Three members that stream. What was asked of them is in ``orders``, in the order it came."""

    def __init__(self, root: Path, *, leader: str = "pg1", pending: tuple[str, ...] = ()) -> None:
        self.leader, self.timeline = leader, 1
        self.pending = set(pending)
        self.refuses: set[str] = set()
        self.orders: list[str] = []
        self.presents: Callable[[], bool] = lambda: True
        """Whether a member presents the good certificate by now; one of nobody's authority before."""
        self.port = free_port()
        self.key, self.certificate = root / "rest.key", root / "rest.crt"
        names = ",".join(f"IP:{address}" for address in ADDRESSES.values())
        self_signed(self.key, self.certificate, "patroni", names)
        self_signed(root / "other.key", root / "other.crt", "patroni", names)
        self.contexts = {}
        for good, pair in (
            (True, (self.certificate, self.key)),
            (False, (root / "other.crt", root / "other.key")),
        ):
            self.contexts[good] = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.contexts[good].load_cert_chain(*pair)
        self.servers = [self._serve(name, address) for name, address in ADDRESSES.items()]

    def variables(self) -> dict[str, Any]:
        """What the role patroni has to be told to find them."""
        return {
            "patroni_hosts": list(ADDRESSES),
            "patroni_member_addresses": ADDRESSES,
            "patroni_rest_port": self.port,
            "patroni_rest_password": "long-enough-for-a-test",
            "patroni_tls_ca": str(self.certificate),
            "patroni_tls_cert": str(self.certificate),
            "patroni_tls_key": str(self.key),
        }

    def close(self) -> None:
        """Stop answering."""
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def _serve(self, name: str, address: str) -> http.server.HTTPServer:
        members = self

        class Answers(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_args: object) -> None: ...

            def do_GET(self) -> None:
                self.answer(200, members.view() if self.path == "/cluster" else members.status(name))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                order = self.path.strip("/")
                members.orders.append(f"{order} {name}")
                if order in members.refuses:
                    self.answer(503, {})
                    return
                if order == "restart":
                    members.pending.discard(name)
                else:
                    others = [other for other in ADDRESSES if other != members.leader]
                    members.leader = body.get("candidate") or others[0]
                    members.timeline += 1
                self.answer(200, {})

            def answer(self, status: int, body: dict[str, Any]) -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        class Server(http.server.ThreadingHTTPServer):
            def get_request(self) -> tuple[ssl.SSLSocket, Any]:
                plain, peer = super().get_request()
                context = members.contexts[members.presents()]
                # The handshake belongs to the thread of the request: one that fails is no business of the others.
                return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), peer

            def handle_error(self, *_args: object) -> None: ...

        server = Server((address, self.port), Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def status(self, name: str) -> dict[str, Any]:
        """``GET /patroni`` of one member."""
        return {
            "state": "running",
            "role": "primary" if name == self.leader else "replica",
            "timeline": self.timeline,
            "database_system_identifier": "1",
            "replication_state": "streaming",
            "pending_restart": name in self.pending,
        }

    def view(self) -> dict[str, Any]:
        """``GET /cluster``, the same from all."""
        entries = []
        for name in ADDRESSES:
            role, state = ("leader", "running") if name == self.leader else ("quorum_standby", "streaming")
            entries.append({"name": name, "role": role, "state": state, "lag": 0})
        return {"members": entries}
