"""Tests of a classification in a report: the last, the best, and their curves. Numbers are the runs' own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eval.charts import Point, Series, line_chart, sample
from eval.report_input import Record, RunRecords
from eval.report_parts.markup import Markup, cell, percent, table

# name in metrics.jsonl, title, unit, factor
CURVES = (
    ("error", "Test error", "%", 100.0),
    ("class_margin", "Class margin: smallest angle between two prototypes", "°", 1.0),
    ("sample_margin_mean", "Mean sample margin, in cosines", "", 1.0),
    ("prototype_norm_ratio", "Largest by smallest prototype norm", "", 1.0),
)


def best_test(run: RunRecords) -> Record | None:
    """The first test with the highest top-1; None where nothing was tested."""
    tests = [record for record in run.classification if record.get("dataset") == "test" and _value(record, "top1")]
    return max(tests, key=lambda record: float(record["top1"]), default=None)


def classification_section(runs: Sequence[RunRecords]) -> str:
    """The last test on each set and the best; empty where no run classifies."""
    rows = []
    for index, run in enumerate(runs):
        last = {str(record.get("dataset")): record for record in run.classification}
        for name, record in sorted(last.items()):
            best = best_test(run) if name == "test" else None
            named = [Markup(f'<span class="run">{sample(index)} {cell(run.label)}</span>')] if len(runs) > 1 else []
            rows.append(
                [
                    name,
                    *named,
                    str(record.get("num_images", "n/a")),
                    *(percent(record.get(key)) for key in ("error", "top1", "top5", "mean_class_accuracy")),
                    str(record.get("step", "n/a")),
                    "" if best is None else f"{percent(best.get('top1'))} at step {best.get('step')}",
                    *(_number(record, key, form) for key, form in _MARGINS),
                ]
            )
    if not rows:
        return ""
    header = ["set", *(["run"] if len(runs) > 1 else []), "images", "error", "top-1", "top-5", "mean over classes"]
    header += ["at step", "best top-1", "class margin", "sample margin", "least", "norm ratio"]
    return table("Classification by the prototypes, without margin", header, rows)


_MARGINS = (
    ("class_margin", "{:.2f}°"), ("sample_margin_mean", "{:.3f}"), ("sample_margin_min", "{:.3f}"),
    ("prototype_norm_ratio", "{:.2f}"),
)  # fmt: skip


def classification_charts(runs: Sequence[RunRecords]) -> str:
    """Curves over the steps, all runs in each; empty where no run classifies."""
    charts = ""
    for key, title, unit, factor in CURVES:
        lines = [
            Series(
                run.label if len(runs) > 1 else title,
                _points(run, key, factor),
                True,
                style=index,
                run=index if len(runs) > 1 else None,
            )
            for index, run in enumerate(runs)
        ]
        if any(line.points for line in lines):
            charts += line_chart(title, lines, unit=unit)
    return charts


def _points(run: RunRecords, key: str, factor: float) -> list[Point]:
    points = []
    for record in run.classification:
        value, step = _value(record, key), _value(record, "step")
        if record.get("dataset") == "test" and value is not None and step is not None:
            points.append((step, value * factor))
    return points


def _number(record: Record, key: str, form: str) -> str:
    value = _value(record, key)
    return "n/a" if value is None else form.format(value)


def _value(record: Record, key: str) -> float | None:
    value: Any = record.get(key)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
