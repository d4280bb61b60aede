# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration of the prober, the watcher and the reader."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .fields import load

if TYPE_CHECKING:
    from .fields import Fields

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
PATH_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
SESSION_ATTRS = ("read-write", "any")


@dataclass(frozen=True)
class Endpoint:
    """One server of a connection string. ``hostaddr`` None means: resolve at every attempt."""

    host: str
    hostaddr: str | None
    port: int

    def __str__(self) -> str:
        """Name for people and records."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Connection:
    """How a client reaches the database: endpoints in the order they are tried, and identity.

    There is no password here: libpq reads it from ``passfile`` (mode 0600).
    """

    endpoints: tuple[Endpoint, ...]
    dbname: str
    user: str
    parameters: tuple[tuple[str, str], ...]
    read_write: bool

    def conninfo(self, endpoint: Endpoint, hostaddr: str, extra: dict[str, str]) -> bytes:
        """The libpq connection string for one endpoint only; the order of hosts stays ours."""
        values = {
            "host": endpoint.host,
            "hostaddr": hostaddr,
            "port": str(endpoint.port),
            "dbname": self.dbname,
            "user": self.user,
            **dict(self.parameters),
            **extra,
        }
        return " ".join(f"{key}='{_quote(value)}'" for key, value in values.items()).encode()


@dataclass(frozen=True)
class ProberConfig:
    """One prober: one client path, one ledger file. Durations in seconds."""

    run_id: str
    path: str
    output_dir: Path
    failure_zone: str
    connection: Connection
    interval_seconds: float
    op_deadline_seconds: float
    connect_timeout_seconds: float
    connect_spacing_seconds: float
    min_send_budget_seconds: float
    lookahead_seconds: float
    max_duration_seconds: float
    ready_timeout_seconds: float
    pool_min: int
    record_sends: bool = False
    """Write down each send when it happens: for a prober that may be killed with what it measures."""

    @property
    def pool_max(self) -> int:
        """Enough connections that a black hole can hold each one for a full deadline."""
        return math.ceil(self.op_deadline_seconds / self.interval_seconds)

    @property
    def connect_parallel(self) -> int:
        """Attempts in flight: every endpoint may cost its whole timeout and starts stay on pace."""
        worst = self.connect_timeout_seconds * len(self.connection.endpoints)
        return max(2, math.ceil(worst / self.connect_spacing_seconds))

    @property
    def ledger_file(self) -> Path:
        """The ledger this prober writes."""
        return self.output_dir / f"ledger-{self.path}.jsonl"


@dataclass(frozen=True)
class Target:
    """One thing the watcher looks at; ``kind`` is host, tcp, https, postgres or space. Durations in seconds."""

    name: str
    kind: str
    interval_seconds: float
    deadline_seconds: float
    host: str = ""
    port: int = 0
    url: str = ""
    expect_status: int = 200
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    connection: Connection | None = None


@dataclass(frozen=True)
class WatchConfig:
    """A watcher: its targets, its file, its own deadline."""

    run_id: str
    output: Path
    max_duration_seconds: float
    targets: tuple[Target, ...]


def load_prober(path: Path) -> ProberConfig:
    """Read a prober's configuration.

    Raises:
        ConfigError: with every problem and its path.
    """
    return load(path, _prober)


def load_watch(path: Path) -> WatchConfig:
    """Read a watcher's configuration.

    Raises:
        ConfigError: with every problem and its path.
    """
    return load(path, _watch)


def _prober(top: Fields) -> ProberConfig:
    connection = parse_connection(top.child("connection"))
    deadline = top.number("op_deadline_seconds", 1.0, minimum=0.05, maximum=60)
    config = ProberConfig(
        run_id=_matching(top, "run_id", RUN_ID),
        path=_matching(top, "path", PATH_NAME),
        output_dir=_absolute(top, "output_dir"),
        failure_zone=top.text("failure_zone"),
        connection=connection,
        interval_seconds=top.number("interval_seconds", 0.01, minimum=0.0005, maximum=1),
        op_deadline_seconds=deadline,
        connect_timeout_seconds=top.number("connect_timeout_seconds", 1.0, minimum=0.05, maximum=60),
        connect_spacing_seconds=top.number("connect_spacing_seconds", 0.1, minimum=0.005, maximum=5),
        min_send_budget_seconds=top.number("min_send_budget_seconds", deadline * 0.2, minimum=0, maximum=60),
        lookahead_seconds=top.number("lookahead_seconds", 0.5, minimum=0.01, maximum=5),
        max_duration_seconds=top.number("max_duration_seconds", minimum=0.1, maximum=86400),
        ready_timeout_seconds=top.number("ready_timeout_seconds", 15.0, minimum=0.1, maximum=600),
        pool_min=top.integer("pool_min", 4, minimum=1, maximum=1000),
        record_sends=top.flag("record_sends"),
    )
    if config.interval_seconds > config.op_deadline_seconds:
        top.problem(
            "/interval_seconds",
            f"found {config.interval_seconds}, wanted at most op_deadline_seconds"
            f" ({config.op_deadline_seconds})",
        )
    if config.min_send_budget_seconds >= config.op_deadline_seconds:
        top.problem(
            "/min_send_budget_seconds",
            f"found {config.min_send_budget_seconds}, wanted less than op_deadline_seconds"
            f" ({config.op_deadline_seconds})",
        )
    return config


def _watch(top: Fields) -> WatchConfig:
    targets = []
    for index, item in enumerate(top.items("targets")):
        targets.append(_target(type(top)(item, f"/targets/{index}", top.problems)))
    names = [target.name for target in targets]
    for name in sorted({name for name in names if names.count(name) > 1}):
        top.problem("/targets", f"the name {name!r} is used twice")
    return WatchConfig(
        run_id=_matching(top, "run_id", RUN_ID),
        output=_absolute(top, "output"),
        max_duration_seconds=top.number("max_duration_seconds", minimum=0.1, maximum=86400),
        targets=tuple(targets),
    )


DEFAULT_INTERVALS = {"host": 0.05, "tcp": 0.1, "https": 0.5, "postgres": 0.1, "space": 0.5}
"""Looking must not be a load of its own: PostgreSQL forks for each connection (2 ms of a core), a TLS
handshake costs more, a refusal by the kernel costs nothing."""


def _target(fields: Fields) -> Target:
    kind = fields.text("kind", choices=tuple(DEFAULT_INTERVALS))
    name = fields.text("name")
    interval = fields.number("interval_seconds", DEFAULT_INTERVALS.get(kind, 1), minimum=0.005, maximum=10)
    deadline = fields.number("deadline_seconds", 0.2, minimum=0.01, maximum=10)
    target = Target(name, kind, interval, deadline)
    if kind in ("host", "tcp"):
        target = Target(
            name,
            kind,
            interval,
            deadline,
            host=fields.text("host"),
            port=fields.integer("port", minimum=1, maximum=65535),
        )
    elif kind == "https":
        url = fields.text("url")
        if url and not url.startswith("https://"):
            fields.problem(f"{fields.path}/url", f"found {url!r}, wanted https://...")
        target = Target(
            name,
            kind,
            interval,
            deadline,
            url=url,
            expect_status=fields.integer("expect_status", 200, minimum=100, maximum=599),
            ca_file=fields.optional_text("ca_file"),
            cert_file=fields.optional_text("cert_file"),
            key_file=fields.optional_text("key_file"),
        )
    elif kind in ("postgres", "space"):
        connection = parse_connection(fields.child("connection"))
        target = Target(name, kind, interval, deadline, connection=connection)
    fields.finish()
    return target


def parse_connection(fields: Fields) -> Connection:
    """Read the ``connection`` object; hosts, hostaddrs and ports go together as in libpq."""
    hosts = fields.texts("hosts")
    addresses = fields.texts("hostaddrs", ())
    ports = [_port(fields, i, item) for i, item in enumerate(fields.items("ports", (5432,)))]
    if addresses and len(addresses) != len(hosts):
        fields.problem(
            f"{fields.path}/hostaddrs",
            f"found {len(addresses)} entries, wanted none or one per host ({len(hosts)})",
        )
        addresses = []
    if len(ports) not in (1, len(hosts)):
        fields.problem(
            f"{fields.path}/ports",
            f"found {len(ports)} entries, wanted one for all or one per host ({len(hosts)})",
        )
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    parameters = {"sslmode": fields.text("sslmode", "verify-full", choices=SSL_MODES)}
    for key in ("passfile", "sslrootcert", "sslcert", "sslkey"):
        value = fields.optional_text(key)
        if value is not None:
            parameters[key] = value
    if parameters["sslmode"].startswith("verify") and "sslrootcert" not in parameters:
        fields.problem(f"{fields.path}/sslrootcert", f"missing, sslmode is {parameters['sslmode']}")
    connection = Connection(
        endpoints=tuple(
            Endpoint(host, addresses[i] if addresses else None, port)
            for i, (host, port) in enumerate(zip(hosts, ports, strict=False))
        ),
        dbname=fields.text("dbname"),
        user=fields.text("user"),
        parameters=tuple(parameters.items()),
        read_write=fields.text("target_session_attrs", "read-write", choices=SESSION_ATTRS) == "read-write",
    )
    fields.finish()
    return connection


def _port(fields: Fields, index: int, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    fields.problem(f"{fields.path}/ports/{index}", f"found {value!r}, wanted 1 to 65535")
    return 1


def _matching(fields: Fields, key: str, pattern: re.Pattern[str]) -> str:
    value = fields.text(key)
    if value and not pattern.fullmatch(value):
        fields.problem(f"{fields.path}/{key}", f"found {value!r}, wanted {pattern.pattern}")
    return value


def _absolute(fields: Fields, key: str) -> Path:
    value = fields.text(key)
    if value and not value.startswith("/"):
        fields.problem(f"{fields.path}/{key}", f"found {value!r}, wanted an absolute path")
    return Path(value)


def _quote(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
