"""From the command line to the first optimizer step of train.py, beyond what importing torch takes.

Usage: python -m benchmarks.start [--config configs/faces_small_cosface] [--rounds 5]

Contestants are processes of their own, in turn: `import torch` alone, `train.py --check`, and `train.py` on a small set
of drawn images, of which the moments are read when the config had been written (everything is built) and when the first
step was logged. A step is no part of a start: the time of the second is taken off in the last row. Verification of the
untrained net, which takes as long as the sets are large, is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT, save, surroundings, table
from utils.images import encode_jpeg
from utils.record_set import write_record_set
from utils.turns import alternate

TORCH, CHECK, BUILT, STEP = "import torch", "train.py --check", "everything built", "first step done"
PREPARED = "first step done, less a second one"
IDENTITIES, IMAGES = 16, 8
IMPORT_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables, writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.start", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/faces_small_cosface", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/benchmarks", help="folder for the JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        data = draw_records(Path(folder) / "data")
        run(["-c", "import torch"])  # its files into the page cache
        built: list[float] = []
        prepared: list[float] = []
        contestants = {
            TORCH: lambda: run(["-c", "import torch"]),
            CHECK: lambda: run([*command(options.config, data, Path(folder) / "check"), "--check"]),
            STEP: lambda: first_step(options.config, data, Path(tempfile.mkdtemp(dir=folder)), built, prepared),
        }
        seconds = alternate(contestants, options.rounds)
        seconds = {**seconds, BUILT: built, PREPARED: prepared}
        imports = slowest_imports([*command(options.config, data, Path(folder) / "imports"), "--check"])
    markdown = (
        f"{figures(seconds)}\n\n{imports_table(imports)}\n\n{options.config}, on a set of two batches, one process."
    )
    details = {**surroundings(), "config": options.config, "seconds": seconds, "imports": imports}
    path = save("start", "Start of a run", markdown, details, options.results)
    print(f"{markdown}\nwrote {path}")
    return 0


def draw_records(folder: Path) -> Path:
    """A record set of coarse noise, two batches of it."""
    rng = np.random.default_rng(0)
    encoded = [
        encode_jpeg(np.kron(rng.integers(0, 256, (14, 14, 3), np.uint8), np.ones((8, 8, 1), np.uint8)))
        for _ in range(IDENTITIES * IMAGES)
    ]
    folder.mkdir()
    images = ((jpeg, f"{number}.jpg") for number, jpeg in enumerate(encoded))
    write_record_set(folder, [IMAGES] * IDENTITIES, images, (112, 112))
    return folder


def command(config: str, data: Path, output: Path) -> list[str]:
    """train.py on `data` for an epoch, every step logged, nothing verified."""
    return [
        str(ROOT / "train.py"), config, f"rec={data}", f"output={output}", "val_targets=()", "frequent=1",
        "num_epoch=1", "warmup_epoch=0", "margin_warmup_epochs=0", "--device", "cpu",
    ]  # fmt: skip


def run(arguments: Sequence[str]) -> float:
    """Seconds that Python takes for this, from start to end.

    Raises:
        RuntimeError: it failed; the message ends with what it printed.
    """
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {(done.stdout + done.stderr)[-800:]}")
    return time.perf_counter() - start


def first_step(config: str, data: Path, output: Path, built: list[float], prepared: list[float]) -> float:
    """Seconds until the log has the first step.

    Appends those until config.json was there to `built`, and the result less a second step to `prepared`.
    """
    start = time.time()
    run(command(config, data, output))
    built.append((output / "config.json").stat().st_mtime - start)
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = [record["time"] for line in lines if (record := json.loads(line))["kind"] == "train"][:2]
    prepared.append(2 * first - second - start)
    return float(first - start)


def figures(seconds: dict[str, list[float]]) -> str:
    """Markdown: each moment, and what of it is beyond the import of torch, by rounds."""
    rows = []
    for name, values in seconds.items():
        beyond = [value - torch for value, torch in zip(values, seconds[TORCH], strict=True)]
        spread = f"{min(values):.2f} .. {max(values):.2f}"
        ratio = statistics.median(value / torch for value, torch in zip(values, seconds[TORCH], strict=True))
        rows.append(
            [name, f"{statistics.median(values):.2f}", spread, f"{statistics.median(beyond):.2f}", f"{ratio:.2f}"]
        )
    return table(["until", "seconds", "spread", "beyond torch", "ratio to torch"], rows)


def slowest_imports(arguments: Sequence[str], count: int = 8) -> dict[str, float]:
    """Seconds of the slowest packages of a process, each with what it alone brought in; profiling makes them slower."""
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    packages: dict[str, float] = {}
    for line in done.stderr.splitlines():
        match = IMPORT_LINE.match(line)
        if match:
            package = match[4].partition(".")[0]
            packages[package] = packages.get(package, 0.0) + int(match[1]) / 1e6
    return dict(sorted(packages.items(), key=lambda item: -item[1])[:count])


def imports_table(imports: dict[str, float]) -> str:
    """Markdown: package and seconds."""
    rows = [[name, f"{seconds:.2f}"] for name, seconds in imports.items()]
    return table(["package (modules of its own, profiled, until --check)", "seconds"], rows)


if __name__ == "__main__":
    sys.exit(main())
