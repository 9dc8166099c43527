"""A few real steps, and what they say about a whole run: time, memory, traffic. Writes nothing, prints nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist

from dataset import Batch
from training.build import build_stream
from training.resources import Sizes
from training.run import Run
from training.step import train_step
from utils.distributed import Ranks, broadcast_object
from utils.schedule import Plan

LEAST_STEPS, MOST_STEPS = 2, 20
STEPS_SECONDS = 8.0  # after this no further step is taken
REDUCED = (256, 1 << 20, 16 << 20)  # bytes of the all-reduces that are timed
_REPEATS, _REDUCE_SECONDS = 8, 2.0


@dataclass(frozen=True)
class Steps:
    """What a few steps took on this rank.

    Attributes:
        first: seconds of the first one, with the start of the readers.
        others: seconds of each later one.
        waited: share of the later ones' time spent waiting for data, 0 .. 1.
        images: in a step, of all ranks.
        loss: of the last one.
    """

    first: float
    others: list[float]
    waited: float
    images: int
    loss: float

    @property
    def typical(self) -> float:
        """Seconds of a step once it runs: the median of the later ones, or all there is."""
        return statistics.median(self.others) if self.others else self.first


def measure_steps(run: Run, at_end: Callable[[], object]) -> Steps:
    """Takes 2 steps, and more up to 20 while 8 seconds allow; collective. The run is not the same afterwards.

    Args:
        run: as built.
        at_end: called while the readers are still there.
    """
    seconds: list[float] = []
    waited: list[float] = []
    started = start = time.perf_counter()
    loss, images = 0.0, 0
    # Closing it ends the readers now, not when the memory is collected.
    with closing(cast("Generator[Batch, None, None]", iter(build_stream(run, 0)))) as stream:
        for step in range(min(MOST_STEPS, run.plan.total_steps)):
            batches = [next(stream) for _ in range(run.config.gradient_acc)]
            waited.append(time.perf_counter() - start)
            result = train_step(run, batches, step)  # ends with a wait for the device
            loss, images = result.loss, result.images
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
            # The main rank decides for all.
            if broadcast_object(step + 1 >= LEAST_STEPS and start - started > STEPS_SECONDS):
                break
        at_end()
    share = sum(waited[1:]) / sum(seconds[1:]) if len(seconds) > 1 else 0.0
    return Steps(seconds[0], seconds[1:], share, images, loss)


def measure_scoring(run: Run, step_seconds: float) -> float:
    """Seconds that scoring will take once, from a part of the images; collective."""
    batch = run.ranks.world_size * run.config.batch_size * run.config.gradient_acc
    seconds_per_pass = broadcast_object(step_seconds) / batch / 3  # forward, of forward and backward
    return run.scored.measure(run.backbone, run.source.image_format, run.ranks, seconds_per_pass)


def measure_all_reduce(ranks: Ranks) -> list[tuple[int, float]]:
    """(bytes, median seconds) of summing tensors of some sizes over the ranks; collective; empty for one rank."""
    if ranks.world_size == 1:
        return []
    found = []
    for size in REDUCED:
        tensor = torch.ones(size // 4, device=ranks.device)
        taken = [_all_reduce(tensor) for _ in range(2)]
        repeats = broadcast_object(max(1, min(_REPEATS, int(_REDUCE_SECONDS / taken[-1]))))
        found.append((size, statistics.median(_all_reduce(tensor) for _ in range(repeats))))
    return found


def all_reduce_model(measured: list[tuple[int, float]]) -> tuple[float, float]:
    """Latency in seconds and bytes per second, from the smallest and the largest all-reduce."""
    (_, latency), (size, seconds) = measured[0], measured[-1]
    return latency, size / max(seconds - latency, 1e-9)


def traffic(run: Run) -> tuple[int, int, int]:
    """What a step sends through all-reduces and their like: bytes of gradients, bytes of the head, and their number.

    The backbone's float32 gradients, once a step; for each micro-batch the global batch's embeddings and labels are
    gathered, their gradients scattered, and three rows of numbers summed.
    """
    config, world_size = run.config, run.ranks.world_size
    if world_size == 1:
        return 0, 0, 0
    gradients = sum(4 * parameter.numel() for parameter in run.backbone.parameters())
    images = run.plan.global_batch_size
    head = config.gradient_acc * images * 4 * (2 * config.embedding_size + 2 + 6)
    buckets = -(-gradients // (25 << 20)) + 1
    return gradients, head, buckets + 5 * config.gradient_acc + 1


def count_saves(plan: Plan, interval: int) -> int:
    """Checkpoints of a run: every `interval` steps and at each epoch's end."""
    return len(set(range(interval, plan.total_steps + 1, interval)) | _epoch_ends(plan))


def count_verifications(plan: Plan, interval: int) -> int:
    """Verifications of a run, that of the untrained net included."""
    if interval == 0:
        return 1 + len(_epoch_ends(plan))
    return 1 + -(-plan.total_steps // interval)


@dataclass(frozen=True)
class Estimate:
    """Seconds of a whole run, in parts."""

    training: float
    verification: float
    saving: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.training + self.verification + self.saving


def estimate_run(run: Run, steps: Steps, verification: float, sizes: Sizes, write_speed: float) -> Estimate:
    """What the measured parts add up to over the run.

    Saving is the time of writing a checkpoint and the model; with `async_save` steps go on meanwhile, and only the copy
    that is written counts, at the 2 GB/s of a slow memory.
    """
    plan, config = run.plan, run.config
    num_saves = count_saves(plan, config.checkpoint_interval)
    written = sizes.checkpoint + sizes.backbone
    speed = 2e9 * run.ranks.world_size if config.async_save else max(write_speed, 1.0)
    return Estimate(
        steps.first + (plan.total_steps - 1) * steps.typical,
        count_verifications(plan, config.verbose) * verification,
        num_saves * written / speed,
    )


def children_bytes() -> tuple[int, int]:
    """Number of this process's children (the readers), and their share of memory, pages in common divided."""
    children: list[int] = []
    for file in Path("/proc/self/task").glob("*/children"):
        children += [int(word) for word in file.read_text().split()]
    total = 0
    for child in children:
        try:
            lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return len(children), total


def _epoch_ends(plan: Plan) -> set[int]:
    """Steps done at which an epoch (or several, where a step is longer) or the run has ended."""
    ends = {-(-epoch * plan.batches_per_epoch // plan.gradient_acc) for epoch in range(1, plan.num_epoch + 1)}
    return {min(end, plan.total_steps) for end in ends}


def _all_reduce(tensor: torch.Tensor) -> float:
    start = time.perf_counter()
    dist.all_reduce(tensor)
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return time.perf_counter() - start
