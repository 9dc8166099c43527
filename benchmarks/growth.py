"""How our head step grows with the number of classes: seconds and peak memory, all classes and a fixed sample.

Usage: python -m benchmarks.growth [--classes 10000,...,2000000] [--sampled 10000] [--threads N] [--steps 5]

Every size runs in a process of its own, so that peaks are its own. A size that would not fit into the memory that is
free is left out, and said so. Also draws docs/benchmarks/growth.svg: the same bytes from the same figures.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter

from benchmarks.head_step import OURS, Setting
from benchmarks.measure import RESULTS, run_child, save, surroundings, table

CLASSES = "10000,30000,100000,300000,1000000,2000000"
_GIB, _MIB = 2**30, 2**20
# Sizes of the weights that a step may need: weights, momentum, and all of the gradient or a sample's.
_ALL_COPIES, _SAMPLED_COPIES, _CONSTANT = 3.2, 2.2, 1 << 30
_STYLE = {"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 7, "axes.linewidth": 0.6}
_LONG = re.compile(r"-?\d+\.\d{3,}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, draw, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--classes", default=CLASSES, help="comma-separated (default: %(default)s)")
    add("--sampled", type=int, default=10_000, help="classes of the fixed sample (default: %(default)s)")
    add("--dim", type=int, default=512, help="D (default: %(default)s)")
    add("--batch", type=int, default=128, help="N (default: %(default)s)")
    add("--steps", type=int, default=5, help="the median is over them (default: %(default)s)")
    add("--threads", type=int, help="CPU threads (default: torch's)")
    add("--out", type=Path, default=RESULTS, metavar="FOLDER", help="for JSON and plot (default: docs/benchmarks)")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    context = surroundings()
    sizes = sorted(int(size) for size in options.classes.split(","))
    rows, left_out = measured(sizes, options)
    if not rows:
        parser.error(f"--classes: not one of them fits into the free memory: {'; '.join(left_out)}")
    markdown = described(rows, left_out, options)
    print(markdown)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "growth.svg").write_text(drawn(rows), encoding="utf-8")
    path = save("growth", "Growth with the classes", markdown, {**context, "rows": rows}, options.out)
    print(f"wrote {path} and growth.svg beside it")
    return 0


def measured(sizes: Sequence[int], options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per size and kind of step, and what was left out."""
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for classes in sizes:
        for is_sampled in (False, True):
            rate = options.sampled / classes if is_sampled else 1.0
            if rate >= 1 and is_sampled:
                continue  # the step on all classes is the same step
            setting = Setting(classes, rate, options.batch, options.dim)
            copies = _SAMPLED_COPIES if is_sampled else _ALL_COPIES
            needed, free = copies * setting.weight_bytes + _CONSTANT, free_bytes()
            if needed > free:
                left_out.append(f"{classes:,} classes need {needed / _GIB:.1f} GiB, {free / _GIB:.1f} are free")
                continue
            arguments = [OURS, *setting.arguments(), f"--steps={options.steps}"]
            found = run_child("benchmarks.head_step", arguments, threads=torch.get_num_threads())
            seconds = statistics.median(found["seconds"])
            rows.append(
                {"classes": classes, "active_classes": setting.active_classes, "is_sampled": is_sampled,
                 "median_seconds": seconds, **found}
            )  # fmt: skip
            print(f"{classes:,} classes, {setting.active_classes:,} in the step: {seconds:.3f} s", flush=True)
    return rows, left_out


def free_bytes() -> int:
    """Memory that a new process may take; where the system does not tell, all there is."""
    path = Path("/proc/meminfo")
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def described(rows: Sequence[dict[str, Any]], left_out: Sequence[str], options: argparse.Namespace) -> str:
    """Table, exponents and what is missing."""
    headings = [
        "classes",
        "in the step",
        "step, ms",
        "ns per class in the step",
        "peak, GiB",
        "weights + momentum, GiB",
    ]
    headings += ["beyond both, MiB", "of which gradient, MiB"]
    cells = [
        [
            f"{row['classes']:,}", f"{row['active_classes']:,}", f"{row['median_seconds'] * 1e3:.0f}",
            f"{row['median_seconds'] / row['active_classes'] * 1e9:.0f}", f"{row['peak_bytes'] / _GIB:.2f}",
            f"{2 * row['weight_bytes'] / _GIB:.2f}", f"{row['extra_bytes'] / _MIB:.0f}",
            f"{row['gradient_bytes'] / _MIB:.0f}",
        ]
        for row in sorted(rows, key=lambda row: (row["is_sampled"], row["classes"]))
    ]  # fmt: skip
    notes: list[str] = []
    for is_sampled, text in ((False, "all classes"), (True, f"{options.sampled:,} sampled classes")):
        own = [row for row in rows if row["is_sampled"] == is_sampled]
        if len(own) > 1:
            power = exponent([row["classes"] for row in own], [row["median_seconds"] for row in own])
            extra = [row["extra_bytes"] - row["gradient_bytes"] for row in own]
            notes.append(
                f"With {text}, seconds grow as C^{power:.2f}; beyond weights, momentum and gradient "
                f"{min(extra) / _MIB:.0f} to {max(extra) / _MIB:.0f} MiB are held."
            )
    notes += [f"Left out: {'; '.join(left_out)}."] if left_out else []
    size = f"D = {options.dim}, N = {options.batch}, float32, cosface, SGD; median of {options.steps} steps."
    picture = "![seconds and peak memory by number of classes](benchmarks/growth.svg)"
    return "\n\n".join([size, table(headings, cells), " ".join(notes), picture])


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the least-squares line through (log size, log value): 1 is linear growth, 0 is none."""
    pairs = [(math.log(size), math.log(value)) for size, value in zip(sizes, values, strict=True)]
    mean_x, mean_y = (statistics.mean(column) for column in zip(*pairs, strict=True))
    slope: float = sum((x - mean_x) * (y - mean_y) for x, y in pairs) / sum((x - mean_x) ** 2 for x, _ in pairs)
    return slope


def drawn(rows: Sequence[dict[str, Any]]) -> str:
    """The plot as SVG: no date and no random names."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 2.6), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        seconds, memory = figure.subplots(1, 2)
        for is_sampled, label in ((False, "all classes"), (True, "fixed sample")):
            own = [row for row in rows if row["is_sampled"] == is_sampled]
            sizes = [row["classes"] for row in own]
            seconds.plot(sizes, [row["median_seconds"] for row in own], marker="o", markersize=3, label=label)
            memory.plot(sizes, [row["peak_bytes"] / _GIB for row in own], marker="o", markersize=3, label=label)
        sizes = sorted({row["classes"]: 2 * row["weight_bytes"] / _GIB for row in rows}.items())
        memory.plot(*zip(*sizes, strict=True), color="black", linestyle=":", label="weights + momentum")
        seconds.set(xscale="log", yscale="log", xlabel="classes", ylabel="seconds a step")
        memory.set(xlabel="classes", ylabel="peak memory, GiB", ylim=(0, None))
        seconds.xaxis.set_minor_formatter(NullFormatter())
        memory.xaxis.set_major_formatter(EngFormatter(sep=" "))
        for axes in (seconds, memory):
            axes.grid(alpha=0.3, linewidth=0.5)
            axes.legend(fontsize=6)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None, "Title": "Growth of a head step"})
    return _LONG.sub(lambda number: f"{float(number[0]):.2f}", buffer.getvalue().decode())


if __name__ == "__main__":
    sys.exit(main())
