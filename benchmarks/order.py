"""The order of an epoch for one rank, ours and arcface_torch's: time to the first indices, per batch, and memory.

Usage: python -m benchmarks.order [--images 42474558] [--classes 360232] [--arcface-torch DIR]

Each contestant runs in a process of its own, so that its memory is known; all in the same round. Ours: each sampler, on
a set that holds class after class, and class_balanced on one in mixed order too. Theirs is the DistributedSampler of
the clone, iterated as a DataLoader does. Memory is the growth of the resident peak from the moment when
everything is imported (and, for the mixed order, its labels are there).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.random  # numpy itself imports it at first use, which is no part of an order

from benchmarks.measure import ROOT, peak_bytes, run_child, save, surroundings, table
from benchmarks.peer import add_peer_option, find_peer
from utils.class_index import ClassIndex
from utils.identity_order import build_order
from utils.turns import alternate, summarize

GLINT360K, GLINT360K_CLASSES = 42_474_558, 360_232  # an epoch of 17 million images costs a third of this
OURS, THEIRS = "ours", "arcface_torch"
MIXED = "ours, class_balanced, mixed order"
SAMPLERS = {
    OURS: "uniform",
    "ours, class_balanced": "class_balanced",
    MIXED: "class_balanced",
    "ours, identities": "identities",
}
COUNTED = ("first_seconds", "batch_seconds", "epoch_seconds", "memory_bytes")
PROBED_BATCHES = 192
PLANNED = 32  # batches that dataset.py asks for at once


class Numbers:
    """A data set of which only the length is asked."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


class Labelled(Numbers):
    """A data set of which the length and the classes are asked."""

    def __init__(self, length: int, num_classes: int, *, mixed: bool) -> None:
        super().__init__(length)
        self._num_classes = num_classes
        self._counts = length // num_classes + (np.arange(num_classes) < length % num_classes)
        labels = np.repeat(np.arange(num_classes), self._counts) if mixed else None
        self._labels = None if labels is None else np.random.default_rng(0).permutation(labels)

    def class_index(self) -> ClassIndex:
        """By counts alone, or by the label of every image."""
        if self._labels is None:
            return ClassIndex.grouped(self._counts)
        return ClassIndex.from_labels(self._labels, self._num_classes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON; with --child only one contestant, and prints that."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.order", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=GLINT360K, help="(default: %(default)s)")
    parser.add_argument("--classes", type=int, default=GLINT360K_CLASSES, help="(default: %(default)s)")
    parser.add_argument("--world-size", type=int, default=8, help="ranks (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="per rank (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--child", choices=(*SAMPLERS, THEIRS), help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=ROOT / "docs/benchmarks", help="folder for the JSON")
    add_peer_option(parser)
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(run_contestant(options)))
        return 0
    peer, reason = find_peer(options.arcface_torch)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*SAMPLERS, *([THEIRS] if peer else []))}
    given = [
        "--images",
        str(options.images),
        "--classes",
        str(options.classes),
        "--world-size",
        str(options.world_size),
        "--batch",
        str(options.batch),
    ]
    clone = ["--arcface-torch", str(peer.directory)] if peer else []

    def child(name: str) -> Callable[[], float]:
        def run() -> float:
            found[name].append(run_child("benchmarks.order", ["--child", name, *given, *clone], threads=1))
            return found[name][-1]["first_seconds"]

        return run

    alternate({name: child(name) for name in found}, options.rounds)
    markdown = f"{figures(found)}\n\n{explain(options)}" + (f"\n\n{reason}" if reason else "")
    data = {
        **surroundings(),
        "images": options.images,
        "classes": options.classes,
        "world_size": options.world_size,
        "batch": options.batch,
    }
    path = save("order", "Order of an epoch", markdown, {**data, "rounds": found}, options.results)
    print(f"{markdown}\nwrote {path}")
    return 0


