"""Curves of searches and templates -> PNG; draws and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Curve = tuple[Sequence[float], Sequence[float]]


def plot_curves(path: Path, title: str, x_label: str, y_label: str, curves: Mapping[str, Curve]) -> None:
    """Steps of rates over a logarithmic axis.

    Args:
        path: the PNG to write.
        title: above the drawing.
        x_label, y_label: what the axes are.
        curves: by name, (x > 0 rising, y in [0, 1]); an empty one is left out.
    """
    # made directly, not through pyplot: no global state, no display, nothing kept alive between plots
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xscale="log", ylim=(0.0, 1.02))
    axes.grid(alpha=0.3)
    drawn = [axes.plot(x, y, drawstyle="steps-post", label=name) for name, (x, y) in curves.items() if len(x)]
    if drawn:
        axes.legend(loc="lower right")
    else:
        axes.text(0.5, 0.5, "too few probes for a curve", ha="center", transform=axes.transAxes)
    figure.savefig(path, format="png", metadata={"Software": None})
