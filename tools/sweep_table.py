"""Results of a sweep's runs -> mean and spread over the seeds, as a table and as a figure. Trains nothing."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tools.sweep_plan import Trial

Row = dict[str, Any]
# name in records and tables -> heading, how it is written
MEASURES = {
    "test_error": ("test error", "{:.2%}"),
    "train_error": ("train error", "{:.2%}"),
    "accuracy": ("verification", "{:.2%}"),
    "class_margin": ("class margin", "{:.2f}°"),
    "sample_margin_mean": ("sample margin", "{:.3f}"),
    "sample_margin_min": ("least sample margin", "{:.3f}"),
    "prototype_norm_ratio": ("norm ratio", "{:.2f}"),
    "mean_class_accuracy": ("mean of classes", "{:.2%}"),
    "images_per_second": ("images/s", "{:.0f}"),
    "minutes": ("minutes", "{:.1f}"),
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def is_done(folder: Path) -> bool:
    """Whether a run has come to its end: its report is the last thing it writes."""
    return (folder / "report.html").is_file() and (folder / "model.pt").is_file()


def read_trial(folder: Path) -> dict[str, float] | None:
    """The numbers of a finished run by their names in MEASURES; None where it is not finished."""
    if not is_done(folder):
        return None
    found: dict[str, float] = {}
    verified: dict[str, float] = {}  # set -> accuracy of its last verification, by the first protocol
    speeds, times = [], []
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a line that a crash has torn
        times.append(record["time"])
        if record["kind"] == "train":
            speeds.append(record["images_per_second"])
        elif record["kind"] == "classification":  # the last one counts
            found[f"{record['dataset']}_error"] = record["error"]
            if record["dataset"] == "test":
                found |= {name: record[name] for name in MEASURES if record.get(name) is not None}
        elif record["kind"] == "verification" and record["protocol"] == "insightface":
            verified[record["dataset"]] = record["accuracy"]
    if verified:
        found["accuracy"] = statistics.fmean(verified.values())
    rates = [speed for speed in speeds if speed]
    if rates:
        found["images_per_second"] = statistics.median(rates)
    found["minutes"] = (max(times) - min(times)) / 60 if times else math.nan
    return {name: value for name, value in found.items() if name in MEASURES and math.isfinite(value)}


def summarise(results: Sequence[tuple[Trial, Mapping[str, float] | None]]) -> list[Row]:
    """One row for each combination, in the order given: values, runs, and mean and std of each measure.

    The standard deviation is that of a sample (n - 1); None for a single run.
    """
    grouped: dict[tuple[tuple[str, str], ...], list[Mapping[str, float]]] = {}
    for trial, numbers in results:
        grouped.setdefault(trial.values, []).extend([] if numbers is None else [numbers])
    rows = []
    for values, runs in grouped.items():
        row: Row = {"values": dict(values), "runs": len(runs)}
        for name in MEASURES:
            found = [run[name] for run in runs if name in run]
            if found:
                spread = statistics.stdev(found) if len(found) > 1 else None
                row[name] = {"mean": statistics.fmean(found), "std": spread, "n": len(found)}
        rows.append(row)
    return rows


def markdown(varied: Mapping[str, Sequence[str]], rows: Sequence[Row]) -> str:
    """The table for people: mean +- standard deviation."""
    names = [name for name in MEASURES if any(name in row for row in rows)]
    header = [*varied, "runs", *(MEASURES[name][0] for name in names)]
    body = [
        [*row["values"].values(), str(row["runs"]), *(_cell(name, row.get(name)) for name in names)] for row in rows
    ]
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def csv_text(varied: Mapping[str, Sequence[str]], rows: Sequence[Row]) -> str:
    """The table for programs: mean and standard deviation in columns of their own."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*varied, "runs", *(f"{name}_{what}" for name in MEASURES for what in ("mean", "std"))])
    for row in rows:
        cells = [row.get(name, {}).get(what) for name in MEASURES for what in ("mean", "std")]
        writer.writerow([*row["values"].values(), row["runs"], *("" if cell is None else cell for cell in cells)])
    return stream.getvalue()


def draw(folder: Path, varied: Mapping[str, Sequence[str]], rows: Sequence[Row]) -> list[str]:
    """Draws accuracy against every varied key that is a number, one line for each value of the others.

    Returns:
        Names of the PNG files in the folder.
    """
    measure = "test_error" if any("test_error" in row for row in rows) else "accuracy"
    drawn = []
    for key, texts in varied.items():
        numbers = [_number(text) for text in texts]
        if len(texts) < 2 or None in numbers or not any(measure in row for row in rows):
            continue
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for index, (others, line) in enumerate(_lines(key, rows, measure).items()):
            places, means, spreads = zip(*sorted(line), strict=True)
            colour = COLOURS[index % len(COLOURS)]
            axes.errorbar(places, means, yerr=spreads, label=others or None, color=colour, marker="o", capsize=3)
        axes.set(xlabel=key, ylabel="test accuracy in %" if measure == "test_error" else "accuracy in %")
        axes.grid(alpha=0.3)
        if any(others for others in _lines(key, rows, measure)):
            axes.legend()
        name = f"accuracy_by_{key.rpartition('.')[2]}.png"
        figure.savefig(folder / name, dpi=120)
        drawn.append(name)
    return drawn


def _lines(key: str, rows: Sequence[Row], measure: str) -> dict[str, list[tuple[float, float, float]]]:
    """Points (value, accuracy in percent, its standard deviation) by what the other keys are."""
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        place = _number(row["values"][key])
        if measure not in row or place is None:
            continue
        others = ", ".join(f"{name}={value}" for name, value in row["values"].items() if name != key)
        mean, spread = row[measure]["mean"], row[measure]["std"] or 0.0
        accuracy = 1.0 - mean if measure == "test_error" else mean
        lines.setdefault(others, []).append((place, 100 * accuracy, 100 * spread))
    return lines


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _cell(name: str, summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return ""
    form = MEASURES[name][1]
    spread = "" if summary["std"] is None else f" ± {form.format(summary['std']).rstrip('°%')}"
    return f"{form.format(summary['mean'])}{spread}"
