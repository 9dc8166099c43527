"""How long a save stops the steps: written between them, and written in the background from a copy.

Usage: python -m benchmarks.saving [--ranks 1,2] [--classes 100000] [--rounds 5]

Each number of ranks is a run of its own on the CPU: a small net with that many prototypes of 512 numbers and their
momentum. In every round both ways save once, in turn, and steps follow; what the steps lose to the writing beside them
is their time beyond that of steps with nothing beside them. The checks and averages that belong to a save are in both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed as dist

from benchmarks.measure import RESULTS, run_child, save, surroundings, table
from dataset import Batch
from sources.synthetic import SyntheticSource
from training.build import build_run, build_stream
from training.inputs import Inputs
from training.run import Run
from training.state import save_run
from training.state_tensors import BACKBONE, tensors_of
from training.step import train_step
from utils.checkpoint import own_share
from utils.config import Config
from utils.distributed import start_ranks, stop_ranks
from utils.memory import prefer_huge_pages

WAYS = {"between steps": False, "in the background": True}
_MIB = 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.saving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", default="1,2", help="(default: %(default)s)")
    parser.add_argument("--classes", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="after each save (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        measured = one_rank(options.classes, options.rounds, options.steps)
        if dist.get_rank() == 0:
            print(json.dumps(measured), flush=True)
        stop_ranks()
        return 0
    context = surroundings()
    passed = ["--child", *(f"--{name}={getattr(options, name)}" for name in ("classes", "rounds", "steps"))]
    found = {}
    for ranks in (int(count) for count in options.ranks.split(",")):
        launcher = ["--standalone", f"--nproc_per_node={ranks}", "-m", "benchmarks.saving"]
        found[ranks] = run_child("torch.distributed.run", [*launcher, *passed], threads=1, timeout=1200)
    markdown = (
        f"{figures(found)}\n\n{options.classes:,} prototypes of 512 numbers with momentum, a small net, one thread a "
        f"rank, median of {options.rounds} rounds."
    )
    path = save("saving", "Stall of a save", markdown, {**context, "ranks": found}, options.results)
    print(f"{markdown}\nwrote {path}")
    return 0


def one_rank(classes: int, rounds: int, steps: int) -> dict[str, Any]:
    """This rank's figures: seconds of saves by way, and of steps with nothing beside them."""
    prefer_huge_pages()
    ranks = start_ranks("cpu", 1)
    with tempfile.TemporaryDirectory() as folder:
        place = [folder]
        dist.broadcast_object_list(place)
        run = make_run(classes, place[0], ranks)
        batches = iter(build_stream(run, 0))
        take(run, batches, 0, 2)
        shared = own_share(tensors_of(run), ranks.rank, ranks.world_size, main=BACKBONE).values()
        mine = sum(tensor.nbytes // (ranks.world_size if hasattr(tensor, "to_local") else 1) for tensor in shared)
        alone: list[float] = []
        found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
        done = 2
        for _ in range(rounds):
            for name, is_async in WAYS.items():
                alone += take(run, batches, done, steps)
                done += steps
                found[name].append(one_save(run, batches, done, steps, is_async=is_async))
                done += steps
        dist.barrier()
    return {"bytes_of_rank": mine, "step": statistics.median(alone), "steps": steps, "saves": found}


def make_run(classes: int, output: str, ranks: Any) -> Run:
    """A small net with many prototypes, three images of each."""
    config = Config(
        rec="synthetic", network="tiny", embedding_size=512, head="cosface", batch_size=8, num_epoch=1, num_workers=0,
        output=output, threads=1, keep_checkpoints=1,
    )  # fmt: skip
    return build_run(config, ranks, Inputs(SyntheticSource(classes, 3 * classes)))


def take(run: Run, batches: Iterator[Batch], first: int, steps: int) -> list[float]:
    """Seconds of some steps."""
    seconds = []
    for step in range(first, first + steps):
        batch = next(batches)
        start = time.perf_counter()
        train_step(run, [batch], step)
        seconds.append(time.perf_counter() - start)
    return seconds


def one_save(run: Run, batches: Iterator[Batch], done: int, steps: int, *, is_async: bool) -> dict[str, float]:
    """Seconds that a save stops the steps, that the steps after it take, that the next save would wait, until whole."""
    run.config = replace(run.config, async_save=is_async)
    dist.barrier()
    start, begun = time.perf_counter(), time.time()
    save_run(run, done)
    stall = time.perf_counter() - start
    after = take(run, batches, done, steps)
    start = time.perf_counter()
    run.saver.wait()
    waited = time.perf_counter() - start
    manifest = Path(run.config.output or "") / "checkpoints" / f"step_{done:09d}" / "manifest.json"
    return {"stall": stall, "after": sum(after), "waited": waited, "whole": manifest.stat().st_mtime - begun}


def figures(found: dict[int, dict[str, Any]]) -> str:
    """Markdown: a row for each number of ranks and way."""
    rows = []
    for ranks, values in found.items():
        for name, saves in values["saves"].items():
            later = saves[1:] if len(saves) > 1 else saves  # the first save also takes its memory from the system
            lost = [save["after"] - values["steps"] * values["step"] for save in later]
            middle = {key: statistics.median(save[key] for save in later) for key in later[0]}
            rows.append(
                [
                    f"{ranks}, {name}", f"{values['bytes_of_rank'] / _MIB:.0f}", f"{saves[0]['stall'] * 1e3:.0f}",
                    f"{middle['stall'] * 1e3:.0f}", f"{statistics.median(lost) * 1e3:.0f}",
                    f"{middle['whole'] * 1e3:.0f}", f"{values['step'] * 1e3:.0f}",
                ]
            )  # fmt: skip
    return table(
        [
            "ranks, written", "MiB a rank", "first save, ms", "later saves, ms", "steps after it lose, ms",
            "whole after, ms", "a step, ms",
        ],
        rows,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
