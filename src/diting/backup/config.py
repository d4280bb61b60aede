# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the scheduled backup of one member."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..guards.runtime.settings import AbsolutePath, HttpUrl, Strict, read_json

if TYPE_CHECKING:
    from pathlib import Path


class Tls(Strict):
    """The host's own identity, for Patroni and etcd."""

    ca: AbsolutePath = Field(description="PEM file of the estate's CA")
    certificate: AbsolutePath = Field(description="PEM file of the host's certificate")
    key: AbsolutePath = Field(description="PEM file of its key")


class Schedule(Strict):
    """One member's settings. Times in seconds."""

    cluster: str = Field(min_length=1, description="Name of the cluster, in metrics")
    member: str = Field(min_length=1, description="Name of this member in Patroni")
    patroni_url: HttpUrl = Field(description="Patroni's REST interface of this host")
    etcd_endpoints: list[HttpUrl] = Field(min_length=1, description="etcd's client addresses")
    lock_key: str = Field(pattern=r"^/.+[^/]$", description="The key that a backup is taken under")
    lock_ttl_seconds: int = Field(60, ge=10, le=600, description="How long a lock outlives its holder")
    tls: Tls
    command: list[str] = Field(min_length=1, description="What takes the backup, with its options")
    deadline_seconds: float = Field(gt=0, description="Longest that one backup may take")
    max_lag_bytes: int = Field(ge=0, description="A standby that lags more is left out")
    state_file: AbsolutePath = Field(description="What the last backups of this member came to")
    metrics_file: AbsolutePath | None = Field(
        None, description="For the textfile collector of the node exporter"
    )


def load(path: Path) -> Schedule:
    """Read the settings. Raises ConfigError."""
    return read_json(Schedule, path)
