"""Numbers -> inline SVG line charts for the report; coloured by the page's CSS, no files and no scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

# The drawing is as wide as a phone's screen, so that its text is never scaled below its nominal size.
WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 32
NUM_COLOURS = 6
MAX_POINTS = 300

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        label: for the legend.
        points: (x, y), x rising, all finite.
        is_marked: show every point and its value; for lines of few points.
    """

    label: str
    points: Sequence[Point]
    is_marked: bool = False


@dataclass(frozen=True)
class _Frame:
    """Data coordinates -> drawing coordinates."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def line_chart(title: str, series: Sequence[Series], *, x_label: str = "step", unit: str = "") -> str:
    """A figure with axes, grid, and a legend where there is more than one line.

    Lines of more than 300 points are averaged over as many equal runs of neighbours: a long run's page stays small.

    Args:
        title: heading of the figure.
        series: lines; empty ones are left out.
        x_label: below the x axis.
        unit: behind the numbers of the y axis, such as "%".

    Returns:
        An HTML fragment; empty where no line has a point.
    """
    drawn = [Series(line.label, _thin(line.points), line.is_marked) for line in series if line.points]
    if not drawn:
        return ""
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    y_ticks = ticks(min(ys), max(ys))
    x_high = max(xs) if max(xs) > min(xs) else min(xs) + 1.0
    frame = _Frame(min(xs), x_high, y_ticks[0], y_ticks[-1])
    body = _axes(frame, y_ticks, x_label, unit)
    body += "".join(_line(line, index % NUM_COLOURS, frame, unit) for index, line in enumerate(drawn))
    legend = "".join(f'<span class="c{i % NUM_COLOURS}">{escape(line.label)}</span>' for i, line in enumerate(drawn))
    summary = "; ".join(f"{line.label} ends at {number(line.points[-1][1])}{unit}" for line in drawn)
    return (
        f"<figure><figcaption>{escape(title)} {legend if len(drawn) > 1 else ''}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}: {summary}")}">{body}</svg>'
        "</figure>"
    )


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that enclose [low, high], about `count` steps of 1, 2 or 5 times a power of ten apart."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        spread = 0.1 * abs(low) or 1.0
        low, high = low - spread, high + spread
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= rough), 10 * power)
    # the small shares keep a bound that lies on a tick, but for rounding, from adding an empty step
    return [index * step for index in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def number(value: float) -> str:
    """A short number: 12.5k, 0.0312, 1e-05."""
    return f"{value / 1000:.4g}k" if abs(value) >= 10_000 else f"{value:.4g}"


def _thin(points: Sequence[Point]) -> list[Point]:
    if len(points) <= MAX_POINTS:
        return list(points)
    bounds = [len(points) * index // MAX_POINTS for index in range(MAX_POINTS + 1)]
    groups = [points[start:stop] for start, stop in pairwise(bounds)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _axes(frame: _Frame, y_ticks: Sequence[float], x_label: str, unit: str) -> str:
    parts = []
    for tick in y_ticks:
        y = frame.y(tick)
        parts.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}{escape(unit)}</text>'
        )
    for tick in ticks(frame.x_low, frame.x_high):
        if frame.x_low <= tick <= frame.x_high:
            x = frame.x(tick)
            anchor = "end" if x > WIDTH - RIGHT - 15 else "middle"
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="{anchor}">{number(tick)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(parts)


def _line(line: Series, colour: int, frame: _Frame, unit: str) -> str:
    placed = [(frame.x(x), frame.y(y)) for x, y in line.points]
    drawing = f'<polyline class="c{colour}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in placed)}"/>'
    if line.is_marked or len(placed) == 1:
        for (x, y), (step, value) in zip(placed, line.points, strict=True):
            words = escape(f"{line.label} at {number(step)}: {number(value)}{unit}")
            drawing += f'<circle class="c{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{words}</title></circle>'
    return drawing
