"""Shuffling a record set against copying its file: bytes per second, in one pass and in two, and peak memory.

Usage: python -m benchmarks.record_shuffle [--images N] [--bytes N] [--rounds N]

The copy reads 16 MiB at a time, writes them and syncs, as the shuffles sync; contestants take turns. Random bytes stand
for JPEGs: nothing here decodes. Peak memory is that of a process of its own per contestant. Pages are in the cache
where the set fits into memory, so the figure is about processor time unless --images makes the set larger than that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import ROOT, peak_bytes, run_child, save, surroundings, table
from tools.record_commands.shuffle import shuffle_set
from utils.record_set import write_record_set
from utils.recordio import RecordReader
from utils.turns import alternate, summarize

COPY, ONE, TWO, PLAIN = "plain copy", "shuffle, one pass", "shuffle, two passes", "shuffle, two passes, plain layout"
BLOCK = 16 << 20
PASSES = {ONE: ("keep", 1 << 40), TWO: ("keep", 64 << 20), PLAIN: ("plain", 64 << 20)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON."""
    options = parse(arguments)
    with ExitStack() as stack:
        folder = options.set
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.scratch)))
            make_set(folder, options.images, options.bytes)
        if options.child:
            seconds = contestant(options.child, folder, options.scratch)
            print(json.dumps({"seconds": seconds(), "peak": peak_bytes()}))
            return 0
        result = run(folder, options)
    print(result["markdown"])
    print(f"wrote {save('record_shuffle', result['title'], result['markdown'], result['data'], options.results)}")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.record_shuffle", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=200_000, help="(default: %(default)s)")
    parser.add_argument("--bytes", type=int, default=4000, help="of an image, on average (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--set", type=Path, help="a set to shuffle instead of a made one")
    parser.add_argument("--scratch", type=Path, help="folder on the disk to measure (default: the system's temporary)")
    parser.add_argument("--child", choices=(COPY, *PASSES), help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=ROOT / "docs/benchmarks", help="folder for the JSON")
    return parser.parse_args(arguments)


def make_set(folder: Path, images: int, size: int) -> None:
    """A set of random bytes, a hundred images an identity."""
    rng = np.random.default_rng(0)
    counts = [len(part) for part in np.array_split(np.arange(images), max(1, images // 100))]
    lengths = rng.integers(size // 2, size + size // 2 + 1, images).tolist()
    pool = rng.bytes(size * 4)
    places = rng.integers(0, size * 2, images).tolist()
    stream = ((pool[place : place + length], "x/y.jpg") for place, length in zip(places, lengths, strict=True))
    write_record_set(folder, counts, stream, (112, 112))


def contestant(name: str, folder: Path, scratch: Path | None) -> Callable[[], float]:
    """What one of them does; returns its seconds."""

    def work() -> float:
        """One round into a folder that goes again; seconds of the work alone."""
        with tempfile.TemporaryDirectory(dir=scratch) as output:
            begin = time.perf_counter()
            if name == COPY:
                copy(folder / "train.rec", Path(output) / "train.rec")
            else:
                layout, memory = PASSES[name]
                with RecordReader(folder / "train.rec") as reader:
                    shuffle_set(reader, Path(output), seed=0, layout=layout, memory=memory)
            return time.perf_counter() - begin

    return work


def copy(source: Path, target: Path) -> None:
    """Reads and writes block after block, then syncs."""
    buffer = memoryview(bytearray(BLOCK))
    with source.open("rb", buffering=0) as old, target.open("wb", buffering=0) as new:
        while count := old.readinto(buffer):
            new.write(buffer[:count])
        os.fsync(new.fileno())


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All contestants in turn; the table and the figures."""
    size = (folder / "train.rec").stat().st_size
    seconds = alternate({name: contestant(name, folder, options.scratch) for name in (COPY, *PASSES)}, options.rounds)
    speeds = {name: [size / value for value in own] for name, own in seconds.items()}
    scratch = ["--scratch", str(options.scratch)] if options.scratch else []
    peaks = {
        name: run_child("benchmarks.record_shuffle", ["--set", str(folder), "--child", name, *scratch], threads=1)[
            "peak"
        ]
        for name in (COPY, *PASSES)
    }
    rows = [
        [
            name, f"{own.median / 1e6:,.0f}", f"{own.smallest / 1e6:,.0f} .. {own.largest / 1e6:,.0f}",
            f"{own.ratio:.2f}", f"{peaks[name] / 2**20:,.0f}",
        ]
        for name, own in summarize(speeds, COPY).items()
    ]  # fmt: skip
    with RecordReader(folder / "train.rec") as reader:
        records = len(reader)
    markdown = table(["", "MB/s of the set", "spread", "to the copy", "peak MiB"], rows)
    return {
        "title": f"Shuffling {records:,} records of {size / 1e6:,.0f} MB",
        "markdown": markdown,
        "data": {
            **surroundings(), "records": records, "bytes": size, "bytes_per_second": speeds, "peak_bytes": peaks,
            "memory": {name: memory for name, (_, memory) in PASSES.items()},
        },
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
