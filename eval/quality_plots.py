"""Plots of embeddings: norms, angles, spectrum. Draws and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

_FIRST, _SECOND = "#0072b2", "#d55e00"  # told apart in greyscale and by colour-blind readers
_DOTS = 20_000


def plot_norms(path: Path, norms: NDArray[Any], others: Mapping[str, NDArray[Any]]) -> None:
    """A histogram of the norms, and norms over each of the others (at most 20,000 dots)."""
    known = {name: values for name, values in others.items() if np.isfinite(values).any()}
    figure = _figure(1 + len(known))
    axes = figure.axes
    axes[0].hist(norms, 60, color=_FIRST)
    axes[0].set(xlabel="norm", ylabel="embeddings")
    step = max(1, len(norms) // _DOTS)
    for axis, (name, values) in zip(axes[1:], known.items(), strict=True):
        axis.plot(values[::step], norms[::step], ".", markersize=2, color=_SECOND, alpha=0.5)
        axis.set(xlabel=name.replace("_", " "), ylabel="norm")
    _save(figure, path)


def plot_angles(path: Path, intra: NDArray[Any], statistics: Mapping[str, Any]) -> None:
    """Angles to the own identity's mean, and where the nearest other identities lie."""
    figure = _figure(1)
    axis = figure.axes[0]
    known = intra[np.isfinite(intra)]
    if len(known):
        axis.hist(known, 90, range=(0, 180), color=_FIRST, alpha=0.7, label="to the own identity's mean")
    for kind, style in (("nearest_other", "--"), ("inter", ":")):
        if statistics.get(kind):
            label = f"{kind.replace('_', ' ')}, median"
            axis.axvline(statistics[kind]["p50"], color=_SECOND, linestyle=style, label=label)
    axis.set(xlabel="angle (degrees)", ylabel="embeddings")
    axis.legend()
    _save(figure, path)


def plot_spectrum(path: Path, eigenvalues: Sequence[float], markers: Mapping[str, float | None]) -> None:
    """Shares of the variance, from the largest down, with the effective dimensions."""
    figure = _figure(1)
    axis = figure.axes[0]
    values = np.asarray(eigenvalues)
    axis.plot(np.arange(1, len(values) + 1), values / max(values.sum(), 1e-12), color=_FIRST)
    for (name, value), style in zip(markers.items(), ("--", ":"), strict=True):
        if value is not None:
            axis.axvline(value, color=_SECOND, linestyle=style, label=f"{name.replace('_', ' ')} {value:.1f}")
    axis.set(xlabel="direction", ylabel="share of the variance", yscale="log")
    axis.legend()
    _save(figure, path)


def _figure(panels: int) -> Figure:
    figure = Figure(figsize=(5 * panels, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for place in range(panels):
        figure.add_subplot(1, panels, place + 1).grid(alpha=0.3)
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", metadata={"Software": None})