def explain(options: argparse.Namespace) -> str:
    """What the table's numbers belong to."""
    return (
        f"{options.images:,} images of {options.classes:,} classes, rank 0 of {options.world_size}, batches of "
        f"{options.batch}. The peer pays at the start of every epoch, on every rank; ours as it goes, in the processes "
        f"that read the images, {PLANNED} batches at once as dataset.py does. The index of the classes is made once a "
        "run and shared by these processes; its memory is in the last column but two."
    )


def run_contestant(options: argparse.Namespace) -> dict[str, float]:
    """Seconds and bytes of one contestant in this process."""
    batches = max(1, options.images // (options.world_size * options.batch))
    probed = min(PROBED_BATCHES, batches)
    index = 0.0
    if options.child in SAMPLERS:
        source = Labelled(options.images, options.classes, mixed=options.child == MIXED)
        step = options.world_size * options.batch
        start_memory = forget_peak()
        start = time.perf_counter()
        order = build_order(source, SAMPLERS[options.child], 4, 2048, step)
        index = time.perf_counter() - start
        start = time.perf_counter()
        order.at(0, np.arange(options.batch))
        first = time.perf_counter() - start
        start = time.perf_counter()
        for number in range(0, probed, PLANNED):
            batch = np.arange(number, min(number + PLANNED, probed)) * step
            order.at(0, (batch[:, None] + np.arange(options.batch)).reshape(-1))
        seconds = (time.perf_counter() - start) / probed
        epoch = seconds * batches
    else:
        peer, reason = find_peer(options.arcface_torch)
        if peer is None:
            raise SystemExit(reason)
        with peer.running():
            sampler = peer.module("utils.utils_distributed_sampler").DistributedSampler(
                Numbers(options.images), num_replicas=options.world_size, rank=0, shuffle=True, seed=2048
            )
            start_memory = forget_peak()
            start = time.perf_counter()
            places = iter(sampler)
            np.fromiter(places, np.int64, options.batch)
            first = time.perf_counter() - start
            start = time.perf_counter()
            for _ in range(probed - 1):
                np.fromiter(places, np.int64, options.batch)
            seconds = (time.perf_counter() - start) / max(1, probed - 1)
            epoch = first + seconds * batches
    return {
        "index_seconds": index,
        "first_seconds": first,
        "batch_seconds": seconds,
        "epoch_seconds": epoch,
        "memory_bytes": peak_bytes() - start_memory,
    }


def forget_peak() -> int:
    """Sets the peak back to what is resident now, where the system can (Linux), and returns it."""
    control = Path("/proc/self/clear_refs")
    if control.is_file():
        control.write_text("5", encoding="ascii")
    return peak_bytes()


def figures(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: one row per contestant; ratios are medians over rounds, how many times ours goes into theirs."""
    by = {key: {name: [run[key] for run in runs] for name, runs in found.items()} for key in COUNTED}
    rows = []
    for name, runs in found.items():
        first, batch, epoch, memory = (summarize(by[key], name)[name] for key in COUNTED)
        once = max(run.get("index_seconds", 0.0) for run in runs)
        rows.append(
            [
                name, f"{1e3 * once:,.0f}",
                f"{1e3 * first.median:,.2f}", f"{1e6 * batch.median:,.0f}", f"{epoch.median:,.1f}",
                f"{memory.median / 2**20:,.1f}", f"{1e3 * first.smallest:,.2f} .. {1e3 * first.largest:,.2f}",
                str(len(runs)),
            ]
        )  # fmt: skip
    if THEIRS in found:
        rows.append(["arcface_torch / ours", "", *(ratio(by[key]) for key in COUNTED), "", ""])
    head = [
        "",
        "once a run, ms",
        "first indices of an epoch, ms",
        "a batch, us",
        "all of an epoch, s",
        "memory, MiB",
        "spread of the first",
        "rounds",
    ]
    return table(head, rows)


def ratio(values: dict[str, list[float]]) -> str:
    """Median over rounds of theirs / ours; "-" where ours is nothing that can be measured."""
    if min(values[OURS]) <= 0:
        return "-"
    return f"{summarize(values, OURS)[THEIRS].ratio:,.2f}"


if __name__ == "__main__":
    sys.exit(main())
