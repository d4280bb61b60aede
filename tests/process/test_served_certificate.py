# SPDX-License-Identifier: GPL-3.0-or-later
"""The look at what a service really presents, against real TLS servers on loopback."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).parents[2] / "roles" / "pki" / "files" / "served_certificate.py"


class Authority:
    """A throw-away authority that signs pairs for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away")])
        certificate = self._builder(self.name, self.key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.path = folder / "ca.crt"
        self.path.write_bytes(
            certificate.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )

    def _builder(self, subject, key):
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )

    def pair(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName(
            [x509.DNSName("db"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        certificate = self._builder(subject, key).add_extension(names, critical=False)
        certificate_path, key_path = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate_path.write_bytes(
            certificate.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate_path, key_path


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def serve():
    """Starts a TLS server that presents a pair; with ``postgres`` it first answers the request for TLS."""
    listeners = []

    def start(pair, *, postgres=None):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*pair)
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def loop():
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                client.settimeout(5)
                try:
                    if postgres is not None:
                        assert client.recv(8).hex() == "0000000804d2162f"
                        client.sendall(postgres)
                    with context.wrap_socket(client, server_side=True) as tls:
                        tls.recv(1)
                except OSError:
                    client.close()

        threading.Thread(target=loop, daemon=True).start()
        return listener.getsockname()[1]

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def look(authority, pair, *ports):
    command = [sys.executable, str(SCRIPT), "127.0.0.1", "db", authority.path, *pair, *map(str, ports)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_the_certificate_on_disk_is_presented(authority, serve):
    pair = authority.pair("host")
    result = look(authority, pair, serve(pair), f"{serve(pair, postgres=b'S')}:postgres")
    assert (result.returncode, result.stdout) == (0, "")


def test_a_service_that_was_not_reloaded_is_named(authority, serve):
    old, new = authority.pair("old"), authority.pair("new")
    fresh, stale = serve(new), serve(old)
    result = look(authority, new, fresh, stale)
    assert result.returncode == 1
    assert result.stdout.splitlines() == [f"port {stale}: presents another certificate than {new[0]}"]


def test_a_service_of_another_authority_is_named(authority, serve, tmp_path):
    (tmp_path / "other").mkdir()
    port = serve(Authority(tmp_path / "other").pair("host"))
    result = look(authority, authority.pair("host"), port)
    assert result.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in result.stdout


def test_a_database_without_tls_is_named(authority, serve):
    pair = authority.pair("host")
    port = serve(pair, postgres=b"N")
    result = look(authority, pair, f"{port}:postgres")
    assert result.returncode == 1
    assert f"port {port}: answered b'N' to a request for TLS" in result.stdout


def test_a_silent_port_is_named(authority):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    result = look(authority, authority.pair("host"), port)
    assert result.returncode == 1
    assert result.stdout.startswith(f"port {port}: ")
