"""Curves as inline SVG, drawn from plain numbers."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from nanochat_jax.report.templates import render

WIDTH, HEIGHT = 420, 216
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 12, 26
# A run leaves a point a step; all of them would outweigh the rest of the page.
BUCKETS = 240  # points of a drawn line: more than the pixels of a phone
QUANTILE = 0.01  # of a robust axis: the slow first step must not flatten the rest

Point = tuple[float, float]


class Series(NamedTuple):
    """One curve: (step, value) in ascending order."""

    name: str
    points: Sequence[Point]


def chart(
    title: str, series: Sequence[Series], *, dots: bool = False, robust: bool = False,
    zero: bool = False,
) -> Markup:  # fmt: skip
    """A figure with its title, last value and axes; empty without two points to join.

    Args:
        dots: each point is drawn.
        robust: the axis leaves out the most extreme values, which are drawn at its edge.
        zero: the axis begins at 0.
    """
    finite = lambda points: [(float(x), float(y)) for x, y in points if math.isfinite(y)]
    kept = [Series(s.name, finite(s.points)) for s in series]
    kept = [s for s in kept if s.points]
    if not any(len(s.points) > 1 for s in kept):
        return Markup()
    xs = [x for s in kept for x, _ in s.points]
    low, high = _range([y for s in kept for _, y in s.points], robust, zero)
    x_axis = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_axis = _Axis(low, high, HEIGHT - BOTTOM, TOP)
    across = ticks(x_axis.low, x_axis.high) if x_axis.high > x_axis.low else [x_axis.low]
    curves = [_drawn(s, dots, x_axis, y_axis) for s in kept]
    return render(
        "chart.html", title=title, curves=curves, last=number(kept[0].points[-1][1], 4),
        data=json.dumps([curve["data"] for curve in curves], separators=(",", ":")),
        width=WIDTH, height=HEIGHT, left=LEFT, right=WIDTH - RIGHT, bottom=HEIGHT - BOTTOM,
        rows=[(y_axis.at(y), number(y)) for y in ticks(y_axis.low, y_axis.high)],
        columns=[(x_axis.at(x), number(x)) for x in across],
    )  # fmt: skip


def number(value: float, digits: int = 3) -> str:
    """A value in few characters: `1.2M`, `340`, `0.284`, `3.1e-05`."""
    size = abs(value)
    for unit, one in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size >= one:
            return f"{value / one:.{digits}g}{unit}"
    return f"{value:.{digits}g}" if size >= 1e-3 or value == 0 else f"{value:.1e}"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values within [low, high]."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high` on pixels from `start` to `end`; what lies outside is clamped."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)


def _range(values: Sequence[float], robust: bool, zero: bool) -> tuple[float, float]:
    """The ends of the y axis: a little room around the values."""
    ordered = sorted(values)
    cut = int(QUANTILE * len(ordered)) + 1 if robust and len(ordered) > 4 else 0
    low, high = ordered[cut], ordered[-1 - cut]
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return (min(0.0, low) if zero else low - room), high + room


def _drawn(series: Series, dots: bool, x_axis: _Axis, y_axis: _Axis) -> dict[str, Any]:
    """A line through the means of buckets, over the band of their smallest and largest values.

    `data` is what the page's script needs to show the value under the pointer: pixels and numbers.
    """
    place = lambda x, y: (x_axis.at(x), y_axis.at(y))
    joined = lambda points: " ".join("{},{}".format(*place(*p)) for p in points)
    buckets = _buckets(series.points)
    middle = [(x, mean) for x, mean, _, _ in buckets]
    around = [(x, top) for x, _, _, top in buckets]
    around += [(x, bottom) for x, _, bottom, _ in reversed(buckets)]
    first, last = (number(series.points[i][1]) for i in (0, -1))
    return {
        "name": series.name, "words": f"{series.name} from {first} to {last}",
        "line": joined(middle), "dots": [place(*p) for p in middle] if dots else [],
        "band": joined(around) if len(buckets) < len(series.points) else "",
        "data": [series.name, [[*place(x, y), f"{x:,.0f}", number(y, 4)] for x, y in middle]],
    }  # fmt: skip


def _buckets(points: Sequence[Point]) -> list[tuple[float, float, float, float]]:
    """(step, mean, smallest, largest) of runs of equal length, at most `BUCKETS`."""
    # Means alone would hide the spikes that a reader of a loss curve looks for; extremes alone
    # would hide the trend.
    size = -(-len(points) // BUCKETS)
    found = []
    for i in range(0, len(points), size):
        ys = [y for _, y in points[i : i + size]]
        step = points[min(i + size // 2, len(points) - 1)][0]
        found.append((step, sum(ys) / len(ys), min(ys), max(ys)))
    return found
