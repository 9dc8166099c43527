"""Scores of pairs -> PNG plots; draws and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from eval.pair_metrics import PairResult

# readable on white paper and in greyscale, and told apart by colour-blind readers
SAME_COLOUR, DIFFERENT_COLOUR = "#0072b2", "#d55e00"


def plot_roc(path: str | Path, name: str, result: PairResult, is_same: NDArray[np.bool_]) -> None:
    """TAR over FAR with a logarithmic FAR axis; a set with pairs of one kind only gets a page that says so.

    Args:
        path: the PNG to write.
        name: the set's name, for the title.
        result: scores (N,) and the operating points that are marked.
        is_same: (N,) bool.
    """
    figure, axes = _figure(f"{name}: ROC")
    if result.auc is None:
        axes.text(0.5, 0.5, "all pairs are of one kind: no ROC", ha="center", transform=axes.transAxes)
    else:
        far, tar, _ = roc_curve(is_same, result.scores)
        axes.plot(far, tar, color=SAME_COLOUR, drawstyle="steps-post", label=f"AUC {result.auc:.4f}")
        points = [(f, t) for f, t in result.tar_at_far.items() if t is not None]
        axes.plot(*zip(*points, strict=True), "o", color=DIFFERENT_COLOUR) if points else None
        axes.set_xscale("log")
        axes.set_xlim(min(1.0 / result.num_different, 0.1), 1.0)  # left of one impostor the curve says nothing
        axes.legend(loc="lower right")
    axes.set(xlabel="false accept rate", ylabel="true accept rate", ylim=(0.0, 1.02))
    _save(figure, path)


def plot_scores(path: str | Path, name: str, result: PairResult, is_same: NDArray[np.bool_]) -> None:
    """Histograms of the cosines of same and different pairs, with the mean threshold of the folds.

    Args:
        path: the PNG to write.
        name: the set's name, for the title.
        result: scores (N,) and fold thresholds.
        is_same: (N,) bool.
    """
    figure, axes = _figure(f"{name}: scores")
    edges = np.linspace(min(-0.2, result.scores.min()), 1.0, 101)
    kinds = (("same", is_same, SAME_COLOUR), ("different", ~is_same, DIFFERENT_COLOUR))
    for label, chosen, colour in kinds:
        if chosen.any():
            axes.hist(result.scores[chosen], edges, alpha=0.6, color=colour, label=f"{label} ({int(chosen.sum())})")
    threshold = float(np.mean(result.fold_thresholds))
    axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3f}")
    axes.set(xlabel="cosine", ylabel="pairs")
    axes.legend()
    _save(figure, path)


def _figure(title: str) -> tuple[Figure, Any]:
    # figures made directly, not through pyplot: no global state, no display, nothing kept alive between plots
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Figure, path: str | Path) -> None:
    figure.savefig(path, format="png", metadata={"Software": None})
