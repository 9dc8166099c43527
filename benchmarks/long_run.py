"""Whether a long run stays as it begins: memory, handles, threads, shared memory, step time and disk over its steps.

Usage: python -m benchmarks.long_run [--steps 20000] [--ranks 1] [--workers 2]

Starts train.py (under torchrun where --ranks is more than 1) on generated images, with readers, a verification each
2,000 steps, a checkpoint each 500 and an epoch each 1,000, and looks at its processes from outside every 2 seconds.
Linux only. Also draws docs/benchmarks/long_run.svg, or long_run_2_ranks.svg and so on. 20,000 steps take about 6
minutes on two idle cores, on 2 ranks 12.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.measure import RESULTS, ROOT, save, surroundings, table
from benchmarks.process_tree import sample
from benchmarks.whole_run import write_subset
from eval.bin_files import write_bin
from utils.images import encode_jpeg

SETTLED = 0.1  # share of the steps after which a run is expected to stay as it is
BLOCKS = 20  # of steps, over which a slope is fitted: looks that follow each other closely are not independent
_MIB = 2**20
# name in the rows -> heading, unit, what one unit is
SERIES = {
    "rank_rss_bytes": ("ranks, resident", "MiB", _MIB),
    "reader_rss_bytes": ("readers, resident", "MiB", _MIB),
    "anonymous_bytes": ("allocated by all", "MiB", _MIB),
    "shared_bytes": ("shared memory", "MiB", _MIB),
    "files": ("file handles", "", 1),
    "threads": ("threads", "", 1),
    "step_seconds": ("step", "ms", 1e-3),
    "checkpoint_bytes": ("checkpoints on disk", "MiB", _MIB),
    "disk_bytes": ("run's folder", "MiB", _MIB),
}
GROWING = {"metrics_bytes": "metrics.jsonl", "board_bytes": "TensorBoard's events", "text_bytes": "training.log"}
_STYLE = {"svg.hashsalt": "long_run", "svg.fonttype": "none", "font.size": 7, "axes.linewidth": 0.6}
_LONG = re.compile(r"-?\d+\.\d{3,}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, watch, print, draw, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.long_run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--steps", type=int, default=20_000, help="(default: %(default)s)")
    add("--ranks", type=int, default=1, help="(default: %(default)s)")
    add("--workers", type=int, default=2, help="reader processes of a rank (default: %(default)s)")
    add("--batch", type=int, default=8, help="images of a rank (default: %(default)s)")
    add("--epoch", type=int, default=1000, help="steps of an epoch (default: %(default)s)")
    add("--verbose", type=int, default=2000, help="steps between verifications (default: %(default)s)")
    add("--save", type=int, default=500, help="steps between checkpoints (default: %(default)s)")
    add("--every", type=float, default=2.0, help="seconds between looks (default: %(default)s)")
    add("--keys", nargs="*", default=[], metavar="key=value", help="more keys of the config")
    add("--out", type=Path, default=RESULTS, metavar="FOLDER", help="for JSON and plot (default: docs/benchmarks)")
    options = parser.parse_args(arguments)
    if options.steps % options.epoch or options.steps < 4 * BLOCKS:
        parser.error(f"--steps: whole epochs of --epoch steps, at least {4 * BLOCKS}")
    context = surroundings()
    with tempfile.TemporaryDirectory(prefix="long-run-") as name:
        rows, steps = watch(options, Path(name))
    figures = summarize(rows, steps)
    growth = {key: (rows[-1][key] - rows[0][key]) / (rows[-1]["step"] - rows[0]["step"]) for key in GROWING}
    title = "long_run" if options.ranks == 1 else f"long_run_{options.ranks}_ranks"
    markdown = described(figures, growth, rows, options, title)
    print(markdown)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{title}.svg").write_text(drawn(rows, steps), encoding="utf-8")
    settings = {
        key: getattr(options, key) for key in ("steps", "ranks", "workers", "batch", "epoch", "verbose", "save")
    }
    content = {**context, **settings, "figures": figures, "bytes_per_step": growth}
    content |= {"rows": thinned(rows), "step_seconds": thinned(steps)}
    path = save(title, f"A long run, {options.ranks} rank(s)", markdown, content, options.out)
    print(f"\nwrote {path} and {title}.svg beside it")
    return 0


def watch(options: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Trains and looks; returns the looks, each with the step it fell into, and seconds of a step by step.

    Raises:
        RuntimeError: the run failed; the message ends with its last lines.
    """
    output = folder / "run"
    config = write_inputs(options, folder)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={options.ranks}"]
    command = [sys.executable, *(launcher if options.ranks > 1 else []), "train.py", str(config), "--device", "cpu"]
    command += [f"output={output}", *options.keys]
    looks: list[dict[str, Any]] = []
    with (folder / "console.txt").open("w+", encoding="utf-8") as console:
        process = subprocess.Popen(command, cwd=ROOT, stdout=console, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(options.every)
                found = sample(process.pid, output)
                if found is not None:
                    looks.append(found)
        finally:
            process.kill()  # of no effect where it has ended
            process.wait()
        console.seek(0)
        if process.returncode:
            tail = "\n".join(console.read().splitlines()[-12:])
            raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}:\n{tail}")
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [record for record in records if record["kind"] == "train"]
    images = options.batch * options.ranks
    steps = [{"step": line["step"], "step_seconds": images / line["images_per_second"]} for line in lines]
    at = np.interp([look["time"] for look in looks], [line["time"] for line in lines], [line["step"] for line in lines])
    # Before the first line the processes are starting, after the last one they end.
    inside = [
        {**look, "step": float(step)}
        for look, step in zip(looks, at, strict=True)
        if lines[0]["time"] < look["time"] < lines[-1]["time"]
    ]
    return inside, steps


