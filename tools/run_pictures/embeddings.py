"""Embeddings with their prototypes in the plane, in space, and over the course of a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eval.classification_files import Embedded
from tools.run_pictures.view import (
    DRAWN_CLASSES,
    Floats,
    PictureError,
    RunView,
    chosen_classes,
    class_colours,
    figure_of,
    legend_of_classes,
    save,
    unit,
)

POINTS = 5_000  # that a scatter shows, evenly spaced
FRAME, PAUSE, LAST_PAUSE = 5.0, 500, 2500  # inches; milliseconds


def draw_embeddings(view: RunView, path: Path) -> None:
    """Embeddings coloured by class, prototypes as arrows: as they are in 2-D, also on the sphere in 3-D, else by PCA.

    Raises:
        ClassificationError: the run has saved none.
    """
    embedded = view.embedded()
    size = embedded.embeddings.shape[1]
    figure = figure_of((11.0, 5.2) if size == 3 else (6.4, 5.4))
    if size == 3:
        _in_space(figure, view, embedded)
    else:
        points, arrows, note = _in_plane(embedded)
        _scatter(figure, points, arrows, embedded, f"{view.label}: embeddings of the test images{note}")
    save(figure, path)


def draw_animation(view: RunView, path: Path) -> None:
    """The 2-D embeddings of some test images at each test of the run, as a GIF.

    Raises:
        PictureError: embeddings of another size, or fewer than two tests.
    """
    frames = [frame for frame in view.snapshots() if frame.embeddings.shape[1] == 2]
    if len(frames) < 2:
        raise PictureError(
            f"{view.folder}: an animation needs embeddings of two numbers at two tests or more; this run has "
            f"{len(frames)}: train with embedding_size=2 and verbose=STEPS"
        )
    from PIL import Image  # matplotlib brings it along

    images = []
    for frame in frames:
        figure = figure_of((FRAME + 1.0, FRAME))
        arrows = _directions(frame)
        _scatter(figure, frame.embeddings, arrows, frame, f"{view.label}, epoch {frame.epoch:.2f}")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=80)
        images.append(Image.open(stream).convert("P", palette=Image.Palette.ADAPTIVE, colors=64))
    pauses = [PAUSE] * (len(images) - 1) + [LAST_PAUSE]
    images[0].save(path, format="GIF", save_all=True, append_images=images[1:], duration=pauses, loop=0, optimize=True)


def _in_plane(embedded: Embedded) -> tuple[Any, Any, str]:
    """Points, prototypes' directions and a note for the title."""
    directions = _directions(embedded)
    if embedded.embeddings.shape[1] == 2:
        return embedded.embeddings, directions, ""
    from sklearn.decomposition import PCA

    projection = PCA(n_components=2, svd_solver="full", random_state=0).fit(embedded.embeddings)
    share = projection.explained_variance_ratio_.sum()
    note = f"\n{embedded.embeddings.shape[1]} numbers, projected (PCA, {share:.0%} of the variance); no angles"
    return projection.transform(embedded.embeddings), directions @ projection.components_.T, note


def _directions(embedded: Embedded) -> Floats:
    """Directions of all prototypes; with several a class, the first of each."""
    prototypes = embedded.prototypes if embedded.prototypes.ndim == 2 else embedded.prototypes[:, 0]
    return unit(prototypes)


def _scatter(figure: Figure, points: Any, arrows: Any, embedded: Embedded, title: str) -> None:
    axes = figure.add_subplot()
    classes = chosen_classes(len(embedded.prototypes), DRAWN_CLASSES)
    colours = class_colours(len(classes))
    reach = float(np.percentile(np.linalg.norm(points, axis=1), 99)) or 1.0
    shown = _spread(len(points))
    for label, colour in zip(classes, colours, strict=True):
        own = points[shown][embedded.labels[shown] == label]
        axes.scatter(own[:, 0], own[:, 1], s=4, color=colour, alpha=0.5, linewidths=0, rasterized=True)
        x, y = 0.9 * reach * arrows[label]
        axes.annotate(
            "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
        )
        axes.annotate(str(label), (x, y), ha="center", va="center", fontsize=8, fontweight="bold")
    axes.set(xlim=(-1.1 * reach, 1.1 * reach), ylim=(-1.1 * reach, 1.1 * reach), aspect="equal")
    axes.set_title(title + _told(embedded, classes), fontsize=10)
    axes.grid(alpha=0.3)
    legend_of_classes(axes, classes.tolist(), colours)


def _in_space(figure: Figure, view: RunView, embedded: Embedded) -> None:
    """Two panels: as they are, and on the unit sphere."""
    classes = chosen_classes(len(embedded.prototypes), DRAWN_CLASSES)
    colours, directions, shown = class_colours(len(classes)), _directions(embedded), _spread(len(embedded.labels))
    for place, points, title in (
        (121, embedded.embeddings, "as they are"),
        (122, unit(embedded.embeddings), "on the unit sphere"),
    ):
        axes: Any = figure.add_subplot(place, projection="3d")
        reach = float(np.percentile(np.linalg.norm(points, axis=1), 99)) or 1.0
        for label, colour in zip(classes, colours, strict=True):
            own = points[shown][embedded.labels[shown] == label]
            axes.scatter(*own.T, s=5, color=colour, alpha=0.6, label=str(label), depthshade=False)
            x, y, z = 1.1 * reach * directions[label]
            axes.plot([0, x], [0, y], [0, z], color=colour, lw=1.8)
            axes.text(x, y, z, str(label), fontsize=8, fontweight="bold")
        axes.set_title(title, fontsize=10)
        axes.locator_params(nbins=5)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach), box_aspect=(1, 1, 1))
    figure.suptitle(f"{view.label}: embeddings of the test images{_told(embedded, classes)}", fontsize=11)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", markerscale=3, frameon=False)


def _told(embedded: Embedded, classes: Any) -> str:
    count = len(embedded.prototypes)
    return "" if len(classes) == count else f" ({len(classes)} of {count} classes)"


def _spread(count: int) -> Any:
    return np.linspace(0, count - 1, min(count, POINTS)).round().astype(np.int64)
