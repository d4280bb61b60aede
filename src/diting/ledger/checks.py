# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge's single checks: each returns the reasons it found, none decides the verdict. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.verdict import Reason
from .model import lsn_value
from .series import NS, latencies, percentile
from .timing import Recovery, acks, largest_gap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .classify import Sets
    from .effects import Moments
    from .model import Found, Ledger, Op
    from .settings import Settings
    from .timing import Timing


@dataclass(frozen=True)
class Control:
    """The window without a fault, from control_start up to the injection."""

    ops: tuple[Op, ...]
    start_ns: int | None
    end_ns: int | None
    largest_gap_ns: int
    bad: int

    @classmethod
    def of(cls, ledger: Ledger, moments: Moments) -> Control:
        """Cut the window out of a ledger."""
        start, end = moments.control_start_ns, moments.inject_ns
        if start is None or end is None:
            return cls((), start, end, 0, 0)
        # What was in flight at the injection belongs to the fault.
        ops = tuple(
            op for op in ledger.ops if op.due_ns >= start and op.end_ns is not None and op.end_ns < end
        )
        gap = largest_gap([t for t in acks(ledger.ops) if t < end], start, end)[0]
        return cls(ops, start, end, gap, sum(not op.ok for op in ops))

    def problems(self, ledger: Ledger, settings: Settings) -> list[Reason]:
        """A measurement that shows faults without a fault, or no writes before one, proves nothing."""
        found: list[Reason] = []
        where = f"path {ledger.path}: "
        if self.start_ns is None or self.end_ns is None:
            return found
        seconds = (self.end_ns - self.start_ns) / NS
        if seconds < settings.control_min_seconds:
            found.append(
                Reason(
                    "control_too_short",
                    f"{where}control window of {seconds:.1f} s",
                    seconds,
                    settings.control_min_seconds,
                )
            )
        if self.bad:
            found.append(
                Reason(
                    "control_not_clean",
                    f"{where}{self.bad} operations were not ok before the fault",
                    self.bad,
                    0,
                )
            )
        gap = self.largest_gap_ns / NS
        if gap > settings.control_max_gap_seconds:
            found.append(
                Reason(
                    "control_not_clean",
                    f"{where}{gap:.3f} s without an acknowledgement before the fault",
                    gap,
                    settings.control_max_gap_seconds,
                )
            )
        window = max(NS, 20 * ledger.interval_ns)
        recent = sum(1 for t in acks(ledger.ops) if self.end_ns - window <= t < self.end_ns)
        if recent == 0:
            found.append(
                Reason(
                    "no_acks_before_fault",
                    f"{where}nothing was acknowledged in the last {window / NS:g} s before the fault",
                    0,
                    1,
                )
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        known = self.start_ns is not None and self.end_ns is not None
        return {
            "seconds": round(((self.end_ns or 0) - (self.start_ns or 0)) / NS, 6) if known else None,
            "operations": len(self.ops),
            "not_ok": self.bad,
            "largest_ack_gap_seconds": round(self.largest_gap_ns / NS, 6) if known else None,
        }


def missed_slots(ledger: Ledger) -> tuple[int, int]:
    """Slots that the prober itself dispatched late or never, and all slots."""
    limit = int(ledger.header.get("late_slot_ns", 0))
    missed = sum(op.dispatch_ns is None or op.dispatch_ns - op.due_ns > limit for op in ledger.ops)
    return missed, len(ledger.ops)


def outcome_reasons(ledger: Ledger) -> dict[str, int]:
    """How many operations ended how, with the reason where there is one."""
    counts = Counter(op.outcome if op.reason is None else f"{op.outcome}:{op.reason}" for op in ledger.ops)
    return dict(sorted(counts.items()))


def ledger_sound(ledger: Ledger, settings: Settings) -> list[Reason]:
    """Whether this ledger can carry a judgement at all."""
    where = f"path {ledger.path}: "
    found = [
        Reason("ledger_damaged", f"{where}{problem}", problem, "a whole ledger")
        for problem in ledger.problems
    ]
    if ledger.header.get("run_id") != settings.run_id:
        found.append(
            Reason(
                "foreign_ledger",
                f"{where}belongs to run {ledger.header.get('run_id')}",
                ledger.header.get("run_id"),
                settings.run_id,
            )
        )
    zone = ledger.header.get("failure_zone")
    if settings.failed_zone is not None and zone == settings.failed_zone:
        found.append(
            Reason(
                "prober_in_failed_zone",
                f"{where}the prober ran in {zone}, the zone that failed: its silence proves nothing",
                zone,
                "another zone",
            )
        )
    if ledger.footer is None:
        found.append(Reason("prober_died", f"{where}the ledger has no footer", None, "an orderly end"))
    else:
        step = int(ledger.footer.get("clock_step_ns", 0)) / NS
        if abs(step) > settings.clock_step_limit_seconds:
            found.append(
                Reason(
                    "clock_step",
                    f"{where}the wall clock moved {step:+.3f} s against the monotonic one",
                    step,
                    settings.clock_step_limit_seconds,
                )
            )
    missed, total = missed_slots(ledger)
    if total == 0 or missed / total > settings.max_missed_ratio:
        found.append(
            Reason(
                "missed_slots",
                f"{where}the prober missed {missed} of {total} slots",
                missed / total if total else None,
                settings.max_missed_ratio,
            )
        )
    acked = sum(op.ok for op in ledger.ops)
    if acked < settings.min_acked:
        found.append(Reason("few_acks", f"{where}only {acked} acknowledged", acked, settings.min_acked))
    return found


def reads_sound(founds: Sequence[Found], settings: Settings) -> list[Reason]:
    """Whether the final reads are of this run, of one database, and complete."""
    found = []
    if all(server.in_recovery for server in founds):
        found.append(Reason("no_final_read", "no server that takes writes was read", len(founds), 1))
    found += [
        Reason("foreign_read", f"{server.host}: read of run {server.run_id}", server.run_id, settings.run_id)
        for server in founds
        if server.run_id != settings.run_id
    ]
    hosts = {server.host for server in founds}
    found += [
        Reason("replica_not_read", f"{host} was not read", sorted(hosts), host)
        for host in settings.replicas
        if host not in hosts
    ]
    systems = {server.system_identifier for server in founds}
    if len(systems) > 1:
        found.append(
            Reason("foreign_server", "the servers read are not one cluster", sorted(map(str, systems)), 1)
        )
    return found


def behind(replica: Found, primary: Found) -> bool:
    """The replica was read too early: a difference then says nothing about it."""
    mine, wanted = lsn_value(replica.lsn), lsn_value(primary.lsn)
    return mine is None or wanted is None or mine < wanted


def data_safe(path: str, sets: Sets, settings: Settings) -> list[Reason]:
    """Promises broken: these fail a drill whatever its times."""
    limits = (
        ("lost", settings.max_lost, f"acknowledged and gone, {len(sets.acked)} acknowledged"),
        ("ghost", 0, "reported as failed, yet present"),
        ("duplicate", 0, "present more than once"),
        ("unexpected", 0, "present, but never sent"),
    )
    return [
        Reason(name, f"path {path}: {count} {text}", count, limit)
        for name, limit, text in limits
        if (count := len(getattr(sets, name))) > limit
    ]


def timing_sound(
    ledger: Ledger, timing: Timing, moments: Moments, settings: Settings
) -> tuple[list[Reason], list[Reason], list[Reason]]:
    """(makes invalid, misses a target, worth knowing) of the outage of one path."""
    where = f"path {ledger.path}: "
    invalid: list[Reason] = []
    missed: list[Reason] = []
    if timing.state is Recovery.WINDOW_INCOMPLETE:
        invalid.append(
            Reason(
                "stability_window_incomplete",
                f"{where}the record ends before {settings.stability_seconds:g} s without a failure",
                None,
                settings.stability_seconds,
            )
        )
    elif timing.state is Recovery.NOT_RECOVERED:
        missed.append(
            Reason(
                "not_recovered",
                f"{where}no stable writes until the record ended, at least {timing.at_least_ns / NS:.3f} s",
                timing.at_least_ns / NS,
                settings.rto_target_seconds,
            )
        )
    elif settings.rto_target_seconds is not None and timing.duration_ns is not None:
        worst = (timing.duration_ns + timing.resolution_ns) / NS
        if worst > settings.rto_target_seconds:
            missed.append(
                Reason(
                    "rto_target",
                    f"{where}RTO_client with its resolution {worst:.3f} s, target"
                    f" {settings.rto_target_seconds:g} s",
                    worst,
                    settings.rto_target_seconds,
                )
            )
    if timing.recovered_ns is not None:
        until = timing.recovered_ns + round(settings.stability_seconds * NS)
        window = [op for op in ledger.ops if timing.recovered_ns <= op.due_ns < until]
        p99 = percentile(latencies(window), 0.99)
        if p99 is not None and p99 > settings.p99_limit_seconds:
            missed.append(
                Reason(
                    "slow_after_recovery",
                    f"{where}p99 of {p99:.3f} s in the stability window",
                    p99,
                    settings.p99_limit_seconds,
                )
            )
    notes = [
        Reason(
            "later_outage",
            f"{where}writes failed again"
            f" {(outage.start_ns - (moments.inject_ns or 0)) / NS:.1f} s after the fault",
            None if outage.end_ns is None else (outage.end_ns - outage.start_ns) / NS,
            None,
        )
        for outage in timing.later
    ]
    return invalid, missed, notes
