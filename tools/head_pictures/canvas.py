"""Curves -> one small SVG, the same bytes every time. Knows no heads."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from torch import Tensor

# told apart by colour-blind readers and in greyscale; the parent is dashed and grey
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#8a4f9e")
_PARENT: dict[str, Any] = {"color": "#666666", "linestyle": "--", "linewidth": 1.0, "zorder": 1.5}
_SIZE = (3.75, 2.3)  # inches: 360 x 220 px on a page
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "heads",
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 6.5,
    "axes.linewidth": 0.6,
    "path.simplify": True,
    "path.simplify_threshold": 0.05,
}
# matplotlib writes coordinates in millionths of a point; hundredths are plenty, and half the bytes
_PATH = re.compile(r' d="[^"]*"')
_LONG = re.compile(r"-?\d+\.\d{3,}")
_SAMPLED = slice(0, None, 15)  # one value in 15 degrees goes into the description


@dataclass(frozen=True)
class Curve:
    """One line over the angles 0 .. 180 degrees, in steps of one degree.

    Attributes:
        label: its legend.
        values: (181,).
        is_parent: drawn dashed, for comparison.
        upto: a second (181,): the band between both is shaded.
    """

    label: str
    values: Tensor
    is_parent: bool = False
    upto: Tensor | None = None


@dataclass(frozen=True)
class Picture:
    """Everything that one file shows.

    Attributes:
        title: first line.
        subtitle: second line, the parameters.
        unit: what the vertical axis is, "logit" or "loss".
        curves: in the order of the legend.
        marks: (degrees, text) of vertical lines.
        limits: of the vertical axis, where the whole range would hide what matters.
    """

    title: str
    subtitle: str
    unit: str
    curves: Sequence[Curve]
    marks: Sequence[tuple[float, str]] = ()
    limits: tuple[float, float] | None = None

    def description(self) -> str:
        """The picture's words and numbers as JSON; the file carries it, so that one can tell whether it is current."""
        data = {
            "title": self.title,
            "subtitle": self.subtitle,
            "unit": self.unit,
            "curves": {curve.label: _rounded(curve.values) for curve in self.curves},
            "bands": {curve.label: _rounded(curve.upto) for curve in self.curves if curve.upto is not None},
            "marks": [[round(degrees, 2), text] for degrees, text in self.marks],
        }
        return json.dumps(data)


def to_svg(picture: Picture) -> bytes:
    """Draws the picture: no date, no random names, so that equal pictures are equal files."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        colours = iter(_COLOURS * 3)
        for curve in picture.curves:
            look = _PARENT if curve.is_parent else {"color": next(colours), "linewidth": 1.4}
            values = curve.values.detach().numpy()
            if curve.upto is None:
                axes.plot(range(181), values, label=curve.label, **look)
            else:
                band = (range(0, 181, 3), values[::3], curve.upto.detach().numpy()[::3])
                axes.fill_between(*band, color=look["color"], alpha=0.25, linewidth=0, label=curve.label)
        for degrees, text in picture.marks:
            axes.axvline(degrees, color="black", linewidth=0.7, linestyle=":")
            axes.annotate(text, (degrees, 0.5), xycoords=("data", "axes fraction"), xytext=(2, 0),
                          textcoords="offset points")  # fmt: skip
        axes.set_xlim(0, 180)
        axes.set_ylim(picture.limits)
        axes.set_xticks(range(0, 181, 30))
        axes.tick_params(width=0.6, length=2.5)
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.set(xlabel="angle θ to the prototype, degrees", ylabel=picture.unit)
        axes.set_title(f"{picture.title}\n{picture.subtitle}", fontsize=7)
        axes.legend(fontsize=6, framealpha=0.8, handlelength=1.8, borderaxespad=0.4)
        buffer = io.BytesIO()
        metadata = {"Creator": None, "Date": None, "Title": picture.title, "Description": picture.description()}
        figure.savefig(buffer, format="svg", metadata=metadata)
    return _shortened(buffer.getvalue().decode()).encode()


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 3) + 0.0 for value in values[_SAMPLED].tolist()]


def _shortened(svg: str) -> str:
    return _PATH.sub(lambda path: _LONG.sub(lambda number: f"{float(number[0]):.2f}", path[0]), svg)
