# SPDX-License-Identifier: GPL-3.0-or-later
"""What the failover guard knows, for somebody who has just been woken. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .failover_health import hindrances
from .failover_rules import fences_in_window
from .failover_signs import is_fresh
from .guard_words import age, cut, span

if TYPE_CHECKING:
    from .failover_state import FailoverPolicy, FailoverState
    from .failover_view import Observation, Probe, Vantage
    from .guard_words import Line


def describe(state: FailoverState, seen: Observation, policy: FailoverPolicy) -> list[Line]:
    """Everything that decides, one short line each; ages count from the look itself."""
    now = seen.taken_at
    since = f"{state.phase.value} for {span(now - state.since)}"
    lines = [
        ("phase", cut(f"{since}: {state.reason}" if state.reason else since)),
        ("armed", "yes" if seen.armed else "no: people are told, and nothing is fenced"),
        ("primary", cut(_primary(state, seen))),
        ("leader key", cut(_leader_key(seen, now))),
        ("candidates", cut(_candidates(seen, now, policy))),
    ]
    lines += [
        ("vantage" if number == 0 else "", cut(_vantage(vantage, seen, now, policy)))
        for number, vantage in enumerate(seen.vantages)
    ]
    held = seen.lock_until is not None and seen.lock_until > now
    lock = "lock among guards ours" if held else "lock among guards not ours: this guard only watches"
    lines += [
        ("etcd", f"accepted a write {age(seen.etcd.accepted_at, now)}; {lock}"),
        ("fences", _fences(state, seen, now, policy)),
    ]
    lacking = hindrances(state, seen, now, policy)
    lines.append(("a fence", "not possible now:" if lacking else "possible now"))
    lines += [("", cut(f"- {words}")) for words in lacking]
    lines += [
        ("notes" if number == 0 else "", cut(f"{part}: {words}"))
        for number, (part, words) in enumerate(sorted(seen.notes.items()))
    ]
    return lines


def _primary(state: FailoverState, seen: Observation) -> str:
    name = seen.target or state.target
    if name is None:
        return "none has been seen yet"
    words = name if seen.target == state.target else f"{state.target or 'nobody'}, probed is {seen.target}"
    return f"{words}; incident {state.incident}" if state.fenced else words


def _leader_key(seen: Observation, now: float) -> str:
    etcd = seen.etcd
    if etcd.answered_at is None:
        return "never read"
    holder = (
        "nobody holds it" if etcd.holder is None else f"{etcd.holder} holds it, revision {etcd.mod_revision}"
    )
    paused = "; Patroni is paused" if etcd.paused else ""
    return f"{holder}; read {age(etcd.asked_at, now)}{paused}"


def _candidates(seen: Observation, now: float, policy: FailoverPolicy) -> str:
    known = {candidate.name: candidate for candidate in seen.candidates}
    words = []
    for name in seen.etcd.sync_members:
        found = known.get(name)
        if found is None or not is_fresh(found.seen_at, now, policy.vantage_fresh_seconds):
            words.append(f"{name} not seen now")
        else:
            space = " without space" if found.has_space is False else ""
            words.append(f"{name} {'up' if found.up else 'not up'}{space}")
    return ", ".join(words) or "/sync lists none"


def _vantage(vantage: Vantage, seen: Observation, now: float, policy: FailoverPolicy) -> str:
    if vantage.name == seen.target:
        return f"{vantage.name}: the primary itself, which is no witness of its own"
    if not is_fresh(vantage.answered_at, now, policy.vantage_fresh_seconds):
        return f"{vantage.name}: no answer from it, last {age(vantage.answered_at, now)}"
    ways = (("tcp", vantage.tcp), ("rest", vantage.rest), ("sql", vantage.sql))
    return f"{vantage.name}: " + ", ".join(_probe(way, probe, now) for way, probe in ways)


def _probe(way: str, probe: Probe, now: float) -> str:
    if probe.tried_at is None:
        return f"{way} not tried"
    if probe.failing_since is None:
        return f"{way} {probe.answer.value} {age(probe.tried_at, now)}"
    return f"{way} {probe.answer.value} for {span(now - probe.failing_since)}"


def _fences(state: FailoverState, seen: Observation, now: float, policy: FailoverPolicy) -> str:
    others = seen.gate.fences_elsewhere
    own = max(fences_in_window(state, now, policy), seen.fences_recorded or 0)
    count = f"{own}, those of others not known," if others is None else str(own + others)
    return f"{count} of {policy.fence_max_per_window} within {span(policy.fence_window_seconds)}"
