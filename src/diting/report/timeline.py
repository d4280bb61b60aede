# SPDX-License-Identifier: GPL-3.0-or-later
"""Put events of many hosts on one time axis, and say how sure each place on it is. Pure.

Zero is the moment the fault was sent, on the prober's monotonic clock. A line from a host with the
prober's boot id was stamped by that very clock and is placed exactly. Any other line is placed by
its UTC label, which is only as good as the two wall clocks: their error bounds stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.journal import parse_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .contract import Clocks, HostClock, TimelineLine

PARTS = ("detect", "decide", "act", "verify")
"""Parts of the time from the fault to recovery, in their order."""

SPLITS = ("detected", "decided", "acted")
"""Words that end the first three parts; the last one ends with the recovery itself."""

STAMPED = frozenset({"ts", "mono_ns", "host", "source", "event", "step", "actor", "split", "label"})
CHAIN_KEYS = frozenset({"seq", "prev_sha256", "sha256", "error_bound_seconds", "evidence"})


@dataclass(frozen=True)
class Axis:
    """The time axis of one drill.

    ``zero_ts`` and ``zero_mono_ns`` are the fault's instant, as UTC label and on the prober's clock
    (None: no fault was sent, so everything is placed by UTC from the drill's start). ``clocks`` says
    which hosts share the prober's clock and how far the others may be off.
    """

    zero_ts: str
    zero_mono_ns: int | None
    clocks: Clocks | None

    def place(self, line: TimelineLine) -> tuple[float, float | None]:
        """Seconds from zero, and the error bound in seconds (None: nobody knows)."""
        host = line.get("host")
        mono = line.get("mono_ns")
        if mono is not None and self.zero_mono_ns is not None and self._same_clock(host):
            return (mono - self.zero_mono_ns) / 1e9, line.get("error_bound_seconds") or 0.0
        # UTC minus UTC: the one place where wall clocks are subtracted, because nothing better
        # exists between two machines, and never for a figure: the bound is printed with it.
        seconds = (parse_utc(line["ts"]) - parse_utc(self.zero_ts)).total_seconds()
        return seconds, self._bound(line, host)

    def _same_clock(self, host: str | None) -> bool:
        if self.clocks is None or host is None:
            return False
        prober = self.clocks["prober_host"]
        if host == prober:
            return True
        mine = self.clocks["hosts"].get(prober, {}).get("boot_id")
        return mine is not None and mine == self.clocks["hosts"].get(host, {}).get("boot_id")

    def _bound(self, line: TimelineLine, host: str | None) -> float | None:
        given = line.get("error_bound_seconds")
        if given is not None:
            return given
        if self.clocks is None or host is None:
            return None
        hosts = self.clocks["hosts"]
        bounds = [clock_bound(hosts.get(name, {})) for name in (host, self.clocks["prober_host"])]
        known = [bound for bound in bounds if bound is not None]
        return sum(known) if len(known) == len(bounds) else None


def clock_bound(clock: HostClock) -> float | None:
    """How far a host's clock may be from true time: largest offset seen plus error bound, seconds."""
    offsets = [clock.get("offset_seconds_before"), clock.get("offset_seconds_after")]
    seen = [abs(offset) for offset in offsets if offset is not None]
    error = clock.get("error_bound_seconds")
    if not seen or error is None:
        return None
    return max(seen) + error


def build(lines: Iterable[TimelineLine], axis: Axis) -> list[dict[str, Any]]:
    """The generated timeline: one entry per line, in order of time, exact places rounded to 1 us."""
    entries = []
    for line in lines:
        seconds, bound = axis.place(line)
        detail = {k: v for k, v in line.items() if k not in STAMPED | CHAIN_KEYS}
        entries.append(
            {
                "t_seconds": round(seconds, 6),
                "error_bound_seconds": None if bound is None else round(bound, 6),
                "ts": line["ts"],
                "event": line["event"],
                "label": line.get("label") or line["event"].replace("_", " "),
                "source": line["source"],
                "host": line.get("host"),
                "step": line.get("step"),
                "actor": line.get("actor"),
                "split": line.get("split"),
                "evidence": line.get("evidence"),
                "detail": detail or None,
            }
        )
    return sorted(entries, key=lambda entry: (entry["t_seconds"], entry["source"], entry["event"]))


def spans(timeline: Iterable[Mapping[str, Any]], recovered_at: float | None) -> list[dict[str, Any]]:
    """The time from the fault to recovery, cut where somebody recorded a cut.

    ``recovered_at`` is the first write of the stable window, in seconds from the fault. Parts whose
    border nobody recorded share one span; so do parts whose marks ran backwards, because then the
    marks contradict each other, and choosing one of them would be a guess.
    """
    if recovered_at is None:
        return []
    ends: dict[str, float] = {}
    for entry in timeline:
        word = entry.get("split")
        if word in SPLITS and entry["t_seconds"] >= 0:
            ends.setdefault(word, entry["t_seconds"])
    found: list[dict[str, Any]] = []
    start, open_parts = 0.0, list[str]()
    for part, word in zip(PARTS, SPLITS, strict=False):
        open_parts.append(part)
        end = ends.get(word)
        later = [ends[w] for w in SPLITS[SPLITS.index(word) + 1 :] if w in ends]
        if end is not None and start <= end <= min([*later, recovered_at]):
            found.append({"parts": open_parts, "start_seconds": start, "end_seconds": end})
            start, open_parts = end, []
    open_parts.append(PARTS[-1])
    found.append({"parts": open_parts, "start_seconds": start, "end_seconds": recovered_at})
    return found


def split(timeline: Iterable[Mapping[str, Any]], recovered_at: float | None) -> dict[str, float | None]:
    """Parts of the time from the fault to recovery, in seconds; None where a part has no span of its own."""
    parts: dict[str, float | None] = dict.fromkeys(PARTS)
    for span in spans(timeline, recovered_at):
        if len(span["parts"]) == 1:
            parts[span["parts"][0]] = round(span["end_seconds"] - span["start_seconds"], 6)
    return parts
