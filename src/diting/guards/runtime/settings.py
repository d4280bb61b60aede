# SPDX-License-Identifier: GPL-3.0-or-later
"""Models of a guard's configuration file: what all guards share, around what one guard wants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Generic, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

STATE_ROOT = Path("/var/lib/diting/guards")
RUN_ROOT = Path("/run/diting-guards")
CONFIG_ROOT = Path("/etc/diting/guards")

NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,31}$"


class Strict(BaseModel):
    """Base of every model here: no unknown key, no silent conversion, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ConfigError(Exception):
    """A file of settings cannot be used; the message lists every problem with its place, a line each."""


_Model = TypeVar("_Model", bound=Strict)


def read_json(model: type[_Model], path: Path) -> _Model:
    """Settings from a file of JSON. Raises ConfigError; no value is repeated in it, since many are secrets."""
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: found bytes that are no UTF-8, wanted JSON") from error
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from error


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("an absolute path")
    return path


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address that begins with http:// or https:// and names a host")
    if parts.username or parts.password:
        raise ValueError(
            "an address without a user or password in it: a secret in an address ends up in logs"
        )
    if parts.query or parts.fragment:
        raise ValueError("an address without ? and #")
    return text.rstrip("/")


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Port = Annotated[int, Field(ge=0, le=65535)]


class MetricsTls(Strict):
    """Certificate of the metrics' address; with ``client_ca`` only its clients may read."""

    certificate: AbsolutePath = Field(description="PEM file with the certificate")
    key: AbsolutePath = Field(description="PEM file with its key")
    client_ca: AbsolutePath | None = Field(
        None, description="PEM file; clients must show a certificate of this CA"
    )


class Metrics(Strict):
    """Where Prometheus reads. Port 0 takes a free one, which the log and the status name."""

    address: str = Field("127.0.0.1", min_length=1, description="Address to listen on")
    port: Port = Field(description="Port to listen on")
    tls: MetricsTls | None = Field(None, description="Serve over TLS; without it in the clear")


class Alertmanager(Strict):
    """The receivers of alerts. An alert counts as delivered once one of them took it."""

    urls: list[HttpUrl] = Field(min_length=1, description="Base addresses; /api/v2/alerts is appended")
    ca: AbsolutePath | None = Field(
        None, description="PEM file of the CA of the receivers; the system's without it"
    )
    certificate: AbsolutePath | None = Field(None, description="PEM file of our client certificate")
    key: AbsolutePath | None = Field(None, description="PEM file of its key")
    timeout_seconds: float = Field(5.0, gt=0, le=60, description="A receiver that takes longer has failed")
    resend_seconds: float = Field(
        60.0, ge=1, le=3600, description="A standing alert is sent again this often"
    )
    retry_first_seconds: float = Field(
        1.0, gt=0, le=60, description="Wait after the first failure; it doubles"
    )
    retry_max_seconds: float = Field(60.0, gt=0, le=3600, description="Longest wait between two attempts")
    labels: dict[str, str] = Field(
        default_factory=dict, description="Labels of every alert, such as the cluster"
    )


class Runtime(Strict):
    """What the runtime wants to know, whatever the guard."""

    interval_seconds: float | None = Field(
        None, ge=0.01, le=3600, description="Time from cycle to cycle; the guard's own default without it"
    )
    observe_timeout_seconds: float = Field(10.0, gt=0, le=600, description="A longer look is a failed cycle")
    act_timeout_seconds: float = Field(10.0, gt=0, le=600, description="A longer action has failed")
    state_dir: AbsolutePath | None = Field(
        None, description=f"State, journal, spool; {STATE_ROOT}/NAME without it"
    )
    run_dir: AbsolutePath | None = Field(None, description=f"Status for people; {RUN_ROOT}/NAME without it")
    recent_observations: int = Field(
        50,
        ge=0,
        le=10000,
        description="Quiet cycles kept in memory, written when the guard leaves its steady state",
    )
    journal_max_bytes: int = Field(
        16 * 2**20, ge=65536, description="The journal moves to a new file beyond this"
    )
    journal_keep_files: int = Field(8, ge=1, le=1000, description="Older journal files that are kept")
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="Least level that is logged"
    )
    metrics: Metrics | None = Field(None, description="Where to serve metrics; nowhere without it")
    alertmanager: Alertmanager | None = Field(
        None, description="Where to send alerts; they wait on disk without it"
    )


T = TypeVar("T", bound=BaseModel)


class Document(Strict, Generic[T]):
    """A whole configuration file."""

    guard: str = Field(description="Kind of guard")
    name: str = Field("", pattern=NAME_PATTERN, description="Name of this one, the kind by default")
    runtime: Runtime = Field(
        default_factory=lambda: Runtime.model_validate({}), description="What all guards share"
    )
    settings: T = Field(description="What this guard wants to know")

    @property
    def title(self) -> str:
        """Name of this guard on this host."""
        return self.name or self.guard

    @property
    def state_dir(self) -> Path:
        """Directory of what must survive."""
        return self.runtime.state_dir or STATE_ROOT / self.title

    @property
    def run_dir(self) -> Path:
        """Directory of what need not."""
        return self.runtime.run_dir or RUN_ROOT / self.title
