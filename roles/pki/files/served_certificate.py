# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask this host's own services for the certificate they present, and compare it with the one on disk.

Usage: served_certificate.py ADDRESS NAME CA CERT KEY PORT[:postgres]...

A service that was not reloaded goes on presenting what it read at its start; only a handshake tells.
One line per port that differs or does not answer; exit status 0 when there is none.
"""

from __future__ import annotations

import socket
import ssl
import sys

TIMEOUT_SECONDS = 5.0
POSTGRES_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


def served(address: str, name: str, port: int, starttls: str, context: ssl.SSLContext) -> bytes:
    """The certificate presented at ``port``, DER. Raises OSError (ssl.SSLError included)."""
    with socket.create_connection((address, port), timeout=TIMEOUT_SECONDS) as plain:
        if starttls == "postgres":
            plain.sendall(POSTGRES_SSL_REQUEST)
            answer = plain.recv(1)
            if answer != b"S":
                raise OSError(f"answered {answer!r} to a request for TLS")
        with context.wrap_socket(plain, server_hostname=name) as tls:
            return tls.getpeercert(binary_form=True) or b""


def main(argv: list[str]) -> int:
    """See the module's text."""
    address, name, authority, certificate, key, *ports = argv
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    with open(certificate, encoding="ascii") as stream:  # noqa: PTH123 - one file, read once
        wanted = ssl.PEM_cert_to_DER_cert(stream.read())
    status = 0
    for item in ports:
        port, _colon, starttls = item.partition(":")
        try:
            if served(address, name, int(port), starttls, context) != wanted:
                print(f"port {port}: presents another certificate than {certificate}")
                status = 1
        except OSError as error:
            print(f"port {port}: {error}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
