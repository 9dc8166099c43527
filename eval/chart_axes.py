"""Data coordinates -> a drawing's coordinates, round ticks, axes as SVG. Knows no lines and no bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# The drawing is as wide as a phone's screen, so that its text is hardly scaled below its nominal size.
WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 48


@dataclass(frozen=True)
class Frame:
    """Data coordinates -> drawing coordinates; x may be logarithmic, its bounds are then above 0."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    is_log_x: bool = False

    def x(self, value: float) -> float:
        """Place from the left edge; a value beyond the frame is drawn at its border."""
        low, high = self.x_low, self.x_high
        value = min(max(value, low), high)
        if self.is_log_x:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Place from the upper edge."""
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


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


def decades(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high], at most six of them, evenly apart."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / 6))
    return [10.0**exponent for exponent in range(last, first - 1, -step)][::-1]


def number(value: float) -> str:
    """A short number: 12.5k, 0.0312, 1e-05."""
    return f"{value / 1000:.4g}k" if abs(value) >= 10_000 else f"{value:.4g}"


def axes(frame: Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, unit: str = "") -> str:
    """Grid, numbers of both axes, and what x is."""
    parts = []
    for tick in y_ticks:
        y = frame.y(tick)
        parts.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}{escape(unit)}</text>'
        )
    for tick in x_ticks:
        x = frame.x(tick)
        anchor = "end" if x > WIDTH - RIGHT - 15 else "middle"
        place = WIDTH - 2 if anchor == "end" else x
        parts.append(
            f'<path class="grid" d="M{x:.1f} {HEIGHT - BOTTOM}v4"/>'
            f'<text x="{place:.1f}" y="{HEIGHT - BOTTOM + 21}" text-anchor="{anchor}">{number(tick)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(parts)
