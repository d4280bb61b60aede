# SPDX-License-Identifier: GPL-3.0-or-later
"""Drawings of a report as inline SVG: the gap plot, and the RTO trend of the index. Pure.

Colours come from the page's style sheet by class, so one drawing serves light, dark and paper. Text
does not scale with a narrow screen, so each drawing is made once per width instead of being shrunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from . import text
from .timeline import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDE, NARROW = 980, 358
PANEL, STRIP, GAP = 132, 10, 34
LEFT, RIGHT = 52, 10
HEAD, FOOT = 34, 30
FLOOR_SECONDS = 0.0005


@dataclass(frozen=True)
class Scale:
    """Linear map of [low, high] to [start, end] in pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of ``value``, in pixels."""
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(self.start + share * (self.end - self.start), 2)


@dataclass(frozen=True)
class Point:
    """One drill of a trend: its experiment is fault and preset, ``seconds`` its RTO_client if measured."""

    started_at: str
    experiment: str
    seconds: float | None
    verdict: str


def tag(name: str, body: str = "", **attributes: Any) -> str:
    """One SVG element; ``cls`` is its class, underscores become dashes."""
    parts = [name]
    for key, value in attributes.items():
        label = "class" if key == "cls" else key.replace("_", "-")
        parts.append(f'{label}="{escape(str(value))}"')
    return f"<{' '.join(parts)}>{body}</{name}>" if body else f"<{' '.join(parts)}/>"


def words(x: float, y: float, label: str, cls: str, anchor: str = "start") -> str:
    """A piece of text."""
    return tag("text", escape(label), x=x, y=y, cls=cls, text_anchor=anchor)


def nice_step(span: float, wanted: int) -> float:
    """A step of 1, 2 or 5 times a power of ten that cuts ``span`` into about ``wanted`` parts."""
    raw = span / max(wanted, 1) or 1
    base = 10 ** math.floor(math.log10(raw))
    return next(float(base * m) for m in (1, 2, 5, 10) if base * m >= raw)


def window(report: dict[str, Any]) -> tuple[float, float] | None:
    """What to show: the gap in the middle, some calm on both sides. None when there is no series."""
    bins = [one for path in (report["series"] or {}).values() for one in path]
    if not bins:
        return None
    first, last = min(b["start"] for b in bins), max(b["end"] for b in bins)
    ends = [p["recovered_at_seconds"] for p in report["paths"].values()]
    recovered = max((e for e in ends if e is not None), default=None)
    if recovered is None:
        return first, last
    calm = max(3.0, 0.4 * recovered)
    return max(first, -calm), min(last, max(recovered, 1.0) + calm)


def key_events(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Timeline entries worth a number on the plot: fault, effect, ends of parts, recovery."""
    wanted = {"fault_sent", "effect_confirmed", "last_acknowledged_write", "writes_recovered"}
    return [e for e in report["timeline"] if e["event"] in wanted or e["split"]]


def gap_plot(report: dict[str, Any], width: int) -> str:
    """Write latency around the fault, one panel per path, with every write not acknowledged below."""
    shown = window(report)
    if shown is None:
        return ""
    paths = sorted(report["series"])
    height = HEAD + len(paths) * (PANEL + STRIP + GAP) + FOOT
    x = Scale(*shown, LEFT, width - RIGHT)
    body = [_hatch(f"hatch{width}"), _badges(report, x, HEAD, height - FOOT - 44)]
    top = float(HEAD)
    for number, name in enumerate(paths):
        body.append(_panel(report, name, f"path{number % 4}", x, top))
        top += PANEL + STRIP + GAP
    body.append(_axis(x, top - GAP + 20, width))
    body.append(_parts(report, x, top))
    label = f"Write latency around the fault. {text.headline(report)}"
    return tag(
        "svg",
        "".join(body),
        cls=f"plot w{width}",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=label,
    )


def _hatch(name: str) -> str:
    line = tag("line", x1=0, y1=0, x2=0, y2=7, cls="hatch")
    pattern = tag(
        "pattern",
        line,
        id=name,
        width=7,
        height=7,
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )
    return tag("defs", pattern)


