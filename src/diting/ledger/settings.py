# SPDX-License-Identifier: GPL-3.0-or-later
"""What the judge is told beside the records: limits, expectations, targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fields import Fields


@dataclass(frozen=True)
class Cut:
    """A partition and the prober inside it. Durations in seconds.

    ``host`` is the former primary as the watcher names it, ``fenced`` whether it was switched off meanwhile,
    ``seconds`` how long the cut lasts. A session's word that its server lives counts for ``fresh_seconds``.
    """

    path: str
    host: str
    seconds: float
    fenced: bool = False
    fresh_seconds: float = 2.0
    min_unfenced: int = 100
    min_fenced: int = 20


@dataclass(frozen=True)
class Settings:
    """Limits of one judgement. Durations in seconds; None for a target means: not set."""

    run_id: str
    paths: tuple[str, ...]
    failed_zone: str | None = None
    effect_target: str | None = None
    effect_states: tuple[str, ...] = ("down",)
    replicas: tuple[str, ...] = ()
    stability_seconds: float = 30.0
    stable_gap_seconds: float = 0.5
    control_min_seconds: float = 5.0
    control_max_gap_seconds: float = 0.5
    p99_limit_seconds: float = 0.5
    max_missed_ratio: float = 0.01
    clock_step_limit_seconds: float = 0.05
    min_acked: int = 100
    max_lost: int = 0
    rto_target_seconds: float | None = None
    rpo_target_seconds: float | None = None
    cut: Cut | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)


def parse_settings(top: Fields) -> Settings:
    """Read ``judge-input.json``."""
    top.integer("schema_version", 1, minimum=1, maximum=1)
    effect = top.child("effect", {})
    target = effect.optional_text("target")
    states = tuple(effect.texts("states", ("down",)))
    effect.finish()

    def seconds(key: str, minimum: float = 0.0) -> float:
        default = Settings.__dataclass_fields__[key].default
        return top.number(key, default, minimum=minimum, maximum=86400)

    return Settings(
        run_id=top.text("run_id"),
        paths=tuple(top.texts("paths")),
        failed_zone=top.optional_text("failed_zone"),
        effect_target=target,
        effect_states=states,
        replicas=tuple(top.texts("replicas", ())),
        stability_seconds=seconds("stability_seconds"),
        stable_gap_seconds=seconds("stable_gap_seconds", 0.001),
        control_min_seconds=seconds("control_min_seconds"),
        control_max_gap_seconds=seconds("control_max_gap_seconds", 0.001),
        p99_limit_seconds=seconds("p99_limit_seconds", 0.001),
        max_missed_ratio=top.number("max_missed_ratio", 0.01, minimum=0, maximum=1),
        clock_step_limit_seconds=seconds("clock_step_limit_seconds"),
        min_acked=top.integer("min_acked", 100, minimum=1, maximum=10**9),
        max_lost=top.integer("max_lost", 0, minimum=0, maximum=10**9),
        rto_target_seconds=_target(top, "rto_target_seconds"),
        rpo_target_seconds=_target(top, "rpo_target_seconds"),
        cut=_cut(top.child("cut")) if top.has("cut") else None,
    )


def _cut(fields: Fields) -> Cut:
    found = Cut(
        path=fields.text("path"),
        host=fields.text("host"),
        seconds=fields.number("seconds", minimum=1, maximum=86400),
        fenced=fields.flag("fenced"),
        fresh_seconds=fields.number("fresh_seconds", 2.0, minimum=0.01, maximum=10),
        min_unfenced=fields.integer("min_unfenced", 100, minimum=1, maximum=10**6),
        min_fenced=fields.integer("min_fenced", 20, minimum=1, maximum=10**6),
    )
    fields.finish()
    return found


def _target(top: Fields, key: str) -> float | None:
    return top.optional_number(key, minimum=0, maximum=10**7)
