"""Ranks: start and stop the process group, agree on values over it. No model, no data and no config here."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore, PrefixStore, Store

from utils.launcher import fresh_store, tell_begun
from utils.memory import keep_freed_memory

# How long a rank waits for the others, if nothing else is said. What one rank does alone takes far less; torch's own
# default for a mixed backend is half an hour of silence after a rank has died.
COLLECTIVE_TIMEOUT = timedelta(minutes=10)
SAME_REQUEST_SECONDS = 3.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class RankError(RuntimeError):
    """A process group that cannot start as asked: what is wrong and what to do."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among all processes of a run."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True on the one rank that writes logs and files."""
        return self.rank == 0


def start_ranks(
    device: str | None = None, threads: int | None = None, *, timeout: timedelta = COLLECTIVE_TIMEOUT
) -> Ranks:
    """Starts the process group of this run, also for a single process, and binds this process to its device.

    Under torchrun the launcher's variables say which rank this is; without it a group of one is made in memory, without
    a port. Tensors on the CPU travel over gloo; tensors on GPUs over NCCL where this torch has it.

    Args:
        device: "cpu" or "cuda"; None takes the GPUs where torch sees any.
        threads: CPU threads of this rank; None divides the cores this machine grants among its ranks (torchrun
            would otherwise leave every rank with one).
        timeout: how long collectives wait for the other ranks before they fail.

    Raises:
        RankError: a group is running already, the launcher's variables are incomplete, or there are too few GPUs.
    """
    if dist.is_initialized():
        raise RankError("start_ranks: this process already has a process group; call stop_ranks() first")
    given = [name for name in LAUNCHER_VARIABLES if name in os.environ]
    missing = [name for name in LAUNCHER_VARIABLES if name not in os.environ]
    launched = "RANK" in given or "WORLD_SIZE" in given
    if launched and missing:
        raise RankError(
            f"the environment sets {', '.join(given)} but not {', '.join(missing)}: start several processes with "
            "`torchrun --nproc_per_node=N train.py ...`, or unset these variables for a single process"
        )
    rank, world_size, local_rank, local_world_size = 0, 1, 0, 1
    if launched:
        rank, world_size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    chosen = _choose_device(device, local_rank, local_world_size)
    if chosen.type == "cpu":
        keep_freed_memory()
    torch.set_num_threads(threads or max(1, available_cores() // local_world_size))
    if chosen.type == "cuda" and world_size > 1 and not dist.is_nccl_available():
        raise RankError("several GPUs need NCCL, which this torch lacks: start one process, or use --device cpu")
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" and dist.is_nccl_available() else "gloo"
    if launched:
        store = fresh_store(rank, world_size, timeout)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
        tell_begun()
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    return Ranks(rank, world_size, local_rank, local_world_size, chosen)


def _choose_device(device: str | None, local_rank: int, local_world_size: int) -> torch.device:
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "cuda":
        raise RankError(f"device {kind!r} is not known here: use 'cpu' or 'cuda'")
    num_devices = torch.cuda.device_count()
    if num_devices == 0:
        raise RankError(
            "device 'cuda' was asked for, but torch sees no GPU: check the driver and that this torch is a CUDA build, "
            "or use the CPU"
        )
    if local_rank >= num_devices:
        raise RankError(
            f"{local_world_size} processes were started on this machine, but torch sees {num_devices} GPU(s): "
            f"start with --nproc_per_node={num_devices}, or use the CPU"
        )
    chosen = torch.device("cuda", local_rank)
    torch.cuda.set_device(chosen)
    return chosen


def stop_ranks() -> None:
    """Ends the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def shared_store() -> Store | None:
    """What the ranks tell each other beside their collectives, over a connection of its own; None for a single rank.

    A call that does not return on the process group's connection must not stop this one.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    store = dist.distributed_c10d._get_default_store()
    return PrefixStore("beside", store.clone())  # type: ignore[attr-defined]


def available_cores() -> int:
    """CPU cores this process may use: containers and batch systems often grant fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def agree_sum(values: Tensor) -> Tensor:
    """Sums a small tensor over all ranks in place and returns it; every rank gets the same bits."""
    if dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values


def agree_max(values: Tensor) -> Tensor:
    """The elementwise largest over all ranks, in place. NaN must not be among them: ranks would disagree on it."""
    if dist.get_world_size() > 1:
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


def broadcast_object(value: Any, source: int = 0) -> Any:
    """A small picklable object from one rank to all."""
    if dist.get_world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=source)
    return box[0]


def gather_objects(value: Any) -> list[Any]:
    """Every rank's small picklable object, in rank order, on every rank."""
    if dist.get_world_size() == 1:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@torch.no_grad()
def average_buffers(module: nn.Module) -> None:
    """Replaces the floating buffers of a replica (batch-norm's running statistics) by their mean over all ranks.

    Each rank gathers statistics of its own share of the batches. Without this, ranks would verify different models
    and a checkpoint would hold one rank's statistics only. Training itself never reads them.
    """
    world_size = dist.get_world_size()
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    if world_size == 1 or not buffers:
        return
    flat = torch.cat([buffer.reshape(-1).float() for buffer in buffers])
    dist.all_reduce(flat)
    flat /= world_size
    start = 0
    for buffer in buffers:
        buffer.copy_(flat[start : start + buffer.numel()].view_as(buffer))
        start += buffer.numel()


class StopSignal:
    """Remembers that this run was asked to stop, so that the loop can finish its step and save.

    SIGTERM is what batch systems and launchers send before they take a machine back, SIGUSR1 what Slurm's `--signal`
    and others send some time earlier, SIGINT is Ctrl-C, SIGHUP a terminal that has gone. They arrive more than once
    (from the terminal and through the launcher; early, and again when time is up), and always mean the same: only a
    later Ctrl-C ends the process at once, a run that must end without saving takes SIGKILL. A rank whose torchrun has
    died was abandoned: it counts as asked too. The ranks must agree on the step at which they stop: feed `requested`
    through a collective.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self.name = ""
        # What nohup has told the process to ignore stays ignored.
        kinds = [kind for kind in STOP_SIGNALS if kind != signal.SIGHUP or signal.getsignal(kind) != signal.SIG_IGN]
        self._previous = {kind: signal.signal(kind, self._on_signal) for kind in kinds}
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived, or the launcher has gone."""
        if self._since is None and self._launcher is not None and os.getppid() != self._launcher:
            self._since, self.name = time.monotonic(), "the end of its launcher"
        return self._since is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._since is None:
            self._since, self.name = time.monotonic(), signal.Signals(number).name
        elif number == signal.SIGINT and time.monotonic() - self._since > SAME_REQUEST_SECONDS:
            signal.signal(number, self._previous[signal.SIGINT])
            signal.raise_signal(number)