def _badges(report: dict[str, Any], x: Scale, top: float, bottom: float) -> str:
    """Numbered flags above the panels; what would touch shares a flag: "5-8"."""
    groups: list[list[tuple[int, float]]] = []
    for number, event in enumerate(key_events(report), start=1):
        at = x(event["t_seconds"])
        if not x.start <= at <= x.end:
            continue
        if groups and at - groups[-1][-1][1] < 22:
            groups[-1].append((number, at))
        else:
            groups.append([(number, at)])
    drawn = []
    for group in groups:
        for _, at in group:
            drawn.append(tag("line", x1=at, x2=at, y1=top - 5, y2=bottom, cls="mark"))
        first, last = group[0], group[-1]
        label = str(first[0]) if first == last else f"{first[0]}\u2013{last[0]}"
        half = 8 if first == last else 14
        middle = min(max((first[1] + last[1]) / 2, half), x.end + RIGHT - half)
        drawn.append(tag("rect", x=middle - half, y=top - 21, width=2 * half, height=16, rx=8, cls="flag"))
        drawn.append(words(middle, top - 9.4, label, "flagtext", "middle"))
    return "".join(drawn)


def _panel(report: dict[str, Any], name: str, cls: str, x: Scale, top: float) -> str:
    path = report["paths"][name]
    bins = [b for b in report["series"][name] if b["end"] >= x.low and b["start"] <= x.high]
    peak = max((b["high"] for b in bins if b["high"]), default=0.01)
    ceiling = 10 ** math.ceil(math.log10(max(peak, 0.01)))
    y = Scale(math.log10(FLOOR_SECONDS), math.log10(ceiling), top + PANEL, top + 8)
    drawn = [tag("rect", x=LEFT, y=top + 8, width=x.end - LEFT, height=PANEL - 8, cls="beyond")]
    if bins:
        left, right = max(x(bins[0]["start"]), LEFT), min(x(bins[-1]["end"]), x.end)
        drawn.append(tag("rect", x=left, y=top + 8, width=right - left, height=PANEL - 8, cls="panel"))
    power = -3
    while 10**power <= ceiling:
        at = y(power)
        drawn.append(tag("line", x1=LEFT, x2=x.end, y1=at, y2=at, cls="grid"))
        drawn.append(words(LEFT - 6, at + 3.5, text.seconds(10.0**power), "tick", "end"))
        power += 1
    drawn.append(_outage(path, x, top))
    drawn.append(_latency(bins, x, y, cls))
    drawn.append(_strip(bins, x, top + PANEL + 3))
    drawn.append(words(LEFT + 8, top + 24, name, f"name {cls}"))
    return "".join(drawn)


def _outage(path: dict[str, Any], x: Scale, top: float) -> str:
    start, end = path["last_ok_at_seconds"], path["recovered_at_seconds"]
    if start is None or not path["rto_client_seconds"]:
        return ""
    left, right = max(x(start), LEFT), min(x(end) if end is not None else x.end, x.end)
    area: dict[str, Any] = {"x": left, "y": top + 8, "width": max(right - left, 1), "height": PANEL - 8}
    label = text.seconds(path["rto_client_seconds"]) if end is not None else "never recovered"
    middle = top + 8 + (PANEL - 8) / 2
    note = [words((left + right) / 2, middle + 4, label, "gaplabel", "middle")]
    if right - left > 190:
        note.append(words((left + right) / 2, middle + 22, "no acknowledged write", "gapnote", "middle"))
    elif right - left < 70:
        note = [words(min(right + 8, x.end - 60), middle + 4, label, "gaplabel")]
    return tag("rect", cls="outage", **area) + tag("rect", cls="hatched", **area) + "".join(note)


def _latency(bins: Iterable[dict[str, Any]], x: Scale, y: Scale, cls: str) -> str:
    """Range from median to worst per bin as a bar, and the median as a line that breaks with the writes."""
    bars, line, pen = [], [], "M"
    for one in bins:
        if one["p50"] is None:
            pen = "M"
            continue
        at = x((one["start"] + one["end"]) / 2)
        low, high = (
            y(math.log10(max(one["p50"], FLOOR_SECONDS))),
            y(math.log10(max(one["high"], FLOOR_SECONDS))),
        )
        bars.append(f"M{at} {low}V{high}")
        line.append(f"{pen}{at} {low}")
        pen = "L"
    return tag("path", d="".join(bars), cls=f"range {cls}") + tag(
        "path", d="".join(line), cls=f"median {cls}"
    )


def _strip(bins: Iterable[dict[str, Any]], x: Scale, top: float) -> str:
    """Writes that were not acknowledged, by bin: failed for sure, or nobody can say."""
    drawn = [tag("rect", x=LEFT, y=top, width=x.end - LEFT, height=STRIP, cls="strip")]
    for one in bins:
        kind = "fail" if one["fail"] else "info" if one["info"] else ""
        if kind:
            left, right = max(x(one["start"]), LEFT), min(x(one["end"]), x.end)
            drawn.append(
                tag("rect", x=left, y=top, width=round(max(right - left, 0.8), 2), height=STRIP, cls=kind)
            )
    return "".join(drawn)


