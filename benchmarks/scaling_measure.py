"""Counts and times real training steps on 1, 2 and 3 gloo ranks, at toy size, beside what the formulas say.

Bytes are counted around torch.distributed's functions and in the replicas' gradient hook, so they are what the step
sends and not what someone believes it sends. Of the times, two constants are fitted on one rank; the rest is predicted.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from benchmarks.scaling_formulas import Collective, Setting, collectives, head_flops
from training.build import build_run, build_stream
from training.preflight import inspect_run
from training.step import train_step
from utils.config import Config
from utils.distributed import Ranks, available_cores, start_ranks, stop_ranks

NETWORK, WIDTH, BATCH = "tiny", 128, 32
KINDS = {"all_gather_single": "gather", "reduce_scatter_single": "scatter", "all_reduce": "reduce"}
_LINK_BYTES = 4 << 20


@dataclass(frozen=True)
class Measured:
    """One setting on real ranks.

    Attributes:
        setting: what ran.
        parameters: of the backbone.
        sent: kind and size of every collective of one step, in order; the replicas' gradient last, as one.
        seconds: median of a step on rank 0, from one barrier to the end of the step.
        latency: seconds of an all-reduce of five numbers.
        rate: bytes/s that a rank sends in a large all-reduce.
    """

    setting: Setting
    parameters: int
    sent: list[tuple[str, int]]
    seconds: float
    latency: float
    rate: float


@dataclass(frozen=True)
class Checked:
    """A measured step and its prediction; `is_fitted` where the constants come from it."""

    measured: Measured
    predicted: float
    is_fitted: bool

    @property
    def error(self) -> float:
        """Relative error of the predicted seconds."""
        return self.predicted / self.measured.seconds - 1

    @property
    def is_exact(self) -> bool:
        """Whether every collective has the size that the formulas give."""
        return expected(self.measured.setting, self.measured.parameters) == self.measured.sent


def expected(setting: Setting, parameters: int) -> list[tuple[str, int]]:
    """Kind and size of the collectives of a step, the replicas' gradient last."""
    return [(item.kind, item.size) for item in collectives(setting, parameters)]


@contextmanager
def counting(sent: list[tuple[str, int]]) -> Iterator[None]:
    """Notes kind and size of what goes through torch.distributed's functions."""

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            whole = args[1] if name == "reduce_scatter_single" else args[0]
            sent.append((KINDS[name], whole.nbytes))
            return original(*args, **kwargs)

        return call

    with ExitStack() as stack:
        for name in KINDS:
            stack.enter_context(mock.patch.object(dist, name, watched(name, getattr(dist, name))))
        yield


def measure(world_sizes: Sequence[int], settings: Sequence[tuple[int, float]], steps: int) -> list[Measured]:
    """Runs every (classes, sample rate) on each number of ranks; one thread a rank."""
    found: list[Measured] = []
    for world_size in world_sizes:
        with tempfile.TemporaryDirectory(prefix="scaling-") as folder, socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port, out = probe.getsockname()[1], Path(folder) / "found.json"
            probe.close()
            context = multiprocessing.get_context("spawn")
            arguments = (world_size, port, list(settings), steps, str(out))
            processes = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(world_size)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            if any(process.exitcode for process in processes):
                raise RuntimeError(f"scaling: a rank of {world_size} failed; its error is above")
            rows = json.loads(out.read_text(encoding="utf-8"))
        for row in rows:
            row |= {"setting": Setting(**row["setting"]), "sent": [tuple(item) for item in row["sent"]]}
            found.append(Measured(**row))
    return found


def check(found: Sequence[Measured]) -> list[Checked]:
    """Fits the fixed part and the head's rate on one rank, at the fewest and the most classes; predicts the others."""
    alone = [row for row in found if row.setting.world_size == 1 and row.setting.sample_rate == 1]
    small, large = (choose(alone, key=lambda row: row.setting.num_classes) for choose in (min, max))
    work = head_flops(large.setting) - head_flops(small.setting)
    rate = work / max(large.seconds - small.seconds, 1e-9)
    fixed = max(0.0, small.seconds - head_flops(small.setting) / rate)
    cores = available_cores()
    return [Checked(row, predict(row, fixed, rate, cores), row in (small, large)) for row in found]


def predict(row: Measured, fixed: float, rate: float, cores: int) -> float:
    """Seconds of a step: compute, slowed where ranks share cores, and collectives one after the other."""
    setting = row.setting
    compute = fixed + head_flops(setting) / rate
    items: list[Collective] = collectives(setting, row.parameters)
    exchange = sum(row.latency + item.sent(setting.world_size) / row.rate for item in items)
    return compute * max(1.0, setting.world_size / cores) + exchange


def _rank(rank: int, world_size: int, port: int, settings: list[tuple[int, float]], steps: int, out: str) -> None:
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in own.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    start_ranks("cpu", threads=1)
    rows = [_one(classes, sample_rate, world_size, steps) for classes, sample_rate in settings]
    if rank == 0:
        Path(out).write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    dist.barrier()
    stop_ranks()


def _one(num_classes: int, sample_rate: float, world_size: int, steps: int) -> Measured:
    """Counts the first step and times the others, on this rank."""
    ranks = Ranks(dist.get_rank(), world_size, dist.get_rank(), world_size, torch.device("cpu"))
    images = max(num_classes, (steps + 2) * BATCH * world_size)
    config = Config(
        rec=f"synthetic:{num_classes}:{images}", network=NETWORK, embedding_size=WIDTH, head="cosface",
        batch_size=BATCH, sample_rate=sample_rate, num_workers=0, num_epoch=1, lr=1e-3,
    )  # fmt: skip
    run = build_run(config, ranks, inspect_run(config, device="cpu", world_size=world_size))
    replicas: list[int] = []

    def exchange(bucket: Any) -> Any:
        replicas.append(bucket.buffer().nbytes)
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]  # None is the default group

    if isinstance(run.model, DistributedDataParallel):
        # A lambda: torch looks at a hook's annotations, and cannot read ones that are strings.
        run.model.register_comm_hook(None, lambda _, bucket: exchange(bucket))
    sent: list[tuple[str, int]] = []
    seconds: list[float] = []
    stream = iter(build_stream(run, 0))
    with counting(sent):
        train_step(run, [next(stream)], 0)
    for size in replicas:  # the hook's all-reduces came at their own time; here they are one, and last
        sent.remove(("reduce", size))
    sent += [("reduce", sum(replicas))] if replicas else []
    for step in range(1, steps + 1):
        batch = next(stream)
        dist.barrier()
        start = time.perf_counter()
        train_step(run, [batch], step)
        seconds.append(time.perf_counter() - start)
    parameters = sum(parameter.numel() for parameter in run.backbone.parameters())
    setting = Setting(world_size, num_classes, BATCH, sample_rate, WIDTH)
    latency, large = _all_reduce_seconds(5, 20), _all_reduce_seconds(_LINK_BYTES // 4, 5)
    rate = 2 * _LINK_BYTES * (world_size - 1) / world_size / max(large - latency, 1e-9)
    return Measured(setting, parameters, sent, statistics.median(seconds), latency, max(rate, 1.0))


def _all_reduce_seconds(numbers: int, repeats: int) -> float:
    values, seconds = torch.zeros(numbers), []
    for _ in range(repeats):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(values)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
