"""Records to uint8 batches, images per second of one core: our loader, the limit that decoding sets, and others.

Usage: python -m benchmarks.records [--data DIR] [--mxnet-python PATH] [--dali-python PATH] [--arcface-torch DIR]

The limit is a bare loop in the same process over the same records in the same order: pread, then OpenCV's decoder.
Speeds are per second of processor time, that of worker processes and threads included, so that a contestant with two
busy processes is not taken for a fast one. Pages are in the cache. The consumer of a loader touches every page.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.measure import ROOT, save, surroundings, table
from benchmarks.peer import add_peer_option, find_peer
from benchmarks.record_others import DATASET, REAL, STEPS, Speeds, images_only, serve, stand_in_dataset
from benchmarks.record_stages import stages
from dataset import BatchStream, EpochOrder, build_loader
from sources.records import RecordSource
from tools.face_rendering.population import Population
from tools.synthetic_faces import render_dataset
from utils.images import _COLOR
from utils.turns import alternate, summarize

BARE, HERE, WORKER = "pread and decode alone (the limit)", "our loader, in this process", "our loader, one worker"
PEERS = (REAL, STEPS, DATASET)  # the first one that was run is what the ratio is to
WARM_BATCHES = 4
SOURCES = ("data/faces_small", "data/quickstart")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables, writes the JSON."""
    options = parse(arguments)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with ExitStack() as stack:
        source = RecordSource(stack.enter_context(records(options.data)) / "train.rec")
        with source.path.open("rb") as file:
            while file.read(1 << 24):  # into the page cache
                pass
        result = run(source, options, stack)
    print(result["markdown"])
    print(f"wrote {save('records', result['title'], result['markdown'], result['data'], options.results)}")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.records", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help=f"record set (default: {', '.join(SOURCES)}, else drawn faces)")
    parser.add_argument(
        "--mxnet-python", default=os.environ.get("MXNET_PYTHON"),
        help="Python of an environment with mxnet==1.9.1 numpy==1.23.5, and for the whole MXFaceDataset torch, pillow "
        "and opencv-python-headless<4.9 (default: $MXNET_PYTHON)",
    )  # fmt: skip
    parser.add_argument(
        "--dali-python", default=os.environ.get("DALI_PYTHON"),
        help="Python of an environment with nvidia-dali-cuda120, 1.1 GB, no GPU needed (default: $DALI_PYTHON)",
    )  # fmt: skip
    add_peer_option(parser)
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--images", type=int, default=12_800, help="a round and contestant (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="(default: %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/benchmarks", help="folder for the JSON")
    return parser.parse_args(arguments)


@contextmanager
def records(given: Path | None) -> Iterator[Path]:
    """The folder of a record set: the given one, else one that lies there, else one drawn now and removed."""
    found = given or next((ROOT / name for name in SOURCES if (ROOT / name / "train.rec").is_file()), None)
    if found is not None:
        yield found
        return
    with tempfile.TemporaryDirectory() as folder:
        render_dataset(Path(folder), Population(identities=60, eval_identities=20, pairs=20))
        yield Path(folder)


