# SPDX-License-Identifier: GPL-3.0-or-later
"""Types of the files a drill hands over, as ``schema/*.json`` describe them.

The schemas are the law; these types give the same shapes to mypy and to the reader. Durations are
seconds, ``mono_ns`` is CLOCK_MONOTONIC in nanoseconds, ``ts`` is a UTC label and never subtracted.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

HealthName = Literal["HEALTHY", "DEGRADED", "UNHEALTHY", "UNKNOWN"]
VerdictName = Literal["PASS", "FAIL", "INVALID", "ABORTED"]


class Instant(TypedDict):
    """A moment on the prober's monotonic clock, with its UTC label."""

    mono_ns: int
    ts: str


class ReasonDict(TypedDict):
    """One finding that costs the drill its PASS."""

    verdict: VerdictName
    code: str
    message: str
    observed: NotRequired[Any]
    limit: NotRequired[Any]


class Injection(TypedDict):
    """The fault: when it was sent, who saw it take effect, and how it ends by itself."""

    target: str
    limit_seconds: float
    reverts_by: str
    sent: NotRequired[Instant | None]
    confirmed: NotRequired[Instant | None]
    confirmed_by: NotRequired[str | None]
    reverted_at: NotRequired[str | None]
    fin_rst_seen: NotRequired[int | None]


class HostClock(TypedDict):
    """What is known of one host's clock. Equal boot ids mean one and the same monotonic clock."""

    boot_id: NotRequired[str | None]
    offset_seconds_before: NotRequired[float | None]
    offset_seconds_after: NotRequired[float | None]
    error_bound_seconds: NotRequired[float | None]
    stepped: NotRequired[bool | None]


class Clocks(TypedDict):
    """The clocks of all hosts in scope, and whose of them measures."""

    prober_host: str
    hosts: dict[str, HostClock]
    budget_seconds: NotRequired[float]


class Target(TypedDict):
    """A promised limit. ``source`` says who promised it, and where."""

    limit: float
    unit: Literal["s", "count"]
    source: str


class Drill(TypedDict):
    """``drill.json``. Sections that do not apply are null or left out; the report says so."""

    schema_version: int
    drill_id: str
    level: str
    fault: str
    started_at: str
    outcome: Literal["completed", "aborted"]
    incident_id: NotRequired[str | None]
    kind: NotRequired[str | None]
    announced: NotRequired[bool | None]
    ended_at: NotRequired[str | None]
    phase: NotRequired[str | None]
    aborted: NotRequired[dict[str, Any] | None]
    reasons: NotRequired[list[ReasonDict]]
    tool: NotRequired[dict[str, Any] | None]
    preset: NotRequired[dict[str, Any] | None]
    authorisation: NotRequired[dict[str, Any] | None]
    scope: NotRequired[dict[str, Any] | None]
    hypothesis: NotRequired[dict[str, Any] | None]
    steady_state: NotRequired[dict[str, Any] | None]
    control: NotRequired[dict[str, Any] | None]
    injection: NotRequired[Injection | None]
    clocks: NotRequired[Clocks | None]
    targets: NotRequired[dict[str, Target]]
    figures: NotRequired[dict[str, float | None]]
    figure_resolutions: NotRequired[dict[str, float]]
    capability: NotRequired[dict[str, Any] | None]
    safety: NotRequired[dict[str, Any] | None]
    findings: NotRequired[list[dict[str, Any]]]
    not_tested: NotRequired[list[str]]
    components: NotRequired[dict[str, str]]
    compare: NotRequired[dict[str, Any] | None]
    validity_days: NotRequired[int]


class HostLook(TypedDict):
    """Whether a host could be scanned. ``looked: false`` is UNKNOWN, never clean."""

    looked: bool
    error: NotRequired[str | None]


class Residue(TypedDict):
    """``residue.json``: what the scan for leftovers of the fault found, host by host."""

    schema_version: int
    scanned_at: str
    hosts: dict[str, HostLook]
    items: list[dict[str, Any]]
    checks: NotRequired[list[str]]
    rollbacks: NotRequired[list[dict[str, Any]]]
    backups_valid: NotRequired[dict[str, Any] | None]
    redundancy: NotRequired[dict[str, Any] | None]


class Cluster(TypedDict):
    """``cluster_before.json`` and ``cluster_after.json``: what ``patroni_info`` saw."""

    observed_at: str
    health: HealthName
    members: list[dict[str, Any]]
    leader: NotRequired[str | None]
    etcd: NotRequired[dict[str, Any] | None]
    timeline: NotRequired[int | None]
    system_identifier: NotRequired[str | None]
    lsn: NotRequired[str | None]
    sync_standbys: NotRequired[list[str]]


class TimelineLine(TypedDict):
    """One line of a journal that takes part in the timeline. Any further keys are kept as detail."""

    ts: str
    source: str
    event: str
    mono_ns: NotRequired[int | None]
    host: NotRequired[str | None]
    step: NotRequired[str | None]
    actor: NotRequired[str | None]
    split: NotRequired[str | None]
    error_bound_seconds: NotRequired[float | None]
    evidence: NotRequired[str | None]
    label: NotRequired[str | None]
