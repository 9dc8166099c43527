"""Scores of pairs -> ROC curves and histograms as inline SVG. No files, no metrics but the curves' points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eval.chart_axes import BOTTOM, HEIGHT, TOP, Frame, axes, ticks
from eval.charts import Point, figure, of_run
from eval.roc import MIN_IMPOSTORS_ACCEPTED

NUM_ROC_POINTS, NUM_BINS = 240, 60


def roc_points(scores: NDArray[np.float64], is_same: NDArray[np.bool_]) -> list[Point]:
    """(FAR, TAR) from one accepted impostor to all of them, at most 240, evenly on the logarithmic FAR axis.

    TAR at k accepted of M impostors is the share of same pairs strictly above the impostor of rank k + 1: the TAR of
    the loosest threshold whose FAR is not above k / M, as in `eval.roc`.

    Args:
        scores: (N,) cosines.
        is_same: (N,).

    Returns:
        FAR rising from 1 / M to 1; empty where all pairs are of one kind.
    """
    genuine, impostors = np.sort(scores[is_same]), np.sort(scores[~is_same])[::-1]
    if len(genuine) == 0 or len(impostors) == 0:
        return []
    counts = np.unique(np.geomspace(1, len(impostors), NUM_ROC_POINTS).round().astype(np.int64))
    refused = np.append(impostors, -np.inf)[counts]
    tars = 1.0 - np.searchsorted(genuine, refused, side="right") / len(genuine)
    return list(zip((counts / len(impostors)).tolist(), tars.tolist(), strict=True))


def as_steps(points: Sequence[Point]) -> list[Point]:
    """The same curve without straight lines between measured points: each value holds until the next x."""
    corners = [corner for before, after in pairwise(points) for corner in (before, (after[0], before[1]))]
    return [*corners, *points[-1:]]


def noise_limit(is_same: NDArray[np.bool_]) -> float:
    """The FAR below which fewer than 10 impostors are accepted, so that the curve is mostly chance."""
    return MIN_IMPOSTORS_ACCEPTED / max(1, int((~is_same).sum()))


def score_range(all_scores: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """A common range for the histograms of several runs, in tenths."""
    low = min(float(scores.min()) for scores in all_scores)
    return float(np.floor(10 * max(low, -1.0) + 1e-9) / 10), 1.0


def shares(scores: NDArray[np.float64], bounds: tuple[float, float]) -> NDArray[np.float64]:
    """Share of the scores in each of 60 equal bins; empty scores give zeros."""
    counts, _ = np.histogram(np.clip(scores, *bounds), NUM_BINS, bounds)
    return counts / max(1, len(scores))


def score_histogram(
    title: str,
    scores: NDArray[np.float64],
    is_same: NDArray[np.bool_],
    *,
    threshold: float | None,
    bounds: tuple[float, float],
    highest: float,
    run: int | None = None,
) -> str:
    """Outlines of both kinds' histograms: same pairs solid and filled, different pairs dashed, the threshold between.

    Args:
        title: heading of the figure.
        scores: (N,) cosines.
        is_same: (N,).
        threshold: drawn as a line; None: not known.
        bounds: of the x axis, the same for figures that are compared.
        highest: share at the top of the y axis.
        run: see `eval.charts.Series`.
    """
    y_ticks = ticks(0.0, 100 * highest or 1.0)
    frame = Frame(*bounds, 0.0, y_ticks[-1])
    edges = np.linspace(*bounds, NUM_BINS + 1)
    body = axes(frame, [t for t in ticks(*bounds) if bounds[0] <= t <= bounds[1]], y_ticks, "cosine", "%")
    legend, summary = "", []
    for kind, chosen, style in (("different", ~is_same, "c1 d1"), ("same", is_same, "c0 d0")):
        part = scores[chosen]
        if not len(part):
            continue
        body += _outline(frame, edges, 100 * shares(part, bounds), style)
        words = f"{len(part):,} {kind}"
        legend += f'<li><svg class="sample {style}" viewBox="0 0 30 12" aria-hidden="true"><path class="area" '
        legend += f'd="M0 12V1H30V12"/></svg> <span>{words} <b>mean {part.mean():.3f}</b></span></li>'
        summary.append(f"{words} pairs, mean cosine {part.mean():.3f}")
    if threshold is not None and bounds[0] <= threshold <= bounds[1]:
        x = frame.x(threshold)
        body += f'<path class="threshold" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        legend += (
            '<li><svg class="sample" viewBox="0 0 30 12" aria-hidden="true"><path class="threshold" d="M15 0V12"/>'
        )
        legend += f"</svg> <span>threshold <b>{threshold:.3f}</b></span></li>"
        summary.append(f"threshold {threshold:.3f}")
    drawing = figure(title, body, legend, "; ".join(summary), "Share of each kind's pairs per bin.")
    return drawing.replace("<figure", f"<figure{of_run(run)}", 1)


def _outline(frame: Frame, edges: NDArray[np.float64], heights: NDArray[np.float64], style: str) -> str:
    path = f"M{frame.x(edges[0]):.1f} {frame.y(0):.1f}"
    for right, height in zip(edges[1:], heights, strict=True):
        path += f"V{frame.y(height):.1f}H{frame.x(right):.1f}"
    return f'<g class="{style}"><path class="area" d="{path}V{frame.y(0):.1f}"/></g>'
