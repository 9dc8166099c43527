"""Numbers -> inline SVG line charts for the report; styled by the page's CSS, no files and no scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from eval.chart_axes import HEIGHT, LEFT, RIGHT, WIDTH, Frame, axes, decades, number, ticks

__all__ = ["Point", "Series", "figure", "line_chart", "number", "ticks"]

# Colours, dashes and marks repeat with different periods: no two of the first 60 lines look alike, nor 20 in grey.
NUM_COLOURS, NUM_DASHES, NUM_MARKS = 6, 4, 5
MAX_POINTS, NUM_BUCKETS = 240, 120
NUM_MARKS_ON_LINE = 5
THINNING = (
    f"Lines of more than {MAX_POINTS} points are cut into {NUM_BUCKETS} equal runs of neighbours: the line is their "
    "mean, the band reaches from their lowest to their highest value."
)

Point = tuple[float, float]
_MARKS = (
    "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",  # disc
    "M-3-3h6v6h-6z",  # square
    "M0-3.8l3.8 6.6h-7.6z",  # triangle
    "M0-4.2l4.2 4.2l-4.2 4.2l-4.2-4.2z",  # diamond
    "M-3.4-1.1h2.3v-2.3h2.2v2.3h2.3v2.2h-2.3v2.3h-2.2v-2.3h-2.3z",  # plus
)


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        label: for the legend.
        points: (x, y), x rising, all finite.
        is_marked: show every point and its value; for lines of few points.
        style: index that chooses colour, dash and mark; None: the place among the drawn lines.
        run: index of the run whose line this is, for the page's switches; None where all lines are one run's.
        note: behind the label in the legend; None: the last value.
        is_exact: draw every point, however many.
    """

    label: str
    points: Sequence[Point]
    is_marked: bool = False
    style: int | None = None
    run: int | None = None
    note: str | None = None
    is_exact: bool = False


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "step",
    unit: str = "",
    is_log_x: bool = False,
    note: str = "",
) -> str:
    """A figure with axes, grid and legend.

    Lines of more than 240 points are drawn as the mean of each of 120 equal runs of neighbours, in a band from the
    lowest to the highest value of each: a long run's page stays small and no spike is lost.

    Args:
        title: heading of the figure.
        series: lines; empty ones are left out.
        x_label: below the x axis.
        unit: behind the numbers of the y axis, such as "%".
        is_log_x: x on a logarithmic axis; all x above 0.
        note: a line below the drawing.

    Returns:
        An HTML fragment; empty where no line has a point.
    """
    drawn = [
        (line, index if line.style is None else line.style)
        for index, line in enumerate(line for line in series if line.points)
    ]
    if not drawn:
        return ""
    xs = [x for line, _ in drawn for x, _ in line.points]
    ys = [y for line, _ in drawn for _, y in line.points]
    y_ticks = _within_reason(ticks(min(ys), max(ys)), ys, unit)
    x_low, x_high = min(xs), max(xs)
    if x_high <= x_low:
        x_low, x_high = (x_low / 10, x_low) if is_log_x else (x_low, x_low + 1.0)
    frame = Frame(x_low, x_high, y_ticks[0], y_ticks[-1], is_log_x)
    x_ticks = decades(x_low, x_high) if is_log_x else [tick for tick in ticks(x_low, x_high) if x_low <= tick <= x_high]
    body = axes(frame, x_ticks, y_ticks, x_label, unit)
    several = len(drawn) > 1
    body += "".join(_line(line, style, frame, unit, several) for line, style in drawn)
    legend = "".join(_entry(line, style, unit, is_named=line.label != title) for line, style in drawn)
    summary = "; ".join(f"{line.label} {_last(line, unit)}" for line, _ in drawn)
    return figure(title, body, legend, summary, note)


def figure(title: str, body: str, legend: str, summary: str, note: str = "") -> str:
    """Title, legend, drawing and note; `body` and `legend` are markup, the others text."""
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><ul class="legend">{legend}</ul>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}: {summary}")}">{body}</svg>'
        f"{below}</figure>\n"
    )


