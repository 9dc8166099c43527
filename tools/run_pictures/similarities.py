"""Cosines between classes, of samples with their own and with the nearest other prototype, and margins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.margins import sample_margins
from tools.run_pictures.view import COLOURS, Floats, RunView, chosen_classes, figure_of, save, unit

MATRIX_CLASSES = 100
NUMBERED_CLASSES = 12  # up to which the cells show their numbers
BLOCK = 4096


def draw_confusion(view: RunView, path: Path) -> None:
    """Mean cosine between the embeddings of two classes, and the cosine of their prototypes, side by side.

    Raises:
        ClassificationError: the run has saved no embeddings.
    """
    embedded = view.embedded()
    classes = chosen_classes(len(embedded.prototypes), MATRIX_CLASSES)
    directions = unit(embedded.embeddings)
    means = np.stack([_mean(directions[embedded.labels == label]) for label in classes])
    prototypes = embedded.prototypes if embedded.prototypes.ndim == 2 else embedded.prototypes.mean(axis=1)
    rows = unit(prototypes[classes])
    figure = figure_of((11.0, 5.0))
    images = []
    for place, matrix, title in (
        (121, means @ means.T, "embeddings of the test images, mean cosine"),
        (122, rows @ rows.T, "prototypes"),
    ):
        axes = figure.add_subplot(place)
        images.append(axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r"))
        axes.set_title(title, fontsize=10)
        if len(classes) <= NUMBERED_CLASSES:
            axes.set(xticks=range(len(classes)), yticks=range(len(classes)))
            for (row, column), value in np.ndenumerate(matrix):
                colour = "white" if abs(value) > 0.6 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    count = len(embedded.prototypes)
    told = "" if len(classes) == count else f", {len(classes)} of {count} classes"
    figure.suptitle(f"{view.label}: cosines between classes{told}", fontsize=11)
    figure.colorbar(images[0], ax=figure.axes, shrink=0.8, label="cosine")
    save(figure, path)


def draw_histograms(view: RunView, path: Path) -> None:
    """Cosines of the test images with their own and with the nearest other prototype; beside it, their difference.

    Raises:
        ClassificationError: the run has saved no embeddings.
    """
    embedded = view.embedded()
    prototypes = embedded.prototypes if embedded.prototypes.ndim == 2 else embedded.prototypes.mean(axis=1)
    has_direction = np.linalg.norm(embedded.embeddings, axis=1) > 0
    embeddings, labels = embedded.embeddings[has_direction], embedded.labels[has_direction]
    own, margins = _cosines(embeddings, labels, prototypes)
    figure = figure_of((11.0, 4.2))
    left = figure.add_subplot(121)
    bins = np.linspace(-1, 1, 101).tolist()
    left.hist(own, bins=bins, color=COLOURS[0], alpha=0.7, label=f"own prototype, mean {own.mean():.3f}")
    left.hist(
        own - margins, bins=bins, color=COLOURS[1], alpha=0.7, label=f"nearest other, mean {(own - margins).mean():.3f}"
    )
    left.set(xlabel="cosine", ylabel="test images")
    left.legend()
    right = figure.add_subplot(122)
    right.hist(margins, bins=np.linspace(min(-0.1, float(margins.min())), 2, 101).tolist(), color=COLOURS[2])
    right.axvline(0.0, color="black", linestyle="--")
    wrong = float((margins < 0).mean())
    right.set(xlabel="sample margin in cosines", ylabel="test images")
    right.set_title(f"mean {margins.mean():.3f}, least {margins.min():.3f}, {wrong:.2%} below 0", fontsize=10)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_yscale("log")
    figure.suptitle(f"{view.label}: how far the classes are apart", fontsize=11)
    save(figure, path)


def _mean(directions: Floats) -> Floats:
    """Mean of a class's directions; zero where it has none here."""
    return directions.mean(axis=0) if len(directions) else np.zeros(directions.shape[1])


def _cosines(embeddings: Any, labels: Any, prototypes: Any) -> tuple[Floats, Floats]:
    """Cosine with the own prototype, and the sample margin, (N,) each."""
    own = np.einsum("nd,nd->n", unit(embeddings), unit(prototypes)[labels])
    tensors = (torch.from_numpy(np.ascontiguousarray(values)) for values in (embeddings, labels, prototypes))
    return own, sample_margins(*tensors).double().numpy()