def write_inputs(options: argparse.Namespace, folder: Path) -> Path:
    """Generated images, a verification set and a config file."""
    images = options.epoch * options.batch * options.ranks
    write_subset(folder / "none", folder / "records", images)
    random = np.random.default_rng(1)
    pairs = [encode_jpeg(random.integers(0, 256, (112, 112, 3), dtype=np.uint8)) for _ in range(80)]
    write_bin(folder / "records" / "pairs.bin", pairs, [bool(pair % 2) for pair in range(40)])
    keys = {
        "rec": str(folder / "records"), "val_targets": ("pairs",), "network": "tiny", "embedding_size": 32,
        "head": "cosface", "batch_size": options.batch, "num_epoch": options.steps // options.epoch, "lr": 0.02,
        "num_workers": options.workers, "verbose": options.verbose, "checkpoint_interval": options.save,
        "keep_best": 1, "frequent": 10,
    }  # fmt: skip
    lines = ["from easydict import EasyDict as edict", "config = edict()"]
    lines += [f"config.{key} = {value!r}" for key, value in keys.items()]
    path = folder / "long_run_config.py"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def summarize(rows: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each of SERIES: medians of the first and the last quarter, the slope and its standard error per 1,000 steps.

    The first tenth of the run is left out. The slope is that of the least-squares line through medians of 20 even parts
    of the steps.
    """
    last = steps[-1]["step"]
    found = {}
    for name in SERIES:
        pairs = [(row["step"], row[name]) for row in (steps if name == "step_seconds" else rows)]
        settled = [(step, value) for step, value in pairs if step >= SETTLED * last]
        if len(settled) < 8:
            raise RuntimeError(
                f"{len(settled)} looks at {name} after the first {SETTLED:.0%}: too few, take more steps"
            )
        at, values = np.array(settled, dtype=np.float64).T
        places = ((at - at[0]) / (at[-1] - at[0]) * BLOCKS).astype(int).clip(max=BLOCKS - 1)
        blocks = [(at[places == block].mean(), np.median(values[places == block])) for block in np.unique(places)]
        slope, error = fitted(blocks)
        found[name] = {
            "first": float(np.median(values[places < BLOCKS // 4])),
            "last": float(np.median(values[places >= BLOCKS - BLOCKS // 4])),
            "largest": float(values.max()), "slope": 1000 * slope, "slope_error": 1000 * error,
        }  # fmt: skip
    return found


def fitted(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope of the least-squares line and its standard error."""
    x, y = np.array(points, dtype=np.float64).T
    x = x - x.mean()
    slope = float((x * y).sum() / (x * x).sum())
    left = y - y.mean() - slope * x
    return slope, float(np.sqrt((left * left).sum() / (len(x) - 2) / (x * x).sum()))


def described(
    figures: dict[str, dict[str, float]], growth: dict[str, float], rows: Sequence[dict[str, Any]],
    options: argparse.Namespace, title: str,
) -> str:  # fmt: skip
    """The table and what is around it."""
    cells = []
    for name, own in figures.items():
        heading, unit, one = SERIES[name]
        digits = 2 if one != 1 else 0
        first, last, largest = (f"{own[key] / one:.{digits}f}" for key in ("first", "last", "largest"))
        slope = f"{own['slope'] / one:+.3f} ± {own['slope_error'] / one:.3f}"
        cells.append([f"{heading}{', ' * bool(unit)}{unit}", first, last, largest, slope])
    grows = "; ".join(f"{GROWING[key]} {value:.0f} bytes" for key, value in growth.items())
    disk = max(row["disk_bytes"] for row in rows) / _MIB
    return "\n\n".join(
        [
            f"{options.steps:,} steps of {options.ranks} rank(s), batch {options.batch}, {options.workers} readers a "
            f"rank, a verification each {options.verbose:,} steps, a checkpoint each {options.save:,}, an epoch each "
            f"{options.epoch:,}, a log line each 10; {len(rows)} looks from outside, {SETTLED:.0%} at the start left "
            "out. Medians of the first and the last quarter; slope per 1,000 steps.",
            table(["", "first quarter", "last quarter", "largest", "slope"], cells),
            f"On disk: at most {disk:.1f} MiB in all; what grows by design, per step: {grows}.",
            f"![each over the steps](benchmarks/{title}.svg)",
        ]
    )


def thinned(rows: Sequence[dict[str, Any]], most: int = 200) -> list[dict[str, Any]]:
    """Medians of up to `most` even blocks of rows, so that the file stays readable."""
    if len(rows) <= most:
        return list(rows)
    edges = np.linspace(0, len(rows), most + 1).astype(int)
    blocks = [rows[start:end] for start, end in pairwise(edges)]
    return [{key: statistics.median(row[key] for row in block) for key in block[0]} for block in blocks]


def drawn(rows: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]]) -> str:
    """The plot as SVG: a panel for each of SERIES, no date and no random names."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        panels = figure.subplots(3, 3, sharex=True).flat
        for axes, (name, (heading, unit, one)) in zip(panels, SERIES.items(), strict=True):
            own = thinned(steps if name == "step_seconds" else rows)
            values = [row[name] / one for row in own]
            axes.plot([row["step"] for row in own], values, linewidth=0.8)
            axes.set(title=f"{heading}{', ' * bool(unit)}{unit}", ylim=(0, 1.25 * max(values) or 1))
            axes.grid(alpha=0.3, linewidth=0.5)
        for axes in list(figure.axes)[-3:]:
            axes.set_xlabel("step")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None, "Title": "A long run"})
    return _LONG.sub(lambda number: f"{float(number[0]):.2f}", buffer.getvalue().decode())


if __name__ == "__main__":
    sys.exit(main())
