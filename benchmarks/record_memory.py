"""Peak memory of every command of tools.records on a set and on one several times as large: what grows, how much.

Usage: python -m benchmarks.record_memory [--images N] [--records N] [--factor K]

Each command runs as a user would run it, in a process of its own; its processes are looked at 20 times a second.
Counted is anonymous memory, what they allocated: pages of files that are read or mapped can be taken back by the system
at any time. The images are JPEGs of noise, 112x112, a few hundred different ones. What grows by some bytes an image
shows only in many: so the commands that read sets are measured on many small records too, which nobody decodes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import ROOT, save, surroundings, table
from benchmarks.process_tree import sample
from benchmarks.record_shuffle import make_set
from utils.images import encode_jpeg

INTERVAL = 0.05  # seconds
DIFFERENT = 300
PER_IDENTITY = 50
COMMANDS = {
    "pack": "{0}/images {0}/set",
    "verify": "{0}/set",
    "inspect": "{0}/set",
    "shuffle": "--memory 67108864 {0}/set {0}/shuffled",
    "subset": "--min-images 2 {0}/set {0}/subset",
    "merge": "{0}/set {0}/subset {0}/merged",
    "unpack": "{0}/set {0}/unpacked",
    "bin": "--pairs {0}/pairs.csv {0}/images {0}/mine.bin",
}
WITHOUT_DECODING = {
    "verify": "--no-decode {0}",
    "inspect": "--decode 0 {0}",
    "shuffle": "--memory 67108864 {0} {0}/shuffled",
    "subset": "--min-images 2 {0} {0}/subset",
    "merge": "{0} {0}/subset {0}/merged",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON."""
    options = parse(arguments)
    sizes = {options.images, options.images * options.factor, options.records, options.records * options.factor}
    if len(sizes) < 4:
        raise SystemExit("record_memory: --images, --records and both times --factor must be four different numbers")
    peaks = {
        size: measure(write, commands, size, options.scratch)
        for count, write, commands in (
            (options.images, write_images, COMMANDS),
            (options.records, write_records, WITHOUT_DECODING),
        )
        for size in (count, count * options.factor)
    }
    result = summary(peaks)
    print(result["markdown"])
    print(f"wrote {save('record_memory', result['title'], result['markdown'], result['data'], options.results)}")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.record_memory", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=25_000, help="of the smaller set (default: %(default)s)")
    parser.add_argument("--records", type=int, default=500_000, help="of 300 bytes, likewise (default: %(default)s)")
    parser.add_argument("--factor", type=int, default=4, help="the larger set's multiple of it (default: %(default)s)")
    parser.add_argument("--scratch", type=Path, help="folder for the sets (default: the system's temporary)")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/benchmarks", help="folder for the JSON")
    return parser.parse_args(arguments)


def measure(
    write: Callable[[Path, int], None], commands: dict[str, str], images: int, scratch: Path | None
) -> dict[str, int]:
    """Peak bytes of every command on a set of so many images, and of one that does nothing."""
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        folder = Path(place)
        write(folder, images)
        found = {"--help": peak([sys.executable, "-m", "tools.records", "--help"], folder)}
        for command, words in commands.items():
            arguments = [word.format(folder) for word in words.split()]
            found[command] = peak([sys.executable, "-m", "tools.records", command, *arguments], folder)
        return found


def write_images(folder: Path, images: int) -> None:
    """Folders of identities, and a list of as many pairs as images, half of them same."""
    rng = np.random.default_rng(0)
    encoded = [encode_jpeg(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)) for _ in range(DIFFERENT)]
    names = []
    for index in range(images):
        names.append(f"{index // PER_IDENTITY:06d}/{index:08d}.jpg")
        path = folder / "images" / names[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[index % DIFFERENT])
    rows = [f"{name},{names[place - 1]},{int(place % PER_IDENTITY > 0)}" for place, name in enumerate(names)]
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")


def write_records(folder: Path, records: int) -> None:
    """A set of random bytes instead of images."""
    make_set(folder, records, 300)


def peak(command: Sequence[str], folder: Path) -> int:
    """The largest anonymous memory of a command and its processes, bytes.

    Raises:
        RuntimeError: it failed.
    """
    empty = folder / "nothing"
    empty.mkdir(exist_ok=True)
    log = folder / "log.txt"
    largest = 0
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream)
        while process.poll() is None:
            row = sample(process.pid, empty)
            largest = max(largest, row["anonymous_bytes"] if row else 0)
            time.sleep(INTERVAL)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
    return largest


def summary(peaks: dict[int, dict[str, int]]) -> dict[str, Any]:
    """The table: both peaks of every command, and bytes for every further image."""
    sizes = list(peaks)
    rows = []
    for small, large in ((sizes[0], sizes[1]), (sizes[2], sizes[3])):
        for name, least in peaks[small].items():
            most = peaks[large][name]
            rows.append(
                [name, f"{small:,}", f"{least / 2**20:,.0f}", f"{large:,}", f"{most / 2**20:,.0f}",
                 f"{max(0, most - least) / (large - small):,.0f}"]
            )  # fmt: skip
    headings = ["", "images", "peak MiB", "images", "peak MiB", "bytes a further image"]
    note = (
        f"Up to {sizes[1]:,}: JPEGs of 15 KB, decoded where a command does; beyond: records of 300 bytes, not decoded."
    )
    return {
        "title": "Memory of tools.records",
        "markdown": f"{table(headings, rows)}\n\n{note}",
        "data": {**surroundings(), "peak_bytes": {str(size): found for size, found in peaks.items()}},
    }


if __name__ == "__main__":
    sys.exit(main())
