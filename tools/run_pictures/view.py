"""What pictures of a run are drawn from, read once; and what all pictures look like. Draws nothing itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eval.classification_files import FOLDER, SNAPSHOTS, Embedded, read_embedded
from eval.report_input import read_config
from utils.errors import DataError

Floats = NDArray[np.float64]
DRAWN_CLASSES = 20  # that colours can tell apart
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


class PictureError(DataError):
    """A picture that this run cannot give; the text says why, and what would."""


@dataclass(frozen=True)
class RunView:
    """A run as pictures see it.

    Attributes:
        folder: of the run.
        label: what a figure calls it.
        config: its config.json.
        lines: of its metrics.jsonl, in order.
    """

    folder: Path
    label: str
    config: dict[str, Any]
    lines: list[dict[str, Any]]

    def embedded(self, dataset: str = "test") -> Embedded:
        """Embeddings, labels and prototypes of its last test.

        Raises:
            ClassificationError: they are not there, or damaged.
        """
        return read_embedded(self.folder / FOLDER / f"{dataset}.npz")

    def snapshots(self) -> list[Embedded]:
        """Embeddings of some test images in the course of the run, in order; of 2 or 3 numbers only."""
        return [read_embedded(path) for path in sorted((self.folder / FOLDER / SNAPSHOTS).glob("step_*.npz"))]

    def curve(self, kind: str, name: str, dataset: str | None = None) -> tuple[Floats, Floats]:
        """(epochs, values) of a number that the run logged, where it is one."""
        steps, epochs, values = [], [], []
        for line in self.lines:
            if line.get("kind") == kind and line.get("dataset") == dataset and line.get(name) is not None:
                steps.append(line["step"])
                epochs.append(line["epoch"])
                values.append(line[name])
        return np.array(steps, dtype=np.float64) * self._epochs_per_step(), np.array(values, dtype=np.float64)

    def _epochs_per_step(self) -> float:
        """From the last line of a test, which stands at an epoch's end."""
        ends = [(line["step"], line["epoch"]) for line in self.lines if line.get("kind") == "classification"]
        step, epoch = max(ends, default=(0, 0))
        return epoch / step if step and epoch else 1.0


def read_view(folder: Path, label: str | None = None) -> RunView:
    """Reads a run's folder.

    Raises:
        PictureError: it is none. ReportError: its config.json is damaged.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise PictureError(f"{folder}: no folder of a run (there is no metrics.jsonl); give one that train.py wrote")
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # torn by a crash
        if isinstance(line, dict):
            lines.append(line)
    return RunView(folder, label or folder.resolve().name, read_config(folder / "config.json"), lines)


def chosen_classes(num_classes: int, limit: int) -> NDArray[np.int64]:
    """All classes, or `limit` of them, evenly spaced."""
    if num_classes <= limit:
        return np.arange(num_classes)
    return np.linspace(0, num_classes - 1, limit).round().astype(np.int64)


def class_colours(count: int) -> list[Any]:
    """Colours of up to DRAWN_CLASSES classes."""
    return list(matplotlib.colormaps["tab10" if count <= 10 else "tab20"].colors[:count])  # type: ignore[attr-defined]


def unit(rows: NDArray[Any]) -> Floats:
    """Rows of length 1; a zero row stays zero."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), dtype=np.float64)


def figure_of(size: tuple[float, float]) -> Figure:
    """An empty figure that needs no display and keeps nothing alive."""
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG without the version of what drew it."""
    figure.savefig(path, format="png", metadata={"Software": None})


def legend_of_classes(axes: Axes, names: Sequence[int], colours: Sequence[Any]) -> None:
    """A legend beside the axes, one dot for each class."""
    dots = [axes.plot([], [], "o", color=colour, markersize=5)[0] for colour in colours]
    axes.legend(dots, [str(name) for name in names], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