def _axis(x: Scale, top: float, width: int) -> str:
    step = nice_step(x.high - x.low, 10 if width == WIDE else 4)
    drawn = []
    value = math.ceil(x.low / step) * step
    while value <= x.high:
        label = f"{value:g}".replace("-", text.MINUS) if value <= 0 else f"+{value:g}"
        anchor = "end" if x(value) > x.end - 12 else "middle"
        drawn.append(tag("line", x1=x(value), x2=x(value), y1=top - 16, y2=top - 11, cls="axis"))
        drawn.append(words(x(value), top + 3, label, "tick", anchor))
        value = round(value + step, 9)
    return "".join(drawn)


def _parts(report: dict[str, Any], x: Scale, top: float) -> str:
    """The time from the fault to recovery, cut into its parts, on the plot's own time axis."""
    drawn = []
    for span in report["split_spans"]:
        left, right = max(x(span["start_seconds"]), LEFT), min(x(span["end_seconds"]), x.end)
        if right <= left:
            continue
        cls = f"part part{span_colour(span)}"
        drawn.append(tag("rect", x=left, y=top, width=round(right - left, 2), height=20, cls=cls))
        name = span_name(span)
        if right - left > 7 * len(name) + 8:
            drawn.append(words((left + right) / 2, top + 14, name, "parttext", "middle"))
    return "".join(drawn)


def span_name(span: dict[str, Any]) -> str:
    """``detect``, or ``detect + decide`` where nobody recorded the border."""
    return " + ".join(span["parts"])


def span_colour(span: dict[str, Any]) -> int:
    """Number of the span's colour: that of its first part."""
    return PARTS.index(span["parts"][0])


def trend(points: Sequence[Point], width: int) -> str:
    """RTO of one level over its drills, oldest first, a line per experiment.

    Only PASS and FAIL are joined by the line. A drill without an RTO stands on the base line: it took
    place, and it measured nothing.
    """
    height, base = 150, 122.0
    if not points:
        return ""
    known = [point.seconds for point in points if point.seconds is not None]
    step = nice_step(max([*known, 1.0]), 3)
    top = step * math.ceil(max([*known, step]) / step)
    y, x = Scale(0, top, base, 16), Scale(0, max(len(points) - 1, 1), LEFT + 14, width - RIGHT - 14)
    drawn = []
    value = 0.0
    while value <= top:
        drawn.append(tag("line", x1=LEFT, x2=width - RIGHT, y1=y(value), y2=y(value), cls="grid"))
        drawn.append(words(LEFT - 6, y(value) + 3.5, f"{value:g}{text.THIN}s", "tick", "end"))
        value += step
    for number, name in enumerate(experiments(points)):
        marks = [
            f"{x(place)} {y(point.seconds)}"
            for place, point in enumerate(points)
            if point.experiment == name and point.seconds is not None and point.verdict in {"PASS", "FAIL"}
        ]
        drawn.append(tag("path", d="M" + "L".join(marks or ["0 0"]), cls=f"run path{number % 4}"))
    for place, point in enumerate(points):
        at, level = x(place), base if point.seconds is None else y(point.seconds)
        shape = {"PASS": _dot, "FAIL": _cross}.get(point.verdict, _ring)
        said = f"{point.started_at}, {point.experiment}: {text.seconds(point.seconds)}, {point.verdict}"
        drawn.append(
            tag("g", tag("title", escape(said)) + shape(at, level), cls=f"v-{point.verdict.lower()}")
        )
    for place in sorted({0, len(points) - 1}):
        anchor, aside = ("start", -14) if place == 0 else ("end", 14)
        drawn.append(words(x(place) + aside, height - 8, points[place].started_at[:10], "tick", anchor))
    return tag(
        "svg",
        "".join(drawn),
        cls="plot",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label="RTO of each drill",
    )


def experiments(points: Sequence[Point]) -> list[str]:
    """Names of the experiments among the points, in order of their first drill."""
    return list(dict.fromkeys(point.experiment for point in points))


def _dot(x: float, y: float) -> str:
    return tag("circle", cx=x, cy=y, r=4.5, cls="dot")


def _cross(x: float, y: float) -> str:
    return tag("path", d=f"M{x - 3.5} {y - 3.5}l7 7m0 -7l-7 7", cls="cross")


def _ring(x: float, y: float) -> str:
    return tag("circle", cx=x, cy=y, r=3.5, cls="ring")
