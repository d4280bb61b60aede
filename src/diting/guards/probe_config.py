# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that the guards ``witness`` and ``failover`` share: how a primary is asked, and by what identity."""

from __future__ import annotations

import functools
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from .probe_ways import RestWay, SqlWay, TcpWay, Way, conninfo
from .runtime.http import client_context
from .runtime.settings import AbsolutePath, Port, Strict

if TYPE_CHECKING:
    import ssl

    from .probe_book import Target


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("an IP address") from None


IpAddress = Annotated[str, AfterValidator(_address)]


class Identity(Strict):
    """Certificate of this host, shown to everybody who is asked."""

    ca: AbsolutePath = Field(Path("/etc/diting/pki/ca.crt"), description="PEM file of the authority")
    certificate: AbsolutePath = Field(
        Path("/etc/diting/pki/host.crt"), description="PEM file of our certificate"
    )
    key: AbsolutePath = Field(Path("/etc/diting/pki/host.key"), description="PEM file of its key")

    def context(self) -> ssl.SSLContext:
        """TLS as a client with this identity, as the files are now. Raises OSError for files that cannot be read."""
        files = (self.ca, self.certificate, self.key)
        stamps = tuple((f.st_mtime_ns, f.st_ino, f.st_size) for f in (path.stat() for path in files))
        return _context(*(str(path) for path in files), stamps)


@functools.lru_cache(maxsize=4)
def _context(ca: str, certificate: str, key: str, _stamps: object) -> ssl.SSLContext:
    # The stamps are there for the cache alone: files that were written since are another call. Reading and checking
    # them takes milliseconds, of which there are none to spare once a primary is silent.
    return client_context(ca, certificate, key)


class Account(Strict):
    """The PostgreSQL account of the probes; it needs no right on any table."""

    user: str = Field("diting_guard", min_length=1, description="Name of the account")
    dbname: str = Field("postgres", min_length=1, description="Database to connect to")
    passfile: AbsolutePath | None = Field(None, description="libpq password file, mode 0600")
    sslmode: str = Field(
        "verify-full",
        pattern="^(disable|require|verify-ca|verify-full)$",
        description="As libpq's; weaker than verify-full only for tests",
    )
    port: Port = Field(5432, description="Port of PostgreSQL")

    def values(self, identity: Identity) -> dict[str, str | int | None]:
        """Connection parameters, without the place to connect to."""
        return {
            "user": self.user,
            "dbname": self.dbname,
            "passfile": None if self.passfile is None else str(self.passfile),
            "port": self.port,
            "sslmode": self.sslmode,
            "sslrootcert": str(identity.ca),
            "sslcert": str(identity.certificate),
            "sslkey": str(identity.key),
            "application_name": "diting-guard",
            # A question may wait long for a slow server. A connection to a host that has gone, or was started anew since,
            # must not: then the other end's kernel acknowledges nothing, and this one's says so.
            "tcp_user_timeout": 3000,
            "keepalives_idle": 2,
            "keepalives_interval": 1,
            "keepalives_count": 3,
            # Whatever the cluster's defaults are: a commit of its own kind, and temporary files where the data is.
            "options": "-c synchronous_commit=local -c work_mem=64kB -c default_transaction_read_only=off"
            " -c temp_tablespaces=",
        }


class Rest(Strict):
    """Patroni's REST interface."""

    port: Port = Field(8008, description="Port of Patroni's REST interface")
    path: str = Field("/liveness", pattern="^/", description="What is asked for; any answer is one")


class Pace(Strict):
    """How often and how long is asked, in seconds."""

    tcp_interval_seconds: float = Field(
        0.1, ge=0.02, le=5, description="From TCP probe to TCP probe while somebody hesitates"
    )
    tcp_calm_interval_seconds: float = Field(
        0.2, ge=0.02, le=5, description="From TCP probe to TCP probe while all is well"
    )
    tcp_timeout_seconds: float = Field(
        0.25, ge=0.02, le=5, description="A TCP probe without an answer has failed"
    )
    uneasy_seconds: float = Field(
        0.03, ge=0.005, le=5, description="TCP without an answer for so long has REST and SQL asked at once"
    )
    slow_interval_seconds: float = Field(
        1.0,
        ge=0.05,
        le=1,
        description="From SQL probe to SQL probe while all is well; REST's pace too with a new primary, and while it fails",
    )
    rest_calm_interval_seconds: float = Field(
        2.0, ge=0.05, le=3, description="From REST probe to REST probe while all is well"
    )
    slow_timeout_seconds: float = Field(0.8, ge=0.05, le=0.9, description="A REST or SQL probe has failed")
    quick_timeout_seconds: float = Field(
        0.25, ge=0.02, le=0.9, description="The same while TCP has no answer"
    )


def ways_to(target: Target, identity: Identity, account: Account, rest: Rest) -> dict[str, Way]:
    """The three ways of asking one primary."""
    place = {"host": target.name, "hostaddr": target.address}
    values = {**place, **account.values(identity)}
    return {
        "tcp": TcpWay(target, account.port),
        "rest": RestWay(target, rest.port, rest.path, identity.context),
        "sql": SqlWay(conninfo(values)),
    }
