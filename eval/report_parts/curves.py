"""Curves over the steps of one run or several: verification accuracy and what the training lines hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from eval.charts import MAX_POINTS, THINNING, Point, Series, line_chart
from eval.report_input import Record, RunRecords
from eval.report_parts.classes import classification_charts
from eval.report_parts.markup import missing
from eval.report_parts.running import training_command

# metrics.jsonl key, title, unit, factor
TRAIN_CURVES = (
    ("loss", "Loss", "", 1.0),
    ("target_cosine", "Mean cosine with the own prototype", "", 1.0),
    ("lr", "Learning rate", "", 1.0),
    ("grad_norm", "Gradient norm", "", 1.0),
    ("images_per_second", "Images per second", "", 1.0),
    ("data_wait", "Share of time spent waiting for data", "%", 100.0),
    ("loss_scale", "Loss scale", "", 1.0),
)


def curves(runs: Sequence[RunRecords]) -> str:
    """Runs share each figure; the accuracy of several runs has a figure for each set, of one run one for all sets."""
    charts = classification_charts(runs) + accuracy_charts(runs)
    for key, title, unit, factor in TRAIN_CURVES:
        lines = [
            _series(run.label if len(runs) > 1 else title, index, runs, _points(run.train, key, factor))
            for index, run in enumerate(runs)
        ]
        if key == "loss_scale" and all(y == 1.0 for line in lines for _, y in line.points):
            continue  # not fp16: nothing was scaled
        charts += line_chart(title, lines, unit=unit)
    if not charts:
        return missing("Nothing was logged yet; lines appear while a run trains.", training_command(runs[0]))
    is_thinned = any(len(run.train) > MAX_POINTS for run in runs)
    note = f'<p class="note">{THINNING}</p>' if is_thinned else ""
    return f'<div class="charts">{charts}</div>{note}'


def accuracy_charts(runs: Sequence[RunRecords]) -> str:
    """Accuracy in protocol insightface over steps."""
    names = dict.fromkeys(str(record.get("dataset")) for run in runs for record in _scored(run))
    found = {
        name: [_points((r for r in _scored(run) if str(r.get("dataset")) == name), "accuracy", 100.0) for run in runs]
        for name in names
    }
    if len(runs) == 1:
        lines = [Series(name, points[0], is_marked=True) for name, points in found.items()]
        return line_chart("Verification accuracy", lines, unit="%")
    return "".join(
        line_chart(
            f"Verification accuracy on {name}",
            [_series(run.label, i, runs, points[i], is_marked=True) for i, run in enumerate(runs)],
            unit="%",
        )
        for name, points in found.items()
    )


def _series(
    label: str, index: int, runs: Sequence[RunRecords], points: list[Point], *, is_marked: bool = False
) -> Series:
    return Series(label, points, is_marked, style=index, run=index if len(runs) > 1 else None)


def _scored(run: RunRecords) -> list[Record]:
    return [record for record in run.verification if record.get("protocol") == "insightface"]


def _points(records: Iterable[Record], key: str, factor: float) -> list[Point]:
    """(step, value) of the records that hold a finite number there."""
    points = []
    for record in records:
        value, step = record.get(key), record.get("step")
        if isinstance(value, (int, float)) and isinstance(step, (int, float)) and math.isfinite(value):
            points.append((float(step), float(value) * factor))
    return points