def sample(style: int, *, is_marked: bool = True) -> str:
    """A short piece of a line, for a legend or a switch."""
    mark = f'<path class="mark" transform="translate(15 6)" d="{_MARKS[style % NUM_MARKS]}"/>' if is_marked else ""
    return (
        f'<svg class="sample {look(style)}" viewBox="0 0 30 12" aria-hidden="true">'
        f'<polyline points="0,6 30,6"/>{mark}</svg>'
    )


def look(style: int) -> str:
    """The CSS classes of a style."""
    return f"c{style % NUM_COLOURS} d{style % NUM_DASHES}"


def of_run(run: int | None) -> str:
    """The attribute by which the page's switches find what belongs to a run."""
    return "" if run is None else f' data-run="{run}"'


def buckets(points: Sequence[Point]) -> list[tuple[float, float, float, float]]:
    """Equal runs of neighbours: mean x, lowest, mean and highest y of each of NUM_BUCKETS."""
    bounds = [len(points) * index // NUM_BUCKETS for index in range(NUM_BUCKETS + 1)]
    found = []
    for start, stop in pairwise(bounds):
        ys = [y for _, y in points[start:stop]]
        found.append((sum(x for x, _ in points[start:stop]) / len(ys), min(ys), sum(ys) / len(ys), max(ys)))
    return found


def _within_reason(y_ticks: list[float], ys: Sequence[float], unit: str) -> list[float]:
    """No accuracy of 105 %, no loss below 0 on an axis whose values are on the right side of both."""
    least = 0.0 if min(ys) >= 0 else -math.inf
    most = 100.0 if unit == "%" and max(ys) <= 100 else math.inf
    kept = [tick for tick in y_ticks if least - 1e-9 <= tick <= most + 1e-9]
    return kept if len(kept) > 1 and kept[0] <= min(ys) and max(ys) <= kept[-1] else y_ticks


def _last(line: Series, unit: str) -> str:
    return f"ends at {number(line.points[-1][1])}{unit}" if line.note is None else line.note


def _entry(line: Series, style: int, unit: str, *, is_named: bool) -> str:
    words = f"{escape(line.label) if is_named else ''} <b>{escape(_last(line, unit))}</b>"
    return f"<li{of_run(line.run)}>{sample(style)} <span>{words}</span></li>"


def _line(line: Series, style: int, frame: Frame, unit: str, is_one_of_several: bool) -> str:
    points, band = line.points, ""
    if len(points) > MAX_POINTS and not line.is_exact:
        parts = buckets(points)
        points = [(x, mean) for x, _, mean, _ in parts]
        edge = [(x, high) for x, _, _, high in parts] + [(x, low) for x, low, _, _ in reversed(parts)]
        band = f'<polygon class="band" points="{_places([(frame.x(x), frame.y(y)) for x, y in edge])}"/>'
    placed = [(frame.x(x), frame.y(y)) for x, y in points]
    drawing = f'{band}<polyline points="{_places(placed)}"/>'
    mark = _MARKS[style % NUM_MARKS]
    if line.is_marked or len(placed) == 1:
        for (x, y), (step, value) in zip(placed, points, strict=True):
            words = escape(f"{line.label} at {number(step)}: {number(value)}{unit}")
            drawing += (
                f'<path class="mark" transform="translate({x:.1f} {y:.1f})" d="{mark}"><title>{words}</title></path>'
            )
    elif is_one_of_several:
        drawing += _marks(placed, mark, style)
    return f'<g class="{look(style)}"{of_run(line.run)}>{drawing}</g>'


def _places(placed: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)


def _marks(placed: Sequence[Point], mark: str, style: int) -> str:
    """A few marks along a line, each style's at places of its own, for readers who tell no colours apart."""
    span = (WIDTH - LEFT - RIGHT) / NUM_MARKS_ON_LINE
    drawing = ""
    for index in range(NUM_MARKS_ON_LINE):
        wanted = LEFT + span * (index + 0.25 + 0.5 * (style % NUM_MARKS) / NUM_MARKS)
        x, y = min(placed, key=lambda point: abs(point[0] - wanted))
        if abs(x - wanted) < span:
            drawing += f'<path class="mark" transform="translate({x:.1f} {y:.1f})" d="{mark}"/>'
    return drawing