def run(source: RecordSource, options: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    """All contestants that can be had, in turn; the tables and the figures."""
    speeds, left_out = Speeds(), []
    batches = max(1, min(options.images, len(source)) // options.batch)
    contestants: dict[str, Callable[[], float]] = {
        BARE: bare_loop(source, batches, options.batch, speeds),
        HERE: lambda: consume(HERE, source, 0, batches, options.batch, speeds),
        WORKER: lambda: consume(WORKER, source, 1, batches, options.batch, speeds),
    }
    clone, reason = find_peer(options.arcface_torch)
    left_out += [reason] if clone is None else []
    if clone is not None:
        contestants[DATASET] = stand_in_dataset(clone, source, options.images // 4, speeds, stack)
    folder = str(clone.directory) if clone else ""
    versions: dict[str, str] = {}
    for kind, python in (("mxnet", options.mxnet_python), ("dali", options.dali_python)):
        if not python:
            left_out.append(f"{kind} not run: no --{kind}-python")
            continue
        place = images_only(source, stack) if kind == "dali" else source.path.parent
        others, found, why = serve(python, kind, place, folder, options.images, speeds, stack)
        contestants |= others
        versions |= found
        left_out += [f"{kind} not run: {why}"] if why else []
    values = alternate(contestants, options.rounds)
    peer = next((name for name in PEERS if name in values), None)
    costs = stages(source, options.batch, rounds=options.rounds)
    return {
        "title": "Records to uint8 batches, per core",
        "markdown": "\n\n".join([speed_table(values, speeds, peer), stage_table(costs), *left_out]),
        "data": {
            **surroundings(), **versions, "opencv": cv2.__version__, "images": len(source), "batch": options.batch,
            "mean_bytes": source.path.stat().st_size / len(source), "images_per_cpu_second": values,
            "images_per_second": speeds.wall, "ratio_to": peer, "microseconds_per_image": costs,
        },
    }  # fmt: skip


def bare_loop(source: RecordSource, batches: int, batch: int, speeds: Speeds) -> Callable[[], float]:
    """What no loader over this decoder can beat: the places are known beforehand and the pixels are thrown away."""
    reader, total = source.reader, batches * batch
    indices = EpochOrder(len(source), 0).indices(0, 0, total)
    places = []
    for key in reader.image_keys[indices].tolist():
        start, end = reader.offset(key), reader.end(key)
        places.append((start, end - start, len(reader.view(key)) - len(reader.sample(key)[1])))
    file = os.open(source.path, os.O_RDONLY)

    def loop() -> float:
        cpu, wall = time.process_time(), time.perf_counter()
        for start, length, header in places:
            encoded = os.pread(file, length, start)
            cv2.imdecode(np.frombuffer(encoded, np.uint8, offset=8 + header), _COLOR)
        return speeds.add(BARE, total, time.process_time() - cpu, time.perf_counter() - wall)

    return loop


def consume(name: str, source: RecordSource, workers: int, batches: int, batch: int, speeds: Speeds) -> float:
    """Images per processor second between two moments of a running stream; its start and end are not counted."""
    last = WARM_BATCHES + batches + WARM_BATCHES  # workers are as far ahead at the end as at the start
    stream: BatchStream = build_loader(
        source, seed=0, batch_size=batch, rank=0, world_size=1, first_batch=0, last_batch=last, num_workers=workers
    )
    images = 0
    cpu = wall = 0.0
    for number, item in enumerate(stream):
        item.images.view(-1)[::4096].sum()  # every page, as whoever uses the batch will
        if number == WARM_BATCHES - 1:
            cpu, wall = processor_seconds(), time.perf_counter()
        elif number >= WARM_BATCHES:
            images += len(item.labels)
        if number == WARM_BATCHES + batches - 1:  # inside: the workers' clocks end with the loop
            return speeds.add(name, images, processor_seconds() - cpu, time.perf_counter() - wall)
    raise RuntimeError(f"the stream ended before batch {WARM_BATCHES + batches}")


def processor_seconds() -> float:
    """Of this process and of its children as long as they live."""
    # Linux's clock of another process; elsewhere only this one is counted, and a worker's row shows too much.
    clocks = [(~child.pid << 3) | 2 for child in multiprocessing.active_children() if child.pid]
    linux = sys.platform == "linux"
    return time.process_time() + (sum(time.clock_gettime(clock) for clock in clocks) if linux else 0.0)


def speed_table(values: dict[str, list[float]], speeds: Speeds, peer: str | None) -> str:
    """Markdown: images per processor second and per second, the part of the limit, the ratio to the peer."""
    to_limit = summarize(values, BARE)
    to_peer = summarize(values, peer) if peer else {}
    rows = []
    for name, own in to_limit.items():
        spread = f"{own.smallest:,.0f} .. {own.largest:,.0f}"
        wall = f"{sorted(speeds.wall[name])[len(speeds.wall[name]) // 2]:,.0f}"
        ratio = f"{to_peer[name].ratio:.2f}" if peer else "-"
        rows.append([name, f"{own.median:,.0f}", spread, f"{own.ratio:.0%}", ratio, wall])
    head = ["", "images per processor second", "spread", "of the limit", f"to {peer or 'a peer'}", "images/s"]
    return table(head, rows)


def stage_table(costs: dict[str, float]) -> str:
    """Markdown: where the time of the loader in this process goes."""
    total = sum(costs.values())
    rows = [[name, f"{cost:.1f}", f"{cost / total:.1%}"] for name, cost in costs.items()]
    return table(["stage of our loader", "microseconds an image", "share"], [*rows, ["together", f"{total:.1f}", ""]])


if __name__ == "__main__":
    sys.exit(main())
